"""Making torrents: the same bytes as libtorrent, the same bytes each time, and what is refused."""

from __future__ import annotations

import os
import random
from pathlib import Path

import libtorrent as lt
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

BLOCK = 16_384
FLAGS = {
    Version.V1: lt.create_torrent.v1_only,
    Version.V2: lt.create_torrent.v2_only,
    Version.HYBRID: 0,
}


def _create(path: Path, **options: object) -> Metainfo:
    return decode_metainfo(create_torrent(path, options=CreateOptions(**options)))  # type: ignore[arg-type]


def _theirs(path: Path, version: Version, piece_length: int, extra_flags: int = 0) -> bytes:
    """libtorrent's info dictionary for the same files in our order."""
    flags = FLAGS[version] | extra_flags
    files = lt.list_files(str(path), lambda _: True, flags)
    files.sort(key=lambda file: os.fsencode(file.filename).split(b"/"))
    torrent = lt.create_torrent(files, piece_length, flags)
    lt.set_piece_hashes(torrent, str(path.parent))
    return bytes(lt.bencode(torrent.generate()[b"info"]))


def _random_tree(root: Path, rng: random.Random) -> None:
    """Some files and folders, of names that sort alike whether by path or by element."""
    root.mkdir(parents=True)
    for _ in range(rng.randrange(1, 9)):
        folder = root.joinpath(*[rng.choice("abé_") for _ in range(rng.randrange(3))])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / (rng.choice("xyz~") + rng.choice(["", ".bin", " ü", ".exe"]))
            path.write_bytes(
                rng.randbytes(rng.choice([0, 1, 1000, BLOCK, BLOCK + 1, 3 * BLOCK, 100_001]))
            )
            path.chmod(rng.choice([0o644, 0o644, 0o755]))
        except OSError:
            continue  # a file where a folder should be, or the other way round
    (root / "zz").write_bytes(b"not empty")


class TestAgainstLibtorrent:
    @pytest.mark.parametrize("seed", range(12))
    def test_info_dictionaries_are_the_same(self, tmp_path: Path, seed: int) -> None:
        rng = random.Random(seed)
        _random_tree(tmp_path / "root", rng)
        piece_length = rng.choice([BLOCK, 2 * BLOCK, 8 * BLOCK])
        for version in Version:
            made = _create(tmp_path / "root", version=version, piece_length=piece_length)
            assert made.info.raw == _theirs(tmp_path / "root", version, piece_length)

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
