from __future__ import annotations

import dataclasses
import json
import time

import pytest

from bittern.cli.narration import (
    STATE_TEXTS,
    event_json,
    event_lines,
    event_name,
    event_text,
    is_trace,
    plain,
)
from bittern.cli.output import encode_json
from bittern.cli.values import HostPort
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine import events as ev
from bittern.engine.reason import Reason, ReasonCode
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.engine.sources.base import switched_off_by

PEER = Endpoint("127.0.0.1", 6881)
SOURCE = SourceStatus(kind=SourceKind.DHT, name="IPv4", state=SourceState.ASKING, last_asked_at=5.0)

TEXTS: list[tuple[ev.Event, str]] = [
    (ev.StateChanged(ev.TorrentState.METADATA), "fetching metadata"),
    (ev.MetadataReceived("cat", 1024), "metadata of cat received, 1.0 KiB"),
    (ev.CheckProgressed(1, 2), ""),
    (ev.TrackerAsked("udp://t:1/key", "started"), "asking tracker udp://t:1 (started)"),
    (ev.TrackerAsked("udp://t:1/key", ""), "asking tracker udp://t:1"),
    (ev.SourceChanged(SOURCE), "DHT IPv4: being asked"),
    (ev.SourceChanged(dataclasses.replace(SOURCE, kind=SourceKind.TRACKER)), ""),
    (
        ev.TrackerAnnounced("http://u:p@t.example:80/key/announce?x=1", "started", 2, 1, 1, 1800),
        (
            "tracker http://t.example:80 (started): 2 peers; 1 seeding, 1 downloading; "
            "next announce in 30m 00s"
        ),
    ),
    (
        ev.TrackerAnnounced("udp://t:1", "", 1, None, None, 60),
        "tracker udp://t:1: 1 peer; next announce in 1m 00s",
    ),
    (ev.TrackerFailed("udp://t:1", "timed out", None), "tracker udp://t:1 failed: timed out"),
    (
        ev.TrackerFailed("udp://t:1", "go away", None, is_refusal=True),
        "tracker udp://t:1 refused: go away",
    ),
    (ev.PeersFound("dht", 1), "1 peer from dht"),
    (ev.PeersFound("pex", 7), "7 peers from pex"),
    (
        ev.PeerConnected(PEER, True, b"-bt0100-123456789012", "bittern 0.1"),
        "connected to 127.0.0.1:6881 (bittern 0.1)",
    ),
    (ev.PeerConnected(PEER, False, bytes(20), ""), "connected from 127.0.0.1:6881"),
    (ev.PeerDisconnected(PEER, "closed"), "disconnected from 127.0.0.1:6881: closed"),
    (ev.PeerBanned(PEER, "bad data"), "banned 127.0.0.1:6881: bad data"),
    (ev.PieceVerified(3, 4, 40), "piece 3 verified (4 of 40)"),
    (ev.PieceFailed(3), "piece 3 does not match its hash and is fetched again"),
    (ev.PieceLost(3), "piece 3 is not on disk any more and is fetched again"),
    (
        ev.PieceDamaged(3, 1, 64),
        "piece 3 is damaged: 1 of 64 blocks are fetched again",
    ),
    (ev.FileCompleted(0, "a/b"), "file complete: a/b"),
    (ev.FileReused(0, "a/b", 5, "/old/b", "copy"), "a/b: taken from /old/b (copy)"),
    (ev.TorrentCompleted(), "complete"),
    (ev.StorageFailed("disk full"), "disk: disk full"),
    (ev.TorrentUnusable("inconsistent torrent"), "inconsistent torrent"),
    (ev.PeerDialled(PEER), "connecting to 127.0.0.1:6881"),
    (ev.PeerUnreachable(PEER, "refused", None), "no connection to 127.0.0.1:6881: refused"),
    (
        # Nearly 18 hours, since other tests may run for long before this one.
        ev.PeerUnreachable(PEER, "refused", time.monotonic() + 34 * 86_400 + 17.99 * 3_600),
        "no connection to 127.0.0.1:6881: refused; tried again in 34d 17h",
    ),
    (ev.PeerUnchoked(PEER, False), "serving 127.0.0.1:6881 from now on"),
    (ev.PeerUnchoked(PEER, True), "serving 127.0.0.1:6881 from now on, by chance"),
    (
        ev.PeerChoked(PEER, "its turn is over"),
        "not serving 127.0.0.1:6881 for now: its turn is over",
    ),
    (ev.StallEnded(65.0), "bytes arrive again, after 1m 05s"),
    (ev.MessageSent(PEER, "choke", "choke", b""), "127.0.0.1:6881 <- choke"),
    (ev.MessageReceived(PEER, "have", "have 3", b""), "127.0.0.1:6881 -> have 3"),
]


