"""Fan-out of events."""

from __future__ import annotations

import asyncio

import pytest

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
    assert iterator.num_lost == 10
    assert len(heard) == MAX_EVENT_QUEUE
    assert heard[0] == PieceFailed(10)


@simulated
async def test_who_gives_up_waiting_hears_what_comes_later() -> None:
    """``asyncio.wait_for`` cancels the wait; a generator would have ended with it."""
    listeners = Listeners()
    stream = listeners.listen()
    for index in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 1)
        listeners.report(PieceFailed(index))
        assert await anext(stream) == PieceFailed(index)


@simulated
async def test_two_who_share_a_stream_share_its_events() -> None:
    listeners = Listeners()
    stream = listeners.listen()
    heard: list[Event] = []

    async def listen() -> None:
        async for event in stream:
            heard.append(event)
            await asyncio.sleep(1)

    tasks = [asyncio.create_task(listen()) for _ in range(2)]
    await asyncio.sleep(1)
    for index in range(4):
        listeners.report(PieceFailed(index))
    listeners.close()
    await asyncio.gather(*tasks)
    assert heard == [PieceFailed(index) for index in range(4)]


@simulated
async def test_nothing_is_kept_for_who_is_gone() -> None:
    """Whether it was ever asked, left half way, or closed."""
    listeners = Listeners()
    listeners.listen(trace=True)
    assert not listeners
    assert not listeners.is_tracing
    stream = listeners.listen()
    listeners.report(PieceFailed(0))
    async for _ in stream:
        break
    assert listeners
    listeners.report(PieceFailed(1))
    waiting = asyncio.create_task(anext(stream))
    assert await waiting == PieceFailed(1)
    last = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(1)
    await stream.aclose()
    await stream.aclose()
    assert not listeners
    listeners.report(PieceFailed(2))
    with pytest.raises(StopAsyncIteration):
        await last
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
