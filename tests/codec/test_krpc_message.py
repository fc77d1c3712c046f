"""DHT messages as values; their bytes are tested with the decoder and the encoder."""

from __future__ import annotations

import dataclasses

import pytest

from bittern.codec import krpc_message
from bittern.codec.krpc_message import ErrorCode, ErrorReply, Ping, Put, Query, Response, Want

KINDS = [
    kind
    for kind in vars(krpc_message).values()
    if isinstance(kind, type)
    and dataclasses.is_dataclass(kind)
    and kind.__module__ == krpc_message.__name__
]


@pytest.mark.parametrize("kind", KINDS)
def test_messages_are_frozen_and_small(kind: type) -> None:
    fields = dataclasses.fields(kind)
    message = kind(**{field.name: b"x" for field in fields})
    assert not hasattr(message, "__dict__")
    for field in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(message, field.name, b"y")


def test_what_is_not_said_is_absent() -> None:
    answer = Response(transaction_id=b"aa", node_id=b"n" * 20)
    assert answer.nodes is answer.token is answer.value is answer.samples is None
    assert answer.values == ()
    assert Query(b"aa", b"n" * 20, Ping()).is_read_only is False
    assert Put(token=b"t", value=b"1:x").key is None
    assert ErrorReply(b"aa", 201).text == ""


def test_numbers_of_the_wire() -> None:
    """BEP 5, BEP 44."""
    assert {code.value for code in ErrorCode} >= {201, 202, 203, 204, 205, 206, 207, 301, 302}
    assert Want.NONE.value == 0
