"""engine.reasons.phrases: what a person reads of sources."""

from __future__ import annotations

from typing import Any

import pytest

from bittern.engine.reasons.phrases import (
    KIND_NAMES,
    count_of,
    describe_source,
    server_of,
    source_name,
)
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus

TRACKER = SourceKind.TRACKER
NOW = 1_000.0

LINES: list[tuple[str, dict[str, Any]]] = [
    (
        "tracker udp://t:80: failed (timed out); tried again in 32s",
        {"state": SourceState.FAILING, "message": "timed out", "next_at": NOW + 32},
    ),
    ("tracker udp://t:80: failed (never)", {"state": SourceState.FAILING, "message": "never"}),
    (
        "tracker udp://t:80: being asked (is slow)",
        {"state": SourceState.ASKING, "message": "is slow", "next_at": NOW + 9},
    ),
    (
        "tracker udp://t:80: 2 peers in its last answer; asked again in 30m 00s",
        {"state": SourceState.WORKING, "num_peers": 2, "next_at": NOW + 1800},
    ),
    (
        "tracker udp://t:80: no peers in its last answer 5s ago; asked again now",
        {
            "state": SourceState.WORKING,
            "num_peers": 0,
            "last_answer_at": NOW - 5,
            "next_at": NOW - 1,
        },
    ),
    (
        "tracker udp://t:80: 1 peer in its last answer",
        {"state": SourceState.WORKING, "num_peers": 1, "last_answer_at": NOW},
    ),
    (
        "tracker udp://t:80: nothing yet (waits for its turn)",
        {"state": SourceState.WAITING, "message": "waits for its turn"},
    ),
    (
        "web seed http://h: has sent 2.0 MiB",
        {
            "kind": SourceKind.WEB_SEED,
            "name": "http://h/secret/path",
            "state": SourceState.WORKING,
            "num_bytes": 2 << 20,
            "last_answer_at": NOW - 9,
        },
    ),
    (
        "given peers: 2 peers",
        {
            "kind": SourceKind.USER,
            "name": "",
            "state": SourceState.WORKING,
            "num_peers": 1,
            "num_found": 2,
            "last_answer_at": NOW - 9,
        },
    ),
    (
        "incoming connections: 3 peers so far, the last 9s ago",
        {
            "kind": SourceKind.INCOMING,
            "name": "",
            "state": SourceState.WORKING,
            "num_peers": 1,
            "num_found": 3,
            "last_answer_at": NOW - 9,
        },
    ),
    (
        "peer exchange: 1 peer so far",
        {"kind": SourceKind.PEX, "name": "", "state": SourceState.WORKING, "num_found": 1},
    ),
    (
        "peer exchange: off (the torrent is private)",
        {
            "kind": SourceKind.PEX,
            "name": "",
            "state": SourceState.OFF,
            "message": "the torrent is private",
        },
    ),
    (
        "DHT IPv6: being asked",
        {"kind": SourceKind.DHT, "name": "IPv6", "state": SourceState.ASKING},
    ),
]


@pytest.mark.parametrize(("line", "values"), LINES, ids=lambda value: str(value)[:40])
def test_a_source_in_one_line(line: str, values: dict[str, Any]) -> None:
    status = SourceStatus(**{"kind": TRACKER, "name": "udp://t:80/secret", **values})
    assert describe_source(status, now=NOW) == line


def test_every_kind_has_a_name() -> None:
    assert KIND_NAMES.keys() == set(SourceKind)
    assert source_name(SourceStatus(kind=SourceKind.PEX, state=SourceState.OFF)) == "peer exchange"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@t.example/passkey/announce?key=1", "https://t.example"),
        ("udp://[2001:db8::1]:80", "udp://[2001:db8::1]:80"),
        ("http://[", "a malformed URL"),
    ],
)
def test_a_shown_url_holds_no_secret(url: str, shown: str) -> None:
    assert server_of(url) == shown


def test_counts() -> None:
    assert [count_of(n, "peer") for n in (0, 1, 2)] == ["no peers", "1 peer", "2 peers"]
