"""tests.virtual_time and ``in_scene``: a test that is decorated is run, and can fail."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import pytest

from bittern.codec.info import Version
from bittern.testing.loop import Leak, TimeLimitReached, VirtualLoop
from tests.conftest import Simulate
from tests.engine.scene import GIVEN, NAME, Scene, in_scene
from tests.virtual_time import simulated


@pytest.mark.parametrize("number", [1, 2])
@simulated
async def test_a_test_in_virtual_time_takes_loop_fixtures_and_parameters(
    loop: VirtualLoop, number: int, tmp_path: Path, seed: int
) -> None:
    assert asyncio.get_running_loop() is loop
    assert loop.seed == seed
    assert number in (1, 2)
    assert tmp_path.is_dir()
    await asyncio.sleep(1000)
    assert loop.time() == 1000


@pytest.mark.parametrize("version", [Version.V1, Version.V2])
@in_scene(files={"a": 70_000}, version=GIVEN)
async def test_a_scene_is_made_as_told_and_as_its_test_is_parametrized(
    scene: Scene, version: Version, tmp_path: Path
) -> None:
    assert scene.metainfo.info.version is version
    assert (tmp_path / "source" / NAME / "a").read_bytes() == scene.data
    assert scene.loop is asyncio.get_running_loop()


def test_a_test_that_fails_hangs_or_leaves_something_is_seen(
    simulate: Simulate, tmp_path: Path
) -> None:
    @simulated
    async def fails() -> None:
        raise ZeroDivisionError

    @simulated(limit=10)
    async def hangs() -> None:
        await asyncio.sleep(11)

    @simulated
    async def leaves(loop: VirtualLoop) -> None:
        loop.create_task(asyncio.sleep(1), name="left")

    @in_scene()
    async def fails_in_a_scene(scene: Scene) -> None:
        await scene.node()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails(simulate=simulate)
    with pytest.raises(TimeLimitReached):
        hangs(simulate=simulate)
    with pytest.raises(Leak, match="left"):
        leaves(simulate=simulate)
    with pytest.raises(ZeroDivisionError):
        fails_in_a_scene(simulate=simulate, tmp_path=tmp_path)


def test_what_is_decorated_shows_its_name_and_what_it_needs() -> None:
    @in_scene(version=GIVEN, is_private=True)
    async def shown(scene: Scene, seed: int) -> None:
        """Text."""

    assert (shown.__name__, shown.__doc__) == ("shown", "Text.")
    assert set(inspect.signature(shown).parameters) == {"seed", "simulate", "tmp_path", "version"}
