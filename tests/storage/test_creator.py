"""Making torrents: what libtorrent makes, the same bytes each time, and what is refused."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bittern.codec.bencode import decode
from bittern.codec.info import MAX_PIECES
from bittern.codec.metainfo import Metainfo, Version, decode_metainfo
from bittern.core.errors import ConfigError, StorageError
from bittern.storage.creator import (
    CreateOptions,
    choose_piece_length,
    create_torrent,
)
from tests.reference import lt

BLOCK = 16_384


def _create(path: Path, **options: object) -> Metainfo:
    return decode_metainfo(create_torrent(path, options=CreateOptions(**options)))  # type: ignore[arg-type]


def _theirs(path: Path, version: Version, piece_length: int, extra_flags: int = 0) -> bytes:
    """libtorrent's info dictionary for the same files in our order."""
    return bytes(lt.bencode(_their_torrent(path, version, piece_length, extra_flags)[b"info"]))


def _their_torrent(path: Path, version: Version, piece_length: int, extra_flags: int = 0) -> Any:
    """libtorrent's .torrent, decoded; each pad with a path of its own, as ours have."""
    only = lt.create_torrent
    flags = {Version.V1: only.v1_only, Version.V2: only.v2_only, Version.HYBRID: 0}[version]
    flags |= extra_flags
    files = lt.list_files(str(path), lambda _: True, flags)
    files.sort(key=lambda file: os.fsencode(file.filename).split(b"/"))
    torrent = lt.create_torrent(files, piece_length, flags)
    lt.set_piece_hashes(torrent, str(path.parent))
    made = torrent.generate()
    num_pads: Counter[bytes] = Counter()
    for entry in made[b"info"].get(b"files", ()):
        if b"p" in entry.get(b"attr", b""):
            length = entry[b"path"][-1]
            num_pads[length] += 1
            if num_pads[length] > 1:
                entry[b"path"] = [b".pad", b"%b-%d" % (length, num_pads[length])]
    return made


# Where one folder's name goes on with a space after another's, theirs cannot be loaded: see below.
FOLDERS = ["a", "b", "é", "_", "e\u0301", "日本", ".hidden", "-", "s p"]
NAMES = ["x", "y", "z", "~", ".x", "\U0001f408", "x\u202ey"]
LENGTHS = [0, 0, 1, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 8 * BLOCK, 100_001]


def _random_tree(root: Path, rng: random.Random) -> None:
    """Files and folders of odd names, empty files and programs among them, up to 5 deep."""
    root.mkdir(parents=True)
    for _ in range(rng.randrange(1, 12)):
        folder = root.joinpath(*[rng.choice(FOLDERS) for _ in range(rng.randrange(5))])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / (rng.choice(NAMES) + rng.choice(["", ".bin", " ü", ".exe"]))
            path.write_bytes(rng.randbytes(rng.choice(LENGTHS)))
            path.chmod(rng.choice([0o644, 0o644, 0o755, 0o611]))
        except OSError:
            continue  # a file where a folder should be, or the other way round
    (root / "zz").write_bytes(b"not empty")


