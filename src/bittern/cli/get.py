"""``bittern get``: download."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from bittern.cli.data import is_whole
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.loop import StopSignal, run_loop
from bittern.cli.options import (
    Duration,
    FileList,
    NetworkOptions,
    Ratio,
    ReportOptions,
    Urls,
)
from bittern.cli.output import complain
from bittern.cli.report import Report
from bittern.cli.saving import check_place
from bittern.cli.session import (
    discard_run,
    resolve_peers,
    session_config,
    state_key,
    with_state_dir,
)
from bittern.cli.source import SourceKind, kind_of, load_magnet, load_metainfo
from bittern.cli.transfer import Goal, Job, Transfer, exit_code, run_transfers
from bittern.cli.values import HostPort, format_duration, format_rate, format_share, format_size
from bittern.cli.wording import in_options
from bittern.codec.metainfo import Metainfo
from bittern.codec.url import normalise_url
from bittern.core.endpoint import Endpoint, is_local
from bittern.core.errors import DecodeError
from bittern.engine.config import TorrentConfig
from bittern.engine.reason import ReasonCode
from bittern.storage.adopt import ReuseHow

_ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - to know them, not to bind
MAX_REASONS = 6
"""Lines that say why a torrent is not complete; ``-v`` tells more while it runs."""


def get(
    *source: str,
    output: Annotated[Path, Parameter(name=("--output", "-o"), metavar="DIR")] = Path(),
    files: FileList = None,
    sequential: bool = False,
    seed: bool = False,
    seed_ratio: Ratio = None,
    seed_time: Duration = None,
    skip_check: bool = False,
    recheck: bool = False,
    reuse_from: Annotated[tuple[Path, ...], Parameter(consume_multiple=False, metavar="DIR")] = (),
    reuse_how: Literal["copy", "reflink", "hardlink"] = "copy",
    make_links: bool = False,
    web_seed: Urls = (),
    save_torrent: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    timeout: Duration = None,
    network: NetworkOptions = NetworkOptions(),  # noqa: B008 - immutable
    report: ReportOptions = ReportOptions(),  # noqa: B008
) -> int:
    """
    Download torrents. What is already in the folder is checked and kept.

    Args:
        source: A .torrent file, an http(s) URL of one, a magnet link or an info hash;
            several are downloaded at once. A link with a public key in place of a hash
            gets what "bittern publish" made the newest.
        output: The folder that data goes to. Default: the current one.
        files: Only these files, by index as "bittern info" shows them, such as 0,2-5.
        sequential: Ask for the pieces in order.
        seed: Go on uploading when the download is complete.
        seed_ratio: Upload until this many times as much was uploaded as downloaded.
        seed_time: Upload for this long, such as 30m or 2h.
        skip_check: Trust that the data is complete.
        recheck: Check all that is there, whatever is known of it, and fetch the rest, also when
            the volume that held it is not mounted: a run otherwise ends with exit code 3 then.
        reuse_from: Look here for files of the torrent first; those that are right are taken,
            not downloaded. Repeatable.
        reuse_how: How they are taken: copied, or sharing their room as a clone (reflink) or
            a second name (hardlink); where that cannot be had they are copied.
        make_links: Make the symbolic links that the torrent holds, once all data is there;
            only those to a file of the torrent. Default: leave them out.
        web_seed: Download from this web server as well, as if the torrent named it; repeatable.
        save_torrent: Write the .torrent file there as soon as all of it is known; a folder
            gets one with the torrent's name.
        timeout: Give up after this long with exit code 7, or 4 if neither a tracker nor
            a peer could be reached; what is there is kept for the next run.
        network: Where peers come from and how fast data may go.
        report: How to tell about it.
    """
    if not source:
        raise CommandFailed(
            "nothing to get: name a .torrent, URL, magnet link or info hash", ExitCode.USAGE
        )
    goal = Goal(
        seeds=seed or seed_ratio is not None or seed_time is not None,
        ratio=seed_ratio,
        seconds=seed_time,
    )
    config = TorrentConfig(
        output=output,
        files=files,
        sequential=sequential,
        skip_check=skip_check,
        reuse_from=_check_reuse(reuse_from),
        reuse_how=ReuseHow(reuse_how),
        make_links=make_links,
        web_seeds=_check_web_seeds(web_seed),
    )
    check_place(save_torrent, len(source))
    jobs = [
        replace(job_for(one), config=config, recheck=recheck, save_torrent=save_torrent)
        for one in source
    ]
    seen: dict[bytes, str] = {}
    for one, job in zip(source, jobs, strict=True):
        check_distinct(one, job, seen)
    if not all(_is_here(job) for job in jobs):  # what is may be on a medium that is read-only
        prepare_output(output)
    return run_loop(lambda stop: _download(jobs, goal, timeout, network, report, stop))


def _check_reuse(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the places as they are; CommandFailed when one is not there."""
    for folder in folders:
        if not folder.exists():
            raise CommandFailed(f"{folder}: no such file or folder", ExitCode.NOT_FOUND)
    return folders


