"""
Rate limits on real sockets: of a session and of a torrent, up and down, within 5 % over 5 seconds.

All pairs run at the same time in one process; the limits are far below what it can move.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import bittern
from bittern.core.endpoint import Endpoint
from tests.interop.content import MIB, Content, make_content
from tests.sim.windows import check_windows, sample

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(180)]


async def run_session(stack: AsyncExitStack, host: str, **options: Any) -> bittern.Session:
    return await stack.enter_async_context(
        bittern.Session(
            bittern.SessionConfig(
                listen_host=host,
                listen_port=0,
                enable_trackers=False,
                enable_dht=False,
                enable_lsd=False,
                enable_pex=False,
                **options,
            )
        )
    )


@pytest.mark.parametrize(
    ("rates", "num_leeches", "seconds"),
    [
        pytest.param([200_000, 1_000_000], 1, 8, id="reduced"),
        pytest.param(
            [100_000, 500_000, 2_000_000, 5_000_000], 3, 30, id="whole", marks=pytest.mark.soak
        ),
    ],
)
async def test_limits_hold_on_real_sockets(
    rates: list[int], num_leeches: int, seconds: float, tmp_path: Path
) -> None:
    length = round(max(rates) * (seconds + 10)) + MIB
    content = make_content(tmp_path, {"": length}, piece_length=MIB // 4)
    async with AsyncExitStack() as stack:
        measured = []
        for number, rate in enumerate(rates):
            for kind, (direction, scope) in enumerate(
                (direction, scope)
                for direction in ("download", "upload")
                for scope in ("session", "torrent")
            ):
                limit = {f"max_{direction}_rate": rate}
                net = f"127.{number + 10}.{kind}"
                measured.append(
                    await run_pair(
                        stack,
                        content,
                        tmp_path / net,
                        net,
                        num_leeches=num_leeches if direction == "upload" else 1,
                        seed_limits=(limit if direction == "upload" else {}, scope),
                        leech_limits=(limit if direction == "download" else {}, scope),
                    )
                )
        found = await asyncio.gather(
            *(sample(partial(num_downloaded, torrents), seconds=seconds) for torrents in measured)
        )
        wanted = [rate for rate in rates for _ in range(4)]
        for samples, rate in zip(found, wanted, strict=True):
            check_windows(samples, rate)


def num_downloaded(torrents: list[bittern.Torrent]) -> int:
    return sum(torrent.stats().downloaded for torrent in torrents)


async def run_pair(
    stack: AsyncExitStack,
    content: Content,
    folder: Path,
    net: str,
    *,
    num_leeches: int,
    seed_limits: tuple[dict[str, Any], str],
    leech_limits: tuple[dict[str, Any], str],
) -> list[bittern.Torrent]:
    """Run a seed and leeches at addresses of their own; return the leeches' torrents."""

    def divide(limits: tuple[dict[str, Any], str]) -> tuple[dict[str, Any], dict[str, Any]]:
        return (limits[0], {}) if limits[1] == "session" else ({}, limits[0])

    of_session, of_torrent = divide(seed_limits)
    seed = await run_session(stack, f"{net}.1", **of_session)
    await seed.add(
        content.torrent,
        bittern.TorrentConfig(output=content.folder, skip_check=True, **of_torrent),
    )
    of_session, of_torrent = divide(leech_limits)
    leeches = []
    for number in range(num_leeches):
        leech = await run_session(stack, f"{net}.{number + 2}", **of_session)
        leeches.append(
            await leech.add(
                content.torrent,
                bittern.TorrentConfig(
                    output=folder / str(number),
                    peers=(Endpoint(f"{net}.1", seed.port),),
                    **of_torrent,
                ),
            )
        )
    return leeches