class TestAgainstLibtorrent:
    @pytest.mark.parametrize("number", range(12))
    def test_info_dictionaries_are_the_same(
        self, tmp_path: Path, rng: random.Random, number: int
    ) -> None:
        """Of another dozen of trees in each run; names, attributes, empty files, piece lengths."""
        _random_tree(tmp_path / "root", rng)
        piece_length = (BLOCK, 2 * BLOCK, 8 * BLOCK, 64 * BLOCK)[number % 4]
        for version in Version:
            made = _create(tmp_path / "root", version=version, piece_length=piece_length)
            assert made.info.raw == _theirs(tmp_path / "root", version, piece_length)

    @pytest.mark.parametrize("seed", range(4))
    def test_each_loads_what_the_other_makes(self, tmp_path: Path, seed: int) -> None:
        """And takes it for the same torrent, of the same files."""
        _random_tree(tmp_path / "root", random.Random(seed))
        for version in Version:
            data = create_torrent(
                tmp_path / "root", options=CreateOptions(version=version, piece_length=BLOCK)
            )
            theirs = lt.load_torrent_buffer(data).ti
            assert theirs is not None
            ours = decode_metainfo(lt.bencode(_their_torrent(tmp_path / "root", version, BLOCK)))
            assert ours.info.raw == decode_metainfo(data).info.raw
            assert ours.piece_layers == decode_metainfo(data).piece_layers
            listed = theirs.layout()
            assert [listed.file_size(n) for n in range(listed.num_files()) if listed.file_size(n)]

    @pytest.mark.parametrize("length", [1, BLOCK, BLOCK + 1, 5 * BLOCK - 1, 300_000])
    @pytest.mark.parametrize("version", list(Version))
    def test_single_files_are_the_same(self, tmp_path: Path, version: Version, length: int) -> None:
        path = tmp_path / "file.bin"
        path.write_bytes(random.Random(length).randbytes(length))
        made = _create(path, version=version, piece_length=BLOCK)
        assert made.info.is_single_file
        assert made.info.raw == _theirs(path, version, BLOCK)

    @pytest.mark.parametrize("version", list(Version))
    def test_kept_links_are_the_same(self, tmp_path: Path, version: Version) -> None:
        root = tmp_path / "root"
        (root / "d").mkdir(parents=True)
        (root / "d" / "x").write_bytes(b"x" * 20_000)
        (root / "d" / "y").symlink_to("x")
        (root / "e").symlink_to("d/x")
        made = _create(root, version=version, piece_length=BLOCK, keep_symlinks=True)
        theirs = _theirs(root, version, BLOCK, int(lt.create_torrent.symlinks))
        assert made.info.raw == theirs

    def test_they_load_what_we_make(self, tmp_path: Path) -> None:
        """
        Also where libtorrent 2.1.1 refuses its own hybrid.

        It sorts whole paths, so that ``a.txt`` comes before ``a/b`` in its v1 list, and after
        it in its file tree.
        """
        root = tmp_path / "root"
        (root / "a").mkdir(parents=True)
        (root / "a" / "b").write_bytes(b"b" * 20_000)
        (root / "a.txt").write_bytes(b"a" * 50_000)
        for version in Version:
            data = create_torrent(root, options=CreateOptions(version=version))
            theirs = lt.load_torrent_buffer(data).ti
            assert theirs is not None
            info = decode_metainfo(data).info
            hashes = theirs.info_hashes()
            assert (str(hashes.v1) if hashes.has_v1() else None) == (
                info.info_hash and str(info.info_hash)
            )
            assert (str(hashes.v2) if hashes.has_v2() else None) == (
                info.info_hash_v2 and str(info.info_hash_v2)
            )

    def test_piece_lengths_are_the_same(self) -> None:
        lengths = [1, 2_684_354, 2_684_355, 2_684_356, 10**7, 10_737_418, 10_737_419, 10**9]
        lengths += [42_949_673, 42_949_674, 171_798_692, 171_798_693, 687_194_767, 687_194_768]
        lengths += [2_748_779_069, 2_748_779_070, 10_995_116_278, 43_980_465_111, 43_980_465_112]
        lengths += [175_921_860_444, 175_921_860_445, 703_687_441_777, 703_687_441_778, 10**13]
        for length in lengths:
            files = [lt.create_file_entry("x", length)]
            theirs = lt.create_torrent(files, 0, lt.create_torrent.v1_only).piece_length()
            assert choose_piece_length(length) == theirs, length

    def test_beyond_theirs_the_number_of_pieces_is_bounded(self) -> None:
        assert choose_piece_length((16 << 20) * MAX_PIECES) == 16 << 20
        assert choose_piece_length((16 << 20) * MAX_PIECES + 1) == 32 << 20
        assert choose_piece_length((1 << 48) - 1) == 128 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "sub").mkdir(parents=True)
    (root / "one").write_bytes(b"1" * 40_000)
    (root / "sub" / "two").write_bytes(b"2" * 10)
    (root / "zero").write_bytes(b"")
    return root


class TestOptions:
    def test_default_is_a_hybrid_without_anything_else(self, folder: Path) -> None:
        data = create_torrent(folder)
        value = decode(data)
        assert isinstance(value, dict)
        assert sorted(value) == [b"info", b"piece layers"]
        info = decode_metainfo(data).info
        assert (info.name, info.version, info.piece_length) == ("folder", Version.HYBRID, BLOCK)
        assert [("/".join(entry.path), entry.length) for entry in info.files] == [
            ("one", 40_000),
            (".pad/9152", 9152),
            ("sub/two", 10),
            (".pad/16374", 16_374),
            ("zero", 0),
        ]

    @pytest.mark.parametrize("version", list(Version))
    def test_all_of_them_are_read_back(self, folder: Path, version: Version) -> None:
        made = _create(
            folder,
            version=version,
            piece_length=4 * BLOCK,
            trackers=(("udp://a", "udp://b"), ("udp://c",)),
            web_seeds=("http://w/",),
            nodes=(("router", 6881),),
            is_private=True,
            comment="a cömment",
            source="SRC",
            created_by="bittern",
            creation_date=1_700_000_000,
            name="other",
        )
        assert made.trackers == (("udp://a", "udp://b"), ("udp://c",))
        assert made.web_seeds == ("http://w/",)
        assert made.nodes == (("router", 6881),)
        assert (made.comment, made.created_by) == ("a cömment", "bittern")
        assert made.creation_date == 1_700_000_000
        info = made.info
        assert (info.name, info.version, info.source) == ("other", version, "SRC")
        assert info.is_private
        assert info.piece_length == 4 * BLOCK

    @pytest.mark.parametrize("version", list(Version))
    def test_a_single_file_takes_the_name_too(self, folder: Path, version: Version) -> None:
        info = _create(folder / "one", version=version, name="renamed").info
        assert info.name == "renamed"
        assert [entry.path for entry in info.files] == [("renamed",)]

    def test_a_v1_piece_may_have_any_length(self, folder: Path) -> None:
        info = _create(folder, version=Version.V1, piece_length=1000).info
        assert info.geometry.num_pieces == 41


