"""proto.extended: numbers of extensions, the receiver's (BEP 10; Limit: H14)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bittern.codec import wire
from bittern.codec.extension import ExtendedHandshake, encode_extended_handshake
from bittern.core.errors import PeerViolation, WireDecodeError
from bittern.proto.extended import (
    LOCAL_EXTENSIONS,
    LT_DONT_HAVE,
    MAX_EXTENDED_HANDSHAKES,
    NAMES,
    UPLOAD_ONLY,
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


def test_a_later_handshake_leaves_alone_what_it_does_not_name() -> None:
    """BEP 10: it may be of one key."""
    remote = RemoteExtensions()
    first = ExtendedHandshake(
        {"ut_metadata": 3},
        client="somebody",
        listen_port=6881,
        request_queue=250,
        metadata_length=20_000,
        is_upload_only=True,
        your_host="192.0.2.1",
        prefers_encryption=True,
    )
    assert remote.receive_handshake(memoryview(encode_extended_handshake(first))) == first
    assert remote.receive_handshake(memoryview(b"de")) == first
    for data, change in (
        (b"d11:upload_onlyi0ee", {"is_upload_only": False}),
        (b"d1:ei0ee", {"prefers_encryption": False}),
        (b"d4:reqqi2ee", {"request_queue": 2}),
        (b"d13:metadata_sizei7ee", {"metadata_length": 7}),
        (b"d1:pi1ee", {"listen_port": 1}),
        (b"d1:v1:xe", {"client": "x"}),
        (b"d1:md6:ut_pexi1eee", {"extensions": {"ut_metadata": 3, "ut_pex": 1}}),
        (b"d1:md11:ut_metadatai0eee", {"extensions": {"ut_pex": 1}}),
    ):
        first = replace(first, **change)
        assert remote.receive_handshake(memoryview(data)) == first


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


def test_a_message_of_its_own_says_what_a_handshake_said_of_wants() -> None:
    """Interop: libtorrent says so when its wants change, and repeats no handshake."""
    remote = RemoteExtensions()
    first = remote.receive_handshake(memoryview(b"d1:v1:x11:upload_onlyi1ee"))
    for payload, is_upload_only in ((b"\0", False), (b"\1", True), (b"", True), (b"\0\0", True)):
        told = replace(first, is_upload_only=is_upload_only)
        assert remote.receive_upload_only(memoryview(payload)) == told
    remote.receive_upload_only(memoryview(b"\0"))
    assert not remote.receive_handshake(memoryview(b"de")).is_upload_only
    assert LOCAL_EXTENSIONS[UPLOAD_ONLY]
