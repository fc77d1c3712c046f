"""proto.extended: numbers of extensions, the receiver's (BEP 10; Limit: H14)."""

from __future__ import annotations

import pytest

from bittern.codec import wire
from bittern.codec.extension import ExtendedHandshake, encode_extended_handshake
from bittern.core.errors import PeerViolation, WireDecodeError
from bittern.proto.extended import (
    LOCAL_EXTENSIONS,
    LT_DONT_HAVE,
    MAX_EXTENDED_HANDSHAKES,
    NAMES,
    UT_METADATA,
    UT_PEX,
    RemoteExtensions,
)


def shake(**extensions: int) -> memoryview:
    return memoryview(encode_extended_handshake(ExtendedHandshake(extensions)))


def test_our_numbers_differ_and_none_is_that_of_the_handshake() -> None:
    assert {name: number for number, name in NAMES.items()} == LOCAL_EXTENSIONS
    assert 0 not in NAMES


def test_messages_go_under_the_numbers_of_the_receiver() -> None:
    remote = RemoteExtensions()
    assert remote.encode(UT_PEX, b"de") is None
    found = remote.receive_handshake(shake(ut_pex=9, other=4))
    assert found.extensions == {"ut_pex": 9, "other": 4}
    assert remote.encode(UT_PEX, b"de") == wire.encode_extended(9, b"de")
    assert remote.encode(UT_METADATA, b"de") is None


def test_a_later_handshake_adds_changes_and_takes_away() -> None:
    remote = RemoteExtensions()
    remote.receive_handshake(shake(ut_pex=9, ut_metadata=3))
    remote.receive_handshake(shake(ut_pex=0, ut_metadata=5, lt_donthave=4))
    assert remote.numbers == {UT_METADATA: 5, LT_DONT_HAVE: 4}


def test_h14_a_handshake_may_be_repeated_so_often_and_no_more() -> None:
    remote = RemoteExtensions()
    for _ in range(MAX_EXTENDED_HANDSHAKES):
        remote.receive_handshake(shake(ut_pex=1))
    with pytest.raises(PeerViolation, match="repeats the extended handshake"):
        remote.receive_handshake(shake(ut_pex=1))


def test_a_malformed_one_changes_nothing() -> None:
    remote = RemoteExtensions()
    remote.receive_handshake(shake(ut_pex=9))
    with pytest.raises(WireDecodeError):
        remote.receive_handshake(memoryview(b"d1:m"))
    assert remote.numbers == {UT_PEX: 9}
