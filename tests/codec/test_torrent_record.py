"""Records of mutable torrents: a table both ways, refusals, sequence numbers, the BEP's vectors."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.magnet import Magnet, parse_magnet
from bittern.codec.torrent_record import (
    MAX_SEQ,
    TorrentRecord,
    Version,
    choose_seq,
    decode_record,
    decode_version,
    encode_record,
    encode_version,
)
from bittern.core.errors import ConfigError, KrpcDecodeError
from bittern.core.ids import InfoHash, InfoHashV2
from tests.codec.fuzzing import fuzz
from tests.strategies import info_hashes, info_hashes_v2

H1 = InfoHash(bytes(range(20)))
H2 = InfoHashV2(bytes(range(100, 132)))
VERSION = Version(b"k" * 32, b"salt", 7, b"s" * 64, b"d2:ih20:" + H1 + b"e")

TABLE = [
    (TorrentRecord(H1), b"d2:ih20:" + H1 + b"e"),
    (TorrentRecord(H1, H2), b"d2:ih20:" + H1 + b"3:ih232:" + H2 + b"e"),
    (TorrentRecord(H2.truncated, H2), b"d2:ih20:" + H2[:20] + b"3:ih232:" + H2 + b"e"),
]


@pytest.mark.parametrize(("record", "data"), TABLE)
def test_records_both_ways(record: TorrentRecord, data: bytes) -> None:
    assert decode_record(data) == record
    assert encode_record(record) == data


def test_keys_of_others_are_ignored() -> None:
    assert decode_record(b"d1:ai1e2:ih20:" + H1 + b"1:zle" + b"e") == TorrentRecord(H1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "input"),
        (b"d2:ih20:" + H1, "end"),
        (b"d2:ih20:" + H1 + b"ex", "bytes after the end"),
        (b"20:" + H1, "not a dictionary"),
        (b"le", "not a dictionary"),
        (b"de", "no info hash"),
        (b"d2:ihi5ee", "'ih' is not 20 bytes"),
        (b"d2:ih19:" + H1[:19] + b"e", "'ih' is not 20 bytes"),
        (b"d2:ih32:" + H2 + b"e", "'ih' is not 20 bytes"),
        (b"d2:ih40:" + str(H1).encode() + b"e", "'ih' is not 20 bytes"),
        (b"d2:ih20:" + H1 + b"3:ih220:" + H1 + b"e", "'ih2' is not 32 bytes"),
        (b"d2:ih20:" + H1 + b"3:ih2lee", "'ih2' is not 32 bytes"),
        (b"d2:ih20:" + H1 + b"1:x1000:" + b"x" * 1000 + b"e", "limit 1000"),
        (b"d2:ih20:" + H1 + b"1:x" + b"l" * 20 + b"e" * 21, "limit 10"),
    ],
)
def test_malformed_records(data: bytes, reason: str) -> None:
    with pytest.raises(KrpcDecodeError, match=f"no torrent record|{reason}") as caught:
        decode_record(data)
    assert reason in str(caught.value)


@given(info_hashes, st.none() | info_hashes_v2)
def test_decode_inverts_encode(v1: InfoHash, v2: InfoHashV2 | None) -> None:
    record = TorrentRecord(v1, v2)
    assert decode_record(encode_record(record)) == record


def test_what_a_record_says_of_a_torrent() -> None:
    assert TorrentRecord.of(H1, None) == TorrentRecord(H1)
    assert TorrentRecord.of(H1, H2) == TorrentRecord(H1, H2)
    only_v2 = TorrentRecord.of(None, H2)
    assert only_v2.info_hash == H2.truncated
    assert only_v2.v1 is None
    assert TorrentRecord(H1, H2).v1 == H1
    with pytest.raises(ConfigError, match="needs an info hash"):
        TorrentRecord.of(None, None)


def test_a_link_to_the_torrent_keeps_the_hints() -> None:
    link = parse_magnet(
        f"magnet:?xs=urn:btpk:{'ab' * 32}&s=6e&dn=n&tr=udp://t:1&ws=http://w&x.pe=1.2.3.4:5&so=1"
    )
    made = TorrentRecord(H1, H2).magnet(link)
    assert made == Magnet(H1, H2, "n", ("udp://t:1",), ("http://w",), (("1.2.3.4", 5),), ((1, 1),))
    assert TorrentRecord.of(None, H2).magnet() == Magnet(None, H2)


def test_target_ids_are_those_of_the_bep() -> None:
    """The vectors of BEP 46, from link to target."""
    key = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e"
    for salt, target in (
        ("", "cc3f9d90b572172053626f9980ce261a850d050b"),
        ("&s=6e", "59ee7c2cb9b4f7eb1986ee2d18fd2fdb8a56554f"),
    ):
        link = parse_magnet(f"magnet:?xs=urn:btpk:{key}{salt}")
        assert link.public_key is not None
        assert hashlib.sha1(link.public_key + link.salt).hexdigest() == target


# --- what is kept ------------------------------------------------------------------------


def test_versions_both_ways() -> None:
    data = (
        b"d1:k32:" + b"k" * 32 + b"4:salt4:salt3:seqi7e3:sig64:" + b"s" * 64
        + b"1:v30:d2:ih20:" + H1 + b"ee"
    )  # fmt: skip
    data = data.replace(b"1:v30:", b"1:v%d:" % len(VERSION.value))
    assert encode_version(VERSION) == data
    assert decode_version(data) == VERSION


@given(
    st.builds(
        Version,
        st.binary(min_size=32, max_size=32),
        st.binary(max_size=64),
        st.integers(0, MAX_SEQ),
        st.binary(min_size=64, max_size=64),
        st.binary(max_size=1000),
    )
)
def test_decode_version_inverts_encode_version(version: Version) -> None:
    assert decode_version(encode_version(version)) == version


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"le",
        b"de",
        encode_version(VERSION)[:-1],
        encode_version(VERSION).replace(b"32:", b"31:").replace(b"kkk", b"kk", 1),
        encode_version(VERSION).replace(b"i7e", b"i-7e"),
        encode_version(VERSION).replace(b"i7e", b"1:7"),
        encode_version(VERSION)[: encode_version(VERSION).rindex(b"1:v")] + b"1:vi5ee",
        encode_version(VERSION).replace(b"4:salt4:salt", b"4:salt65:" + b"x" * 65),
        encode_version(Version(b"k" * 32, b"", 1, b"s" * 64, b"v" * 1001)),
    ],
)
def test_malformed_versions(data: bytes) -> None:
    with pytest.raises(KrpcDecodeError):
        decode_version(data)


def test_a_version_is_superseded_by_a_newer_one_that_says_something_else() -> None:
    assert VERSION.is_superseded_by(8, b"other")
    assert not VERSION.is_superseded_by(8, VERSION.value)
    assert not VERSION.is_superseded_by(7, b"other")


# --- sequence numbers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "clock", "seq"),
    [
        ([], 1000, 1000),
        ([], 0, 1),
        ([], -5, 1),
        ([(5, b"mine")], 1000, 5),
        ([(5, b"other")], 1000, 1000),
        ([(5, b"other")], 3, 6),
        ([(2000, b"other")], 1000, 2001),
        ([(4, b"other"), (5, b"mine")], 1000, 5),
        ([(5, b"mine"), (6, b"other")], 0, 7),
        ([(5, b"mine"), (5, b"other")], 0, 6),
        ([(MAX_SEQ, b"mine")], 0, MAX_SEQ),
        ([(MAX_SEQ - 1, b"other")], 0, MAX_SEQ),
        ([(5, b"other")], 1 << 70, MAX_SEQ),
    ],
)
def test_sequence_numbers_rise(known: list[tuple[int, bytes]], clock: int, seq: int) -> None:
    assert choose_seq(b"mine", known, clock=clock) == seq


def test_numbers_can_be_used_up() -> None:
    with pytest.raises(ConfigError, match="used up"):
        choose_seq(b"mine", [(MAX_SEQ, b"other")], clock=0)


@given(
    st.lists(st.tuples(st.integers(0, MAX_SEQ - 1), st.sampled_from([b"a", b"b"])), max_size=5),
    st.integers(-1, MAX_SEQ),
)
def test_a_number_is_never_used_for_two_values(known: list[tuple[int, bytes]], clock: int) -> None:
    seq = choose_seq(b"a", known, clock=clock)
    assert all(seq > other or (seq == other and value == b"a") for other, value in known)


@pytest.mark.fuzz
def test_only_the_documented_error_escapes() -> None:
    assert fuzz(decode_record, [data for _, data in TABLE], KrpcDecodeError)
    assert fuzz(decode_version, [encode_version(VERSION)], KrpcDecodeError)
