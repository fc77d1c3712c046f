"""
``bittern demo``: a whole transfer on this machine alone, step by step.

A tracker, a seed and a downloader run as processes of their own and talk over
loopback. What is told comes from their events; the demo itself only makes the
file and the torrent, starts the others, listens, and compares in the end.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from bittern.cli.actors import Actor
from bittern.cli.demo_story import DownloadStory, tell_announce
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.loop import StopSignal, before_end, run_loop
from bittern.cli.narrator import Narrator
from bittern.cli.output import print_json
from bittern.cli.values import format_size
from bittern.codec.bencode import Value, decode
from bittern.codec.metainfo import Metainfo, Version, decode_metainfo, encode_metainfo
from bittern.storage.creator import CreateOptions, create_torrent

FILE_NAME = "EpicCatVideo.mp4"
FILE_LENGTH = 10_485_760
PIECE_LENGTH = 262_144
OPTIONS = ("--bind", "127.0.0.1", "--port", "0", "--no-dht", "--no-lsd", "--jsonl", "-vv")
UPLOAD_RATE = "2Mi"
"""What the seed gives, so that the second downloader finds the first one still at work."""
PIECES_BEFORE_FRIEND = 1
"""Pieces after which the second downloader is started."""
STEP_TIMEOUT = 15.0
"""Seconds until a step that does not come is given up."""

NOTICE = b"Not a video: %d bytes made by `bittern demo` from the number %d.\n"


def demo(
    *,
    number: int = 0,
    keep: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    json: bool = False,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"))] = False,
) -> int:
    """
    Make a file, a tracker, a seed and a downloader here, and watch what they say.

    Nothing leaves this machine. The exit code is 0 only if the file that arrived is the
    one that was sent.

    Args:
        number: Another number makes another file.
        keep: Leave the files in this folder; by default they are removed.
        json: Write one JSON object with the outcome instead of the story.
        quiet: Tell nothing.
    """
    narrator = Narrator(sys.stdout, silent=json or quiet)

    async def work(stop: StopSignal) -> int:
        outcome = await before_end(_play(narrator, number, keep), stop, None)
        if outcome is None:
            return stop.exit_code(unfinished=True)
        if json:
            print_json(outcome)
        return ExitCode.DONE if outcome["equal"] else ExitCode.MISMATCH

    return run_loop(work, for_processes=True)


def make_content(number: int, length: int = FILE_LENGTH) -> bytes:
    """Return the file's content: a notice, then bytes that depend on the number alone."""
    notice = NOTICE % (length, number)
    noise = hashlib.shake_256(b"bittern demo %d" % number).digest(length)
    return (notice + noise)[:length]


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where the demo plays."""

    folder: Path
    narrator: Narrator

    @property
    def original(self) -> Path:
        """The file that is sent."""
        return self.folder / "seed" / FILE_NAME

    @property
    def copies(self) -> tuple[Path, Path]:
        """The files that arrive, the first downloader's and the second's."""
        return self.folder / "first" / FILE_NAME, self.folder / "second" / FILE_NAME

    @asynccontextmanager
    async def actor(self, name: str, *arguments: object) -> AsyncIterator[Actor]:
        """Run one process as long as the block lasts."""
        texts = [str(argument) for argument in arguments]
        actor = await Actor.start(name, *texts, state_dir=self.folder / f"state-{name}")
        try:
            yield actor
        finally:
            await actor.stop()


async def _play(narrator: Narrator, number: int, keep: Path | None) -> dict[str, Any]:
    """Play the whole demo and return its outcome."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        return await _perform(_Stage(keep.absolute(), narrator), number)
    with tempfile.TemporaryDirectory(prefix="bittern-demo-") as folder:
        return await _perform(_Stage(Path(folder), narrator), number)


