"""
``bittern follow``: a folder that stays at the newest version of a mutable torrent (BEP 46).

It looks now and then what is the newest under the key, fetches only what changed, and
seeds what it has in between. ``--once`` brings the folder up to date and leaves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bittern.cli.dht_items import encode_salt
from bittern.cli.exits import CommandFailed, ExitCode, describe
from bittern.cli.get import prepare_output, safe_hints
from bittern.cli.loop import StopSignal, before_end, cancel, run_loop
from bittern.cli.options import Duration, NetworkOptions, ReportOptions
from bittern.cli.output import complain
from bittern.cli.report import Report
from bittern.cli.session import resolve_peers, session_config, state_key, with_state_dir
from bittern.cli.source import is_magnet, load_magnet
from bittern.cli.transfer import SESSION_STOP_TIMEOUT, code_of_failure, row_of
from bittern.cli.values import format_duration, format_size
from bittern.codec.magnet import Magnet, format_magnet, parse_public_key
from bittern.core.errors import BitTorrentError, DhtUnreachable, MagnetError, NotPublished
from bittern.engine import events
from bittern.engine.config import TorrentConfig
from bittern.engine.follower import Follower, Update, moved_since
from bittern.engine.session import Session
from bittern.engine.torrent import Torrent

if TYPE_CHECKING:
    from bittern.cli.output import Json

LOOK_INTERVAL = 600.0
"""Seconds between two looks what is the newest."""
RETRY_INTERVAL = 5.0
"""The same while nobody can be asked."""
_COMPLETIONS = (events.TorrentCompleted(), events.StateChanged(events.TorrentState.SEEDING))
"""What is not to be told of a torrent whose content is not wanted."""


def follow(
    source: Annotated[str, Parameter(name="MAGNET-or-KEY")],
    /,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"), metavar="DIR")],
    salt: Annotated[str, Parameter(metavar="TEXT")] = "",
    once: bool = False,
    interval: Duration = None,
    timeout: Duration = None,
    network: NetworkOptions = NetworkOptions(),  # noqa: B008 - immutable
    report: ReportOptions = ReportOptions(),  # noqa: B008
) -> int:
    """
    Keep a folder at the newest version of what is published under a key.

    Only what changed is fetched: files and pieces that are there already are reused, after
    they were verified. In between, what is there is seeded.

    Args:
        source: The magnet link that "bittern publish" printed, or a public key in
            hexadecimal.
        output: The folder. Files in it that are not of the torrent are left alone.
        salt: Of the mutable torrent, where a key is given.
        once: Bring the folder to the newest version and leave.
        interval: How often to look for a newer one. Default: 10m.
        timeout: Stop after this long; exit code 7 if the folder is not at the newest
            version then, or 4 if nobody could be reached.
        network: Where peers come from and how fast data may go.
        report: How to tell about it.
    """
    link = link_for(source, salt)
    prepare_output(output)
    key = state_key(output, [format_magnet(link)])
    every = None if once else LOOK_INTERVAL if interval is None else interval

    async def work(stop: StopSignal) -> int:
        told = Report(report)

        async def run(state_dir: Path | None) -> tuple[int | None, Following]:
            peers = await resolve_peers(network.peer, stop)
            hinted = await safe_hints(link.peers, network.bind, stop)
            config = replace(session_config(network, state_dir), stop_timeout=SESSION_STOP_TIMEOUT)
            async with Session(config) as session:
                told.note("listening", "", port=session.port)
                following = Following(told, every)
                follower = Follower(
                    session,
                    link,
                    output,
                    state_dir=state_dir,
                    config=TorrentConfig(peers=peers, hinted_peers=hinted),
                    torrent_added=following.listen,
                )
                code = await following.run_until(follower, stop, timeout)
            return code, following

        try:
            code, following = await with_state_dir(network.state_dir, key, run)
            summary = following.summary
            told.result([{**summary, "magnet": format_magnet(link)}] if summary else [])
        finally:
            told.close()
        if code is not None:
            return code
        return _code_of_end(following, stop, timeout)

    return run_loop(work)


def _code_of_end(following: Following, stop: StopSignal, timeout: float | None) -> int:
    """Return the code after a signal or the end of the time."""
    is_unfinished = not following.is_current
    if stop.is_set():
        code = stop.exit_code(unfinished=is_unfinished)
        if code is ExitCode.INTERRUPTED:
            complain("interrupted")
        elif is_unfinished:
            complain("not at the newest version; the same command goes on from here")
        return code
    if not is_unfinished:
        return ExitCode.DONE
    if not following.was_reached:
        raise CommandFailed("no DHT node could be reached", ExitCode.UNREACHABLE)
    raise CommandFailed(
        f"not at the newest version within {format_duration(timeout)}", ExitCode.UNFINISHED
    )


class Following:
    """
    The work of one run.

    Args:
        report: hears of everything.
        every: seconds between two looks; None to be done when the folder is up to date.
    """

    def __init__(self, report: Report, every: float | None) -> None:
        self.was_reached: bool = False
        """The DHT has answered."""
        self.is_current: bool = False
        """The folder is at the newest version."""
        self.summary: dict[str, Json] = {}
        """The object of ``follow --json``; empty until a version is complete."""
        self._report = report
        self._every = every
        self._reused = 0
        self._torrent: Torrent | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run_until(
        self, follower: Follower, stop: StopSignal, timeout: float | None
    ) -> int | None:
        """Follow as ``run`` does; None if a signal or the end of the time came first."""
        try:
            code = await before_end(self.run(follower), stop, timeout)
        finally:
            self.was_reached |= follower.is_connected
            await self.close()
        if stop.is_set():
            self._report.note("stopping", "stopping; once more to stop at once")
        return code

    async def run(self, follower: Follower) -> int:
        """
        Follow; returns only if the folder is to be brought up to date once.

        Raises:
            BitTorrentError: it cannot be done, and only one try was asked for.
        """
        ticker = self._start(self._tick())
        updating: asyncio.Task[None] | None = None
        try:
            if self._every is not None and follower.is_current:
                await follower.serve()
            while True:
                is_new = await self._look(follower)
                if is_new and updating is not None:
                    await cancel(updating)  # the version that it fetches is outdated
                    updating = None
                if is_new or (updating is None and not self.is_current):
                    self.is_current = False
                    updating = asyncio.create_task(self._update(follower))
                if self._every is None:
                    assert updating is not None
                    await updating
                    return ExitCode.DONE
                await follower.keep_alive()
                updating = await self._wait(updating)
        finally:
            ticker.cancel()
            if updating is not None:
                await cancel(updating)

    async def _look(self, follower: Follower) -> bool:
        """Ask what is the newest, patiently; tell what is new."""
        while True:
            try:
                is_new = await follower.look()
            except DhtUnreachable:
                if follower.newest is None or self._every is None:
                    await asyncio.sleep(RETRY_INTERVAL)
                    continue
                return False
            except NotPublished:
                self.was_reached = True
                if self._every is None:
                    raise
                self._report.note("waiting", "nothing is published under this key yet")
                return False
            self.was_reached = True
            if is_new:
                assert follower.newest is not None
                version, record = follower.newest.version, follower.newest.record
                self._report.note(
                    "version_found",
                    f"the newest version is {record.info_hash}, number {version.seq}",
                    seq=version.seq,
                    info_hash=record.v1,
                    info_hash_v2=record.info_hash_v2,
                )
            return is_new

    async def _update(self, follower: Follower) -> None:
        """Bring the folder to the newest version; go on seeding it."""
        if follower.newest is None:
            return
        started_at = time.monotonic()
        self._reused = 0
        try:
            if follower.is_current:
                torrent = await follower.serve()
                earlier = torrent.stats()
                await torrent.wait_complete()
                done = moved_since(earlier, torrent.stats())
                if self._every is None:
                    await follower.stop_serving()
            else:
                done = await follower.update()
                if self._every is not None:
                    await follower.serve(is_fresh=True)
        except BitTorrentError as error:
            if self._every is None:
                raise CommandFailed(describe(error), code_of_failure(error)) from error
            complain(describe(error))
            self._report.note("failed", "", reason=describe(error))
            return
        self.is_current = True
        self._tell_done(follower, done, time.monotonic() - started_at)

    async def _wait(self, updating: asyncio.Task[None] | None) -> asyncio.Task[None] | None:
        """Wait until it is time to look again; returns the update if it goes on."""
        assert self._every is not None
        pause = asyncio.ensure_future(asyncio.sleep(self._every))
        try:
            while not pause.done():
                waiting = {pause} if updating is None else {pause, updating}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if updating is not None and updating.done():
                    updating.result()
                    updating = None
        finally:
            pause.cancel()
        return updating

    def _tell_done(self, follower: Follower, done: Update, seconds: float) -> None:
        newest, metainfo = follower.newest, follower.current
        assert newest is not None
        assert metainfo is not None
        info = metainfo.info
        self.summary = {
            "seq": newest.version.seq,
            "name": info.name,
            "info_hash": None if info.info_hash is None else str(info.info_hash),
            "info_hash_v2": None if info.info_hash_v2 is None else str(info.info_hash_v2),
            "total_length": info.geometry.total_length,
            "downloaded": done.downloaded,
            "wasted": done.wasted,
            "reused": self._reused,
            "seconds": round(seconds, 3),
        }
        self._report.note(
            "version_complete",
            f"{info.name}: at version {newest.version.seq}, "
            f"{format_size(info.geometry.total_length)}; {format_size(done.downloaded)} fetched",
            **self.summary,
        )

    # --- what the torrents tell --------------------------------------------------------------

    def listen(self, torrent: Torrent) -> None:
        """Pass on the events of a torrent that was added for this."""
        self._torrent = torrent
        # One that is there for the metadata wants no file; what a person waits for comes later.
        is_empty = torrent.config.files == frozenset()
        # The stream is made here, before anything happens.
        stream = torrent.events(trace=self._report.wants_trace)
        self._start(self._listen(torrent, stream, says_complete=not is_empty))

    async def _listen(
        self, torrent: Torrent, stream: AsyncIterator[events.Event], *, says_complete: bool
    ) -> None:
        async for event in stream:
            if not says_complete and event in _COMPLETIONS:
                continue
            if isinstance(event, events.FileReused):
                self._reused += event.length
            key = str(torrent.info_hash or torrent.info_hash_v2 or "")
            self._report.event(key, torrent.name, event)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._report.interval)
            if self._torrent is not None and not self._torrent.is_complete:
                self._report.progress([row_of(self._torrent.name, self._torrent)])

    def _start(self, job: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End what is still listening; idempotent."""
        await cancel(*self._tasks)


def link_for(source: str, salt: str) -> Magnet:
    """
    Return the link that a person means: the link itself, or that of a bare key.

    Raises:
        CommandFailed: it is neither, or names no key.
    """
    salt_bytes = encode_salt(salt)
    if is_magnet(source):
        link = load_magnet(source)
        if link.public_key is None:
            raise CommandFailed(f"{source}: the link names no public key", ExitCode.USAGE)
        return replace(link, salt=salt_bytes) if salt_bytes else link
    try:
        return Magnet(public_key=parse_public_key(source), salt=salt_bytes)
    except MagnetError:
        raise CommandFailed(
            f"{source}: neither a magnet link nor a public key of 64 hexadecimal digits",
            ExitCode.USAGE,
        ) from None
