"""
Torrents being downloaded or seeded by one run of the program.

A ``Transfer`` takes one torrent from its source to its goal; ``run_transfers``
runs them side by side in one session, shows progress, and ends when all have
reached their goal, a signal comes or the time is up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bittern.cli.display import Row
from bittern.cli.exits import CommandFailed, ExitCode, describe, exit_code_of
from bittern.cli.loop import STOP_TIMEOUT, StopSignal, cancel
from bittern.cli.narration import STATE_TEXTS, plain
from bittern.cli.opening import open_source
from bittern.cli.output import complain
from bittern.cli.report import Report
from bittern.cli.saving import TorrentSaver
from bittern.codec.metainfo import Metainfo
from bittern.core.errors import BitTorrentError, StorageError
from bittern.engine import events
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.reason import Reason
from bittern.engine.reasons.phrases import server_of
from bittern.engine.session import Session
from bittern.engine.torrent import Torrent
from bittern.storage.file_paths import paths_of

if TYPE_CHECKING:
    from bittern.cli.output import Json
    from bittern.engine.stats import TorrentStats

STATISTICS_INTERVAL = 1.0
"""Seconds between two ``progress`` lines of ``--jsonl`` about one torrent."""

SESSION_STOP_TIMEOUT = STOP_TIMEOUT - 1.5
"""Limit: F19. Seconds trackers get to hear "stopped", so that all else fits into the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """
    When a torrent that is complete has done its part; the first that is reached counts.

    Args:
        seeds: go on after the torrent is complete; without a limit, for ever.
        ratio: uploaded over downloaded bytes, or over the torrent's size if nothing was
            downloaded.
        seconds: of seeding.
    """

    seeds: bool = False
    ratio: float | None = None
    seconds: float | None = None

    @property
    def is_endless(self) -> bool:
        """True when nothing but a signal ends it."""
        return self.seeds and self.ratio is None and self.seconds is None

    def is_reached(self, stats: TorrentStats, *, seeding_for: float) -> bool:
        """Tell whether a complete torrent may stop."""
        if self.ratio is None and self.seconds is None:
            return not self.seeds
        if self.seconds is not None and seeding_for >= self.seconds:
            return True
        if self.ratio is None:
            return False
        base = stats.downloaded or stats.total_length
        return stats.uploaded >= self.ratio * base


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """
    One torrent to work on.

    Args:
        source: metainfo, or what ``open_source`` takes.
        label: what it is called until its name is known.
        config: the torrent's settings.
        recheck: trust nothing that is known of the data, nor miss the volume that it was on.
        must_be_complete: fail if the data is not all there, as ``seed`` does.
        hinted_peers: hosts and ports that the source itself names; not to be trusted.
        save_torrent: where the .torrent file goes; None for nowhere.
    """

    source: Metainfo | str
    label: str
    config: TorrentConfig = field(default_factory=TorrentConfig)
    recheck: bool = False
    must_be_complete: bool = False
    hinted_peers: tuple[tuple[str, int], ...] = ()
    save_torrent: Path | None = None


