"""proto.handshakes: what both sides of a connection have agreed on."""

from __future__ import annotations

import itertools

import pytest

from bittern.codec import wire
from bittern.codec.wire import Reserved
from bittern.core.errors import PeerViolation, WireDecodeError
from bittern.core.ids import InfoHash, PeerId
from bittern.proto.handshakes import Handshakes

HASH = InfoHash(bytes(range(20)))
V2_HASH = InfoHash(bytes(range(1, 21)))
OURS = PeerId(b"-bt0100-abcdefghijkl")
THEIRS = PeerId(b"-XX0100-abcdefghijkl")
PLAIN = Reserved(has_fast=False, has_extensions=False)


def make(reserved: Reserved, *hashes: InfoHash) -> Handshakes:
    return Handshakes(hashes or (HASH, V2_HASH), OURS, reserved)


def test_ours_names_the_first_hash() -> None:
    assert make(PLAIN).encode() == wire.encode_handshake(HASH, OURS, PLAIN)


def test_a_handshake_is_judged_as_far_as_it_has_come() -> None:
    handshakes, raw = make(Reserved()), wire.encode_handshake(V2_HASH, THEIRS, PLAIN)
    for length in range(len(raw)):
        assert handshakes.receive(memoryview(raw)[:length]) is None
    assert handshakes.remote is None
    assert handshakes.receive(memoryview(raw + b"more")) == wire.decode_handshake(raw)
    assert handshakes.remote == wire.decode_handshake(raw)
    with pytest.raises(WireDecodeError):
        make(Reserved()).receive(memoryview(b"\x13BitTorrenT"))


def test_we_know_ourselves_and_other_torrents() -> None:
    """Limit: H15."""
    handshakes, other = make(Reserved()), InfoHash(bytes(20))
    with pytest.raises(PeerViolation, match="another torrent"):
        handshakes.receive(memoryview(wire.encode_handshake(other, THEIRS, Reserved())))
    assert not handshakes.is_ourselves
    with pytest.raises(PeerViolation, match="ourselves"):
        handshakes.receive(memoryview(wire.encode_handshake(HASH, OURS, Reserved())))
    assert handshakes.is_ourselves


@pytest.mark.parametrize(("local", "remote"), [*itertools.product([Reserved(), PLAIN], repeat=2)])
def test_features_need_both_sides(local: Reserved, remote: Reserved) -> None:
    handshakes = make(local)
    assert not handshakes.has_fast
    assert not handshakes.has_extensions
    handshakes.receive(memoryview(wire.encode_handshake(HASH, THEIRS, remote)))
    assert handshakes.has_fast is (local.has_fast and remote.has_fast)
    assert handshakes.has_extensions is (local.has_extensions and remote.has_extensions)


def test_hashes_need_both_sides_to_speak_v2() -> None:
    """BEP 52: by the bit of the handshake, or by the v2 hash in it."""
    both = Reserved(has_v2=True)
    for local, remote, named in itertools.product(
        [Reserved(), both], [Reserved(), both], [HASH, V2_HASH]
    ):
        handshakes = make(local)
        assert not handshakes.has_v2(V2_HASH)
        handshakes.receive(memoryview(wire.encode_handshake(named, THEIRS, remote)))
        assert not handshakes.has_v2(None)
        is_by_hash = named == V2_HASH and local.has_v2
        expected = (local.has_v2 and remote.has_v2) or is_by_hash
        assert handshakes.has_v2(V2_HASH) == expected, (local, remote, named)
    by_name = make(Reserved(), V2_HASH)
    by_name.receive(memoryview(wire.encode_handshake(V2_HASH, THEIRS, Reserved())))
    assert by_name.has_v2(V2_HASH), "both have named it"
    assert not by_name.has_v2(HASH)
