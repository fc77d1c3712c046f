"""
``bittern publish``: the newest torrent under a public key, told to the DHT (BEP 46).

Nodes forget after two hours, so the program stays and tells it anew every hour;
``--once`` tells it and leaves. What was published is kept in the state folder, so
that sequence numbers rise whatever the DHT remembers.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bittern.cli.dht import DEFAULT_TIMEOUT, DhtOptions, opened_dht
from bittern.cli.dht_items import encode_salt
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.loop import StopSignal, before_end, run_loop
from bittern.cli.options import Duration, ReportOptions
from bittern.cli.output import complain, print_line
from bittern.cli.report import Report
from bittern.cli.session import default_state_dir
from bittern.cli.source import SourceKind, kind_of, load_info_hash, load_magnet, load_metainfo
from bittern.codec.magnet import Magnet, format_magnet
from bittern.codec.torrent_record import TorrentRecord, Version
from bittern.dht.items import mutable_target
from bittern.engine import mutable
from bittern.net.dht import Dht
from bittern.net.signing import SigningKey
from bittern.storage.key_file import make_key_file, read_key_file
from bittern.storage.versions import read_version, write_version

if TYPE_CHECKING:
    from bittern.cli.output import Json

RETRY_INTERVAL = 30.0
"""Seconds until the next try when no node took it."""


def publish(
    torrent: str,
    /,
    *,
    key: Annotated[Path, Parameter(metavar="FILE")],
    new_key: bool = False,
    salt: Annotated[str, Parameter(metavar="TEXT")] = "",
    once: bool = False,
    interval: Duration = None,
    dht: DhtOptions = DhtOptions(),  # noqa: B008 - immutable
    report: ReportOptions = ReportOptions(),  # noqa: B008
) -> int:
    """
    Make a torrent the newest under a public key, and keep it so until told to stop.

    Prints the magnet link under which "bittern get" and "bittern follow" find it, and
    whatever is published under that key later. Somebody has to seed the torrent itself.

    Args:
        torrent: A .torrent file, a magnet link or an info hash.
        key: File with the private key.
        new_key: Make the key first; the file must not exist yet.
        salt: Tells apart several torrents under one key.
        once: Tell it once and leave; nodes keep it for about two hours.
        interval: How often it is told anew. Default: 1h.
        dht: How to get into the DHT; there is no end without --timeout, but with --once.
        report: How to tell about it.
    """
    record = record_for(torrent)
    salt_bytes = encode_salt(salt)
    signer = SigningKey(make_key_file(key) if new_key else read_key_file(key))
    every = None if once else mutable.PUT_INTERVAL if interval is None else interval
    limit = DEFAULT_TIMEOUT if once and dht.timeout is None else dht.timeout
    state_dir = dht.state_dir or default_state_dir()

    async def work(stop: StopSignal) -> int:
        told = Report(report)
        publisher = Publisher(signer, record, salt_bytes, state_dir=state_dir, report=told)
        if not (report.json or report.jsonl):
            print_line(publisher.link)
        told.note("link", "", magnet=publisher.link)
        try:
            async with opened_dht(dht, is_read_only=once) as node:
                code = await before_end(publisher.keep(node, every), stop, limit)
            told.result([publisher.json()])
        finally:
            told.close()
        return _code_of(code, publisher, stop)

    return run_loop(work)


def _code_of(code: int | None, publisher: Publisher, stop: StopSignal) -> int:
    """Return the exit code; ``code`` is None when a signal or the time ended the work."""
    if code is not None:
        return code
    is_unfinished = not publisher.was_stored
    if is_unfinished:
        complain("not published: no DHT node took it")
    if stop.is_set():
        return stop.exit_code(unfinished=is_unfinished)
    return ExitCode.UNREACHABLE if is_unfinished else ExitCode.DONE


class Publisher:
    """
    One torrent under one key.

    Args:
        signer: the key.
        record: names the torrent.
        salt: of the mutable torrent.
        state_dir: where what was published is kept.
        report: hears of it.
    """

    def __init__(
        self,
        signer: SigningKey,
        record: TorrentRecord,
        salt: bytes,
        *,
        state_dir: Path,
        report: Report,
    ) -> None:
        self._signer = signer
        self._record = record
        self._salt = salt
        self._state_dir = state_dir
        self._report = report
        self._target = mutable_target(signer.public_key, salt)
        self._version: Version | None = None
        self._num_stored = 0
        self.was_stored: bool = False
        """At least one node took it."""

    @property
    def link(self) -> str:
        """The magnet link that stays the same from version to version."""
        return format_magnet(Magnet(public_key=self._signer.public_key, salt=self._salt))

    async def keep(self, dht: Dht, every: float | None) -> int:
        """
        Publish, and put it anew again and again; return after the first time if ``every`` is None.

        Raises:
            CommandFailed: somebody published a newer version with the same key, or, the first
                time being all there is, no node took it.
            StorageError: it cannot be kept in the state folder.
        """
        await dht.bootstrap()
        while True:
            done = await self._put(dht)
            self._tell(done)
            if every is None:
                if not done.num_stored:
                    raise CommandFailed("not published: no DHT node took it", ExitCode.UNREACHABLE)
                return ExitCode.DONE
            await asyncio.sleep(every if done.num_stored else min(every, RETRY_INTERVAL))

    async def _put(self, dht: Dht) -> mutable.Published:
        if self._version is None:
            done = await mutable.publish(
                dht,
                self._signer,
                self._record,
                salt=self._salt,
                kept=read_version(self._state_dir, self._target),
                clock=int(time.time()),
            )
            # Kept before anything else happens: its number must never be used for another value.
            write_version(self._state_dir, self._target, done.version)
        else:
            done = await mutable.put_again(dht, self._version)
        if done.newer is not None:
            raise CommandFailed(
                f"superseded: with this key, sequence number {done.newer.seq} "
                "was published elsewhere"
            )
        self._version = done.version
        self._num_stored = done.num_stored
        self.was_stored |= done.num_stored > 0
        return done

    def _tell(self, done: mutable.Published) -> None:
        nodes = "1 node" if done.num_stored == 1 else f"{done.num_stored} nodes"
        text = f"published as number {done.version.seq}, {nodes} took it"
        if not done.num_stored:
            text = "no DHT node took it yet"
        self._report.note("published", text, seq=done.version.seq, num_stored=done.num_stored)

    def json(self) -> dict[str, Json]:
        """Return the object of ``publish --json``."""
        v1, v2 = self._record.v1, self._record.info_hash_v2
        return {
            "magnet": self.link,
            "public_key": self._signer.public_key.hex(),
            "salt": self._salt.hex(),
            "target": self._target.hex(),
            "seq": None if self._version is None else self._version.seq,
            "info_hash": None if v1 is None else str(v1),
            "info_hash_v2": None if v2 is None else str(v2),
            "num_stored": self._num_stored,
        }


def record_for(source: str) -> TorrentRecord:
    """
    Return the record of what a person named.

    Raises:
        CommandFailed: it is no torrent that we can name, or a private one.
    """
    match kind_of(source):
        case SourceKind.FILE:
            info = load_metainfo(source).info
            if info.is_private:
                raise CommandFailed(
                    f"{source}: a private torrent is not for the DHT (BEP 27)",
                    ExitCode.NOT_ALLOWED,
                )
            return TorrentRecord.of(info.info_hash, info.info_hash_v2)
        case SourceKind.MAGNET:
            magnet = load_magnet(source)
        case SourceKind.INFO_HASH:
            magnet = load_info_hash(source)
        case _:
            raise CommandFailed(f"{source}: publishing needs the .torrent file", ExitCode.USAGE)
    if magnet.wire_hash is None:
        raise CommandFailed(f"{source}: the link names no info hash", ExitCode.USAGE)
    return TorrentRecord.of(magnet.info_hash, magnet.info_hash_v2)