@pytest.mark.parametrize(("event", "text"), TEXTS, ids=lambda value: type(value).__name__)
def test_every_event_is_told_in_words(event: ev.Event, text: str) -> None:
    assert event_text(event) == text


def test_the_table_above_covers_every_event() -> None:
    told = {type(event) for event, _ in TEXTS}
    defined = {
        value
        for value in vars(ev).values()
        if isinstance(value, type) and issubclass(value, ev.Event) and value is not ev.Event
    }
    assert told | {ev.Stalled} == defined, "that one has a test of its own"


def test_an_event_of_the_future_is_still_told() -> None:
    @dataclasses.dataclass(frozen=True)
    class MoonRisen(ev.Event):
        pass

    assert event_text(MoonRisen()) == "moon risen"


@pytest.mark.parametrize("event", [event for event, _ in TEXTS], ids=event_name)
def test_every_event_is_one_json_object_with_its_fields(event: ev.Event) -> None:
    value = json.loads(encode_json(event_json(event)))
    assert list(value) == ["type", *(field.name for field in dataclasses.fields(event))]


def test_json_has_endpoints_bytes_and_states_in_plain_form() -> None:
    event = ev.PeerConnected(PEER, True, b"\x00\xff" * 10, "x")
    assert event_json(event) == {
        "type": "peer_connected",
        "endpoint": "127.0.0.1:6881",
        "is_outgoing": True,
        "peer_id": "00ff" * 10,
        "client": "x",
    }
    assert event_json(ev.StateChanged(ev.TorrentState.SEEDING))["state"] == "seeding"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("inf"), None),
        (1.5, 1.5),
        ((1, (b"\x01",)), [1, ["01"]]),
        (HostPort("a", 1), "a:1"),
        (InfoHash(bytes(20)), "00" * 20),
        (object, "<class 'object'>"),
    ],
)
def test_values_become_json(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_only_messages_and_attempts_are_trace() -> None:
    traced = {type(event).__name__ for event, _ in TEXTS if is_trace(event)}
    assert traced == {"MessageSent", "MessageReceived", "PeerDialled"}


def test_every_state_has_a_text() -> None:
    assert set(STATE_TEXTS) == set(ev.TorrentState)


def test_a_source_is_an_object_and_its_instants_are_seconds_since_1970() -> None:
    source = dataclasses.replace(SOURCE, last_asked_at=time.monotonic())
    value = event_json(ev.SourceChanged(source))["source"]
    assert isinstance(value, dict)
    assert list(value) == [field.name for field in dataclasses.fields(SourceStatus)]
    assert (value["kind"], value["name"], value["state"]) == ("dht", "IPv4", "asking")
    assert value["next_at"] is None
    assert isinstance(value["last_asked_at"], float)
    assert abs(value["last_asked_at"] - time.time()) < 60


def test_a_stall_has_a_line_for_each_reason() -> None:
    reasons = (Reason(ReasonCode.CHOKED, "All choke."), Reason(ReasonCode.SOURCE, "x\ny"))
    assert event_lines(ev.Stalled(5.0, reasons)) == [
        "nothing has arrived for 5s:",
        "  All choke.",
        "  x\ny",
    ]
    stalled = ev.Stalled(
        5.0, (Reason(ReasonCode.SOURCE, f"DHT: off ({switched_off_by('enable_dht')})"),)
    )
    assert event_lines(stalled)[1:] == ["  DHT: off (switched off by --no-dht)"]
    assert event_json(stalled)["reasons"] == [
        {"code": "source", "text": "DHT: off (switched off by --no-dht)"}
    ]
    assert event_lines(ev.FileCompleted(0, "a\nb")) == ["file complete: a\nb"]
    assert event_lines(ev.CheckProgressed(1, 2)) == []
