from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.get import finish
from bittern.cli.loop import StopSignal
from bittern.cli.options import ReportOptions
from bittern.cli.report import Report
from bittern.cli.transfer import (
    Goal,
    Job,
    Transfer,
    code_of_failure,
    exit_code,
    row_of,
    run_transfers,
    why_idle,
)
from bittern.codec.metainfo import decode_metainfo
from bittern.core.endpoint import Endpoint
from bittern.core.errors import DiskFull, MagnetError, MetainfoError, StorageError
from bittern.engine import events
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.events import TorrentState
from bittern.engine.session import Session
from bittern.engine.stats import TorrentStats
from bittern.engine.torrent import Torrent
from bittern.storage.file_paths import Folding
from tests.cli.support import (
    PIECE_LENGTH,
    SeedingThread,
    content,
    refusing_tracker,
    single_file_torrent,
    write,
)

STATS = TorrentStats(
    state=TorrentState.SEEDING,
    progress=1.0,
    num_pieces=10,
    num_have=10,
    num_checked=10,
    total_length=1000,
    wanted_length=1000,
    left=0,
    downloaded=0,
    uploaded=0,
    earlier_downloaded=0,
    earlier_uploaded=0,
    wasted=0,
    download_rate=0.0,
    upload_rate=0.0,
    num_peers=0,
    num_seeds=0,
    num_web_seeds=0,
    num_connecting=0,
    num_known_peers=0,
    peers_seen=0,
    availability=0.0,
    eta=None,
)


@pytest.mark.parametrize(
    ("goal", "downloaded", "uploaded", "seeding_for", "reached"),
    [
        (Goal(), 1000, 0, 0, True),
        (Goal(seeds=True), 1000, 9999, 9999, False),
        (Goal(seeds=True, seconds=10), 0, 0, 9.9, False),
        (Goal(seeds=True, seconds=10), 0, 0, 10, True),
        (Goal(seeds=True, seconds=0), 0, 0, 0, True),
        (Goal(seeds=True, ratio=2), 500, 999, 0, False),
        (Goal(seeds=True, ratio=2), 500, 1000, 0, True),
        (Goal(seeds=True, ratio=1), 0, 999, 0, False),
        (Goal(seeds=True, ratio=1), 0, 1000, 0, True),
        (Goal(seeds=True, ratio=0), 1000, 0, 0, True),
        (Goal(seeds=True, ratio=2, seconds=10), 500, 0, 10, True),
        (Goal(seeds=True, ratio=2, seconds=10), 500, 1000, 0, True),
        (Goal(seeds=True, ratio=2, seconds=10), 500, 999, 9, False),
    ],
)
def test_a_goal_is_time_or_ratio_whichever_comes_first(
    goal: Goal, downloaded: int, uploaded: int, seeding_for: float, reached: bool
) -> None:
    stats = replace(STATS, downloaded=downloaded, uploaded=uploaded)
    assert goal.is_reached(stats, seeding_for=seeding_for) is reached


@dataclass
class FakeTracker:
    url: str
    message: str | None


@dataclass
class FakeTorrent:
    now: TorrentStats
    told: tuple[FakeTracker, ...] = ()
    error: Exception | None = None

    def stats(self) -> TorrentStats:
        return self.now

    def trackers(self) -> tuple[FakeTracker, ...]:
        return self.told


@pytest.mark.parametrize(
    ("changes", "trackers", "why"),
    [
        ({}, (), "no peers known yet"),
        ({"num_connecting": 1}, (), "connecting"),
        ({"num_connecting": 1, "num_web_seeds": 2}, (), "from the web"),
        ({"num_known_peers": 3}, (), "none of 3 known peers can be reached"),
        ({}, (FakeTracker("udp://t:1/key", None),), "no peers known yet"),
        ({}, (FakeTracker("udp://t:1/key", "timed out"),), "udp://t:1: timed out"),
    ],
)
def test_it_is_said_why_nothing_happens(
    changes: dict[str, Any], trackers: tuple[FakeTracker, ...], why: str
) -> None:
    stats = replace(STATS, state=TorrentState.DOWNLOADING, progress=0.0, **changes)
    torrent = cast(Torrent, FakeTorrent(stats, trackers))
    assert why_idle(torrent, stats) == why
    assert row_of("cat", torrent).note == why