class Transfer:
    """
    One torrent on its way.

    Args:
        job: what to do.
        goal: when it is done.
        report: hears of everything.
        watch: called with the task that tells of events, which nobody waits for.
    """

    def __init__(
        self,
        job: Job,
        goal: Goal,
        report: Report,
        watch: Callable[[asyncio.Task[None]], object] = lambda _: None,
    ) -> None:
        self.job = job
        self._watch = watch
        self.goal = goal
        self.torrent: Torrent | None = None
        self.error: BaseException | None = None
        self.is_complete: bool = False
        self.was_reached: bool = False
        """A tracker gave an answer or a peer was connected."""
        self.checked: float | None = None
        """The share that was hashed when it ended; None unless that was in the midst of a check,
        so that nobody was asked for peers."""
        self.refusal: str = ""
        """What a tracker said last that refused; empty if none did."""
        self._report = report
        self._started_at = time.monotonic()
        self._completed_at: float | None = None
        self._listener: asyncio.Task[None] | None = None
        self._num_reused = 0
        self.summary: dict[str, Json] | None = None
        """The object of ``get --json``; None when the torrent could not even be opened."""
        self.save_error: OSError | None = None
        """Why the .torrent file that was asked for is not there."""
        self.reasons: tuple[Reason, ...] = ()
        """Why it was not complete when it ended, the most important first."""
        self._next_statistics = self._started_at + STATISTICS_INTERVAL
        self._saver = None if job.save_torrent is None else TorrentSaver(job.save_torrent)

    @property
    def name(self) -> str:
        """The torrent's name once it is known, else the label."""
        if self.torrent is not None and self.torrent.name:
            return self.torrent.name
        return self.job.label

    @property
    def key(self) -> str:
        """The info hash in hexadecimal; empty until it is known."""
        if self.torrent is None:
            return ""
        return str(self.torrent.info_hash or self.torrent.info_hash_v2 or "")

    async def run(self, session: Session) -> None:
        """Work until the goal is reached; an expected failure ends up in ``error``."""
        try:
            # Paused first, so that no event is made before somebody listens.
            source = await open_source(self.job.source, session, self._report)
            torrent = await session.add(source, replace(self.job.config, paused=True))
            self.torrent = torrent
            stream = torrent.events(trace=self._report.wants_trace)
            self._listener = asyncio.create_task(self._listen(stream))
            self._watch(self._listener)
            self._tell_added(torrent)
            await torrent.start(force_check=self.job.recheck)
            if self.job.must_be_complete and torrent.state is TorrentState.DOWNLOADING:
                stats = torrent.stats()
                await session.remove(torrent, keep_state=True)
                raise CommandFailed(
                    f"{self.name}: only {stats.num_have} of {stats.num_pieces} pieces are here "
                    "and good; bittern get fetches the rest",
                    ExitCode.MISMATCH,
                )
            await torrent.wait_complete()
            self.is_complete = True
            self._completed_at = time.monotonic()
            await self._seed(torrent, self._completed_at)
        except (BitTorrentError, OSError) as error:
            self.error = error
            self._report.note(
                "failed", "", torrent=self.key, name=self.name, reason=describe(error)
            )
            if self._report.several:
                complain(self.describe_error(error))  # the others may take for ever
            if self.torrent is not None and self.torrent.error is not None:
                await self.torrent.pause()  # it would go on by itself once a full disk has room

    def describe_error(self, error: BaseException) -> str:
        """Return what went wrong, and with which torrent."""
        text = describe(error)
        return text if text.startswith(self.name) else f"{self.name}: {text}"

    def _tell_added(self, torrent: Torrent) -> None:
        self._report.note(
            "added",
            "",
            torrent=self.key,
            name=self.name,
            info_hash=torrent.info_hash,
            info_hash_v2=torrent.info_hash_v2,
        )

    async def _seed(self, torrent: Torrent, completed_at: float) -> None:
        # Of thousands that are seeded for ever nobody asks for the figures four times a second.
        while self.goal.is_endless or not self.goal.is_reached(
            torrent.stats(), seeding_for=time.monotonic() - completed_at
        ):
            if torrent.error is not None:
                raise torrent.error
            await asyncio.sleep(0.25)

    async def _listen(self, stream: AsyncIterator[events.Event]) -> None:
        async for event in stream:
            if isinstance(event, events.TrackerAnnounced | events.PeerConnected):
                self.was_reached = True
            if isinstance(event, events.TrackerFailed) and event.is_refusal:
                self.refusal = f"tracker {server_of(event.url)} refused: {event.reason}"
            if self.torrent is not None and isinstance(event, events.StateChanged):
                self._save_torrent(self.torrent)
            if isinstance(event, events.FileReused):
                self._num_reused += event.length
            self._report.event(self.key, self.name, event)

    def _save_torrent(self, torrent: Torrent) -> None:
        """Write the .torrent file, if it is wanted and can be made by now."""
        if self._saver is None:
            return
        try:
            if self._saver.offer(torrent.metainfo):
                self._report.note("torrent_saved", "", torrent=self.key, path=str(self._saver.path))
        except OSError as error:
            self._saver, self.save_error = None, error
            complain(f"warning: {describe(error)}")

    async def drain(self) -> None:
        """Tell the last events; call it after the session has ended."""
        if self._listener is not None:
            await self._listener
        if self.summary is not None:
            self.summary["reused"] = self._num_reused

    def row(self) -> Row:
        """Return what to show now."""
        if self.torrent is None:
            return Row(name=self.name, state="opening", progress=0.0, total_length=0)
        return row_of(self.name, self.torrent)

    def tell_statistics(self) -> None:
        """Write the figures as JSON, if such lines are asked for and it is time again."""
        now = time.monotonic()
        if self.torrent is not None and now >= self._next_statistics:
            self._next_statistics = now + STATISTICS_INTERVAL
            self._report.statistics(self.key, asdict(self.torrent.stats()))

    def settle(self) -> None:
        """Keep the figures; call it before the session ends."""
        if self.torrent is None:
            return
        self._save_torrent(self.torrent)
        stats = self.torrent.stats()
        # A run reports its own share only.
        downloaded = stats.downloaded - stats.earlier_downloaded
        uploaded = stats.uploaded - stats.earlier_uploaded
        self.was_reached = self.was_reached or downloaded > 0 or stats.peers_seen > 0
        if not self.is_complete:
            if stats.state is TorrentState.CHECKING:
                self.checked = stats.num_checked / max(stats.num_pieces, 1)
            self.reasons = self.torrent.diagnose().reasons
        ended_at = self._completed_at or time.monotonic()
        seconds = max(ended_at - self._started_at, 0.001)
        self.summary = {
            "name": self.name,
            "info_hash": str(self.torrent.info_hash) if self.torrent.info_hash else None,
            "info_hash_v2": str(self.torrent.info_hash_v2) if self.torrent.info_hash_v2 else None,
            "total_length": stats.total_length,
            "downloaded": downloaded,
            "uploaded": uploaded,
            "wasted": stats.wasted,
            "reused": 0,
            "seconds": round(seconds, 3),
            "download_rate": round(downloaded / seconds, 1),
            "peers_seen": stats.peers_seen,
            "files": list(_files_of(self.torrent)),
        }
        if not self.is_complete:
            self.summary["reasons"] = [plain(reason) for reason in self.reasons]