async def _perform(stage: _Stage, number: int) -> dict[str, Any]:
    started_at = time.monotonic()
    narrator = stage.narrator
    _make_file(stage, number)
    async with stage.actor(
        "tracker", "tracker", "--http", "127.0.0.1:0", "--udp", "127.0.0.1:0",
        "--interval", "60", "--jsonl",
    ) as tracker:  # fmt: skip
        metainfo = _make_torrents(stage, await _tell_tracker(narrator, tracker))
        async with stage.actor(
            "seed", "seed", stage.folder / "seed.torrent", "--data", stage.original,
            "--max-upload", UPLOAD_RATE, *OPTIONS,
        ) as seed:  # fmt: skip
            port = await _tell_seed(narrator, seed)
            story = DownloadStory(narrator, seed=f"127.0.0.1:{port}")
            await _download(stage, story)
            await seed.stop()
            story.tell_totals()
            _tell_other_side(narrator, seed)
    return _compare(stage, metainfo, time.monotonic() - started_at)


async def _download(stage: _Stage, story: DownloadStory) -> None:
    """Run both downloaders to their ends and tell the first one's story."""
    torrent = stage.folder / "download.torrent"
    async with AsyncExitStack() as stack:
        downloader = await stack.enter_async_context(
            stage.actor("downloader", "get", torrent, "-o", stage.copies[0].parent, *OPTIONS)
        )
        friend: Actor | None = None
        async for record in downloader.listen():
            story.tell(record)
            if friend is None and story.num_verified >= PIECES_BEFORE_FRIEND:
                friend = await stack.enter_async_context(
                    stage.actor("friend", "get", torrent, "-o", stage.copies[1].parent, *OPTIONS)
                )
        for actor in (downloader, friend):
            if actor is not None and await actor.wait() != ExitCode.DONE:
                raise await actor.failure()


def _make_file(stage: _Stage, number: int) -> None:
    narrator = stage.narrator
    narrator.heading("Somebody has a file")
    for path in (stage.original, *stage.copies):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    content = make_content(number)
    stage.original.write_bytes(content)
    narrator.say(
        "It is no real video, but bytes computed from a number; for the network that makes "
        "no difference."
    )
    narrator.fact("name", FILE_NAME)
    narrator.fact("length", f"{len(content)} bytes")
    narrator.fact("SHA-256", hashlib.sha256(content).hexdigest())
    narrator.fact("begins with", content.partition(b"\n")[0].decode())


async def _tell_tracker(narrator: Narrator, tracker: Actor) -> tuple[str, str]:
    """Wait until the tracker listens; return its URLs, HTTP and UDP."""
    record = await tracker.wait_for(
        lambda record: record["type"] == "listening", timeout=STEP_TIMEOUT
    )
    http, udp = record["http"][0], record["udp"][0]
    narrator.heading("A tracker is started")
    narrator.say(
        "A tracker never sees a byte of the file. It knows who takes part, and tells the "
        "others. This one understands both languages that trackers speak. It is a process of "
        "its own, as are all that come after it, and what is told here comes from their events."
    )
    narrator.fact("HTTP", http)
    narrator.fact("UDP", udp)
    return http, udp


def _make_torrents(stage: _Stage, urls: tuple[str, str]) -> Metainfo:
    """Write one torrent twice: the seed's names the HTTP tracker first, the other's UDP."""
    narrator = stage.narrator
    narrator.heading("The file becomes a torrent")
    data = create_torrent(
        stage.original,
        options=CreateOptions(
            version=Version.V1, piece_length=PIECE_LENGTH, trackers=tuple((url,) for url in urls)
        ),
    )
    metainfo = decode_metainfo(data)
    info = metainfo.info
    (stage.folder / "seed.torrent").write_bytes(data)
    swapped = encode_metainfo(info.raw, trackers=[(url,) for url in reversed(urls)])
    (stage.folder / "download.torrent").write_bytes(swapped)
    narrator.say(
        "The file is cut into pieces, and of each piece the SHA-1 is written down. Whoever has "
        "these hashes can take pieces from strangers: what does not match is thrown away."
    )
    narrator.fact("torrent file", f"{len(data)} bytes, for {format_size(FILE_LENGTH)} of data")
    narrator.fact("begins with", data[:64].decode("ascii", "replace") + "...")
    narrator.say("Taken apart, this is a dictionary with a dictionary inside:")
    _tell_fields(narrator, decode(data))
    narrator.fact("info hash", f"{info.info_hash}, the SHA-1 of the bytes of info")
    narrator.say(
        "The info hash is the torrent's name everywhere. It does not cover the trackers, so the "
        "seed's copy names the HTTP tracker first and the downloader's the UDP one: same torrent."
    )
    return metainfo