def test_output_depends_on_nothing_but_the_input(folder: Path, tmp_path: Path) -> None:
    first = create_torrent(folder, num_threads=1)
    copy = tmp_path / "copy" / "folder"
    for name in ("zero", "sub/two", "one"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((folder / name).read_bytes())
    assert create_torrent(copy, num_threads=4) == first


def test_progress_ends_with_everything(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    create_torrent(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (40_010, 40_010)
    assert sorted(seen) == seen


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (CreateOptions(piece_length=0), "piece length 0"),
        (CreateOptions(piece_length=(512 << 20) + 1), "piece length 536870913"),
        (CreateOptions(piece_length=20_000), "no power of two"),
        (CreateOptions(piece_length=8192), "no power of two"),
        (CreateOptions(version=Version.V2, piece_length=8192), "no power of two"),
    ],
)
def test_impossible_piece_lengths_are_refused(
    folder: Path, options: CreateOptions, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        create_torrent(folder, options=options)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": ""}, "name must be that of a file or folder, not ''"),
        ({"name": ".."}, "name must be that of a file or folder, not '..'"),
        ({"name": "a/b"}, "name must be that of a file or folder, not 'a/b'"),
        ({"name": "a\0"}, r"name must be that of a file or folder, not 'a\\x00'"),
        ({"creation_date": -1}, "creation_date must be at least 0, not -1"),
        ({"creation_date": "now"}, "creation_date must be a whole number or None, not 'now'"),
        ({"comment": b"x"}, "comment must be a str or None, not b'x'"),
        ({"version": "2"}, "version must be a bittern.Version, not '2'"),
        ({"nodes": (("a", "b"),)}, r"nodes must be tuple\[tuple\[str, int\], ...\], not"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], reason: str) -> None:
    """``".."`` for a name was put in, and the wrong kinds ended in a traceback, or a v2 torrent."""
    with pytest.raises(ConfigError, match=reason):
        CreateOptions(**options)


def test_too_many_pieces_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, MAX_PIECES + 1)
    with pytest.raises(ConfigError, match="choose a greater piece length"):
        create_torrent(path, options=CreateOptions(version=Version.V1, piece_length=1))


def test_nothing_but_empty_files_is_refused(tmp_path: Path) -> None:
    """No other client could load it: libtorrent refuses torrents of no bytes."""
    (tmp_path / "zero").touch()
    with pytest.raises(StorageError, match="all files are empty"):
        create_torrent(tmp_path)


def test_too_many_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bittern.storage.creator.MAX_TOTAL_LENGTH", 9)
    (tmp_path / "ten").write_bytes(b"x" * 10)
    with pytest.raises(ConfigError, match="more than a torrent can hold"):
        create_torrent(tmp_path)


@pytest.mark.interop
class TestBesideMktorrent:
    """Its v1 torrents have no attributes and no order of their own: that of the folder."""

    @staticmethod
    def _made(path: Path, out: Path, exponent: int) -> Metainfo:
        program = shutil.which("mktorrent")
        if program is None:
            pytest.skip("mktorrent is not installed")
        subprocess.run(
            [program, "-d", "-l", str(exponent), "-a", "http://t/a", "-o", str(out), str(path)],
            check=True,
            capture_output=True,
        )
        return decode_metainfo(out.read_bytes())

    @pytest.mark.parametrize("length", [1, BLOCK, 100_000])
    def test_a_single_file_is_the_same(self, tmp_path: Path, length: int) -> None:
        path = tmp_path / "file.bin"
        path.write_bytes(random.Random(length).randbytes(length))
        theirs = self._made(path, tmp_path / "out.torrent", 15)
        ours = _create(path, version=Version.V1, piece_length=1 << 15)
        assert ours.info.raw == theirs.info.raw

    def test_a_folder_holds_the_same_files(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        for number, name in enumerate(("a", "b/c", "b/d", "e", "f.txt")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(random.Random(number).randbytes(number * 20_000 + 5))
        theirs = self._made(root, tmp_path / "out.torrent", 15)
        ours = _create(root, version=Version.V1, piece_length=1 << 15)
        assert sorted((e.path, e.length) for e in ours.info.files) == sorted(
            (e.path, e.length) for e in theirs.info.files
        )
        if [e.path for e in ours.info.files] == [e.path for e in theirs.info.files]:
            assert ours.info.raw == theirs.info.raw
