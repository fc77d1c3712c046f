"""Actors, played by small Python programs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bittern.cli import actors as actors_module
from bittern.cli.actors import Actor
from bittern.cli.exits import CommandFailed, ExitCode

pytestmark = pytest.mark.slow

HEAD = "import json, signal, sys, time\nsay = lambda **x: print(json.dumps(x), flush=True)\n"


@asynccontextmanager
async def playing(code: str) -> AsyncIterator[Actor]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-S",
        "-c",
        HEAD + code,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    actor = Actor("player", process)
    try:
        yield actor
    finally:
        await actor.stop()


def is_type(kind: str) -> Any:
    return lambda record: record["type"] == kind


async def test_what_it_says_is_heard_in_order() -> None:
    async with playing("for i in range(5): say(type='n', i=i)") as actor:
        assert [record["i"] async for record in actor.listen()] == [0, 1, 2, 3, 4]
        assert [record["i"] async for record in actor.listen()] == [0, 1, 2, 3, 4]
        assert await actor.wait() == 0


async def test_a_line_can_be_waited_for() -> None:
    async with playing("say(type='a'); say(type='b', x=7); time.sleep(60)") as actor:
        assert await actor.wait_for(is_type("b"), timeout=10) == {"type": "b", "x": 7}
        assert await actor.wait_for(is_type("a"), timeout=10) == {"type": "a"}


async def test_silence_is_not_waited_for_without_end() -> None:
    async with playing("time.sleep(60)") as actor:
        with pytest.raises(CommandFailed, match="player was silent for") as caught:
            await actor.wait_for(is_type("a"), timeout=0.05)
        assert caught.value.code is ExitCode.UNFINISHED


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("print('bittern: no way', file=sys.stderr); sys.exit(5)", "code 5: bittern: no way"),
        ("sys.exit(3)", "code 3: it said nothing"),
    ],
)
async def test_one_that_ends_too_early_says_why(code: str, text: str) -> None:
    async with playing(code) as actor:
        with pytest.raises(CommandFailed, match=text):
            await actor.wait_for(is_type("a"), timeout=10)


async def test_much_that_nobody_hears_does_not_stop_it() -> None:
    async with playing("for i in range(3000): say(type='n', text='x' * 500)") as actor:
        assert await actor.wait() == 0
        await actor.stop()
        assert len(actor.records) == 3000


async def test_it_is_asked_to_stop() -> None:
    code = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); say(type='ready')\n"
        "signal.sigwait([signal.SIGTERM]); say(type='bye')"  # a handler may come amid `say`
    )
    async with playing(code) as actor:
        await actor.wait_for(is_type("ready"), timeout=10)
        assert await actor.stop() == 0
        assert actor.records[-1] == {"type": "bye"}
        assert await actor.stop() == 0


async def test_one_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors_module, "STOP_TIMEOUT", 0.05)
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say(type='ready'); time.sleep(60)"
    async with playing(code) as actor:
        await actor.wait_for(is_type("ready"), timeout=10)
        assert await actor.stop() == -9


async def test_it_is_this_program_without_the_users_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITTERN_PORT", "not a port")
    actor = await Actor.start(
        "tracker", "tracker", "--http", "127.0.0.1:0", "--jsonl", state_dir=tmp_path
    )
    try:
        record = await actor.wait_for(is_type("listening"), timeout=30)
        assert record["http"][0].startswith("http://127.0.0.1:")
    finally:
        assert await actor.stop() == 0
