from __future__ import annotations

import io
from typing import Any

import pytest

from bittern.cli.demo_story import DownloadStory, tell_announce
from bittern.cli.narrator import Narrator
from bittern.codec import wire
from bittern.codec.wire import MessageId, Reserved

SEED, FRIEND = "127.0.0.1:1111", "127.0.0.1:2222"
HANDSHAKE = wire.encode_handshake(b"\xab" * 20, b"-bt0100-abcdefghijkl", Reserved())
PIECE = wire.PIECE_HEADER.pack(16393, MessageId.PIECE, 3, 0) + b"\xcc" * 83
ANNOUNCED = {
    "type": "tracker_announced",
    "url": "udp://127.0.0.1:5/secret/announce",
    "event": "started",
    "num_peers": 1,
    "num_seeds": 1,
    "num_leechers": 0,
    "interval": 60.0,
}


class Scene:
    """A story and what it has told so far."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.story = DownloadStory(Narrator(self._stream), seed=SEED)

    def sent(self, kind: str, raw: bytes, *, to: str = SEED) -> None:
        self.story.tell({"type": "message_sent", "kind": kind, "raw": raw.hex(), "endpoint": to})

    def received(self, kind: str, raw: bytes, *, by: str = SEED) -> None:
        record = {"type": "message_received", "kind": kind, "raw": raw.hex(), "endpoint": by}
        self.story.tell(record)

    def tell(self, kind: str, **fields: Any) -> None:
        self.story.tell({"type": kind, **fields})

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def headings(self) -> list[str]:
        return [line for line in self.text.splitlines() if line[:1].isdigit()]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("COLUMNS", "200")
    return Scene()


def test_a_whole_download_is_told_in_order(scene: Scene) -> None:
    scene.story.tell(ANNOUNCED)
    scene.sent("handshake", HANDSHAKE)
    scene.received("handshake", HANDSHAKE)
    scene.tell("peer_connected", endpoint=SEED, is_outgoing=True)
    scene.received("bitfield", wire.encode_bitfield(b"\xff" * 5))
    scene.sent("interested", wire.INTERESTED)
    scene.received("unchoke", wire.UNCHOKE)
    for begin in range(0, 65536, 16384):
        scene.sent("request", wire.encode_request(3, begin, 16384))
        scene.received("piece", PIECE)
    for index in range(41):
        scene.tell("piece_verified", index=index)
    scene.tell("torrent_completed")
    scene.tell("file_completed", path="EpicCatVideo.mp4")
    scene.tell("result", seconds=2.0, downloaded=65536, download_rate=32768.0, wasted=0, uploaded=0)
    scene.story.tell_totals()
    assert scene.headings == [
        "1. The downloader asks the tracker who else is there",
        "2. They shake hands",
        "3. Each says what it has",
        "4. One wants something, the other agrees to give",
        "5. Blocks are asked for and sent",
        "6. The last piece is there",
    ]
    assert "Everything that was wanted is there and verified." in scene.text
    assert "The file EpicCatVideo.mp4 is assembled." in scene.text
    assert scene.text.count('the name: "BitTorrent protocol"') == 2
    assert "ff ff ff ff ff  one bit per piece: 40 set" in scene.text
    assert scene.text.count("downloader -> seed: request") == 1
    assert "the block, 16384 bytes" in scene.text
    rows = [line.split() for line in scene.text.splitlines() if " verified  " in line]
    assert [row[0] for row in rows] == ["20", "40", "41"]
    assert [int(index) for row in rows for index in row[2:]] == list(range(41))
    assert "sent 4            request" in scene.text
    assert "received 4        piece" in scene.text
    assert "64.0 KiB of blocks in 2.00 seconds, 32.0 KiB/s, 0 B of them in vain." in scene.text
    assert "secret" not in scene.text


def test_the_short_forms_are_explained_once(scene: Scene) -> None:
    scene.received("have_all", wire.HAVE_ALL)
    scene.sent("have_none", wire.HAVE_NONE)
    assert scene.headings == ["1. Each says what it has"]
    assert scene.text.count("may be said in a single byte") == 1
    assert "message 14: have all" in scene.text
    assert "message 15: have none" in scene.text


def test_another_peer_is_the_second_downloader(scene: Scene) -> None:
    scene.received("handshake", HANDSHAKE)
    scene.tell("peer_connected", endpoint=FRIEND, is_outgoing=False)
    scene.sent("bitfield", wire.encode_bitfield(b"\xe0" + bytes(4)), to=FRIEND)
    scene.sent("have", wire.encode_have(7), to=FRIEND)
    scene.received("request", wire.encode_request(0, 0, 16384), by=FRIEND)
    scene.tell("peer_disconnected", endpoint=FRIEND, reason="closed")
    scene.tell("peer_disconnected", endpoint=SEED, reason="closed")
    assert scene.headings == ["1. They shake hands", "2. A second downloader comes along"]
    assert f"connected from {FRIEND}" in " ".join(scene.text.split())
    assert "downloader -> second downloader: bitfield" in scene.text
    assert "one bit per piece: 3 set" in scene.text
    assert "second downloader -> downloader: request" in scene.text
    assert "The second downloader has hung up: closed." in scene.text
    assert "The seed has hung up: closed." in scene.text


def test_a_message_is_explained_the_first_time_only(scene: Scene) -> None:
    scene.sent("interested", wire.INTERESTED)
    scene.received("interested", wire.INTERESTED, by=FRIEND)
    scene.received("hash_request", b"\x00\x00\x00\x31\x15abc")
    assert scene.text.count("The other side has pieces that we lack.") == 1
    assert "second downloader -> downloader: interested" in scene.text
    assert "seed -> downloader: hash request" in scene.text


def test_what_goes_wrong_is_told_as_well(scene: Scene) -> None:
    scene.tell("tracker_failed", url="http://x", reason="timed out")
    scene.tell("piece_failed", index=5)
    scene.tell("state_changed", state="downloading")
    scene.story.tell_totals()
    assert "The tracker failed: timed out" in scene.text
    assert "Piece 5 does not match and is fetched again." in scene.text
    assert scene.headings == []


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ("completed", "The tracker is told: completed."),
        ("", "The tracker is told: still here."),
        ("stopped", "The downloader tells the tracker that it leaves."),
    ],
)
def test_later_announces_are_short(scene: Scene, event: str, told: str) -> None:
    scene.story.tell(ANNOUNCED)
    scene.tell("piece_verified", index=0)
    scene.story.tell({**ANNOUNCED, "event": event})
    assert told in scene.text
    assert len(scene.headings) == 2


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["answer 1 other peer", "seeding 1", "downloading 0", "come back in 1m 00s"]),
        ({"num_peers": 0, "num_seeds": None}, ["answer 0 other peers", "come back in 1m 00s"]),
        ({"event": ""}, ["event none, still here", "answer 1 other peer"]),
    ],
)
def test_an_announce_and_its_answer(changes: dict[str, Any], lines: list[str]) -> None:
    stream = io.StringIO()
    tell_announce(Narrator(stream), ANNOUNCED | changes)
    told = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert told[0] == "announce to udp://127.0.0.1:5"
    assert set(lines) <= set(told)
    assert ("seeding 1" in told) is (changes.get("num_seeds", 1) is not None)