@pytest.mark.parametrize(
    ("changes", "error", "progress", "state", "note"),
    [
        ({"state": TorrentState.SEEDING}, None, 1.0, "seeding", ""),
        (
            {"state": TorrentState.CHECKING, "num_checked": 5, "progress": 0.0},
            None,
            0.5,
            "checking",
            "",
        ),
        ({"state": TorrentState.CHECKING, "num_pieces": 0}, None, 0.0, "checking", ""),
        (
            {"state": TorrentState.DOWNLOADING, "num_peers": 2, "progress": 0.25},
            None,
            0.25,
            "downloading",
            "",
        ),
        (
            {"state": TorrentState.ERROR},
            DiskFull("no room", path="/x"),
            1.0,
            "stopped by an error",
            "no room: '/x'",
        ),
        (
            {"state": TorrentState.PAUSED},
            DiskFull("no room", path="/x"),
            1.0,
            "stopped by an error",
            "no room: '/x'",
        ),
    ],
)
def test_a_row_shows_the_state(
    changes: dict[str, Any], error: Exception | None, progress: float, state: str, note: str
) -> None:
    torrent = cast(Torrent, FakeTorrent(replace(STATS, **changes), error=error))
    row = row_of("cat", torrent)
    assert (row.progress, row.state, row.note) == (progress, state, note)
    assert row.is_checking == (state == "checking")


def outcome(
    *,
    error: Exception | None = None,
    complete: bool = False,
    reached: bool = False,
    refusal: str = "",
    checked: float | None = None,
) -> Transfer:
    transfer = Transfer(Job(source="x", label="x"), Goal(), Report(ReportOptions(quiet=True)))
    transfer.error, transfer.is_complete, transfer.was_reached = error, complete, reached
    transfer.refusal, transfer.checked = refusal, checked
    return transfer


