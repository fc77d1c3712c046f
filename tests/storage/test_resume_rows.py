from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.core.bitfield import Bitfield
from bittern.core.ids import InfoHash
from bittern.storage.base import FileStamp
from bittern.storage.resume_rows import (
    Json,
    ResumeRecord,
    TorrentState,
    decode_record,
    decode_state,
    encode_record,
    encode_state,
    seal,
    unseal,
)

KEY = InfoHash(b"k" * 20)
json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
any_text = st.text(st.characters(), max_size=10)
records = st.builds(
    ResumeRecord,
    info_hash=st.just(KEY),
    name=any_text,
    save_path=any_text,
    paths=st.none() | st.lists(st.lists(any_text, max_size=3).map(tuple), max_size=4).map(tuple),
    added_at=st.floats(0, 1e12),
    opened_at=st.floats(0, 1e12),
    options=st.dictionaries(any_text, json_values, max_size=3),
)


@st.composite
def states(draw: st.DrawFn) -> TorrentState:
    num_pieces = draw(st.integers(0, 30))
    pieces = st.sets(st.integers(0, num_pieces - 1)) if num_pieces else st.just(set())
    stamp = st.builds(FileStamp, *[st.integers(0, 1 << 62)] * 3)
    return TorrentState(
        have=Bitfield.of(num_pieces, draw(pieces)),
        recent=Bitfield.of(num_pieces, draw(pieces)),
        downloaded=draw(st.integers(0, 1 << 50)),
        uploaded=draw(st.integers(0, 1 << 50)),
        stamps=tuple(draw(st.lists(st.none() | stamp, max_size=3))),
        is_settled=draw(st.booleans()),
        unchecked=Bitfield.of(num_pieces, draw(pieces))
        if num_pieces and draw(st.booleans())
        else None,
    )


@given(records)
def test_records_come_back(record: ResumeRecord) -> None:
    assert decode_record(KEY, encode_record(record)) == record


@given(states())
def test_states_come_back(state: TorrentState) -> None:
    assert decode_state(encode_state(state)) == state


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_value_error(data: bytes) -> None:
    for decode in (decode_state, lambda body: decode_record(KEY, body)):
        with pytest.raises(ValueError):
            decode(data)


@given(records, states(), st.data())
def test_changed_bodies_are_values_or_value_errors(
    record: ResumeRecord, state: TorrentState, data: st.DataObject
) -> None:
    for body, decode in (
        (encode_record(record), lambda body: decode_record(KEY, body)),
        (encode_state(state), decode_state),
    ):
        at = data.draw(st.integers(0, len(body) - 1))
        changed = body[:at] + data.draw(st.binary(max_size=3)) + body[at + 1 :]
        try:
            decode(changed)
        except ValueError:
            pass


GOOD_RECORD = json.loads(encode_record(ResumeRecord(info_hash=KEY, name="n", save_path="/")))


def test_a_record_that_does_not_say_when_it_was_opened() -> None:
    old = {name: value for name, value in GOOD_RECORD.items() if name != "opened_at"}
    body = json.dumps(old | {"added_at": 7}).encode()
    assert decode_record(KEY, body).opened_at == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"name": 5},
        {"save_path": ["a"]},
        {"options": None},
        {"options": [1]},
        {"added_at": None},
        {"added_at": True},
        {"added_at": -1},
        {"added_at": 1e30},
        {"added_at": "5"},
        {"opened_at": None},
        {"paths": "abc"},
        {"paths": 5},
        {"paths": {"a": 1}},
        {"paths": ["abc"]},
        {"paths": [5]},
        {"paths": [["a", 5]]},
    ],
    ids=str,
)
def test_records_of_wrong_types_are_refused(changes: dict[str, Json]) -> None:
    decode_record(KEY, json.dumps(GOOD_RECORD).encode())
    with pytest.raises(ValueError):
        decode_record(KEY, json.dumps(GOOD_RECORD | changes).encode())


GOOD_STATE = {
    "num_pieces": 9,
    "downloaded": 0,
    "uploaded": 0,
    "stamps": [None, [1, 2, 3]],
}


@pytest.mark.parametrize(
    ("changes", "bits"),
    [
        ({"num_pieces": None}, bytes(4)),
        ({"num_pieces": -1}, bytes(4)),
        ({"num_pieces": 1 << 40}, bytes(4)),
        ({"num_pieces": 17}, bytes(4)),
        ({"downloaded": "1"}, bytes(4)),
        ({"uploaded": -1}, bytes(4)),
        ({"stamps": None}, bytes(4)),
        ({"stamps": "abc"}, bytes(4)),
        ({"stamps": [[1, 2]]}, bytes(4)),
        ({"stamps": [[1, 2, "3"]]}, bytes(4)),
        ({}, bytes(3)),
        ({}, bytes(5)),
        ({}, bytes(7)),
        ({}, b"\0\0\0\0\0\1"),
        ({}, b"\0\1\0\0"),
        ({}, b"\0\0\0\1"),
    ],
    ids=str,
)
def test_states_of_wrong_types_or_sizes_are_refused(changes: dict[str, Json], bits: bytes) -> None:
    decode_state(json.dumps(GOOD_STATE).encode() + b"\n" + bytes(4))
    with pytest.raises(ValueError):
        decode_state(json.dumps(GOOD_STATE | changes).encode() + b"\n" + bits)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"5", b"\xff", b"[" * 200_000, b"{" * 9])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        decode_record(KEY, body)


def test_seals_hold_for_one_key_and_one_body() -> None:
    row = seal(KEY, b"body")
    assert unseal(KEY, row) == b"body"
    wrong: list[tuple[object, tuple[object, ...]]] = [
        (InfoHash(b"x" * 20), row),
        (KEY, (b"Body", row[1])),
        (KEY, (row[0], row[1][:-1])),
        (KEY, (None, row[1])),
        (KEY, ("body", row[1])),
        (KEY, (row[0], None)),
        (None, row),
        ("key", row),
    ]
    for key, damaged in wrong:
        with pytest.raises(ValueError):
            unseal(key, damaged)
