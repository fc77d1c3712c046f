"""``get`` against a real seed on loopback, in this process; every exit code that it has."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.get import _with_peers, prepare_output
from bittern.cli.loop import StopSignal
from bittern.cli.transfer import Job, Transfer, run_transfers
from bittern.core.endpoint import Endpoint
from bittern.core.errors import DiskFull
from bittern.storage.files import FileStorage
from bittern.storage.statelock import StateLock
from tests.cli.support import (
    ALONE,
    PIECE_LENGTH,
    Program,
    Ran,
    SeedingThread,
    content,
    folder_torrent,
    refusing_tracker,
    single_file_torrent,
    write,
)
from tests.storage.places import Mounts

DATA = content(10 * PIECE_LENGTH + 100)
TORRENT = single_file_torrent(b"cat.mp4", DATA)
FILES = [((b"a",), content(PIECE_LENGTH, 1)), ((b"b",), content(3 * PIECE_LENGTH, 2))]
FOLDER = folder_torrent(b"cats", FILES)


@pytest.fixture(autouse=True)
def _here(home: Path) -> None:
    write(home / "cat.torrent", TORRENT)
    write(home / "cats.torrent", FOLDER)


@pytest.fixture
def seed(tmp_path: Path) -> Iterator[SeedingThread]:
    write(tmp_path / "there/cat.mp4", DATA)
    with SeedingThread(TORRENT, tmp_path / "there") as seed:
        yield seed


@pytest.fixture
def folder_seed(tmp_path: Path) -> Iterator[SeedingThread]:
    for path, data in FILES:
        write(tmp_path / "there/cats" / path[0].decode(), data)
    with SeedingThread(FOLDER, tmp_path / "there") as seed:
        yield seed


@pytest.fixture
def unused_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def records(ran: Ran) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_a_download_ends_complete_with_code_0(
    bittern: Program, seed: SeedingThread, tmp_path: Path
) -> None:
    ran = bittern("get", "cat.torrent", "-o", "out", "--peer", seed.address, *ALONE)
    assert ran.code == 0, ran.err
    assert (tmp_path / "out/cat.mp4").read_bytes() == DATA
    assert ran.err == ""
    lines = ran.out.splitlines()
    assert lines[0] == "complete"
    assert lines[1].startswith("cat.mp4: complete in out, 160.1 KiB in ")


def test_json_has_the_keys_of_the_contract(
    bittern: Program, seed: SeedingThread, tmp_path: Path
) -> None:
    ran = bittern("get", "cat.torrent", "-o", "out", "--json", "--peer", seed.address, *ALONE)
    assert ran.code == 0
    assert ran.err == ""
    value = ran.json
    assert list(value) == [
        "name",
        "info_hash",
        "info_hash_v2",
        "total_length",
        "downloaded",
        "uploaded",
        "wasted",
        "reused",
        "seconds",
        "download_rate",
        "peers_seen",
        "files",
    ]
    assert value["name"] == "cat.mp4"
    assert value["total_length"] == value["downloaded"] == len(DATA)
    assert value["uploaded"] == value["wasted"] == value["reused"] == 0
    assert value["seconds"] > 0
    assert value["download_rate"] > 0
    assert value["peers_seen"] == 1
    assert value["files"] == [{"path": "cat.mp4", "length": len(DATA)}]


def test_json_lines_tell_the_whole_story(bittern: Program, seed: SeedingThread) -> None:
    ran = bittern(
        "get", "cat.torrent", "-o", "out", "--jsonl", "-vv", "--peer", seed.address, *ALONE
    )
    assert ran.code == 0
    told = records(ran)
    kinds = [record["type"] for record in told]
    assert kinds[:3] == ["listening", "added", "state_changed"]
    assert kinds[-1] == "result"
    assert kinds.count("piece_verified") == 11
    assert {"peers_found", "peer_connected", "message_sent", "torrent_completed"} <= set(kinds)
    handshakes = [record for record in told if record.get("kind") == "handshake"]
    assert [len(bytes.fromhex(record["raw"])) for record in handshakes] == [68, 68]
    assert len({record["torrent"] for record in told if "torrent" in record}) == 1


def test_chosen_files_only(bittern: Program, folder_seed: SeedingThread, tmp_path: Path) -> None:
    ran = bittern(
        "get", "cats.torrent", "-o", "out", "--files", "1", "--json",
        "--peer", folder_seed.address, *ALONE,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert ran.json["files"] == [{"path": "cats/b", "length": 3 * PIECE_LENGTH}]
    assert (tmp_path / "out/cats/b").read_bytes() == FILES[1][1]
    assert not (tmp_path / "out/cats/a").exists()


def test_in_order_when_asked(bittern: Program, seed: SeedingThread) -> None:
    ran = bittern(
        "get", "cat.torrent", "-o", "out", "--sequential", "--jsonl", "--peer", seed.address, *ALONE
    )
    order = [record["index"] for record in records(ran) if record["type"] == "piece_verified"]
    assert order == list(range(11))


def test_several_at_once_are_a_list(
    bittern: Program, seed: SeedingThread, folder_seed: SeedingThread, tmp_path: Path
) -> None:
    ran = bittern(
        "get", "cat.torrent", "cats.torrent", "-o", "out", "--json",
        "--peer", seed.address, "--peer", folder_seed.address, *ALONE,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert [value["name"] for value in ran.json] == ["cat.mp4", "cats"]
    assert (tmp_path / "out/cat.mp4").read_bytes() == DATA
    assert (tmp_path / "out/cats/b").read_bytes() == FILES[1][1]


@pytest.mark.parametrize(("done", "is_discarded"), [((True, False), False), ((True, True), True)])
def test_what_is_known_of_several_is_kept_until_all_are_complete(
    bittern: Program, monkeypatch: pytest.MonkeyPatch, done: tuple[bool, ...], is_discarded: bool
) -> None:
    discarded: list[Path | None] = []

    async def run(*_: object, **__: object) -> list[SimpleNamespace]:
        return [SimpleNamespace(is_complete=each) for each in done]

    monkeypatch.setattr("bittern.cli.get.run_transfers", run)
    monkeypatch.setattr("bittern.cli.get.finish", lambda *_: 0)
    monkeypatch.setattr("bittern.cli.get.discard_run", discarded.append)
    assert bittern("get", "cat.torrent", "cats.torrent", "-o", "out", *ALONE).code == 0
    assert len(discarded) == is_discarded


def test_what_is_there_is_not_fetched_again(
    bittern: Program, seed: SeedingThread, tmp_path: Path
) -> None:
    half = bytearray(DATA)
    half[5 * PIECE_LENGTH :] = bytes(len(half) - 5 * PIECE_LENGTH)
    write(tmp_path / "out/cat.mp4", bytes(half))
    ran = bittern("get", "cat.torrent", "-o", "out", "--json", "--peer", seed.address, *ALONE)
    assert ran.code == 0
    assert ran.json["downloaded"] == len(DATA) - 5 * PIECE_LENGTH
    assert (tmp_path / "out/cat.mp4").read_bytes() == DATA


def test_complete_data_needs_nobody(bittern: Program, tmp_path: Path) -> None:
    write(tmp_path / "out/cat.mp4", DATA)
    ran = bittern("get", "cat.torrent", "-o", "out", *ALONE)
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "cat.mp4: complete in out"
    assert bittern("get", "cat.torrent", "-o", "out", "--skip-check", "-q", *ALONE).code == 0


def test_a_magnet_link_brings_the_torrent_with_it(
    bittern: Program, seed: SeedingThread, tmp_path: Path
) -> None:
    link = bittern("magnet", "cat.torrent").out.strip()
    ran = bittern("get", link, "-o", "out", "--jsonl", "--peer", seed.address, *ALONE)
    assert ran.code == 0, ran.err
    assert "metadata_received" in [record["type"] for record in records(ran)]
    assert (tmp_path / "out/cat.mp4").read_bytes() == DATA


def test_the_torrent_file_of_a_magnet_link_is_saved(
    bittern: Program, seed: SeedingThread, tmp_path: Path
) -> None:
    """And a torrent can be had from it without the link."""
    link = bittern("magnet", "cat.torrent").out.strip()
    options = ("--jsonl", "--peer", seed.address, *ALONE)
    ran = bittern("get", link, "-o", "out", "--save-torrent", "saved.torrent", *options)
    assert ran.code == 0, ran.err
    saved = [record for record in records(ran) if record["type"] == "torrent_saved"]
    assert [record["path"] for record in saved] == ["saved.torrent"]
    assert bittern("verify", "saved.torrent", "--data", "out").code == 0
    assert (
        bittern("info", "saved.torrent", "--json").json["info_hash"]
        == (bittern("info", "cat.torrent", "--json").json["info_hash"])
    )


def test_where_a_torrent_file_cannot_be_saved_nothing_begins(bittern: Program) -> None:
    many = bittern("get", "cat.torrent", "cats.torrent", "--save-torrent", "one", *ALONE)
    assert (many.code, many.err.strip().count("\n")) == (2, 0)
    assert "name a folder for several torrents" in many.err
    lost = bittern("get", "cat.torrent", "--save-torrent", "no/where.torrent", *ALONE)
    assert (lost.code, lost.err.strip()) == (3, "bittern: no: no such folder")


@pytest.mark.parametrize(
    ("bind", "kept"),
    [
        ((), ["1.2.3.4"]),
        (("0.0.0.0",), ["1.2.3.4"]),
        (("0.0.0.0", "::"), ["1.2.3.4"]),
        (("8.8.8.8",), ["1.2.3.4"]),
        (("127.0.0.1",), ["127.0.0.1", "192.168.1.1", "1.2.3.4"]),
        (("8.8.8.8", "192.168.1.9"), ["127.0.0.1", "192.168.1.1", "1.2.3.4"]),
    ],
)
async def test_a_link_does_not_lead_into_our_own_network(
    bind: tuple[str, ...], kept: list[str]
) -> None:
    """Limit: P14."""
    hinted = (("127.0.0.1", 1), ("192.168.1.1", 2), ("1.2.3.4", 3))
    job = Job(source="magnet:", label="x", hinted_peers=hinted)
    given = (Endpoint("10.0.0.1", 9),)
    found = (await _with_peers(job, given, bind, StopSignal())).config
    assert found.peers == given
    assert [endpoint.host for endpoint in found.hinted_peers] == kept


def test_a_link_may_name_peers(bittern: Program, seed: SeedingThread, tmp_path: Path) -> None:
    link = bittern("magnet", "cat.torrent", "--peer", seed.address).out.strip()
    ran = bittern("get", link, "-o", "out", "--timeout", "20s", *ALONE)
    assert ran.code == 0, ran.err
    assert (tmp_path / "out/cat.mp4").read_bytes() == DATA


def test_an_info_hash_is_enough(bittern: Program, seed: SeedingThread, tmp_path: Path) -> None:
    info_hash = bittern("info", "cat.torrent", "--json").json["info_hash"]
    ran = bittern("get", info_hash, "-o", "out", "--json", "--peer", seed.address, *ALONE)
    assert ran.code == 0, ran.err
    assert ran.json["name"] == "cat.mp4"
    assert (tmp_path / "out/cat.mp4").read_bytes() == DATA


@pytest.mark.slow
def test_seeding_ends_when_its_time_is_up(bittern: Program, seed: SeedingThread) -> None:
    ran = bittern(
        "get", "cat.torrent", "-o", "out", "--seed-time", "0.1s", "--peer", seed.address, *ALONE
    )
    assert ran.code == 0


@pytest.mark.slow
def test_a_timeout_while_seeding_is_no_failure(bittern: Program, tmp_path: Path) -> None:
    # Long enough for a busy machine to have begun to seed by then.
    write(tmp_path / "out/cat.mp4", DATA)
    ran = bittern("get", "cat.torrent", "-o", "out", "--seed", "--timeout", "2s", *ALONE)
    assert ran.code == 0
    assert ran.err == ""


# --- a volume that is not mounted ---------------------------------------------------------------


def test_what_was_on_a_volume_that_is_not_mounted_is_fetched_on_request_only(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: SeedingThread
) -> None:
    """Limit: F6."""
    usb = tmp_path / "usb"
    mounts = Mounts(monkeypatch)
    mounts.add(usb)
    write(usb / "cat.mp4", DATA)
    line = ("get", "cat.torrent", "-o", "usb", "--peer", seed.address, *ALONE)
    assert bittern(*line).code == 0
    mounts.clear()
    (usb / "cat.mp4").unlink()
    ran = bittern(*line, "--json")
    assert ran.code == 3
    assert ran.error == (
        f"cat.mp4: the volume that holds its files is not mounted: '{usb}'; "
        "mount it and run this again, or have get --recheck fetch anew what is not here"
    )
    assert [reason["code"] for reason in ran.json["reasons"]] == ["volume_missing"]
    assert list(usb.iterdir()) == []
    told = [each["type"] for each in records(bittern(*line, "--jsonl"))]
    assert told.count("storage_failed") == told.count("failed") == 1
    assert bittern("seed", "cat.torrent", "--data", "usb", *ALONE).code == 3
    assert list(usb.iterdir()) == []
    assert bittern(*line, "--recheck").code == 0
    assert (usb / "cat.mp4").read_bytes() == DATA


def test_a_folder_that_is_a_link_to_nothing_says_where_that_would_be(
    bittern: Program, tmp_path: Path
) -> None:
    """As one to a disk that is not there."""
    (tmp_path / "out").symlink_to(tmp_path / "usb/data")
    ran = bittern("get", "cat.torrent", "-o", "out", *ALONE)
    assert ran.code == 5
    assert ran.error.endswith(f"out: leads to {tmp_path / 'usb/data'}, which is not there")


# --- the other exit codes --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("", 2, "nothing to get"),
        ("cat.torrent --files 7", 2, "no file 7"),
        ("cat.torrent --peer nowhere", 2, "not HOST:PORT"),
        ("cat.torrent --max-upload x", 2, "not a rate"),
        ("cat.torrent --web-seed ftp://x/y", 2, "web seed ftp://x/y: "),
        ("cat.torrent cat.torrent", 2, "cat.torrent: the same torrent as cat.torrent"),
        ("gone.torrent", 3, "gone.torrent: no such file"),
        ("cat.torrent gone.torrent", 3, "gone.torrent: no such file"),
        ("there", 1, "there: a folder, not a .torrent file"),
        ("bad.torrent", 1, "bad.torrent: not a torrent"),
        ("magnet:?xt=urn:btih:12", 1, "malformed info hash"),
        ("cat.torrent -o cat.torrent", 5, "cat.torrent: not a folder"),
    ],
)
def test_what_cannot_begin_is_one_line(
    bittern: Program, tmp_path: Path, line: str, code: int, text: str
) -> None:
    (tmp_path / "there").mkdir()
    write(tmp_path / "bad.torrent", b"d8:announce")
    ran = bittern("get", *line.split(), *ALONE)
    assert ran.code == code
    assert text in ran.error
    assert ran.out == ""


@pytest.mark.slow
def test_nobody_reached_in_time_is_code_4(bittern: Program, unused_port: int) -> None:
    ran = bittern(
        "get", "cat.torrent", "-o", "out", "--timeout", "0.3s", "--json",
        "--peer", f"127.0.0.1:{unused_port}", *ALONE,
    )  # fmt: skip
    assert ran.code == 4
    lines = ran.errors
    assert lines[0] == "no tracker and no peer could be reached"
    assert lines[1].startswith("1 of 1 known peer failed (1 connection refused)")
    assert ran.json["downloaded"] == 0
    assert ran.json["reasons"][0] == {"code": "peers_unreachable", "text": lines[1]}


def test_a_source_that_does_not_come_is_named(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is complete beside it is, and the code tells that not everything is."""
    write(tmp_path / "out/cat.mp4", DATA)

    async def end(transfer: Transfer, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Transfer, "_seed", end)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/dog.torrent"
        ran = bittern("get", "cat.torrent", url, "-o", "out", *ALONE)
    assert ran.code == 7
    assert ran.out.splitlines()[-2:] == ["cat.mp4: complete in out", f"{url}: not begun"]


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a tracker that refuses."""
    with refusing_tracker() as address:
        yield address


@pytest.mark.slow
def test_a_tracker_that_refuses_was_reached_and_is_quoted(
    bittern: Program, refusing: str, unused_port: int, tmp_path: Path
) -> None:
    dead = [[f"http://127.0.0.1:{unused_port}/{number}"] for number in range(7)]
    tiers = [*dead, [f"{refusing}/announce"]]
    write(tmp_path / "refused.torrent", single_file_torrent(b"dog", DATA, trackers=tiers))
    alone = [option for option in ALONE if option != "--no-tracker"]
    sources = ("refused.torrent", "cat.torrent")
    for named, told in (sources[:1], ""), (sources, "dog: "):
        ran = bittern("get", *named, "-o", "out", "--timeout", "2", *alone)
        assert ran.code == 7, ran.err
        lines = ran.errors
        assert lines[0] == "not finished; the same command goes on from here"
        assert lines[1] == f"{told}tracker {refusing} refused: not registered"
        assert f"{told}No peer is known yet." in lines


@pytest.mark.slow
def test_metadata_that_never_comes_is_code_4(bittern: Program) -> None:
    ran = bittern("get", "ab" * 20, "-o", "out", "--timeout", "0.2s", "--json", *ALONE)
    assert ran.code == 4
    value = ran.json
    assert value["info_hash"] == value["name"] == "ab" * 20
    assert value["total_length"] == 0
    assert value["files"] == []


@pytest.mark.slow
def test_unfinished_in_time_is_code_7_and_goes_on_next_time(
    bittern: Program, tmp_path: Path
) -> None:
    write(tmp_path / "there/cat.mp4", DATA)
    with SeedingThread(TORRENT, tmp_path / "there", max_upload_rate=PIECE_LENGTH * 4) as seed:
        ran = bittern(
            "get", "cat.torrent", "-o", "out", "--timeout", "1s", "--json",
            "--peer", seed.address, *ALONE,
        )  # fmt: skip
    assert ran.code == 7
    assert "goes on from here" in ran.error
    assert 0 < ran.json["downloaded"] < len(DATA)
    assert not list((tmp_path / "out").glob("*.part"))


@pytest.mark.slow
def test_the_next_run_trusts_what_the_last_one_verified(bittern: Program, tmp_path: Path) -> None:
    write(tmp_path / "there/cat.mp4", DATA)
    line = ("get", "cat.torrent", "-o", "out", "--jsonl", *ALONE)
    with SeedingThread(TORRENT, tmp_path / "there", max_upload_rate=PIECE_LENGTH * 4) as seed:
        first = bittern(*line, "--timeout", "1s", "--peer", seed.address)
    assert first.code == 7
    with SeedingThread(TORRENT, tmp_path / "there") as seed:
        second = bittern(*line, "--peer", seed.address)
    assert second.code == 0
    assert "check_progressed" not in [record["type"] for record in records(second)]
    parts = [records(ran)[-1]["downloaded"] for ran in (first, second)]
    assert parts[0] > 0
    assert sum(parts) == len(DATA)
    assert (tmp_path / "out/cat.mp4").read_bytes() == DATA


def test_two_runs_at_once_do_not_share_their_state(
    bittern: Program, seed: SeedingThread, tmp_path: Path
) -> None:
    lock = StateLock(tmp_path / "state")
    ran = bittern("get", "cat.torrent", "-o", "out", "--peer", seed.address, *ALONE)
    lock.release()
    assert ran.code == 0
    assert ran.err == ""
    assert list((tmp_path / "state/runs").iterdir()) == []


def test_a_folder_that_may_not_be_written_is_code_5(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root
    ran = bittern("get", "cat.torrent", "-o", "deep/down", *ALONE)
    assert ran.code == 5
    assert ran.error == f"{tmp_path}: not writable"


@pytest.mark.parametrize("options", [[], ["--seed-time", "1s"], ["--files", "0"]])
def test_what_is_all_there_may_be_on_a_medium_that_is_read_only(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    write(tmp_path / "out/cat.mp4", DATA)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    ran = bittern("get", "cat.torrent", "-o", "out", *options, *ALONE)
    assert (ran.code, ran.err) == (0, "")
    (tmp_path / "out/cat.mp4").write_bytes(DATA[1:])
    ran = bittern("get", "cat.torrent", "-o", "out", *options, *ALONE)
    assert (ran.code, ran.error) == (5, f"{tmp_path}/out: not writable")


def test_a_drive_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows not even the topmost folder need be there; it was looked for above itself."""
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(CommandFailed, match="/: no such drive") as caught:
        prepare_output(Path("/gone/out"))
    assert caught.value.code is ExitCode.DISK


