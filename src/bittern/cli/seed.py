"""``bittern seed``: upload data that is already here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bittern.cli.data import find_data
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.get import finish
from bittern.cli.loop import StopSignal, run_loop
from bittern.cli.options import Duration, NetworkOptions, Ratio, ReportOptions
from bittern.cli.report import Report
from bittern.cli.session import resolve_peers, session_config, state_key, with_state_dir
from bittern.cli.source import SourceKind, kind_of, load_metainfo
from bittern.cli.transfer import Goal, Job, run_transfers
from bittern.engine.config import TorrentConfig


def seed(
    torrent: str,
    /,
    *,
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

    The data is checked first; if it is not complete the exit code is 6.

    Args:
        torrent: A .torrent file, "-" for standard input.
        data: The folder that holds the torrent's file or folder, or that itself.
        skip_check: Do not check it first; each piece is still checked before it is
            uploaded for the first time.
        super_seeding: Show each peer one piece at a time, so that a lone seed uploads
            little more than one copy (BEP 16).
        seed_ratio: Stop when this many times the torrent's size was uploaded.
        seed_time: Stop after seeding for this long, such as 30m or 2h.
        timeout: Stop after this long, whatever was done by then.
        network: Where peers come from and how fast data may go.
        report: How to tell about it.
    """
    if kind_of(torrent) is not SourceKind.FILE:
        raise CommandFailed(f"{torrent}: seeding needs the .torrent file", ExitCode.USAGE)
    metainfo = load_metainfo(torrent)
    place = find_data(metainfo.info, data)
    key = state_key(place.root, [str(metainfo.info.wire_hash)])

    async def work(stop: StopSignal) -> int:
        job = Job(
            source=metainfo,
            label=metainfo.name,
            config=TorrentConfig(
                output=place.output,
                data_path=place.data_path,
                skip_check=skip_check,
                super_seeding=super_seeding,
                peers=await resolve_peers(network.peer, stop),
            ),
            must_be_complete=True,
        )
        told = Report(report)
        goal = Goal(seeds=True, ratio=seed_ratio, seconds=seed_time)
        begin = partial(run_transfers, [job], goal=goal, report=told, stop=stop, timeout=timeout)
        try:
            transfers = await with_state_dir(
                network.state_dir, key, lambda folder: begin(session_config(network, folder))
            )
            return finish(transfers, told, stop, place.root)
        finally:
            told.close()

    return run_loop(work)
