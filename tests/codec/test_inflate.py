"""codec.inflate: decompression inside bounds (P15)."""

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.inflate import Inflater
from bittern.core.errors import DecodeError

MIB = 1 << 20


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "DEFLATE": raw_deflate,
}


def inflate(encoding: str, data: bytes, *, step: int = 0, max_length: int = MIB) -> bytes:
    inflater = Inflater(encoding, max_length=max_length)
    step = step or max(1, len(data))
    found = b"".join(inflater.decode(data[at : at + step]) for at in range(0, len(data), step))
    inflater.finish()
    return found


@pytest.mark.parametrize("encoding", FORMS)
@pytest.mark.parametrize("step", [0, 1, 7])
@given(data=st.binary(max_size=3000))
def test_decompression_inverts_compression(encoding: str, step: int, data: bytes) -> None:
    assert inflate(encoding, FORMS[encoding](data), step=step) == data


def test_members_are_joined_and_padding_is_passed_over() -> None:
    data = gzip.compress(b"one ") + gzip.compress(b"two")
    for step in (0, 1):
        assert inflate("gzip", data, step=step) == b"one two"
        assert inflate("gzip", data + bytes(600), step=step) == b"one two"
        assert inflate("gzip", data + bytes(3) + data, step=step) == b"one two"
        assert inflate("deflate", zlib.compress(b"one") + data, step=step) == b"one"


def test_nothing_at_all_is_empty() -> None:
    assert inflate("gzip", b"") == b""


@pytest.mark.parametrize("encoding", FORMS)
def test_a_cut_stream_is_refused(encoding: str) -> None:
    data = FORMS[encoding](b"some text, some text")
    for end in range(1, len(data)):
        with pytest.raises(DecodeError, match="too early"):
            inflate(encoding, data[:end])


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("data", [b"plain text", b"\x1f\x8b\xff\xff\xff" + bytes(20), b"\x78\xff"])
def test_what_is_not_compressed_is_refused(encoding: str, data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"not |too early"):
        inflate(encoding, data)


@pytest.mark.parametrize("encoding", ["br", "zstd", "identity", "", "x" * 500])
def test_unknown_compression_is_refused(encoding: str) -> None:
    with pytest.raises(DecodeError, match="unknown compression"):
        Inflater(encoding, max_length=10)


@pytest.mark.parametrize("step", [0, 3])
def test_output_is_capped_to_the_byte(step: int) -> None:
    data = gzip.compress(b"x" * 1000)
    assert len(inflate("gzip", data, step=step, max_length=1000)) == 1000
    with pytest.raises(DecodeError, match=r"too long \(limit 999\)"):
        inflate("gzip", data, step=step, max_length=999)


def bomb(length: int) -> bytes:
    encoder = zlib.compressobj(9, wbits=31)
    block = bytes(MIB)
    return b"".join([encoder.compress(block) for _ in range(length // MIB)]) + encoder.flush()


def test_a_bomb_stops_at_the_ratio_and_takes_no_memory() -> None:
    data = bomb(8 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match=r"suspiciously long \(limit 100\)"):
            inflate("gzip", data, max_length=8 * MIB)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_one_mebibyte_may_have_any_ratio() -> None:
    assert len(inflate("gzip", bomb(MIB))) == MIB
    assert len(bomb(MIB)) * 100 < MIB + 100_000


@pytest.mark.parametrize("step", [0, 1 << 14])
def test_longer_data_may_have_a_hundred_times_the_length_of_all_that_came(step: int) -> None:
    """A scrape of a whole tracker, say: it comes in many parts."""
    rng = random.Random(1)
    data = b"".join(bytes(4_000) + rng.randbytes(100) for _ in range(800))
    packed = gzip.compress(data, 6)
    assert 20 * len(packed) < len(data) < 100 * len(packed)
    assert inflate("gzip", packed, step=step, max_length=4 * MIB) == data


def test_members_are_counted() -> None:
    empty = gzip.compress(b"")
    assert inflate("gzip", empty * 16) == b""
    with pytest.raises(DecodeError, match=r"too many gzip members \(limit 16\)"):
        inflate("gzip", empty * 100_000)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_only_decode_errors_escape(data: bytes, encoding: str) -> None:
    for start in (b"", b"\x1f\x8b\x08\x00", b"\x78\x9c"):
        try:
            inflate(encoding, start + data)
        except DecodeError:
            pass
