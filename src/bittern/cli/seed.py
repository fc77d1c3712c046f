"""``bittern seed``: upload data that is already here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bittern.cli.data import find_data
from bittern.cli.exits import CommandFailed, ExitCode, describe, exit_code_of
from bittern.cli.get import check_distinct, finish, name_of
from bittern.cli.loop import StopSignal, run_loop
from bittern.cli.options import Duration, NetworkOptions, Ratio, ReportOptions
from bittern.cli.output import complain
from bittern.cli.report import Report
from bittern.cli.session import resolve_peers, session_config, state_key, with_state_dir
from bittern.cli.source import SourceKind, kind_of, load_metainfo
from bittern.cli.transfer import Goal, Job, run_transfers
from bittern.engine.config import TorrentConfig


def seed(
    *torrent: str,
    data: Annotated[Path, Parameter(metavar="PATH")],
    skip_check: bool = False,
    super_seeding: bool = False,
    seed_ratio: Ratio = None,
    seed_time: Duration = None,
    timeout: Duration = None,
    network: NetworkOptions = NetworkOptions(),  # noqa: B008 - immutable
    report: ReportOptions = ReportOptions(),  # noqa: B008
) -> int:
    """
    Seed data that is already here, until told to stop.

    The data is checked first; if it is not complete the exit code is 6. Of several torrents
    the others are seeded all the same, and so are those of a folder beside a .torrent file
    that cannot be used.

    Args:
        torrent: A .torrent file, "-" for standard input, or a folder of .torrent files;
            several are seeded at once.
        data: The folder that holds the torrent's file or folder, or that itself; of several
            torrents the folder that holds them all.
        skip_check: Do not check it first; each piece is still checked before it is
            uploaded for the first time.
        super_seeding: Show each peer two pieces at a time, so that a lone seed uploads
            little more than one copy (BEP 16).
        seed_ratio: Stop when this many times the torrent's size was uploaded.
        seed_time: Stop after seeding for this long, such as 30m or 2h.
        timeout: Stop after this long, whatever was done by then.
        network: Where peers come from and how fast data may go.
        report: How to tell about it.
    """
    if not torrent:
        raise CommandFailed("nothing to seed: name a .torrent file", ExitCode.USAGE)
    if not data.exists():
        raise CommandFailed(f"{data}: no such file or folder", ExitCode.NOT_FOUND)
    jobs, unusable = _jobs_for(
        torrent, lambda file: _job_for(file, data, skip_check, super_seeding)
    )
    if not jobs:
        return unusable
    root = data if len(jobs) > 1 else jobs[0].config.data_path or jobs[0].config.output
    key = state_key(root, map(name_of, jobs))

    async def work(stop: StopSignal) -> int:
        peers = await resolve_peers(network.peer, stop)
        ready = [replace(job, config=replace(job.config, peers=peers)) for job in jobs]
        told = Report(report, several=len(jobs) > 1)
        goal = Goal(seeds=True, ratio=seed_ratio, seconds=seed_time)
        begin = partial(run_transfers, ready, goal=goal, report=told, stop=stop, timeout=timeout)
        try:
            transfers = await with_state_dir(
                network.state_dir, key, lambda folder: begin(session_config(network, folder))
            )
            return finish(transfers, told, stop, root) or unusable
        finally:
            told.close()

    return run_loop(work)


def _jobs_for(names: Sequence[str], make: Callable[[str], Job]) -> tuple[list[Job], ExitCode]:
    """
    Make a job for each .torrent file that is named, and for each of a folder that can be used.

    Returns:
        The jobs, and the exit code that the first unusable file of a folder asks for: what is
        wrong with it has been told, and the others are seeded.

    Raises:
        CommandFailed, OSError: a file that is named by itself is unusable, or there twice.
    """
    jobs, code = [], ExitCode.DONE
    seen: dict[bytes, str] = {}
    for name in names:
        for file in _torrent_files(name):
            try:
                job = make(file)
                check_distinct(file, job, seen)
            except (CommandFailed, OSError) as error:
                if file == name:
                    raise
                complain(describe(error))
                code = code or exit_code_of(error)
            else:
                jobs.append(job)
    return jobs, code


def _torrent_files(name: str) -> list[str]:
    """
    Return the .torrent files that a person means: one, or all of a folder.

    Raises:
        CommandFailed: it is neither, or there are none in the folder.
    """
    if kind_of(name) is not SourceKind.FILE:
        raise CommandFailed(f"{name}: seeding needs the .torrent file", ExitCode.USAGE)
    if not Path(name).is_dir():
        return [name]
    found = sorted(map(str, Path(name).glob("*.torrent")))
    if not found:
        raise CommandFailed(f"{name}: no .torrent files in the folder", ExitCode.NOT_FOUND)
    return found


def _job_for(file: str, data: Path, skip_check: bool, super_seeding: bool) -> Job:
    metainfo = load_metainfo(file)
    place = find_data(metainfo.info, data)
    return Job(
        source=metainfo,
        label=metainfo.name,
        config=TorrentConfig(
            output=place.output,
            data_path=place.data_path,
            renames=place.renames(metainfo.info),
            skip_check=skip_check,
            super_seeding=super_seeding,
        ),
        must_be_complete=True,
    )
