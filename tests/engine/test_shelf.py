"""Metainfo put away and taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.codec.bencode import encode
from bittern.codec.fingerprints import fingerprints
from bittern.codec.magnet import parse_magnet
from bittern.codec.metainfo import decode_metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.errors import MetainfoError
from bittern.engine.shelf import Shelf


def make(name: bytes = b"content") -> bytes:
    info: dict[bytes, int | bytes] = {
        b"name": name,
        b"length": 40_000,
        b"piece length": 16_384,
        b"pieces": bytes(60),
    }
    return encode({b"info": info, b"announce": b"http://tracker.example/announce"})


def test_identity_stays_while_the_metainfo_is_away(tmp_path: Path) -> None:
    metainfo = decode_metainfo(make())
    shelf, path = Shelf(metainfo), tmp_path / "kept.torrent"
    path.write_bytes(make())
    shelf.put_away(path)
    assert shelf.has_metainfo
    assert (shelf.name, shelf.num_pieces, shelf.total_length) == ("content", 3, 40_000)
    assert shelf.info_hash == metainfo.info.info_hash
    assert shelf.info_hash_v2 is None
    assert shelf.metainfo().info.raw == metainfo.info.raw
    assert shelf.metainfo() is not shelf.metainfo()
    assert shelf.take() is shelf.metainfo()


def test_another_torrent_in_its_place_is_refused(tmp_path: Path) -> None:
    shelf, path = Shelf(decode_metainfo(make())), tmp_path / "kept.torrent"
    path.write_bytes(make(b"another"))
    shelf.put_away(path)
    with pytest.raises(MetainfoError, match="not the torrent"):
        shelf.metainfo()


def test_a_file_that_has_gone_is_said(tmp_path: Path) -> None:
    shelf, path = Shelf(decode_metainfo(make())), tmp_path / "gone.torrent"
    path.write_bytes(make())
    shelf.put_away(path)
    path.unlink()
    with pytest.raises(MetainfoError, match=r"gone\.torrent"):
        shelf.take()


def test_lengths_at_rest_are_read_once_and_estimated_if_the_file_has_gone(tmp_path: Path) -> None:
    shelf, path = Shelf(decode_metainfo(make())), tmp_path / "kept.torrent"
    path.write_bytes(make())
    shelf.put_away(path)
    last, first = Bitfield.of(3, (2,)).bits, Bitfield.of(3, (0,)).bits
    assert shelf.length_of(last) == 40_000 - 2 * 16_384
    path.unlink()
    assert shelf.length_of(last) == 40_000 - 2 * 16_384
    assert shelf.length_of(first) == 40_000 // 3
    path.write_bytes(make())
    shelf.take()
    assert shelf.length_of(first) == 16_384


def test_what_could_not_be_kept_stays(tmp_path: Path) -> None:
    shelf = Shelf(decode_metainfo(make()))
    shelf.put_away(tmp_path / "missing.torrent")
    assert shelf.metainfo() is shelf.take()


def test_a_magnet_link_knows_its_hash_only() -> None:
    info_hash = decode_metainfo(make()).info.info_hash
    shelf = Shelf(parse_magnet(f"magnet:?xt=urn:btih:{info_hash}"))
    assert not shelf.has_metainfo
    assert shelf.name == str(info_hash)
    assert shelf.num_pieces == 0
    with pytest.raises(MetainfoError, match="not known yet"):
        shelf.metainfo()
    shelf.put(decode_metainfo(make()))
    assert shelf.name == "content"
    assert Shelf(parse_magnet(f"magnet:?xt=urn:btih:{info_hash}&dn=shown")).name == "shown"


def test_hashes_and_lengths() -> None:
    shelf = Shelf(decode_metainfo(make()))
    assert shelf.all_hashes == (shelf.info_hash,)
    lengths = [
        shelf.length_of(Bitfield.of(3, pieces).bits) for pieces in ((0, 1, 2), (2,), (0, 1), ())
    ]
    assert lengths == [40_000, 40_000 - 2 * 16_384, 2 * 16_384, 0]
    hybrid = Shelf(parse_magnet(f"magnet:?xt=urn:btih:{'a' * 40}&xt=urn:btmh:1220{'b' * 64}"))
    assert [bytes(each) for each in hybrid.all_hashes] == [b"\xaa" * 20, b"\xbb" * 20]
    assert [
        bytes(each)
        for each in Shelf(parse_magnet(f"magnet:?xt=urn:btmh:1220{'b' * 64}")).all_hashes
    ] == [b"\xbb" * 20]


class TestMarks:
    """What is remembered of the fingerprints of files."""

    ROOTS = (bytes(range(32)), bytes(range(100, 132)))

    def make(self) -> Shelf:
        tree = {
            b"%d" % number: {b"": {b"length": 5, b"pieces root": root}}
            for number, root in enumerate(self.ROOTS)
        }
        info = {b"name": b"n", b"piece length": 16_384, b"meta version": 2, b"file tree": tree}
        return Shelf(decode_metainfo(encode({b"info": info})))  # type: ignore[dict-item]

    def test_each_is_found(self) -> None:
        shelf = self.make()
        for root in self.ROOTS:
            assert shelf.may_hold(Shelf.marks_of({root, b"x" * 32}))

    def test_others_are_not(self) -> None:
        shelf = self.make()
        across = self.ROOTS[0][4:8] + self.ROOTS[1][:4] + bytes(24)
        assert not shelf.may_hold(Shelf.marks_of({across, b"x" * 32}))
        assert not shelf.may_hold(Shelf.marks_of({across}))
        assert not shelf.may_hold(Shelf.marks_of({b"x" * 32}))
        assert all(shelf.may_hold(Shelf.marks_of({root})) for root in self.ROOTS)
        assert not shelf.may_hold(frozenset())

    def test_they_stay_while_the_metainfo_is_away(self, tmp_path: Path) -> None:
        shelf = self.make()
        (tmp_path / "away.torrent").touch()
        shelf.put_away(tmp_path / "away.torrent")
        assert shelf.may_hold(Shelf.marks_of(self.ROOTS))

    def test_v1_torrents_have_no_roots(self) -> None:
        shelf = Shelf(decode_metainfo(make()))
        assert not shelf.may_hold(Shelf.marks_of(self.ROOTS))
        assert shelf.may_hold(Shelf.marks_of(fingerprints(shelf.metainfo().info, 0)))
