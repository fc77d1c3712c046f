"""
Rate limits, of a session and of a torrent, up and down, hold within 5 % over any 5 seconds.

Never more from the first byte on, and no less once requests have found their pace. Blocks of 16 KiB
are what is counted, so 5 % of 5 seconds can be told only above some 70 kB/s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.info import Version
from bittern.engine.config import TorrentConfig
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.testing.loop import VirtualLoop
from bittern.testing.network import Link
from tests.engine.scene import NAME, Node, Scene
from tests.sim.windows import SECONDS, STEP, TOLERANCE, WINDOW, check_windows, sample
from tests.virtual_time import simulated

pytestmark = pytest.mark.slow


def downloaded(nodes: Sequence[Node]) -> Callable[[], int]:
    return lambda: sum(node.torrent.stats().downloaded for node in nodes)


LIMITS = [100_000, 500_000, 3_000_000]
LINKS = [Link(delay=0.01), Link(delay=0.15, jitter=0.05)]


@pytest.mark.parametrize("link", LINKS, ids=["near", "far"])
@pytest.mark.parametrize("rate", LIMITS)
@pytest.mark.parametrize("scope", ["session", "torrent"])
@simulated
async def test_a_download_limit_holds(
    loop: VirtualLoop, scope: str, rate: int, link: Link, tmp_path: Path
) -> None:
    async with make_scene(loop, tmp_path, rate, link) as scene:
        seeds = [await scene.node(is_seed=True) for _ in range(3)]
        leech = await scene.node(peers=seeds, **limits(scope, max_download_rate=rate))
        check_windows(await sample(downloaded([leech])), rate)


@pytest.mark.parametrize("link", LINKS, ids=["near", "far"])
@pytest.mark.parametrize("rate", LIMITS)
@pytest.mark.parametrize("scope", ["session", "torrent"])
@simulated
async def test_an_upload_limit_holds(
    loop: VirtualLoop, scope: str, rate: int, link: Link, tmp_path: Path
) -> None:
    async with make_scene(loop, tmp_path, rate, link) as scene:
        seed = await scene.node(is_seed=True, **limits(scope, max_upload_rate=rate))
        # They know nobody else, so all that they get is the seed's.
        leeches = [await scene.node(peers=[seed], enable_pex=False) for _ in range(3)]
        check_windows(await sample(downloaded(leeches)), rate)


@simulated
async def test_the_lower_of_two_limits_holds(loop: VirtualLoop, tmp_path: Path) -> None:
    async with make_scene(loop, tmp_path, 300_000, LINKS[0]) as scene:
        seeds = [await scene.node(is_seed=True) for _ in range(2)]
        one = await scene.node(
            peers=seeds, torrent={"max_download_rate": 100_000}, max_download_rate=300_000
        )
        other = await scene.node(
            peers=seeds, torrent={"max_download_rate": 300_000}, max_download_rate=100_000
        )
        found = await asyncio.gather(sample(downloaded([one])), sample(downloaded([other])))
        for samples in found:
            check_windows(samples, 100_000)


@pytest.mark.parametrize("direction", ["download", "upload"])
@simulated
async def test_a_session_divides_its_limit_among_torrents_that_have_their_own(
    loop: VirtualLoop, direction: str, tmp_path: Path
) -> None:
    """One of two torrents may have a third; the other gets what is left, and no more."""
    async with make_scene(loop, tmp_path, 300_000, LINKS[0]) as scene:
        other = create_torrent(
            scene.folder / "source" / NAME,
            options=CreateOptions(piece_length=32_768, version=Version.V1),
            num_threads=1,
        )
        whole, part = ({f"max_{direction}_rate": rate} for rate in (300_000, 100_000))
        own: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "seed": ({}, {}),
            "leech": ({}, {}),
        }
        own["leech" if direction == "download" else "seed"] = (whole, part)
        config, limited = own["seed"]
        seed = await scene.node(is_seed=True, torrent=limited, **config)
        await seed.session.add(other, TorrentConfig(output=seed.folder))
        config, limited = own["leech"]
        leech = await scene.node(peers=[seed], torrent=limited, **config)
        second = await leech.session.add(
            other, TorrentConfig(output=tmp_path / "second", peers=(seed.endpoint,))
        )
        both, one = await asyncio.gather(
            sample(lambda: leech.torrent.stats().downloaded + second.stats().downloaded),
            sample(downloaded([leech])),
        )
        check_windows(both, 300_000)
        check_windows(one, 100_000)


@pytest.mark.parametrize("link", LINKS, ids=["near", "far"])
@pytest.mark.parametrize("rates", [(None, 500_000), (2_000_000, 200_000), (100_000, 1_000_000)])
@pytest.mark.parametrize("scope", ["session", "torrent"])
@pytest.mark.parametrize("direction", ["download", "upload"])
@simulated
async def test_a_limit_that_is_changed_holds_from_then_on(
    loop: VirtualLoop,
    direction: str,
    scope: str,
    rates: tuple[float | None, float],
    link: Link,
    tmp_path: Path,
) -> None:
    """What was asked for before the change is counted after it."""
    first, second = rates
    async with make_scene(loop, tmp_path, 1_500_000, link) as scene:
        host = scene.add_host(upload_rate=3_000_000)
        name = f"max_{direction}_rate"
        seed = await scene.node(is_seed=True, host=host)
        leech = await scene.node(peers=[seed])
        node = leech if direction == "download" else seed
        limited = node.session if scope == "session" else node.torrent
        change: Callable[..., None] = limited.change
        change(**{name: first})
        await asyncio.sleep(3)
        change(**{name: second})
        assert getattr(limited.config, name) == second
        stats = node.torrent.stats
        samples = await sample(
            lambda: stats().downloaded if direction == "download" else stats().uploaded,
            seconds=SECONDS + WINDOW,
        )
        width = round(WINDOW / STEP)
        first_window = (samples[width][1] - samples[0][1]) / WINDOW / second
        # What is asked for after the change comes a round trip later.
        assert 1 - TOLERANCE - 2 * (link.delay + link.jitter) / WINDOW <= first_window
        assert first_window <= 1 + TOLERANCE
        check_windows(samples[width:], second)


def make_scene(loop: VirtualLoop, folder: Path, rate: int, link: Link) -> Scene:
    """Return a scene with more content than can pass in the time of a test."""
    length = max(2_000_000, round(rate * (SECONDS + 2)))
    return Scene(loop, folder, files={"": length}, link=link)


def limits(scope: str, **rates: float) -> dict[str, Any]:
    """Return options of ``Scene.node`` that set limits in a session or in a torrent."""
    return dict(rates) if scope == "session" else {"torrent": rates}