@pytest.mark.parametrize(
    ("outcomes", "signal", "code"),
    [
        ([outcome(complete=True)], None, 0),
        ([outcome(complete=True), outcome(reached=True)], None, 7),
        ([outcome(complete=True), outcome()], None, 4),
        ([outcome(), outcome(reached=True)], None, 7),
        ([outcome(refusal="no")], None, 7),
        ([outcome(checked=0.5)], None, 7),
        ([outcome(complete=True), outcome(error=MetainfoError("x"))], None, 1),
        ([outcome(error=DiskFull("x")), outcome(error=MetainfoError("x"))], None, 5),
        ([outcome()], 15, 7),
        ([outcome(complete=True)], 15, 0),
        ([outcome(complete=True)], 2, 130),
        ([outcome(error=DiskFull("x"))], 2, 5),
    ],
)
async def test_the_worst_that_happened_is_the_code(
    outcomes: list[Transfer], signal: int | None, code: int
) -> None:
    stop = StopSignal(hard_exit=lambda code: None)
    if signal is not None:
        stop.receive(signal)
    assert exit_code(outcomes, stop) == code
    stop.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("x", errno=13), 5),
        (StorageError("x", errno=30), 5),
        (StorageError("x", errno=5), 1),
        (PermissionError(13, "x"), 8),
        (CommandFailed("x", ExitCode.MISMATCH), 6),
    ],
    ids=repr,
)
def test_a_disk_that_refuses_is_not_writable(error: Exception, code: int) -> None:
    assert code_of_failure(error) == code


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a tracker that refuses."""
    with refusing_tracker() as address:
        yield address


@pytest.mark.parametrize("state", [TorrentState.CHECKING, TorrentState.DOWNLOADING])
async def test_who_was_still_hashing_says_how_far_that_had_come(
    state: TorrentState,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with Session(ALONE) as session:
        torrent = await session.add(TORRENT, TorrentConfig(output=tmp_path, paused=True))
        transfer = outcome()
        transfer.torrent = torrent
        with monkeypatch.context() as patched:
            patched.setattr(Torrent, "state", state)
            torrent.num_checked = 1
            transfer.settle()
    is_checking = state is TorrentState.CHECKING
    assert transfer.checked == (1 / torrent.stats().num_pieces if is_checking else None)
    stop = StopSignal(hard_exit=lambda code: None)
    stop.receive(2)
    finish([transfer], Report(ReportOptions()), stop, tmp_path)
    stop.close()
    assert ("of what is here are checked\n" in capsys.readouterr().out) is is_checking


class _Bug(RuntimeError):
    pass


async def test_a_bug_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(100)
    write(tmp_path / "a", data)

    async def fail(transfer: Transfer, *args: object) -> None:
        raise _Bug

    monkeypatch.setattr(Transfer, "_seed", fail)
    job = Job(
        source=decode_metainfo(single_file_torrent(b"a", data)),
        label="a",
        config=TorrentConfig(output=tmp_path),
    )
    config = SessionConfig(
        listen_host="127.0.0.1", listen_port=0, enable_dht=False, enable_lsd=False
    )
    report = Report(ReportOptions(quiet=True))
    stop = StopSignal(hard_exit=lambda code: None)
    with pytest.raises(_Bug):
        async with asyncio.timeout(10):
            await run_transfers([job], config, goal=Goal(), report=report, stop=stop)


def test_what_is_not_open_yet_has_a_row_and_no_summary() -> None:
    transfer = outcome()
    transfer.settle()
    transfer.tell_statistics()
    assert transfer.summary is None
    assert transfer.key == ""
    row = transfer.row()
    assert (row.name, row.state, row.total_length) == ("x", "opening", 0)


# --- whole runs on loopback --------------------------------------------------------------------

ALONE = SessionConfig(listen_host="127.0.0.1", listen_port=0, enable_dht=False, enable_lsd=False)
DATA = content(200_000)
TORRENT = single_file_torrent(b"cat", DATA)


async def transfer_of(
    job: Job, goal: Goal | None = None, *, options: ReportOptions, timeout: float | None = None
) -> Transfer:
    """Run one job to its end."""
    stop = StopSignal(hard_exit=lambda code: None)
    async with asyncio.timeout(30):
        [transfer] = await run_transfers(
            [job], ALONE, goal=goal or Goal(), report=Report(options), stop=stop, timeout=timeout
        )
    stop.close()
    return transfer


@pytest.mark.slow
@pytest.mark.parametrize("is_link", [False, True])
async def test_a_download_tells_what_happens_keeps_the_torrent_file_and_its_figures(
    is_link: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "seed/cat", DATA)
    metainfo = decode_metainfo(TORRENT)
    with SeedingThread(TORRENT, tmp_path / "seed") as seed:
        source = f"magnet:?xt=urn:btih:{metainfo.info.info_hash}" if is_link else metainfo
        job = Job(
            source=source,
            label="it",
            config=TorrentConfig(
                output=tmp_path / "out", peers=(Endpoint("127.0.0.1", seed.port),)
            ),
            save_torrent=tmp_path / "kept.torrent",
        )
        goal = Goal(seeds=True, seconds=0.3)
        transfer = await transfer_of(job, goal, options=ReportOptions(jsonl=True, verbose=2))
    assert transfer.error is None
    assert transfer.is_complete
    assert transfer.was_reached
    assert transfer.name == "cat"
    assert (tmp_path / "out/cat").read_bytes() == DATA
    assert decode_metainfo((tmp_path / "kept.torrent").read_bytes()).info.raw == metainfo.info.raw
    summary = transfer.summary
    assert summary is not None
    assert (summary["downloaded"], summary["total_length"]) == (len(DATA), len(DATA))
    assert summary["files"] == [{"path": "cat", "length": len(DATA)}]
    assert "reasons" not in summary
    told = [json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()]
    for kind in ("listening", "added", "state_changed", "peer_connected", "torrent_saved"):
        assert kind in told
    assert "message_received" in told


async def test_a_seed_whose_data_is_not_all_there_says_what_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "cat", DATA[:PIECE_LENGTH] + bytes(len(DATA) - PIECE_LENGTH))
    job = Job(
        source=decode_metainfo(TORRENT),
        label="cat",
        config=TorrentConfig(output=tmp_path),
        must_be_complete=True,
    )
    transfer = await transfer_of(job, Goal(seeds=True), options=ReportOptions(quiet=True))
    assert str(transfer.error).startswith("cat: only 1 of 13 pieces are here and good")
    assert exit_code([transfer], StopSignal(hard_exit=lambda code: None)) is ExitCode.MISMATCH


async def test_files_are_told_by_the_names_that_their_volume_gave_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a stick, which has the rules of Windows."""
    rules = Folding(True, False, refuses=True)
    monkeypatch.setattr("bittern.engine.awake.probe_folding", lambda _: rules)
    (tmp_path / "a_").write_bytes(content(PIECE_LENGTH))
    source = single_file_torrent(b"a?", content(PIECE_LENGTH))
    config = TorrentConfig(output=tmp_path)
    job = Job(source=decode_metainfo(source), label="a", config=config)
    transfer = await transfer_of(job, options=ReportOptions(quiet=True))
    assert transfer.summary is not None
    assert transfer.summary["files"] == [{"path": "a_", "length": PIECE_LENGTH}]


async def test_a_source_that_cannot_be_read_fails_its_own_transfer(tmp_path: Path) -> None:
    job = Job(source="magnet:?dn=nothing", label="x", config=TorrentConfig(output=tmp_path))
    transfer = await transfer_of(job, options=ReportOptions(quiet=True))
    assert isinstance(transfer.error, MagnetError)
    assert transfer.summary is None


async def test_when_time_is_up_it_is_said_why_it_is_not_done(tmp_path: Path) -> None:
    job = Job(source=decode_metainfo(TORRENT), label="cat", config=TorrentConfig(output=tmp_path))
    transfer = await transfer_of(job, options=ReportOptions(quiet=True), timeout=0.3)
    assert transfer.error is None
    assert not transfer.is_complete
    assert transfer.reasons
    assert transfer.summary is not None
    assert transfer.summary["reasons"]


