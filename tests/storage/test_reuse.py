"""storage.reuse: files of all three versions taken from elsewhere, and what is not taken."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from bittern.codec.info import Version, decode_info
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.errors import Inconsistent
from bittern.storage.adopt import ReuseHow, is_same_file
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.donors import MAX_DONORS
from bittern.storage.files import FileStorage
from bittern.storage.hashing import PieceHashes
from bittern.storage.layout import Layout
from bittern.storage.reuse import Reuse, ReuseResult
from bittern.testing.disk import FaultyCalls

PIECE = 32_768
FILES = {"a": 100_000, "d/b": 50, "d/c": 3 * PIECE, "e": 0, "f": 70_000}


class Bench:
    """A torrent of some files, an empty place for it, and a folder full of other things."""

    def __init__(
        self,
        folder: Path,
        version: Version,
        files: Mapping[str, int] = FILES,
        executable: str = "",
        **settings: object,
    ) -> None:
        rng = random.Random(1)
        self.contents = {name: rng.randbytes(length) for name, length in files.items()}
        made = folder / "made"
        for name, content in self.contents.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
            if name == executable:
                (made / name).chmod(0o755)
        options = CreateOptions(version=version, piece_length=PIECE)
        self.metainfo: Metainfo = decode_metainfo(
            create_torrent(made, options=options, num_threads=1)
        )
        self.info = self.metainfo.info
        self.geometry = self.info.geometry
        self.layout = Layout(self.info.files, self.geometry)
        self.out = folder / "out"
        self.out.mkdir()
        paths = [() if e.is_pad else e.path for e in self.info.files]
        self.calls = FaultyCalls()
        self.storage = FileStorage(self.layout, self.out, paths, os_calls=self.calls)
        self.elsewhere = folder / "elsewhere"
        self.elsewhere.mkdir()
        self.reuse = Reuse(
            self.storage,
            self.geometry,
            PieceHashes(self.info, self.metainfo.piece_layers),
            calls=self.calls,
            num_threads=1,
            **settings,  # type: ignore[arg-type]
        )

    def put(self, name: str, content: bytes) -> Path:
        """Put a file into the other folder."""
        path = self.elsewhere / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def index(self, name: str) -> int:
        return next(i for i, e in enumerate(self.info.files) if "/".join(e.path) == name)

    def pieces(self, *names: str) -> int:
        """Return the pieces of files as bits."""
        pieces = {p for name in names for p in self.layout.pieces_of_file(self.index(name))}
        return Bitfield.of(self.geometry.num_pieces, sorted(pieces)).bits

    def take(self, have: int = 0, **options: object) -> ReuseResult:
        return self.reuse.take(have, **{"folders": [self.elsewhere], **options})  # type: ignore[arg-type]

    def names(self, result: ReuseResult) -> list[str]:
        return sorted("/".join(self.info.files[each.index].path) for each in result.files)


ALIGNED = [Version.V2, Version.HYBRID]


@pytest.mark.parametrize("version", list(Version))
def test_everything_is_taken_where_everything_is_there(tmp_path: Path, version: Version) -> None:
    bench = Bench(tmp_path, version)
    for number, content in enumerate(bench.contents.values()):
        bench.put(f"other name {number}", content)
    result = bench.take()
    assert bench.names(result) == ["a", "d/b", "d/c", "f"]
    assert result.have == Bitfield.full(bench.geometry.num_pieces).bits
    assert {each.how for each in result.files} == {ReuseHow.COPY}
    for name, content in bench.contents.items():
        if content:
            assert (bench.out / name).read_bytes() == content
    bench.storage.close()


@pytest.mark.parametrize("version", ALIGNED)
def test_one_file_is_taken_alone(tmp_path: Path, version: Version) -> None:
    bench = Bench(tmp_path, version)
    bench.put("some/where/f", bench.contents["f"])
    result = bench.take()
    assert bench.names(result) == ["f"]
    assert result.have == bench.pieces("f")
    assert not (bench.out / "a").exists()


def test_in_v1_a_file_is_taken_for_the_pieces_it_has_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V1)
    bench.put("c", bench.contents["d/c"])
    result = bench.take()
    assert bench.names(result) == ["d/c"]
    # It begins and ends in pieces of its neighbours: two of its three pieces' worth are its own.
    assert result.have.bit_count() == 2
    assert result.have & ~bench.pieces("d/c") == 0


def test_in_v1_the_pieces_at_the_border_follow_what_is_there_already(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V1)
    (bench.out / "d").mkdir()
    for name in ("a", "d/b"):
        (bench.out / name).write_bytes(bench.contents[name])
    bench.put("c", bench.contents["d/c"])
    result = bench.take(bench.pieces("a") & ~bench.pieces("d/b"))
    assert bench.names(result) == ["d/c"]
    assert result.have & bench.pieces("d/b") == bench.pieces("d/b")
    bench.storage.close()


def test_in_v1_a_small_file_alone_proves_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V1)
    bench.put("b", bench.contents["d/b"])
    assert bench.take() == ReuseResult((), 0)


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("at", [0, 40_000, 69_999])
def test_a_file_with_one_wrong_byte_is_not_taken(tmp_path: Path, version: Version, at: int) -> None:
    bench = Bench(tmp_path, version, {"f": 70_000})
    content = bytearray(bench.contents["f"])
    content[at] ^= 1
    bench.put("f", bytes(content))
    assert bench.take() == ReuseResult((), 0)
    assert not (bench.out / "f").exists()


def test_the_right_one_of_several_is_found(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V2)
    for number in range(5):
        bench.put(f"d/{number}", random.Random(100 + number).randbytes(100_000))
    bench.put("z/a", bench.contents["a"])
    assert bench.names(bench.take()) == ["a"]


def test_files_of_the_name_are_tried_first_and_only_so_many(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V2)
    for number in range(MAX_DONORS):
        bench.put(f"d/{number}", random.Random(100 + number).randbytes(100_000))
    bench.put("z/other", bench.contents["a"])
    assert not bench.take().files
    bench.put("zz/a", bench.contents["a"])
    assert bench.names(bench.take()) == ["a"]


def test_known_places_come_first_and_need_no_folder(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V2)
    path = bench.put("hidden", bench.contents["a"])
    result = bench.take(folders=(), known={bench.index("a"): [tmp_path / "gone", path]})
    assert [each.source for each in result.files] == [path]


def test_only_what_is_wanted_and_lacking_is_looked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V2)
    for name in ("a", "f"):
        bench.put(name, bench.contents[name])
    assert bench.names(bench.take(wanted={bench.index("f")})) == ["f"]
    assert bench.take(bench.pieces("a", "f")).files == ()


@pytest.mark.parametrize("version", list(Version))
def test_hard_links_are_made_where_every_byte_was_proven(tmp_path: Path, version: Version) -> None:
    """In v1 the borders of a file alone are not, and what is wrong there will be written to."""
    bench = Bench(tmp_path, version, how=ReuseHow.HARDLINK)
    paths = {name: bench.put(name, bench.contents[name]) for name in ("d/c",)}
    result = bench.take()
    assert bench.names(result) == ["d/c"]
    assert is_same_file(bench.out / "d/c", paths["d/c"]) is (version is not Version.V1)


def test_our_own_file_is_no_donor(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V2)
    (bench.out / "a").write_bytes(bench.contents["a"])
    assert bench.take(folders=[bench.out]).files == ()


def test_what_changes_between_hashing_and_copying_is_not_taken(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V2)
    path = bench.put("a", bench.contents["a"])

    def change(name: str) -> None:
        if name == "pwritev":  # all hashing is done by then
            bench.calls.before_call = None
            path.write_bytes(b"x" * 100_000)

    bench.calls.before_call = change
    assert bench.take() == ReuseResult((), 0)


def test_a_file_that_is_executable_becomes_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V2, executable="a")
    bench.put("a", bench.contents["a"])
    bench.take()
    assert (bench.out / "a").stat().st_mode & 0o100
    bench.storage.close()


def test_a_hybrid_that_contradicts_itself_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.HYBRID)
    raw = bytearray(bench.info.raw)
    at = raw.index(b"6:pieces") + 20
    raw[at] ^= 1

    info = decode_info(bytes(raw))
    hashes = PieceHashes(info, bench.metainfo.piece_layers)
    reuse = Reuse(bench.storage, bench.geometry, hashes, num_threads=1)
    bench.put("a", bench.contents["a"])
    with pytest.raises(Inconsistent):
        reuse.take(0, folders=[bench.elsewhere])


def test_files_without_known_hashes_are_left_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V2)
    bench.put("a", bench.contents["a"])
    reuse = Reuse(bench.storage, bench.geometry, PieceHashes(bench.info, {}), num_threads=1)
    assert reuse.take(0, folders=[bench.elsewhere]).files == ()


def test_it_ends_early_when_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Version.V2, is_stopped=lambda: True)
    bench.put("a", bench.contents["a"])
    assert bench.take() == ReuseResult((), 0)
