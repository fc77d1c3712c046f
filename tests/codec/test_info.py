"""Info dictionaries: what the good ones say, hashes over raw bytes, the route of a magnet link."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.bencode import encode
from bittern.codec.info import Info, Version, decode_info
from bittern.core.errors import MetainfoError
from tests.codec.fuzzing import fuzz
from tests.codec.zoo.cases import GROUPS
from tests.codec.zoo.torrents import BASES, BLOCK, GONE, ROOT_A, ROOT_B, changed, encoded
from tests.reference import lt

RAW = {base: encode(torrent[b"info"]) for base, torrent in BASES.items()}


def _info(base: str, **changes: object) -> Info:
    places = {f"info/{key.replace('_', ' ')}": value for key, value in changes.items()}
    return decode_info(encode(changed(base, places)[b"info"]))


VERSIONS = {
    "v1": Version.V1,
    "v1s": Version.V1,
    "v2": Version.V2,
    "v2s": Version.V2,
    "hy": Version.HYBRID,
    "hys": Version.HYBRID,
}


@pytest.mark.parametrize(("base", "version"), VERSIONS.items())
class TestGoodOnes:
    def test_common(self, base: str, version: Version) -> None:
        info = _info(base)
        assert (info.raw, info.name, info.version) == (RAW[base], "n", version)
        assert info.piece_length == info.geometry.piece_length == BLOCK
        assert info.is_single_file == base.endswith("s")
        assert not info.is_private
        assert info.source is None
        assert info.geometry.total_length == (40_000 if info.is_single_file else 40_100)

    def test_hashes_cover_the_raw_bytes(self, base: str, version: Version) -> None:
        info = _info(base)
        sha1 = hashlib.sha1(RAW[base]).digest()
        sha256 = hashlib.sha256(RAW[base]).digest()
        assert info.info_hash == (None if version is Version.V2 else sha1)
        assert info.info_hash_v2 == (None if version is Version.V1 else sha256)
        assert info.has_v1 == (info.info_hash is not None)
        assert info.has_v2 == (info.info_hash_v2 is not None)
        expected = {
            Version.V1: (sha1,),
            Version.V2: (sha256[:20],),
            Version.HYBRID: (sha1, sha256[:20]),
        }[version]
        assert info.all_hashes == expected
        assert info.wire_hash == expected[0]
        assert repr(info).startswith(f"<Info {expected[0].hex()} v{version.value}, ")

    def test_pieces(self, base: str, version: Version) -> None:
        info = _info(base)
        if version is Version.V2:
            assert info.pieces == b""
        else:
            assert len(info.pieces) == 20 * info.geometry.num_pieces
            assert info.piece_hash(1) == info.pieces[20:40]

    def test_layout_is_that_of_libtorrent(self, base: str, version: Version) -> None:
        info = _info(base)
        theirs = lt.load_torrent_buffer(encoded(BASES[base])).ti
        assert theirs is not None
        assert theirs.num_pieces() == info.geometry.num_pieces
        layout = theirs.layout()
        found = [
            (list(Path(layout.file_path(n)).parts), layout.file_offset(n), layout.file_size(n))
            for n in range(layout.num_files())
            if not layout.file_flags(n) & lt.file_storage.flag_pad_file and layout.file_size(n)
        ]
        folder = [] if info.is_single_file else ["n"]
        assert found == [
            ([*folder, *entry.path], entry.offset, entry.length)
            for entry in info.files
            if entry.length and not entry.is_pad
        ]


def test_v1_layout() -> None:
    info = _info("v1")
    assert [(entry.path, entry.offset) for entry in info.files] == [
        (("a",), 0),
        (("d", "b"), 40_000),
        (("z",), 40_100),
    ]
    assert info.geometry.num_pieces == 3
    assert dict(info.geometry.short_pieces) == {2: 40_100 - 2 * BLOCK}


def test_v2_layout_has_a_short_piece_at_the_end_of_each_file() -> None:
    info = _info("v2")
    assert [(entry.path, entry.offset, entry.pieces_root) for entry in info.files] == [
        (("a",), 0, ROOT_A),
        (("d", "b"), 3 * BLOCK, ROOT_B),
        (("z",), 4 * BLOCK, None),
    ]
    assert info.geometry.num_pieces == 4
    assert dict(info.geometry.short_pieces) == {2: 40_000 - 2 * BLOCK, 3: 100}


def test_hybrid_layout_is_that_of_v1_with_roots() -> None:
    info = _info("hy")
    assert [(entry.is_pad, entry.offset, entry.pieces_root) for entry in info.files] == [
        (False, 0, ROOT_A),
        (True, 40_000, None),
        (False, 3 * BLOCK, ROOT_B),
        (True, 3 * BLOCK + 100, None),
        (False, 4 * BLOCK, None),
    ]
    assert info.geometry.num_pieces == 4
    assert dict(info.geometry.short_pieces) == {}
    assert dict(info.geometry.padding) == {2: 3 * BLOCK - 40_000, 3: BLOCK - 100}
    assert info.geometry.total_of(0b1111_0000) == info.geometry.total_length == 40_100


class TestFields:
    @pytest.mark.parametrize(
        ("private", "expected"), [(1, True), (2, True), (0, False), (b"1", False), (GONE, False)]
    )
    def test_private(self, private: object, expected: bool) -> None:
        changes = {} if private is GONE else {"private": private}
        assert _info("v1", **changes).is_private is expected

    @pytest.mark.parametrize(
        ("source", "expected"), [(b"S", "S"), (b"\xff", "\udcff"), (b"", ""), (5, None)]
    )
    def test_source(self, source: object, expected: str | None) -> None:
        assert _info("v1", source=source).source == expected

    @pytest.mark.parametrize("base", VERSIONS)
    def test_an_empty_name_becomes_the_hash(self, base: str) -> None:
        if base == "hys":
            return  # there it is the name of the file in the tree too, which cannot be empty
        info = _info(base, name=b"")
        assert info.name == str(info.info_hash or info.info_hash_v2)

    def test_v2_only_is_a_single_file_by_the_shape_of_its_tree(self) -> None:
        assert _info("v2s", name=b"other").is_single_file
        assert _info("v2s", name=b"other").files[0].path == ("n",)
        tree = {b"folder": {b"n": {b"": {b"length": 0}}}}
        assert not _info("v2s", file_tree=tree).is_single_file


class TestRawBytes:
    UNSORTED = b"d6:pieces0:4:name1:n12:piece lengthi1e6:lengthi0ee"

    def test_unsorted_v1_is_hashed_as_it_came(self) -> None:
        info = decode_info(self.UNSORTED)
        assert info.info_hash == hashlib.sha1(self.UNSORTED).digest()
        assert info.raw == self.UNSORTED

    @pytest.mark.parametrize("base", ["v2", "hy"])
    def test_unsorted_v2_is_refused_also_in_a_magnet_link(self, base: str) -> None:
        raw = RAW[base].replace(b"4:name1:n", b"")[:-1] + b"4:name1:ne"
        with pytest.raises(MetainfoError, match="keys are not sorted"):
            decode_info(raw)

    @pytest.mark.parametrize(
        ("raw", "reason"),
        [
            (b"", "info: input ends too early"),
            (b"le", "info: no dictionary"),
            (RAW["v1"] + b"e", "info: bytes after the end"),
            (RAW["v1"] + b"\n", "info: bytes after the end"),
            (RAW["v1"][:-1], "info: input ends too early"),
        ],
    )
    def test_refusals(self, raw: bytes, reason: str) -> None:
        with pytest.raises(MetainfoError, match=reason):
            decode_info(raw)

    @given(st.binary(max_size=60))
    def test_no_bytes_do_harm(self, raw: bytes) -> None:
        with pytest.raises(MetainfoError):
            decode_info(raw)

    @pytest.mark.fuzz
    def test_only_the_documented_error_escapes(self) -> None:
        assert fuzz(decode_info, list(RAW.values()), MetainfoError) > 10


def test_zoo() -> None:
    for case in GROUPS["info"]:
        case.check()
