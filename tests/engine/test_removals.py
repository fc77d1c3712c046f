from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bittern.codec.magnet import parse_magnet
from bittern.core.errors import ConfigError
from bittern.engine.config import TorrentConfig
from bittern.engine.removals import Removals
from bittern.engine.shelf import Shelf
from bittern.testing.loop import VirtualLoop
from tests.virtual_time import simulated

A, B = "aa" * 20, "bb" * 20


class Leaving:
    """As much of a torrent as is asked for."""

    def __init__(self, info_hash: str, output: str = "out", data_path: str | None = None) -> None:
        self.shelf = Shelf(parse_magnet(f"magnet:?xt=urn:btih:{info_hash}"))
        path = None if data_path is None else Path(data_path)
        self.config = TorrentConfig(output=Path(output), data_path=path)


@simulated
async def test_who_adds_a_torrent_waits_for_removals_of_the_same(loop: VirtualLoop) -> None:
    """Also for one that begins meanwhile."""
    removals = Removals()
    first = loop.create_task(removals.carry_out(Leaving(A), asyncio.sleep(1)))
    other = loop.create_task(removals.carry_out(Leaving(B), asyncio.sleep(9)))
    waiting = loop.create_task(removals.wait_for(Leaving(A).shelf.all_hashes))
    await asyncio.sleep(0.5)
    second = loop.create_task(removals.carry_out(Leaving(A), asyncio.sleep(2)))
    await waiting
    assert loop.time() == 2.5
    await removals.wait_for(Leaving(A).shelf.all_hashes)
    await asyncio.gather(first, second, other)
    assert loop.time() == 9


@simulated
async def test_the_end_is_that_of_all(loop: VirtualLoop) -> None:
    """One is carried out although nobody waits for it, and one fails."""
    removals = Removals()

    async def fail() -> None:
        await asyncio.sleep(2)
        raise ConfigError("no")

    given_up = loop.create_task(removals.carry_out(Leaving(A), asyncio.sleep(5)))
    failing = loop.create_task(removals.carry_out(Leaving(B), fail()))
    await asyncio.sleep(1)
    given_up.cancel()
    assert not removals.are_over
    await removals.end()
    assert removals.are_over
    assert loop.time() == 5
    with pytest.raises(ConfigError):
        await failing
    with pytest.raises(asyncio.CancelledError):
        await given_up


@pytest.mark.parametrize("is_ending", [False, True])
def test_files_are_in_use_by_the_same_torrent_in_the_same_place(is_ending: bool) -> None:
    removals = Removals()
    old = Leaving(A)
    free = [old, Leaving(B), Leaving(A, "elsewhere"), Leaving(A, data_path="out/mine")]
    removals.check_unused(old, free)
    in_use = Leaving(A, str(Path("out").absolute()))
    if is_ending:
        removals.at_end.append(in_use)
    with pytest.raises(ConfigError, match="in use: it was added again"):
        removals.check_unused(old, [] if is_ending else [*free, in_use])