def test_a_full_disk_is_code_5(
    bittern: Program, seed: SeedingThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(storage: FileStorage, offset: int, buffers: object) -> None:
        raise DiskFull("no space left on device", path="cat.mp4", errno=28)

    monkeypatch.setattr(FileStorage, "write", fail)
    ran = bittern("get", "cat.torrent", "-o", "out", "--peer", seed.address, "--json", *ALONE)
    assert ran.code == 5
    assert "no space left on device" in ran.err.splitlines()[-1]
    [reason] = ran.json["reasons"]
    assert reason["code"] == "disk_full"
    assert "tried again" not in reason["text"], "it is not: the program has ended"


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 7, "not finished")],
)
def test_a_signal_stops_cleanly(
    bittern: Program, monkeypatch: pytest.MonkeyPatch, number: int, code: int, line: str
) -> None:

    async def begin(*args: Any, **kwargs: Any) -> Any:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
        timer.start()
        try:
            return await run_transfers(*args, **kwargs)
        finally:
            timer.join()

    monkeypatch.setattr("bittern.cli.get.run_transfers", begin)
    ran = bittern("get", "cat.torrent", "-o", "out", "--json", *ALONE)
    assert ran.code == code
    assert line in ran.error
    assert ran.json["downloaded"] == 0