def _check_web_seeds(urls: tuple[str, ...]) -> tuple[str, ...]:
    """Return the URLs as they are; CommandFailed when one cannot be used."""
    for url in urls:
        _check_url(url, f"web seed {url}")
    return urls


def _check_url(url: str, what: str) -> None:
    try:
        normalise_url(url)
    except DecodeError as error:
        raise CommandFailed(f"{what}: {error}", ExitCode.USAGE) from None


async def _download(
    jobs: Sequence[Job],
    goal: Goal,
    timeout: float | None,
    network: NetworkOptions,
    report: ReportOptions,
    stop: StopSignal,
) -> int:
    output = jobs[0].config.output
    key = state_key(output, map(name_of, jobs))
    peers = await resolve_peers(network.peer, stop)
    jobs = [await _with_peers(job, peers, network.bind, stop) for job in jobs]
    told = Report(report, several=len(jobs) > 1)

    async def run(state_dir: Path | None) -> list[Transfer]:
        transfers = await run_transfers(
            jobs,
            session_config(network, state_dir),
            goal=goal,
            report=told,
            stop=stop,
            timeout=timeout,
        )
        if all(transfer.is_complete for transfer in transfers):
            discard_run(state_dir)
        return transfers

    try:
        transfers = await with_state_dir(network.state_dir, key, run)
        return finish(transfers, told, stop, output)
    finally:
        told.close()


async def _with_peers(
    job: Job, peers: tuple[Endpoint, ...], bind: tuple[str, ...], stop: StopSignal
) -> Job:
    """Add the peers that the user gave, and those that the source itself names."""
    hinted = await safe_hints(job.hinted_peers, bind, stop)
    return replace(job, config=replace(job.config, peers=peers, hinted_peers=hinted))


async def safe_hints(
    hints: Sequence[tuple[str, int]], bind: tuple[str, ...], stop: StopSignal
) -> tuple[Endpoint, ...]:
    """
    Return the safe ones of the peers that a source itself names.

    Limit: P14. A link must not make us knock at our own network, so local addresses in it
    count only when we listen on a local address, and so are there for that network.
    """
    hinted = await resolve_peers((HostPort(*peer) for peer in hints), stop)
    if not any(map(_is_local_address, bind)):
        hinted = tuple(endpoint for endpoint in hinted if not is_local(endpoint.host))
    return hinted


def _is_local_address(host: str) -> bool:
    return host not in _ALL_ADDRESSES and is_local(host)


def _is_here(job: Job) -> bool:
    """Tell whether all that a .torrent file names seems to be there, so that it is only checked."""
    config = job.config
    known = job.source
    return isinstance(known, Metainfo) and is_whole(known.info, config.output, config.files)


def prepare_output(output: Path) -> None:
    """
    Refuse a folder that cannot take data, before anything is downloaded.

    Raises:
        CommandFailed: a file is in the way, it cannot be written to, or there is no such drive.
    """
    whole = output.absolute()
    place = next((each for each in (whole, *whole.parents) if os.path.lexists(each)), None)
    if place is None:  # Windows
        raise CommandFailed(f"{whole.anchor}: no such drive", ExitCode.DISK)
    if not place.exists():
        target = os.path.realpath(place)
        raise CommandFailed(f"{place}: leads to {target}, which is not there", ExitCode.DISK)
    if not place.is_dir():
        raise CommandFailed(f"{place}: not a folder", ExitCode.DISK)
    if not os.access(place, os.W_OK | os.X_OK):
        raise CommandFailed(f"{place}: not writable", ExitCode.DISK)