def _files_of(torrent: Torrent) -> list[Json]:
    metainfo = torrent.metainfo
    if metainfo is None:
        return []
    info, wanted, place = metainfo.info, torrent.config.files, torrent.config.data_path
    paths = paths_of(info)
    if place is not None:  # the file or folder has a name of its own
        paths = [(place.name, *path[1:]) if path else () for path in paths]
    found: list[Json] = []
    for index, (entry, path) in enumerate(zip(info.files, paths, strict=True)):
        if path and (wanted is None or index in wanted):
            # Its volume may have other rules for names than is usual here.
            where = torrent.path_of(index)
            shown = path if where is None else where.parts[-len(path) :]
            found.append({"path": "/".join(shown), "length": entry.length})
    return found


def row_of(name: str, torrent: Torrent) -> Row:
    """Return what to show of a torrent."""
    stats = torrent.stats()
    progress, note, state = stats.progress, "", stats.state
    if torrent.error is not None:
        note, state = describe(torrent.error), TorrentState.ERROR
    elif stats.state is TorrentState.CHECKING:
        progress = stats.num_checked / stats.num_pieces if stats.num_pieces else 0.0
    elif stats.state in (TorrentState.DOWNLOADING, TorrentState.METADATA) and not stats.num_peers:
        note = why_idle(torrent, stats)
    return Row(
        name=name,
        state=STATE_TEXTS[state],
        progress=progress,
        total_length=stats.wanted_length,
        download_rate=stats.download_rate,
        upload_rate=stats.upload_rate,
        num_peers=stats.num_peers,
        eta=stats.eta,
        note=note,
        is_checking=state is TorrentState.CHECKING,
    )


def why_idle(torrent: Torrent, stats: TorrentStats) -> str:
    """Return why a torrent has no peers, as far as we know; one phrase."""
    if stats.num_web_seeds:
        return "from the web"
    if stats.num_connecting:
        return "connecting"
    if stats.num_known_peers:
        return f"none of {stats.num_known_peers} known peers can be reached"
    for tracker in torrent.trackers():
        if tracker.message:
            return f"{server_of(tracker.url)}: {tracker.message}"
    return "no peers known yet"


