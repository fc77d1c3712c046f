"""``bittern follow`` in a network of a few nodes, with a seed beside it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bittern.cli.exits import CommandFailed
from bittern.cli.follow import Following, link_for
from bittern.cli.report import Report
from bittern.codec.magnet import Magnet
from bittern.codec.metainfo import decode_metainfo
from bittern.codec.torrent_record import TorrentRecord
from bittern.core.errors import DhtUnreachable, StorageError
from bittern.core.ids import InfoHash
from bittern.engine import mutable
from bittern.engine.follower import Follower, Update
from bittern.net.signing import SigningKey
from tests.cli.dht_network import DhtNetwork
from tests.cli.support import Program, SeedingThread, content, folder_torrent, write

KEY = SigningKey(bytes(32))
PUBLIC = KEY.public_key.hex()
LINK = f"magnet:?xs=urn:btpk:{PUBLIC}"
FILES = [((b"a",), content(30_000, 1)), ((b"b",), content(20_000, 2))]
TORRENT = folder_torrent(b"site", FILES)

pytestmark = pytest.mark.usefixtures("impatient_dht")


@pytest.fixture
def network() -> Iterator[DhtNetwork]:
    with DhtNetwork() as network:
        yield network


def options(network: DhtNetwork, folder: Path) -> list[object]:
    return [
        *("-o", folder / "mirror", "--bind", "127.0.0.1", "--port", "0", "--no-lsd"),
        *("--dht-bootstrap", network.endpoint, "--state-dir", folder / "state"),
    ]


def publish(network: DhtNetwork, record: TorrentRecord, salt: bytes = b"") -> int:
    done = network.run(lambda node: mutable.publish(node, KEY, record, salt=salt, clock=1))
    assert done.num_stored
    return done.version.seq


@pytest.fixture
def seed(tmp_path: Path) -> Iterator[SeedingThread]:
    for (name,), data in FILES:
        write(tmp_path / "seed" / "site" / name.decode(), data)
    with SeedingThread(TORRENT, tmp_path / "seed") as seed:
        yield seed


def record() -> TorrentRecord:
    info = decode_metainfo(TORRENT).info
    return TorrentRecord.of(info.info_hash, info.info_hash_v2)


def check_mirror(folder: Path) -> None:
    for (name,), data in FILES:
        assert (folder / "mirror" / "site" / name.decode()).read_bytes() == data


@pytest.mark.slow
def test_once_brings_a_folder_up_to_date(
    bittern: Program, network: DhtNetwork, seed: SeedingThread, tmp_path: Path
) -> None:
    seq = publish(network, record(), b"s")
    common = ("--once", "--json", "--timeout", "30", *options(network, tmp_path))
    ran = bittern("follow", PUBLIC, "--salt", "s", "--peer", seed.address, *common)
    assert ran.code == 0, ran.err
    check_mirror(tmp_path)
    seconds = ran.json.pop("seconds")
    assert 0 < seconds < 30
    assert {**ran.json, "seconds": None} == {
        "seq": seq,
        "name": "site",
        "info_hash": str(record().info_hash),
        "info_hash_v2": None,
        "total_length": 50_000,
        "downloaded": 50_000,
        "wasted": 0,
        "reused": 0,
        "seconds": None,
        "magnet": f"{LINK}&s=73",
    }
    # The next time there is nothing to do, and no peer is needed for it.
    ran = bittern("follow", f"{LINK}&s=73", *common)
    assert ran.code == 0, ran.err
    assert ran.json["downloaded"] == 0
    check_mirror(tmp_path)


@pytest.mark.slow
def test_complete_is_said_of_the_content_and_not_of_the_metadata(
    bittern: Program, network: DhtNetwork, seed: SeedingThread, tmp_path: Path
) -> None:
    publish(network, record())
    ran = bittern("follow", LINK, "--once", "-v", "--peer", seed.address, "--timeout", "30",
                  *options(network, tmp_path))  # fmt: skip
    assert ran.code == 0, ran.err
    lines = [line.split(maxsplit=1)[1] for line in ran.out.splitlines()]
    for words in ("complete", "seeding"):
        assert lines.count(words) == 1
        assert lines.index(words) > lines.index("file complete: b")


@pytest.mark.slow
def test_it_stays_until_a_signal_comes(
    bittern: Program,
    network: DhtNetwork,
    seed: SeedingThread,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    note = Report.note
    looks = 0

    def watch(self: Report, kind: str, text: str, **fields: Any) -> None:
        nonlocal looks
        note(self, kind, text, **fields)
        if kind == "waiting":
            looks += 1
            if looks == 2:
                publish(network, record())
        if kind == "version_complete":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Report, "note", watch)
    ran = bittern("follow", LINK, "--interval", "0.1", "--jsonl", "--peer", seed.address,
                  "--timeout", "60", *options(network, tmp_path))  # fmt: skip
    assert ran.code == 0, ran.err
    kinds = [json.loads(line)["type"] for line in ran.out.splitlines()]
    wanted = ["waiting", "version_found", "metadata_received", "version_complete", "result"]
    assert [kind for kind in dict.fromkeys(kinds) if kind in wanted] == wanted
    check_mirror(tmp_path)


@pytest.mark.slow
def test_what_is_not_there(bittern: Program, network: DhtNetwork, tmp_path: Path) -> None:
    ran = bittern("follow", LINK, "--once", "--timeout", "30", *options(network, tmp_path))
    assert ran.code == 3
    assert "nothing is published under it" in ran.error
    # There is a version, but nobody who has it.
    publish(network, TorrentRecord(InfoHash(b"h" * 20)))
    more = ("--timeout", "2", "-q", *options(network, tmp_path))
    ran = bittern("follow", LINK, *more)
    assert (ran.code, ran.error) == (7, "not at the newest version within 2s")


@pytest.mark.slow
def test_nobody_there(bittern: Program, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        ran = bittern("follow", LINK, "-o", tmp_path / "m", "--bind", "127.0.0.1", "--port", "0",
                      "--no-lsd", "--dht-bootstrap", address, "--timeout", "1.5",
                      "--state-dir", tmp_path / "s")  # fmt: skip
    assert (ran.code, ran.error) == (4, "no DHT node could be reached")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["x", "-o", "m"], 2, "neither a magnet link nor a public key"),
        ([f"magnet:?xt=urn:btih:{'0' * 40}", "-o", "m"], 2, "names no public key"),
        ([LINK], 2, "follow needs --output: see bittern follow --help"),
        ([LINK, "--outptu", "m"], 2, "unknown option: --outptu; follow needs --output"),
        ([LINK, "-o", "m", "--salt", "x" * 65], 2, "more than 64 bytes"),
        (
            [LINK, "-o", "m", "--no-dht", "--once", "--no-lsd", "--port", "0"],
            2,
            "which is switched off by --no-dht",
        ),
    ],
)
def test_wrong_usage(
    bittern: Program,
    arguments: list[str],
    code: int,
    text: str,
) -> None:
    ran = bittern("follow", *arguments)
    assert ran.code == code, ran.err
    assert text in ran.error


def test_links_and_keys() -> None:
    key = KEY.public_key
    assert link_for(PUBLIC, "") == link_for(LINK, "") == Magnet(public_key=key)
    assert link_for(PUBLIC.upper(), "s") == Magnet(public_key=key, salt=b"s")
    assert link_for(f"{LINK}&s=6e", "") == Magnet(public_key=key, salt=b"n")
    assert link_for(f"{LINK}&s=6e", "s") == Magnet(public_key=key, salt=b"s")
    with pytest.raises(CommandFailed):
        link_for("ab" * 31, "")


async def test_an_end_without_a_beginning_is_clean() -> None:
    from bittern.cli.options import ReportOptions

    following = Following(Report(ReportOptions()), None)
    await following.close()
    assert following.summary == {}


@pytest.mark.slow
def test_what_is_newest_already_is_seeded_until_the_time_is_up(
    bittern: Program, network: DhtNetwork, seed: SeedingThread, tmp_path: Path
) -> None:
    """And looked at once, when that is all that is asked for."""
    publish(network, record())
    common = ["--peer", seed.address, *options(network, tmp_path)]
    assert bittern("follow", LINK, "--once", "--timeout", "30", *common).code == 0
    ran = bittern("follow", LINK, "--timeout", "3", "--jsonl", *common)
    assert ran.code == 0, ran.err
    told = [json.loads(line) for line in ran.out.splitlines()]
    [done] = [each for each in told if each["type"] == "version_complete"]
    assert done["downloaded"] == 0
    ran = bittern("follow", LINK, "--once", "--json", "--timeout", "30", *common)
    assert ran.code == 0, ran.err
    assert ran.json["downloaded"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 7, "not at the newest version; the same command goes on from here"),
    ],
)
def test_a_signal_before_the_newest_version_is_there(
    bittern: Program,
    network: DhtNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    line: str,
) -> None:
    publish(network, record())
    note = Report.note

    def watch(self: Report, kind: str, text: str, **fields: Any) -> None:
        note(self, kind, text, **fields)
        if kind == "version_found":
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Report, "note", watch)
    ran = bittern("follow", LINK, "-q", "--timeout", "60", *options(network, tmp_path))
    assert (ran.code, ran.error) == (code, line)


@pytest.mark.parametrize("mode", [["--once"], ["--interval", "0.2"]])
def test_a_folder_that_cannot_be_made_ends_it_at_once(
    bittern: Program, network: DhtNetwork, tmp_path: Path, mode: list[str]
) -> None:
    publish(network, record())
    write(tmp_path / "mirror", b"a file in the way")
    ran = bittern("follow", LINK, *mode, "--timeout", "30", *options(network, tmp_path))
    assert ran.code == 5
    assert ran.error.endswith("mirror: not a folder")


def on_note(monkeypatch: pytest.MonkeyPatch, react: Callable[[str], None]) -> None:
    """Call ``react`` with the kind of each note, once it is told."""
    note = Report.note

    def watch(self: Report, kind: str, text: str, **fields: Any) -> None:
        note(self, kind, text, **fields)
        react(kind)

    monkeypatch.setattr(Report, "note", watch)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def run_and_stay(
    bittern: Program, network: DhtNetwork, seed: SeedingThread, folder: Path
) -> list[str]:
    """Follow until a signal comes and the folder is current; the kinds of what was told."""
    ran = bittern("follow", LINK, "--interval", "0.1", "--jsonl", "--peer", seed.address,
                  "--timeout", "60", *options(network, folder))  # fmt: skip
    assert ran.code == 0, ran.err
    check_mirror(folder)
    return [json.loads(line)["type"] for line in ran.out.splitlines()]


@pytest.mark.slow
def test_a_version_that_is_outdated_on_its_way_is_not_waited_for(
    bittern: Program,
    network: DhtNetwork,
    seed: SeedingThread,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody has the first one; the second is there before it."""
    publish(network, TorrentRecord(InfoHash(b"h" * 20)))
    found: list[str] = []

    def react(kind: str) -> None:
        if kind == "version_found":
            found.append(kind)
            if len(found) == 1:
                publish(network, record())
        if kind == "version_complete":
            terminate()

    update, steps = Follower.update, list[str]()

    async def watch(follower: Follower) -> Update:
        steps.append("begun")
        try:
            return await update(follower)
        finally:
            steps.append("ended")

    monkeypatch.setattr(Follower, "update", watch)
    on_note(monkeypatch, react)
    kinds = run_and_stay(bittern, network, seed, tmp_path)
    assert steps == ["begun", "ended", "begun", "ended"]
    assert kinds.count("version_found") == 2
    assert kinds.count("version_complete") == 1


