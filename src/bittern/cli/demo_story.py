"""
The story of a download, told from the events of the program that downloads.

Nothing here knows how the story ends: every number and every byte that is told
was in an event. The first message of each kind is shown byte by byte, the rest
are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bittern.cli.dissect import dissect
from bittern.cli.narrator import Narrator
from bittern.cli.values import format_duration, format_rate, format_size
from bittern.engine.reasons.phrases import server_of

Record = Mapping[str, Any]
"""One line of ``--jsonl``."""

PIECES_PER_LINE = 20

_CHAPTERS = {
    "announce": "The downloader asks the tracker who else is there",
    "handshake": "They shake hands",
    "inventory": "Each says what it has",
    "interest": "One wants something, the other agrees to give",
    "transfer": "Blocks are asked for and sent",
    "friend": "A second downloader comes along",
    "complete": "The last piece is there",
}

_EXPLANATIONS = {
    "handshake": (
        "Each side sends the same 68 bytes: which protocol, which extensions of it, which "
        "torrent, and who it is. A peer that does not have this torrent hangs up. (BEPs are the "
        "documents that define BitTorrent; 3 is the protocol itself, the others add to it.)"
    ),
    "extended": (
        "Both set the bit for extensions, so each sends a dictionary of what else it "
        "understands, under numbers of its own choice."
    ),
    "bitfield": (
        "One bit for each piece, the first bit for piece 0; bits left over at the end are zero."
    ),
    "have_all": "It stands for a bitfield full of ones: I have every piece.",
    "have_none": "It stands for a bitfield full of zeros: I have nothing yet.",
    "allowed_fast": "A piece that may be asked for while still choked, to let a newcomer begin.",
    "interested": "The other side has pieces that we lack.",
    "unchoke": (
        "Every connection begins choked: requests are not answered. Now they will be. Whom to "
        "unchoke is how a peer decides who gets its bandwidth."
    ),
    "choke": "From now on requests are not answered.",
    "not_interested": "The other side has nothing that we still need.",
    "request": (
        "A piece is too large to ask for at once, so it is asked for in blocks of 16 KiB, "
        "many at a time, so that the line never falls silent."
    ),
    "piece": "The answer: the same two numbers, and behind them the data itself.",
    "have": (
        "As soon as a piece has been verified, those who lack it are told. The seed is spared "
        "that, since it has everything."
    ),
    "cancel": (
        "Towards the end the last blocks are asked of several peers at once. As soon as one has "
        "sent a block, the others are told that it is not needed any more."
    ),
    "reject_request": (
        "With the fast extension, a request that will not be answered is refused in so many words."
    ),
    "keep_alive": "Nothing to say, but still here.",
}

_CHAPTER_OF = {
    "handshake": "handshake",
    "extended": "handshake",
    "bitfield": "inventory",
    "have_all": "inventory",
    "have_none": "inventory",
    "interested": "interest",
    "unchoke": "interest",
    "allowed_fast": "interest",
    "request": "transfer",
    "piece": "transfer",
}
"""Which message opens which chapter of the talk with the seed."""


class DownloadStory:
    """
    Tells what the downloader's events say, one by one.

    Args:
        narrator: the voice.
        seed: where the seed listens, ``host:port``; every other peer is the second
            downloader.
    """

    def __init__(self, narrator: Narrator, *, seed: str) -> None:
        self._narrator = narrator
        self._seed = seed
        self._opened: set[str] = set()
        self._row: list[int] = []
        self._explained_short_forms = False
        self.num_sent: Counter[str] = Counter()
        self.num_received: Counter[str] = Counter()
        self.num_verified: int = 0
        self.result: Record | None = None

    def tell(self, record: Record) -> None:
        """Take the next event."""
        match record.get("type"):
            case "message_sent":
                self._message(record, is_sent=True)
            case "message_received":
                self._message(record, is_sent=False)
            case "tracker_announced":
                self._announced(record)
            case "tracker_failed":
                self._narrator.say(f"The tracker failed: {record['reason']}")
            case "peer_connected":
                self._connected(record)
            case "peer_disconnected":
                name = self._name_of(record["endpoint"])
                self._flush_row()
                self._narrator.say(f"The {name} has hung up: {record['reason']}.")
            case "piece_verified":
                self._verified(record)
            case "piece_failed":
                self._narrator.say(f"Piece {record['index']} does not match and is fetched again.")
            case "torrent_completed":
                self._open("complete")
                self._narrator.say("Everything that was wanted is there and verified.")
            case "file_completed":
                self._open("complete")
                self._narrator.say(f"The file {record['path']} is assembled.")
            case "result":
                self.result = record

    def _open(self, chapter: str) -> None:
        if chapter not in self._opened:
            self._flush_row()
            self._opened.add(chapter)
            self._narrator.heading(_CHAPTERS[chapter])

    def _name_of(self, endpoint: str) -> str:
        return "seed" if endpoint == self._seed else "second downloader"

    def _connected(self, record: Record) -> None:
        if record["endpoint"] == self._seed:
            return  # its handshake has told that
        self._open("friend")
        way = "to" if record["is_outgoing"] else "from"
        self._narrator.say(
            f"It learned of us from the tracker. They have shaken hands as above, connected {way} "
            f"{record['endpoint']}. Now two unfinished peers help each other."
        )

    def _announced(self, record: Record) -> None:
        if record.get("event") == "stopped":
            self._narrator.say("The downloader tells the tracker that it leaves.")
            return
        if "announce" in self._opened:
            self._flush_row()
            self._narrator.say(f"The tracker is told: {record.get('event') or 'still here'}.")
            return
        self._open("announce")
        self._narrator.say(
            'It sends an announce: "I am here, I want this torrent, I listen on this port." '
            "The tracker keeps such a list for every torrent and answers with others from it."
        )
        tell_announce(self._narrator, record)

    def _message(self, record: Record, *, is_sent: bool) -> None:
        kind = record["kind"]
        counts = self.num_sent if is_sent else self.num_received
        counts[kind] += 1
        if counts[kind] > 1:
            return
        is_seed = record["endpoint"] == self._seed
        if is_seed and kind in _CHAPTER_OF:
            self._open(_CHAPTER_OF[kind])
        self._flush_row()
        if kind in ("have_all", "have_none") and not self._explained_short_forms:
            self._explained_short_forms = True
            self._narrator.say(
                "This is done with a bitfield, one bit for each piece. Where both set the bit for "
                "the fast extension, all or nothing may be said in a single byte."
            )
        if self.num_sent[kind] + self.num_received[kind] == 1 and kind in _EXPLANATIONS:
            self._narrator.say(_EXPLANATIONS[kind])
        other = self._name_of(record["endpoint"])
        ends = ("downloader", other) if is_sent else (other, "downloader")
        self._narrator.bytes(
            f"{ends[0]} -> {ends[1]}: {kind.replace('_', ' ')}",
            dissect(kind, bytes.fromhex(record["raw"])),
            style="sent" if is_sent else "received",
        )

    def _verified(self, record: Record) -> None:
        self.num_verified += 1
        if self.num_verified == 1:
            self._open("transfer")
            self._narrator.say(
                f"Piece {record['index']} is whole. Its SHA-1 is the one in the torrent, so every "
                "bit of it is right, whoever sent it. All pieces, in the order they are verified:"
            )
        self._row.append(record["index"])
        if len(self._row) == PIECES_PER_LINE:
            self._flush_row()

    def _flush_row(self) -> None:
        if self._row:
            text = " ".join(f"{index:>3}" for index in self._row)
            self._row = []
            self._narrator.fact(f"{self.num_verified} verified", text)

    def tell_totals(self) -> None:
        """Tell what was counted; call it when the downloader has ended."""
        self._flush_row()
        narrator = self._narrator
        narrator.say("What went over the line, counted from the downloader's events:")
        for kind, count in sorted(self.num_sent.items()):
            narrator.fact(f"sent {count}", kind.replace("_", " "))
        for kind, count in sorted(self.num_received.items()):
            narrator.fact(f"received {count}", kind.replace("_", " "))
        if self.result is not None:
            seconds = self.result["seconds"]
            narrator.say(
                f"{format_size(self.result['downloaded'])} of blocks in "
                f"{seconds:.2f} seconds, {format_rate(self.result['download_rate'])}, "
                f"{format_size(self.result['wasted'])} of them in vain."
            )


def tell_announce(narrator: Narrator, record: Record) -> None:
    """Tell an announce and its answer."""
    narrator.fact("announce to", server_of(record["url"]))
    narrator.fact("event", record.get("event") or "none, still here")
    others = record["num_peers"]
    narrator.fact("answer", f"{others} other {'peer' if others == 1 else 'peers'}")
    if record.get("num_seeds") is not None:
        narrator.fact("seeding", str(record["num_seeds"]))
        narrator.fact("downloading", str(record["num_leechers"]))
    narrator.fact("come back in", format_duration(record["interval"]))
