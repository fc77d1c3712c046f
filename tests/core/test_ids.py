"""Identifiers: sizes, text forms, distance."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.ids import InfoHash, InfoHashV2, NodeId, PeerId
from tests.strategies import info_hashes, info_hashes_v2, node_ids

KINDS = [(InfoHash, 20), (InfoHashV2, 32), (PeerId, 20), (NodeId, 20)]
HEX = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_sizes_are_checked(kind: type[InfoHash], size: int) -> None:
    for source in (bytes(size), bytearray(size), memoryview(bytes(size))):
        made = kind(source)
        assert made == bytes(size)
        assert type(made) is kind
    for wrong in (0, size - 1, size + 1):
        with pytest.raises(ValueError, match=f"{kind.__name__} takes {size} bytes, got {wrong}"):
            kind(bytes(wrong))


@pytest.mark.parametrize(("kind", "size"), KINDS)
def test_hexadecimal_both_ways(kind: type[InfoHash], size: int) -> None:
    text = ("0123456789abcdef" * 4)[: 2 * size]
    made = kind.parse(text)
    assert str(made) == text
    assert kind.parse(text.upper()) == made
    assert repr(made) == f"{kind.__name__}({text!r})"
    assert f"{made}" == text


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (InfoHash, ""),
        (InfoHash, HEX[:-1]),
        (InfoHash, HEX + "0"),
        (InfoHash, "0x" + HEX[2:]),
        (InfoHash, " " + HEX[1:]),
        (InfoHash, "\u0661" + HEX[1:]),
        (InfoHash, "\udc80" + HEX[1:]),
        (InfoHash, "1" * 32),
        (InfoHash, "A" * 31 + "="),
        (InfoHash, "\u00c4" * 32),
        (InfoHashV2, HEX),
        (InfoHashV2, "g" * 64),
        # Base32 is a form of v1 info hashes only.
        (PeerId, "A" * 32),
        (NodeId, "A" * 32),
    ],
)
def test_text_that_is_no_id(kind: type[InfoHash], text: str) -> None:
    with pytest.raises(ValueError) as caught:
        kind.parse(text)
    assert caught.value.__cause__ is None


@given(info_hashes)
def test_base32_both_ways(info_hash: InfoHash) -> None:
    text = base64.b32encode(info_hash).decode()
    assert InfoHash.parse(text) == InfoHash.parse(text.lower()) == info_hash


@given(info_hashes_v2)
def test_a_v2_hash_is_cut_for_the_wire(info_hash: InfoHashV2) -> None:
    assert info_hash.truncated == info_hash[:20]
    assert type(info_hash.truncated) is InfoHash


def test_ids_are_keys_like_bytes() -> None:
    table = {InfoHash(bytes(20)): 1}
    assert table[InfoHash(bytes(20))] == 1
    assert bytes(20) in table


@pytest.mark.parametrize("prefix", [b"", b"-bt0100-", b"x" * 20])
def test_peer_ids_keep_their_prefix(prefix: bytes) -> None:
    asked: list[int] = []

    def random_bytes(count: int) -> bytes:
        asked.append(count)
        return b"r" * count

    made = PeerId.generate(prefix, random_bytes)
    assert made == prefix + b"r" * (20 - len(prefix))
    assert type(made) is PeerId
    assert asked == [20 - len(prefix)]


def test_a_prefix_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="PeerId takes 20 bytes, got 21"):
        PeerId.generate(b"x" * 21, lambda count: b"r" * max(count, 0))


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (bytes(20), bytes(20), 0),
        (bytes(20), bytes(19) + b"\1", 1),
        (b"\x80" + bytes(19), bytes(20), 1 << 159),
        (b"\xff" * 20, bytes(20), (1 << 160) - 1),
    ],
)
def test_distances(a: bytes, b: bytes, distance: int) -> None:
    assert NodeId(a).distance(b) == distance


@given(node_ids, node_ids, node_ids)
def test_distance_is_a_metric(a: NodeId, b: NodeId, c: NodeId) -> None:
    assert a.distance(b) == b.distance(a)
    assert (a.distance(b) == 0) == (a == b)
    assert a.distance(c) <= a.distance(b) + b.distance(c)
    assert a.distance(b) ^ b.distance(c) == a.distance(c)


@given(st.binary(max_size=40))
def test_any_bytes_are_an_id_or_an_error(data: bytes) -> None:
    if len(data) == 20:
        assert InfoHash.parse(InfoHash(data).hex()) == data
    else:
        with pytest.raises(ValueError):
            InfoHash(data)