def job_for(source: str) -> Job:
    """
    Return the job for one source, still without settings.

    Raises:
        CommandFailed: it is nothing we can download from.
    """
    match kind_of(source):
        case SourceKind.FILE:
            metainfo = load_metainfo(source)
            return Job(source=metainfo, label=metainfo.name)
        case SourceKind.MAGNET:
            magnet = load_magnet(source)
            key = "" if magnet.public_key is None else f"key {magnet.public_key.hex()}"
            label = magnet.name or str(magnet.info_hash or magnet.info_hash_v2 or key)
            return Job(source=source, label=label, hinted_peers=magnet.peers)
        case SourceKind.URL:
            _check_url(source, source)
            return Job(source=source, label=source)
        case SourceKind.INFO_HASH:
            return Job(source=source, label=source)


def name_of(job: Job) -> str:
    """Return what tells a torrent from others, as far as it is known by now."""
    if isinstance(job.source, Metainfo):
        return str(job.source.info.wire_hash)
    return job.source


def check_distinct(source: str, job: Job, seen: dict[bytes, str]) -> None:
    """
    Refuse a second source of one torrent, as far as that is known before it is opened.

    Args:
        source: as the user named it.
        job: what it stands for.
        seen: sources before it by info hash; this one is added.
    """
    if not isinstance(job.source, Metainfo):
        return
    key = bytes(job.source.info.wire_hash)
    if key in seen:
        raise CommandFailed(f"{source}: the same torrent as {seen[key]}", ExitCode.USAGE)
    seen[key] = source


def finish(transfers: list[Transfer], report: Report, stop: StopSignal, output: Path) -> ExitCode:
    """Tell what came of the transfers and return the exit code."""
    summaries = [transfer.summary for transfer in transfers if transfer.summary is not None]
    lines = [_outcome_text(transfer, output) for transfer in transfers if transfer.error is None]
    report.result(summaries, lines)
    for transfer in transfers:
        if transfer.error is not None and not report.several:
            complain(transfer.describe_error(transfer.error))
    code = exit_code(transfers, stop)
    if code is ExitCode.UNREACHABLE and not any(transfer.error for transfer in transfers):
        complain("no tracker and no peer could be reached")
        _tell_why(transfers)
    elif code is ExitCode.UNFINISHED:
        complain("not finished; the same command goes on from here")
        if not stop.is_set():
            _tell_refusals(transfers)
            _tell_why(transfers)
    elif code is ExitCode.INTERRUPTED:
        complain("interrupted")
    return code


def _tell_refusals(transfers: Sequence[Transfer]) -> None:
    """Say which torrents got nothing but a refusal; it may be lost among dead trackers below."""
    for transfer in transfers:
        if transfer.refusal and not (transfer.is_complete or transfer.was_reached):
            text = transfer.refusal
            complain(f"{transfer.name}: {text}" if len(transfers) > 1 else text)


def _tell_why(transfers: Sequence[Transfer]) -> None:
    """Say what kept each torrent from being complete in time."""
    for transfer in transfers:
        if transfer.reasons and transfer.reasons[0].code is ReasonCode.MOVING:
            continue  # only the time was too short
        for reason in transfer.reasons[:MAX_REASONS]:
            text = in_options(str(reason))
            complain(f"{transfer.name}: {text}" if len(transfers) > 1 else text)


def _outcome_text(transfer: Transfer, output: Path) -> str:
    summary, torrent = transfer.summary, transfer.torrent
    if summary is None or torrent is None:
        return f"{transfer.name}: not begun"
    if not transfer.is_complete:
        stats = torrent.stats()
        if not stats.num_pieces:
            return f"{transfer.name}: the metadata has not arrived"
        if transfer.checked is not None:
            return f"{transfer.name}: {format_share(transfer.checked)} of what is here are checked"
        size = format_size(stats.wanted_length)
        return f"{transfer.name}: {format_share(stats.progress)} of {size} are here"
    downloaded, uploaded = summary["downloaded"], summary["uploaded"]
    seconds = summary["seconds"]
    assert isinstance(downloaded, int)
    assert isinstance(uploaded, int)
    assert isinstance(seconds, float)
    text = f"{transfer.name}: complete in {output}"
    if downloaded:
        rate = format_rate(downloaded / seconds)
        text += f", {format_size(downloaded)} in {format_duration(seconds)} ({rate})"
    if uploaded or transfer.goal.seeds:
        text += f", {format_size(uploaded)} uploaded"
    return text
