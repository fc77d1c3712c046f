"""Items, those stored and those to be put, and their rules (BEP 44; Limit: N3)."""

from __future__ import annotations

import random

import pytest

from bittern.codec.bencode import MAX_INTEGER
from bittern.codec.krpc_message import ErrorCode, Put
from bittern.core.errors import ConfigError, KrpcFailure
from bittern.dht.items import (
    Item,
    ItemStore,
    check_put,
    encode_value,
    immutable_target,
    is_genuine,
    mutable_target,
    next_seq,
    signed_message,
)
from bittern.dht.limits import ITEM_LIFETIME, MAX_SALT_LENGTH, MAX_VALUE_LENGTH

# The test vectors of BEP 44.
VALUE = b"12:Hello World!"
KEY = bytes.fromhex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
SIGNATURE = bytes.fromhex(
    "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff"
    "1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01"
)
SALTED_SIGNATURE = bytes.fromhex(
    "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d"
    "df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08"
)


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Stand in for Ed25519: the vectors are right, and so is ``good`` in front."""
    known = {
        SIGNATURE: b"3:seqi1e1:v12:Hello World!",
        SALTED_SIGNATURE: b"4:salt6:foobar3:seqi1e1:v12:Hello World!",
    }
    return known.get(signature) == message or signature.startswith(b"good")


def test_vectors() -> None:
    plain = Item(VALUE, KEY, b"", 1, SIGNATURE)
    salted = Item(VALUE, KEY, b"foobar", 1, SALTED_SIGNATURE)
    assert plain.target.hex() == "4a533d47ec9c7d95b1ad75f576cffc641853b750"
    assert salted.target.hex() == "411eba73b6f087ca51a3795d9c8c938d365e32c1"
    assert Item(VALUE).target.hex() == "e5f96f6f38320f0f33959cb4d3d656452117aadb"
    assert signed_message(VALUE, 1) == b"3:seqi1e1:v12:Hello World!"
    assert signed_message(VALUE, 1, b"foobar") == b"4:salt6:foobar3:seqi1e1:v12:Hello World!"
    for item in (plain, salted, Item(VALUE)):
        assert is_genuine(item, item.target, verify)


@pytest.mark.parametrize(
    ("item", "target"),
    [
        (Item(VALUE), bytes(20)),
        (Item(VALUE, KEY, b"", 1, SIGNATURE), mutable_target(KEY, b"salt")),
        (Item(VALUE, KEY, b"", 2, SIGNATURE), mutable_target(KEY)),
        (Item(VALUE, KEY, b"foobar", 1, SIGNATURE), mutable_target(KEY, b"foobar")),
        (Item(b"x" * (MAX_VALUE_LENGTH + 1)), immutable_target(b"x" * (MAX_VALUE_LENGTH + 1))),
    ],
)
def test_what_is_not_genuine(item: Item, target: bytes) -> None:
    assert not is_genuine(item, target, verify)


def mutable_put(seq: int, value: bytes = b"1:a", *, cas: int | None = None) -> Put:
    return Put(token=b"", value=value, key=KEY, signature=b"good" * 16, seq=seq, cas=cas)


def stored(rng: random.Random, seq: int = 5) -> ItemStore:
    store = ItemStore(rng=rng)
    store.put(Item(b"1:a", KEY, b"", seq, b"good" * 16), b"net", now=0.0)
    return store


REFUSALS = [
    (Put(token=b"", value=b"1:a", is_canonical=False), ErrorCode.PROTOCOL),
    (Put(token=b"", value=b"x" * 1001), ErrorCode.VALUE_TOO_BIG),
    (
        Put(token=b"", value=b"1:a", key=KEY, seq=9, salt=b"s" * (MAX_SALT_LENGTH + 1)),
        ErrorCode.SALT_TOO_BIG,
    ),
    (mutable_put(6, cas=4), ErrorCode.CAS_MISMATCH),
    (mutable_put(4), ErrorCode.SEQ_TOO_LOW),
    (mutable_put(5, b"1:b"), ErrorCode.SEQ_TOO_LOW),
]


@pytest.mark.parametrize(("put", "code"), REFUSALS)
def test_refusals(put: Put, code: ErrorCode, rng: random.Random) -> None:
    refusal = stored(rng).check(put)
    assert refusal is not None
    assert refusal.code == code


@pytest.mark.parametrize(
    "put",
    [
        Put(token=b"", value=b"x" * 1000),
        mutable_put(5),
        mutable_put(6, b"1:b"),
        mutable_put(6, b"1:b", cas=5),
        Put(token=b"", value=b"1:a", key=b"o" * 32, seq=0, salt=b"s" * 64, cas=77),
    ],
)
def test_what_is_allowed(put: Put, rng: random.Random) -> None:
    assert stored(rng).check(put) is None


def test_items_replace_expire_and_stay(rng: random.Random) -> None:
    store = stored(rng)
    newer = Item(b"1:b", KEY, b"", 6, b"good" * 16)
    store.put(newer, b"net", now=100.0)
    assert store.get(newer.target) == newer
    assert len(store) == 1
    store.put(Item(b"1:x"), b"net", now=200.0)
    store.expire(now=ITEM_LIFETIME + 150.0)
    assert store.get(newer.target) is None
    assert len(store) == 1
    store.put(Item(b"1:x"), b"net", now=ITEM_LIFETIME)
    store.expire(now=ITEM_LIFETIME + 1000.0)
    assert len(store) == 1


def test_one_network_cannot_fill_the_store(rng: random.Random) -> None:
    """Limit: N3."""
    store = ItemStore(rng=rng, max_items=50)
    honest = [Item(b"i%de" % number) for number in range(25)]
    for number, item in enumerate(honest):
        store.put(item, b"net%d" % number, now=0.0)
    for number in range(1000):
        store.put(Item(b"1:x" + b"%d" % number), b"attacker", now=0.0)
    assert len(store) == 50
    assert all(store.get(item.target) for item in honest)


def test_what_no_node_would_take_is_not_put() -> None:
    check_put(bytes(MAX_SALT_LENGTH), None)
    assert len(encode_value(bytes(MAX_VALUE_LENGTH - 4))) == MAX_VALUE_LENGTH
    with pytest.raises(ConfigError, match="1001"):
        encode_value(bytes(MAX_VALUE_LENGTH - 3))
    with pytest.raises(ConfigError, match="salt"):
        check_put(bytes(MAX_SALT_LENGTH + 1), None)
    check_put(b"", MAX_INTEGER)
    for seq in (-1, MAX_INTEGER + 1):
        with pytest.raises(ConfigError, match=f"from 0 to {MAX_INTEGER}, not {seq}"):
            check_put(b"", seq)
    highest = Item(VALUE, KEY, b"", MAX_INTEGER, b"good")
    with pytest.raises(ConfigError, match="sequence number"):
        next_seq(highest, b"1:x", seq=None, cas=None)


FOUND = Item(VALUE, KEY, b"", 7, b"good")


@pytest.mark.parametrize(
    ("newest", "value", "seq", "cas", "expected"),
    [
        (None, VALUE, None, None, 0),
        (None, VALUE, 3, 9, 3),
        (FOUND, VALUE, None, None, 8),
        (FOUND, VALUE, None, 7, 8),
        (FOUND, VALUE, 7, None, 7),
        (FOUND, b"1:x", 8, None, 8),
    ],
)
def test_the_number_under_which_a_value_is_put(
    newest: Item | None, value: bytes, seq: int | None, cas: int | None, expected: int
) -> None:
    assert next_seq(newest, value, seq=seq, cas=cas) == expected


@pytest.mark.parametrize(
    ("value", "seq", "cas", "code"),
    [
        (VALUE, None, 6, ErrorCode.CAS_MISMATCH),
        (VALUE, 6, None, ErrorCode.SEQ_TOO_LOW),
        (b"1:x", 7, 7, ErrorCode.SEQ_TOO_LOW),
    ],
)
def test_what_an_item_that_was_found_forbids(
    value: bytes, seq: int | None, cas: int | None, code: int
) -> None:
    with pytest.raises(KrpcFailure, match=f"DHT error {int(code)}: sequence number 7") as caught:
        next_seq(FOUND, value, seq=seq, cas=cas)
    assert caught.value.code == code
