"""
Real torrents between processes, libtorrent to bittern and bittern to libtorrent.

Large ones, ones of very many files with very few descriptors, every piece length from 16 KiB to
16 MiB. Reduced by default; ``make soak`` runs them whole.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bencode2 import bencode

from tests.interop.member import Member

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.timeout(900)]

KIB, MIB = 1 << 10, 1 << 20
NAME = "content"
OURS, THEIRS = "bittern", "libtorrent"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone afterwards: some of these torrents are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


both_directions = pytest.mark.parametrize(
    ("seed", "leech"), [(THEIRS, OURS), (OURS, THEIRS)], ids=["to bittern", "to libtorrent"]
)


@dataclass(frozen=True)
class Content:
    """A torrent with its files; ``digests`` are theirs, by path below the torrent's folder."""

    torrent: Path
    folder: Path
    digests: dict[Path, bytes]

    def differences(self, folder: Path) -> list[Path]:
        """Return the files of a download that are not there, wrong, or too many."""
        found = {
            path.relative_to(folder / NAME): path
            for path in [folder / NAME, *(folder / NAME).rglob("*")]
            if path.is_file()
        }
        return sorted(
            name
            for name in {*found, *self.digests}
            if name not in found or name not in self.digests or not self._is_equal(name, found)
        )

    def _is_equal(self, name: Path, found: dict[Path, Path]) -> bool:
        return digest_of(found[name]) == self.digests[name]


def digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def make_content(root: Path, lengths: dict[str, int], *, piece_length: int) -> Content:
    """
    Make files and a .torrent for them, without any code of bittern.

    Args:
        lengths: of files by path; one with the path "" is the whole torrent.
    """
    folder = root / "content"
    dice = random.Random(f"{lengths.keys()} {piece_length}")
    digests: dict[Path, bytes] = {}
    hasher = PieceHasher(piece_length)
    for name, length in lengths.items():
        path = folder / NAME / name if name else folder / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as out:
            for data in random_data(dice, length):
                out.write(data)
                digest.update(data)
                hasher.feed(data)
        digests[Path(name)] = digest.digest()
    info: dict[str, object] = {
        "name": NAME,
        "piece length": piece_length,
        "pieces": hasher.finish(),
    }
    if "" in lengths:
        info["length"] = lengths[""]
    else:
        info["files"] = [
            {"length": length, "path": name.split("/")} for name, length in lengths.items()
        ]
    torrent = root / "content.torrent"
    torrent.write_bytes(bencode({"info": info}))
    return Content(torrent, folder, digests)


def random_data(dice: random.Random, length: int) -> Iterator[bytes]:
    """Yield bytes of which no two blocks are equal, quickly."""
    step = MIB
    base = dice.randbytes(min(length, step))
    for at in range(0, length, step):
        mark = at.to_bytes(8, "big") + dice.randbytes(8)
        block = bytearray(base[: min(step, length - at)])
        for begin in range(0, len(block) - 16, 16 * KIB):
            block[begin : begin + 16] = mark
        yield bytes(block)


class PieceHasher:
    """SHA-1 of each piece of a stream of bytes."""

    def __init__(self, piece_length: int) -> None:
        self._piece_length = piece_length
        self._hasher = hashlib.sha1()
        self._num_bytes = 0
        self._digests: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        view = memoryview(data)
        while view:
            part = view[: self._piece_length - self._num_bytes]
            self._hasher.update(part)
            self._num_bytes += len(part)
            view = view[len(part) :]
            if self._num_bytes == self._piece_length:
                self._end_piece()

    def _end_piece(self) -> None:
        self._digests.append(self._hasher.digest())
        self._hasher, self._num_bytes = hashlib.sha1(), 0

    def finish(self) -> bytes:
        """Return all digests, the last one of a piece that may be short."""
        if self._num_bytes:
            self._end_piece()
        return b"".join(self._digests)


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
        await sink.finish()
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
@pytest.mark.parametrize("is_odd", [True, False], ids=["odd", "even"])
async def test_every_piece_length(
    seed: str, leech: str, piece_length: int, is_odd: bool, root: Path
) -> None:
    """Totals that are no multiple of piece or block, and ones that are."""
    total = 3 * piece_length + (12_345 if is_odd else 0)
    content = make_content(root, {"": total}, piece_length=piece_length)
    await exchange(seed, leech, content, root, timeout=60)


@both_directions
@pytest.mark.parametrize("length", [1, 16 * KIB - 1, 16 * KIB + 1, 32 * KIB])
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