@pytest.mark.slow
def test_a_dht_that_is_gone_for_a_while_does_not_end_it(
    bittern: Program,
    network: DhtNetwork,
    seed: SeedingThread,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(network, record())
    # It is seeded meanwhile, so the next look is not waited for as the first one is.
    monkeypatch.setattr("bittern.cli.follow.RETRY_INTERVAL", 1000.0)
    look, num_failed = Follower.look, 0

    async def fail_later(follower: Follower) -> bool:
        nonlocal num_failed
        if not follower.is_current or num_failed == 3:
            return await look(follower)
        num_failed += 1
        if num_failed == 3:
            asyncio.get_running_loop().call_later(0.5, terminate)
        raise DhtUnreachable("no DHT node could be reached")

    monkeypatch.setattr(Follower, "look", fail_later)
    kinds = run_and_stay(bittern, network, seed, tmp_path)
    assert num_failed == 3
    assert kinds.count("version_found") == kinds.count("version_complete") == 1


@pytest.mark.slow
def test_an_update_that_fails_is_told_and_tried_again(
    bittern: Program,
    network: DhtNetwork,
    seed: SeedingThread,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(network, record())
    update, num_tried = Follower.update, 0

    async def fail_once(follower: Follower) -> Update:
        nonlocal num_tried
        num_tried += 1
        if num_tried == 1:
            raise StorageError("cannot be written", path="mirror", errno=5)
        return await update(follower)

    monkeypatch.setattr(Follower, "update", fail_once)
    on_note(monkeypatch, lambda kind: terminate() if kind == "version_complete" else None)
    kinds = run_and_stay(bittern, network, seed, tmp_path)
    assert kinds.index("failed") < kinds.index("version_complete")
    assert num_tried == 2


@pytest.mark.slow
def test_once_ends_with_an_update_that_fails(
    bittern: Program, network: DhtNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the code that ``get`` has for it."""

    async def fail(follower: Follower) -> Update:
        raise StorageError("cannot be written", path="mirror", errno=errno.EACCES)

    monkeypatch.setattr(Follower, "update", fail)
    publish(network, record())
    ran = bittern("follow", LINK, "--once", "-q", "--timeout", "30", *options(network, tmp_path))
    assert ran.code == 5
    assert "cannot be written" in ran.error


@pytest.mark.slow
def test_what_did_not_change_between_versions_is_not_fetched_again(
    bittern: Program, network: DhtNetwork, seed: SeedingThread, tmp_path: Path
) -> None:
    common = ["--once", "--json", "--timeout", "30", *options(network, tmp_path)]
    publish(network, record())
    assert bittern("follow", LINK, "--peer", seed.address, *common).code == 0
    files = [FILES[0], ((b"b",), content(20_000, 3))]
    for (name,), data in files:
        write(tmp_path / "newer" / "site" / name.decode(), data)
    torrent = folder_torrent(b"site", files)
    info = decode_metainfo(torrent).info
    publish(network, TorrentRecord.of(info.info_hash, info.info_hash_v2))
    with SeedingThread(torrent, tmp_path / "newer") as newer:
        ran = bittern("follow", LINK, "--peer", newer.address, *common)
    assert ran.code == 0, ran.err
    assert (tmp_path / "mirror" / "site" / "b").read_bytes() == files[1][1]
    assert ran.json["reused"] == 30_000
    # The piece that both files share has changed, too.
    assert ran.json["downloaded"] == 50_000 - 16_384