async def run_transfers(
    jobs: Sequence[Job],
    config: SessionConfig,
    *,
    goal: Goal,
    report: Report,
    stop: StopSignal,
    timeout: float | None = None,
) -> list[Transfer]:
    """
    Work on all jobs in one session until all are done, a signal comes or time is up.

    Args:
        jobs: the torrents.
        config: the session's settings.
        goal: when a complete torrent is done.
        report: hears of everything.
        stop: the signals.
        timeout: seconds; None for no limit.

    Returns:
        The transfers in the order of the jobs, with their outcomes; see ``exit_code``.
    """
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def watch(task: asyncio.Task[None]) -> None:
        task.add_done_callback(lambda done: _pass_on(done, broken))

    transfers = [Transfer(job, goal, report, watch) for job in jobs]
    try:
        async with Session(replace(config, stop_timeout=SESSION_STOP_TIMEOUT)) as session:
            _tell_port(session, report)
            tasks = [asyncio.create_task(transfer.run(session)) for transfer in transfers]
            ticker = asyncio.create_task(_tick(transfers, report))
            watch(ticker)
            everything = asyncio.gather(*tasks)
            try:
                await _first(everything, broken, stop.wait(), timeout=timeout)
            finally:
                for transfer in transfers:
                    transfer.settle()
                try:
                    report.progress([transfer.row() for transfer in transfers])
                    if stop.is_set():
                        report.note("stopping", "stopping; once more to stop at once")
                finally:
                    await cancel(ticker, everything)
    finally:
        if not broken.cancel():
            broken.exception()  # asyncio complains of what nobody has asked for
        await asyncio.gather(*(transfer.drain() for transfer in transfers))
    return transfers


def _pass_on(done: asyncio.Task[None], broken: asyncio.Future[None]) -> None:
    """Let whoever waits for ``broken`` hear of a task that has failed."""
    error = None if done.cancelled() else done.exception()
    if error is not None and not broken.done():
        broken.set_exception(error)


def _tell_port(session: Session, report: Report) -> None:
    """Tell the port; when it is not the one that was asked for, also to who did not ask."""
    port, wanted = session.port, session.config.listen_port
    if port not in (0, wanted) and wanted not in (0, SessionConfig().listen_port):
        complain(f"warning: port {wanted} is taken; {port} instead")
    text = f"listening on port {port}" if port else "no port could be opened"
    report.note("listening", text if report.wants_events else "", port=port)


async def _first(
    everything: asyncio.Future[list[None]],
    broken: asyncio.Future[None],
    stopped: Awaitable[None],
    *,
    timeout: float | None,
) -> None:
    """
    Wait for whichever comes first; a bug in a transfer is raised.

    So is what broke beside them: whoever tells of the transfers has nobody left to tell, as the
    reader of a pipe has gone, or the disk behind standard output is full.
    """
    signal = asyncio.ensure_future(stopped)
    try:
        await asyncio.wait(
            (everything, broken, signal), timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        await cancel(signal)
    for each in (everything, broken):
        if each.done():
            each.result()


async def _tick(transfers: Sequence[Transfer], report: Report) -> None:
    while True:
        await asyncio.sleep(report.interval)
        report.progress([transfer.row() for transfer in transfers])
        for transfer in transfers:
            transfer.tell_statistics()


def exit_code(transfers: Sequence[Transfer], stop: StopSignal) -> ExitCode:
    """
    Return the code of a run.

    The first torrent that failed decides; when none did and a .torrent file could not be saved
    the code is DISK. Of those that were not complete in time the code is UNFINISHED, or
    UNREACHABLE if no tracker and no peer ever answered for any of them: a refusal is an answer,
    and who was still hashing has asked nobody.
    """
    for transfer in transfers:
        if transfer.error is not None:
            return code_of_failure(transfer.error)
    unfinished = [transfer for transfer in transfers if not transfer.is_complete]
    if stop.is_set():
        return stop.exit_code(unfinished=bool(unfinished))
    if not unfinished:
        is_saved = all(transfer.save_error is None for transfer in transfers)
        return ExitCode.DONE if is_saved else ExitCode.DISK
    if any(each.was_reached or each.refusal or each.checked is not None for each in unfinished):
        return ExitCode.UNFINISHED
    return ExitCode.UNREACHABLE


def code_of_failure(error: BaseException) -> ExitCode:
    """Return the code of a failed transfer: refused by the disk means not writable here."""
    code = exit_code_of(error)
    if code is ExitCode.NOT_ALLOWED and isinstance(error, StorageError) and error.errno:
        return ExitCode.DISK
    return code
