"""
Whole swarms of real processes on loopback, bittern and libtorrent together.

Reduced by default; ``make soak`` runs them whole.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.interop.content import MIB, make_content
from tests.interop.member import Member

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("num_mib", "num_ours", "num_theirs", "seed_options"),
    [
        # Of few leechers at full speed on a busy machine, three get nearly everything at once.
        pytest.param(24, 3, 1, ["--max-upload", "12Mi"], id="reduced"),
        pytest.param(256, 8, 2, ["--max-upload", "4Mi"], id="whole", marks=pytest.mark.soak),
    ],
)
async def test_a_mixed_swarm_completes_and_the_seed_sends_less_than_three_copies(
    num_mib: int, num_ours: int, num_theirs: int, seed_options: list[str], tmp_path: Path
) -> None:
    length = num_mib * MIB + 777
    content = make_content(tmp_path, {"": length}, piece_length=MIB // 4)
    programs = ["bittern"] * num_ours + ["libtorrent"] * num_theirs
    async with AsyncExitStack() as stack:
        leeches: list[Member] = []
        for number, program in enumerate(programs, 2):
            leech = Member(
                program,
                content.torrent,
                f"127.0.0.{number}",
                tmp_path / f"state-{number}",
                content=tmp_path / f"out-{number}",
            )
            await stack.enter_async_context(leech)
            leeches.append(await leech.start(leeches))
        seed = Member(
            "bittern",
            content.torrent,
            "127.0.0.1",
            tmp_path / "seed",
            content=content.folder,
            is_seed=True,
        )
        await stack.enter_async_context(seed)
        await seed.start(leeches, *seed_options)
        for leech in leeches:
            await seed.program.guard(leech.wait_complete(timeout=300))
        sent = (await seed.finish())["uploaded"]
        for leech in leeches:
            result = await leech.finish()
            assert result["downloaded"] >= length
            assert content.differences(leech.content) == []
    assert sent / length < 3
