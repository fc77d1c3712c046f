from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import threading
from pathlib import Path
from typing import NoReturn

import platformdirs
import pytest

from bittern.cli import session
from bittern.cli.loop import StopSignal
from bittern.cli.options import NetworkOptions
from bittern.cli.session import (
    choose_state_dir,
    discard_run,
    resolve_peers,
    session_config,
    state_key,
    with_state_dir,
)
from bittern.cli.values import HostPort
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError, DiskFull, StorageError
from bittern.dht.limits import WELL_KNOWN_ROUTERS
from bittern.engine.config import SessionConfig
from bittern.storage.statelock import StateLock
from tests.cli.support import write


def test_without_options_the_engine_decides(tmp_path: Path) -> None:
    config = session_config(NetworkOptions(), tmp_path)
    assert config == SessionConfig(state_dir=tmp_path)
    assert config.dht_bootstrap == WELL_KNOWN_ROUTERS


def test_every_option_becomes_a_setting(tmp_path: Path) -> None:
    config = session_config(
        NetworkOptions(
            port=0,
            bind=("127.0.0.1", "127.0.0.2"),
            no_dht=True,
            no_pex=True,
            no_lsd=True,
            no_tracker=True,
            no_web_seed=True,
            zeroconf=True,
            dht_bootstrap=(HostPort("dht.example", 1), HostPort("::1", 2)),
            max_download=1000,
            max_upload=2000,
        ),
        tmp_path,
    )
    assert config == SessionConfig(
        listen_host=("127.0.0.1", "127.0.0.2"),
        listen_port=0,
        enable_trackers=False,
        enable_web_seeds=False,
        enable_dht=False,
        enable_pex=False,
        enable_lsd=False,
        enable_zeroconf=True,
        dht_bootstrap=(("dht.example", 1), ("::1", 2)),
        max_download_rate=1000,
        max_upload_rate=2000,
        state_dir=tmp_path,
    )


def test_what_the_engine_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match="listen_port"):
        session_config(NetworkOptions(port=70_000), None)


def test_the_state_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "a/b"
    assert choose_state_dir(path, "k") == path
    assert path.stat().st_mode & 0o777 == 0o700


def test_by_default_it_is_the_platforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "platformdirs.user_state_path", lambda name, **options: tmp_path / "state" / name
    )
    assert choose_state_dir(None, "k") == tmp_path / "state/bittern"


def test_without_a_state_folder_we_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "file", b"") / "state"
    assert choose_state_dir(path, "k") is None
    err = capsys.readouterr().err
    assert err.startswith("bittern: warning: ")
    assert str(path) in err
    assert err.endswith("; downloads will be checked anew next time\n")


