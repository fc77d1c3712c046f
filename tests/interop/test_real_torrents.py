"""
Real torrents between processes, libtorrent to bittern and bittern to libtorrent.

Large ones, ones of very many files with very few descriptors, every piece length from 16 KiB to
16 MiB. Reduced by default; ``make soak`` runs them whole.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.content import Content, make_content
from tests.interop.member import Member

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(900)]

KIB, MIB = 1 << 10, 1 << 20
OURS, THEIRS = "bittern", "libtorrent"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone afterwards: some of these torrents are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


both_directions = pytest.mark.parametrize(
    ("seed", "leech"), [(THEIRS, OURS), (OURS, THEIRS)], ids=["to bittern", "to libtorrent"]
)


async def exchange(
    seed: str,
    leech: str,
    content: Content,
    root: Path,
    *,
    timeout: float,
    max_files: int | None = None,
) -> None:
    """Let one program fetch the content from the other, and compare; bittern has the limit."""
    out = root / "download"

    def member(program: str, number: int, folder: Path, *, is_seed: bool) -> Member:
        return Member(
            program,
            content.torrent,
            f"127.0.0.{number}",
            root / f"{program}-{number}",
            content=folder,
            is_seed=is_seed,
            max_files=max_files if program == OURS else None,
        )

    async with (
        member(seed, 1, content.folder, is_seed=True) as source,
        member(leech, 2, out, is_seed=False) as sink,
    ):
        await source.start()
        await source.wait_ready(timeout=timeout)
        await sink.start([source])
        await source.program.guard(sink.wait_complete(timeout=timeout))
        # Not ``finish``: syncing thousands of files on a busy disk takes longer than a stop may
        # (F19), and a program that is out of time ends without a word. The content is there.
        await sink.program.stop()
        assert content.differences(out) == []


PIECE_LENGTHS = [KIB << shift for shift in range(4, 15)]
SOME_PIECE_LENGTHS = [16 * KIB, 256 * KIB, 16 * MIB]


@both_directions
@pytest.mark.parametrize(
    "piece_length",
    [
        pytest.param(
            length,
            marks=[] if length in SOME_PIECE_LENGTHS else pytest.mark.soak,
            id=f"{length // KIB} KiB",
        )
        for length in PIECE_LENGTHS
    ],
)
@pytest.mark.parametrize(
    "is_odd", [True, pytest.param(False, marks=pytest.mark.soak)], ids=["odd", "even"]
)
async def test_every_piece_length(
    seed: str, leech: str, piece_length: int, is_odd: bool, root: Path
) -> None:
    """Totals that are no multiple of piece or block, and ones that are."""
    total = 3 * piece_length + (12_345 if is_odd else 0)
    content = make_content(root, {"": total}, piece_length=piece_length)
    await exchange(seed, leech, content, root, timeout=60)


@both_directions
@pytest.mark.parametrize(
    "length",
    [
        1,
        16 * KIB + 1,
        *(pytest.param(length, marks=pytest.mark.soak) for length in (16 * KIB - 1, 32 * KIB)),
    ],
)
async def test_torrents_about_as_long_as_a_block(
    seed: str, leech: str, length: int, root: Path
) -> None:
    content = make_content(root, {"": length}, piece_length=16 * KIB)
    await exchange(seed, leech, content, root, timeout=60)


@both_directions
@pytest.mark.soak
async def test_a_torrent_of_four_gib(seed: str, leech: str, root: Path) -> None:
    content = make_content(root, {"": 4096 * MIB + 12_345}, piece_length=4 * MIB)
    await exchange(seed, leech, content, root, timeout=600)


def many_files(count: int) -> dict[str, int]:
    """Lengths of many small files in many folders, empty ones too."""
    dice = random.Random(count)
    return {
        f"{number // 100:03}/{number:05}.txt": dice.choice((0, 1, 100, 2_000, 5_000, 20_001))
        for number in range(count)
    }


@both_directions
@pytest.mark.parametrize(
    ("count", "max_files"),
    [
        (2_000, 64),
        *(pytest.param(20_000, limit, marks=pytest.mark.soak) for limit in (None, 256, 128, 64)),
    ],
)
async def test_very_many_files_and_few_descriptors(
    seed: str, leech: str, count: int, max_files: int | None, root: Path
) -> None:
    """Limit: F13; R20."""
    content = make_content(root, many_files(count), piece_length=256 * KIB)
    await exchange(seed, leech, content, root, timeout=300, max_files=max_files)