async def test_a_link_that_nobody_answers_has_no_files_to_name(tmp_path: Path) -> None:
    job = Job(source="a" * 40, label="it", config=TorrentConfig(output=tmp_path))
    transfer = await transfer_of(job, options=ReportOptions(quiet=True), timeout=0.3)
    assert transfer.name == "a" * 40
    assert transfer.summary is not None
    assert transfer.summary["files"] == []


async def test_a_torrent_file_that_cannot_be_written_is_said_by_name_and_by_the_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "cat", DATA)
    job = Job(
        source=decode_metainfo(TORRENT),
        label="cat",
        config=TorrentConfig(output=tmp_path),
        save_torrent=tmp_path / "gone" / "kept.torrent",
    )
    transfer = await transfer_of(job, options=ReportOptions(quiet=True))
    assert transfer.is_complete
    path = tmp_path / "gone" / "kept.torrent"
    told = capsys.readouterr().err
    assert told == f"bittern: warning: {path}: no such file or directory\n"
    stop = StopSignal(hard_exit=lambda code: None)
    assert exit_code([transfer], stop) == 5
    stop.close()


async def test_what_is_taken_from_elsewhere_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "old/cat", DATA)
    job = Job(
        source=decode_metainfo(TORRENT),
        label="cat",
        config=TorrentConfig(output=tmp_path / "out", reuse_from=(tmp_path / "old",)),
    )
    transfer = await transfer_of(job, options=ReportOptions(quiet=True))
    assert transfer.summary is not None
    assert (transfer.summary["reused"], transfer.summary["downloaded"]) == (len(DATA), 0)


async def test_a_refusal_of_a_tracker_is_kept_to_be_told(
    refusing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no network that is down, and no peer either: the tracker has said no."""
    stop = StopSignal(hard_exit=lambda code: None)
    event = Report.event

    def watch(self: Report, torrent: str, name: str, told: events.Event) -> None:
        event(self, torrent, name, told)
        if isinstance(told, events.TrackerFailed):
            stop.receive(15)

    monkeypatch.setattr(Report, "event", watch)
    raw = single_file_torrent(b"cat", DATA, trackers=[[f"{refusing}/announce?passkey=secret"]])
    job = Job(source=decode_metainfo(raw), label="cat", config=TorrentConfig(output=tmp_path))
    report = Report(ReportOptions(quiet=True))
    async with asyncio.timeout(60):
        [transfer] = await run_transfers([job], ALONE, goal=Goal(), report=report, stop=stop)
    stop.close()
    assert transfer.refusal == f"tracker {refusing} refused: not registered"
    assert not transfer.was_reached


async def test_a_seed_whose_disk_fails_does_not_wait_for_its_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "cat", DATA)
    seed = Transfer._seed

    async def begin(transfer: Transfer, torrent: Torrent, completed_at: float) -> None:
        torrent.swarm_failed(StorageError("the folder has gone", errno=5))
        await seed(transfer, torrent, completed_at)

    monkeypatch.setattr(Transfer, "_seed", begin)
    job = Job(source=decode_metainfo(TORRENT), label="cat", config=TorrentConfig(output=tmp_path))
    transfer = await transfer_of(job, Goal(seeds=True), options=ReportOptions(quiet=True))
    assert isinstance(transfer.error, StorageError)
    assert exit_code([transfer], StopSignal(hard_exit=lambda code: None)) is ExitCode.ERROR


@pytest.mark.slow
async def test_figures_come_as_lines_once_in_a_while(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bittern.cli.transfer.STATISTICS_INTERVAL", 0.5)
    monkeypatch.setattr(Report, "interval", 0.01)
    write(tmp_path / "cat", DATA)
    job = Job(source=decode_metainfo(TORRENT), label="cat", config=TorrentConfig(output=tmp_path))
    goal = Goal(seeds=True, seconds=0.8)
    began_at = time.monotonic()
    await transfer_of(job, goal, options=ReportOptions(jsonl=True))
    seconds = time.monotonic() - began_at
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    figures = [line for line in told if line["type"] == "progress"]
    assert 1 <= len(figures) <= seconds / 0.5
    assert figures[-1]["progress"] == 1.0
    assert figures[-1]["torrent"] == str(decode_metainfo(TORRENT).info.info_hash)


async def test_a_signal_ends_it_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = StopSignal(hard_exit=lambda code: None)
    job = Job(source=decode_metainfo(TORRENT), label="cat", config=TorrentConfig(output=tmp_path))
    asyncio.get_running_loop().call_later(0.2, stop.receive, 15)
    async with asyncio.timeout(30):
        [transfer] = await run_transfers(
            [job], ALONE, goal=Goal(), report=Report(ReportOptions(jsonl=True)), stop=stop
        )
    stop.close()
    told = [json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()]
    assert "stopping" in told
    assert transfer.summary is not None
    assert exit_code([transfer], stop) is ExitCode.UNFINISHED