@pytest.mark.parametrize("is_old", [False, True])
def test_without_a_home_folder_we_go_on(
    is_old: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container that runs under a number without a name."""

    def find(_name: str, **_: object) -> Path:
        if is_old:
            return Path("~/.local/state/bittern")
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_state_path", find)
    assert choose_state_dir(None, "k") is None
    assert capsys.readouterr().err == (
        "bittern: warning: there is no home folder to keep state in; --state-dir names another; "
        "downloads will be checked anew next time\n"
    )


def test_a_home_folder_of_somebody_else_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with ``sudo`` that keeps HOME; older Pythons raise where they may not look."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "mkdir", refuse)
    folder = choose_state_dir(tmp_path / "state", "k")
    monkeypatch.undo()
    assert folder is None
    assert "permission denied" in capsys.readouterr().err


def test_a_second_run_has_a_folder_of_its_own_and_finds_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = StateLock(tmp_path)
    own = choose_state_dir(tmp_path, "k")
    assert own == tmp_path / "runs/k"
    assert choose_state_dir(tmp_path, "other") == tmp_path / "runs/other"
    first.release()
    assert choose_state_dir(tmp_path, "k") == own
    assert choose_state_dir(tmp_path, "third") == tmp_path
    second = StateLock(own)
    assert choose_state_dir(tmp_path, "k") == tmp_path
    first = StateLock(tmp_path)
    assert choose_state_dir(tmp_path, "k") is None
    assert "in use by another bittern" in capsys.readouterr().err
    first.release()
    second.release()


def test_only_a_run_of_its_own_is_discarded(tmp_path: Path) -> None:
    own = tmp_path / "runs/k"
    write(own / "resume.db", b"x")
    discard_run(None)
    discard_run(tmp_path)
    assert own.exists()
    discard_run(own)
    assert not own.exists()
    assert tmp_path.exists()


def test_a_run_is_known_by_its_place_and_torrents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key = state_key(tmp_path / "out", ["a", "b"])
    assert key == state_key(Path("out"), ["b", "a"])
    others = [state_key(tmp_path, ["a", "b"]), state_key(tmp_path / "out", ["a"])]
    assert key not in others
    assert len(key) == 16


async def test_addresses_need_no_lookup_and_names_do(capsys: pytest.CaptureFixture[str]) -> None:
    peers = [
        HostPort("127.0.0.1", 1),
        HostPort("::1", 2),
        HostPort("127.0.0.1", 1),
        HostPort("localhost", 3),
        HostPort("no.such.name.invalid", 4),
        HostPort("x" * 80, 5),
    ]
    found = await resolve_peers(peers, StopSignal())
    assert found[:2] == (Endpoint("127.0.0.1", 1), Endpoint("::1", 2))
    assert {endpoint.port for endpoint in found[2:]} == {3}
    assert all(endpoint.host in ("127.0.0.1", "::1") for endpoint in found)
    complaints = capsys.readouterr().err.splitlines()
    assert len(complaints) == 2
    assert complaints[0].startswith("bittern: warning: no.such.name.invalid:4: ")
    assert complaints[1] == f"bittern: warning: {'x' * 80}:5: not a host name"


async def test_a_name_without_a_usable_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system may know families that we do not."""
    info = (0, 0, 0, "", ("/run/printer", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [info])
    assert await resolve_peers([HostPort("printer", 1)], StopSignal()) == ()
    assert capsys.readouterr().err == "bittern: warning: printer:1: no address\n"


async def test_a_dns_that_never_answers_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Limit: F11, F19. Neither Ctrl-C, nor the end of the program, nor those who have addresses."""
    release = threading.Event()
    asked = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        asked.set()
        release.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        stop = StopSignal()
        peers = [HostPort("127.0.0.1", 1), HostPort("a.test", 2), HostPort("b.test", 3)]
        looking = asyncio.ensure_future(resolve_peers(peers, stop))
        await asyncio.to_thread(asked.wait, 10)
        stop.receive(signal.SIGINT)
        assert await asyncio.wait_for(looking, 1) == ()
        stop.close()
        assert capsys.readouterr().err == ""
        hanging = [each for each in threading.enumerate() if each.name.startswith("dns ")]
        assert hanging
        assert all(each.daemon for each in hanging)
        monkeypatch.setattr(session, "LOOKUP_TIMEOUT", 0.01)
        assert await resolve_peers(peers, StopSignal()) == (Endpoint("127.0.0.1", 1),)
        assert capsys.readouterr().err.splitlines() == [
            "bittern: warning: a.test:2: timed out",
            "bittern: warning: b.test:3: timed out",
        ]
    finally:
        release.set()


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1: "):
        session_config(NetworkOptions(bind=("127.0.0.1", "192.0.2.1")), None)


async def test_a_folder_that_somebody_else_takes_first_is_left_to_him(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of runs that begin together all look before one of them locks."""
    others: list[StateLock] = []

    async def work(folder: Path | None) -> Path | None:
        assert folder is not None
        if not others:
            others.append(StateLock(folder))
        StateLock(folder).release()
        return folder

    assert await with_state_dir(tmp_path, "k", work) == tmp_path / "runs/k"
    assert capsys.readouterr().err == ""
    others[0].release()


async def test_when_somebody_is_always_quicker_we_do_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work(folder: Path | None) -> str:
        if folder is None:
            return "done"
        raise StorageError("in use", path=str(folder), errno=errno.EAGAIN)

    assert await with_state_dir(tmp_path, "k", work) == "done"
    assert "others take every state folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error", [DiskFull("no room"), StorageError("try again", path="/data", errno=errno.EAGAIN)]
)
async def test_other_failures_of_the_work_are_no_reason_to_begin_anew(
    error: StorageError, tmp_path: Path
) -> None:
    async def work(_: Path | None) -> None:
        raise error

    with pytest.raises(StorageError) as caught:
        await with_state_dir(tmp_path, "k", work)
    assert caught.value is error
