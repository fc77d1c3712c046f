"""Fan-out of events."""

from __future__ import annotations

import asyncio

from bittern.core.endpoint import Endpoint
from bittern.engine.events import Event, MessageSent, PieceFailed, PieceVerified
from bittern.engine.listeners import MAX_EVENT_QUEUE, Listeners
from tests.virtual_time import simulated

TRACE = MessageSent(Endpoint("10.0.0.1", 1), "have", "piece 1", b"")


@simulated
async def test_everybody_hears_and_only_who_asked_hears_messages() -> None:
    listeners = Listeners()
    plain, tracing = listeners.listen(), listeners.listen(trace=True)
    assert listeners.is_tracing
    for event in (PieceVerified(0, 1, 2), TRACE, PieceFailed(1)):
        listeners.report(event)
    listeners.close()
    assert [event async for event in plain] == [PieceVerified(0, 1, 2), PieceFailed(1)]
    assert [event async for event in tracing] == [PieceVerified(0, 1, 2), TRACE, PieceFailed(1)]
    assert not listeners.is_tracing


@simulated
async def test_a_listener_hears_from_the_call_on_and_waits_for_more() -> None:
    listeners = Listeners()
    listeners.report(PieceFailed(7))
    heard: list[Event] = []
    iterator = listeners.listen()

    async def listen() -> None:
        heard.append(await anext(iterator))

    task = asyncio.create_task(listen())
    await asyncio.sleep(1)
    assert heard == []
    listeners.report(PieceFailed(8))
    await task
    assert heard == [PieceFailed(8)]
    listeners.close()
    assert [event async for event in iterator] == []


@simulated
async def test_who_does_not_keep_up_loses_the_oldest() -> None:
    listeners = Listeners()
    iterator = listeners.listen()
    for index in range(MAX_EVENT_QUEUE + 10):
        listeners.report(PieceFailed(index))
    listeners.close()
    heard = [event async for event in iterator]
    assert len(heard) == MAX_EVENT_QUEUE
    assert heard[0] == PieceFailed(10)