def _tell_fields(narrator: Narrator, value: Value, prefix: str = "") -> None:
    """Tell what is in a bencoded dictionary, hashes in hexadecimal."""
    assert isinstance(value, dict)
    for key, item in value.items():
        name = prefix + key.decode("ascii", "replace")
        if isinstance(item, dict):
            _tell_fields(narrator, item, f"{name}.")
        elif key == b"pieces" and isinstance(item, bytes):
            hashes = [item[at : at + 20].hex() for at in range(0, len(item), 20)]
            narrator.fact(name, f"{len(item)} bytes, {len(hashes)} SHA-1s of 20 bytes:")
            narrator.fact("  of piece 0", hashes[0])
            narrator.fact("  of piece 1", hashes[1])
            narrator.fact("  ...", "and so on")
        else:
            narrator.fact(name, _field_text(item))


def _field_text(value: Value) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return "[" + ", ".join(_field_text(item) for item in value) + "]"
    return str(value)


async def _tell_seed(narrator: Narrator, seed: Actor) -> int:
    """Wait until the seed has checked its data and announced itself; return its port."""
    announced = await seed.wait_for(
        lambda record: record["type"] == "tracker_announced", timeout=STEP_TIMEOUT
    )
    narrator.heading("The owner seeds it")
    checked = [record for record in seed.records if record["type"] == "check_progressed"]
    if checked:
        narrator.say(
            f"The seed hashes its data first: {checked[-1]['num_checked']} of "
            f"{checked[-1]['num_pieces']} pieces are checked."
        )
    states = [record["state"] for record in seed.records if record["type"] == "state_changed"]
    narrator.fact("states", ", ".join(states))
    port: int = next(record["port"] for record in seed.records if record["type"] == "listening")
    narrator.fact("listens on", f"port {port}")
    narrator.say("Then it announces itself to the tracker.")
    tell_announce(narrator, announced)
    return port


def _tell_other_side(narrator: Narrator, seed: Actor) -> None:
    """Tell what the seed counted, from its own events."""
    received: dict[str, int] = {}
    for record in seed.records:
        if record["type"] == "message_received":
            received[record["kind"]] = received.get(record["kind"], 0) + 1
    narrator.say("And the same from the other side, counted from the seed's events:")
    for kind, count in sorted(received.items()):
        narrator.fact(f"received {count}", kind.replace("_", " "))
    results = [record for record in seed.records if record["type"] == "result"]
    if results:
        narrator.fact("uploaded", f"{results[-1]['uploaded']} bytes")


def _compare(stage: _Stage, metainfo: Metainfo, seconds: float) -> dict[str, Any]:
    """Compare the two files and tell the outcome."""
    narrator = stage.narrator
    narrator.heading("Are they the same?")
    hashes = []
    for name, path in zip(
        ("sent", "arrived", "arrived too"), (stage.original, *stage.copies), strict=True
    ):
        if not path.is_file():
            raise CommandFailed(f"{path}: not there", ExitCode.NOT_FOUND)
        data = path.read_bytes()
        hashes.append(hashlib.sha256(data).hexdigest())
        narrator.fact(name, f"{len(data)} bytes, SHA-256 {hashes[-1]}")
    equal = len(set(hashes)) == 1
    if equal:
        narrator.say(f"They are, after {seconds:.1f} seconds.", style="good")
    else:
        narrator.say("They differ.")
    return {
        "name": FILE_NAME,
        "length": FILE_LENGTH,
        "num_pieces": metainfo.info.geometry.num_pieces,
        "info_hash": str(metainfo.info.info_hash),
        "sha256_sent": hashes[0],
        "sha256_arrived": hashes[1:],
        "equal": equal,
        "seconds": round(seconds, 3),
    }