@pytest.mark.slow
def test_a_signal_while_seeding_finds_the_work_done(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out/cat.mp4", DATA)

    seed = Transfer._seed

    async def begin(transfer: Transfer, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await seed(transfer, *args)

    monkeypatch.setattr(Transfer, "_seed", begin)
    assert bittern("get", "cat.torrent", "-o", "out", "--seed", *ALONE).code == 0


class TestReuse:
    """Files that are there already, elsewhere."""

    def test_files_are_taken_from_a_folder(self, bittern: Program, tmp_path: Path) -> None:
        for path, data in FILES:
            write(tmp_path / "old/deep" / path[0].decode(), data)
        ran = bittern(
            "get", "cats.torrent", "-o", "out", "--reuse-from", "old", "--json", "-v", *ALONE
        )
        assert ran.code == 0
        assert (ran.json["downloaded"], ran.json["reused"]) == (0, 4 * PIECE_LENGTH)
        for path, data in FILES:
            assert (tmp_path / "out/cats" / path[0].decode()).read_bytes() == data

    def test_what_is_taken_is_told(self, bittern: Program, tmp_path: Path) -> None:
        write(tmp_path / "old/cat.mp4", DATA)
        ran = bittern("get", "cat.torrent", "-o", "out", "--reuse-from", "old", "-v", *ALONE)
        assert ran.code == 0
        assert "cat.mp4: taken from old/cat.mp4 (copy)" in ran.out

    def test_a_hard_link_on_request(self, bittern: Program, tmp_path: Path) -> None:
        write(tmp_path / "old/cat", DATA)
        ran = bittern(
            *("get", "cat.torrent", "-o", "out", "--reuse-from", "old", "--jsonl"),
            *("--reuse-how", "hardlink", *ALONE),
        )
        assert ran.code == 0
        assert (tmp_path / "out/cat.mp4").samefile(tmp_path / "old/cat")
        told = next(record for record in records(ran) if record["type"] == "file_reused")
        assert told["how"] == "hardlink"

    def test_a_folder_that_is_not_there_is_refused(self, bittern: Program) -> None:
        ran = bittern("get", "cat.torrent", "--reuse-from", "nowhere", *ALONE)
        assert ran.code == 3
        assert "nowhere: no such file or folder" in ran.err


@pytest.mark.parametrize("url", ["http://[::1", "https://", "http://a:b/"])
def test_a_url_that_is_none_is_refused_before_anything_begins(bittern: Program, url: str) -> None:
    ran = bittern("get", url, *ALONE)
    assert ran.code == 2
    assert ran.error.startswith(f"{url}: ")
