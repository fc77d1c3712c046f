from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bittern.cli import tracker as tracker_module
from bittern.cli.exits import CommandFailed
from bittern.cli.report import Report
from bittern.cli.tracker import resolve_listeners
from bittern.cli.values import HostPort
from bittern.codec.udp_tracker import (
    ConnectReply,
    ErrorReply,
    decode_reply,
    encode_announce,
    encode_connect,
)
from bittern.core.announce import AnnounceRequest
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash, PeerId
from bittern.tracker.server import Tracker
from tests.cli.support import Program, write

HASH = "ab" * 20


@pytest.fixture
def stopped_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tracker announce itself, then send SIGTERM."""
    begin = Tracker.__aenter__

    async def enter(self: Tracker) -> Tracker:
        server = await begin(self)
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        return server

    monkeypatch.setattr(Tracker, "__aenter__", enter)


@pytest.mark.usefixtures("stopped_soon")
def test_it_says_where_it_listens_and_what_it_did(bittern: Program) -> None:
    ran = bittern("tracker", "--http", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--json")
    assert ran.code == 0, ran.err
    assert ran.json == {
        "num_torrents": 0,
        "num_peers": 0,
        "num_announces": 0,
        "num_scrapes": 0,
        "num_refused": 0,
    }
    ran = bittern("tracker", "--http", "127.0.0.1:0", "--udp", "127.0.0.1:0")
    assert ran.code == 0
    assert ran.out.startswith("listening on http://127.0.0.1:")
    assert ", udp://127.0.0.1:" in ran.out


@pytest.mark.usefixtures("stopped_soon")
def test_without_listeners_it_takes_its_usual_port(
    bittern: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def resolve(listeners: tuple[HostPort, ...]) -> list[Endpoint]:
        asked.append(listeners)
        return [Endpoint("127.0.0.1", 0)]

    monkeypatch.setattr(tracker_module, "resolve_listeners", resolve)
    assert bittern("tracker", "-q").code == 0
    assert asked == [(HostPort("", 6969),), (HostPort("", 6969),)]


def test_numbers_are_told_when_they_change(
    bittern: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "STATUS_INTERVAL", 0.02)
    begin = Tracker.__aenter__

    async def enter(self: Tracker) -> Tracker:
        server = await begin(self)
        loop = asyncio.get_running_loop()
        query = "?info_hash=" + "%ab" * 20 + "&peer_id=" + "a" * 20 + "&port=1&left=0&compact=1"
        url = server.announce_urls[0] + query
        asked = loop.run_in_executor(None, lambda: urllib.request.urlopen(url).read())
        asked.add_done_callback(
            lambda _: loop.call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
        )
        return server

    monkeypatch.setattr(Tracker, "__aenter__", enter)
    ran = bittern("tracker", "--http", "127.0.0.1:0", "--interval", "2m")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert lines[1:] == ["1 torrent, 1 peer, 1 announce, no scrapes, 0 refused"]


@pytest.mark.parametrize("option", ["-v", "--jsonl", "-q"])
def test_whom_it_refuses_and_why_is_told_to_who_asks(
    bittern: Program, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """Over HTTP and UDP, what cannot be read and what is against the rules."""
    begin = Tracker.__aenter__

    async def enter(self: Tracker) -> Tracker:
        server = await begin(self)
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(None, _break_rules, server.announce_urls)
        asked.add_done_callback(lambda _: os.kill(os.getpid(), signal.SIGTERM))
        return server

    monkeypatch.setattr(Tracker, "__aenter__", enter)
    ran = bittern("tracker", "--http", "127.0.0.1:0", "--udp", "127.0.0.1:0", option)
    assert ran.code == 0, ran.err
    reasons = [
        "info_hash must have 20 bytes, not 1",
        "a full scrape is not available",
        "port must be in 1..65535",
    ]
    if option == "-v":
        lines = [line.split("  ")[-1] for line in ran.out.splitlines()[1:]]
        assert lines == [f"refused 127.0.0.1: {reason}" for reason in reasons]
    elif option == "--jsonl":
        found = [json.loads(line) for line in ran.out.splitlines()]
        told = [(each["host"], each["reason"]) for each in found if each["type"] == "refused"]
        assert told == [("127.0.0.1", reason) for reason in reasons]
        assert found[-1]["num_refused"] == 3
    else:
        assert ran.out == ""


def _break_rules(urls: list[str]) -> None:
    """Ask over HTTP for a swarm that cannot be and for all of them; announce port 0 over UDP."""
    http, udp = urls
    for target in (f"{http}?info_hash=a", http.replace("announce", "scrape")):
        with urllib.request.urlopen(target) as answer:
            assert b"failure reason" in answer.read()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        parts = urlsplit(udp)
        sock.connect((parts.hostname, parts.port))
        sock.send(encode_connect(1))
        reply = decode_reply(sock.recv(100), ipv6=False)
        assert isinstance(reply, ConnectReply)
        request = AnnounceRequest(
            info_hash=InfoHash(b"h" * 20),
            peer_id=PeerId(b"p" * 20),
            port=0,
            uploaded=0,
            downloaded=0,
            left=1,
        )
        sock.send(encode_announce(reply.connection_id, 2, request))
        assert isinstance(decode_reply(sock.recv(1000), ipv6=False), ErrorReply)


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("--http nowhere", 2, "not HOST:PORT"),
        ("--interval 0", 2, "interval must be from 1"),
        ("--http 127.0.0.1:0 --trust lan", 2, "trusted network"),
        ("--store redis://x", 2, "only 'memory:' is there"),
        ("--allow gone", 3, "gone: no such file or directory"),
        ("--allow bad", 1, "bad: line 2: "),
        ("--http no.such.name.invalid:1", 3, "no.such.name.invalid: "),
    ],
)
def test_what_cannot_be_is_one_line(
    bittern: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    code: int,
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "bad", f"{HASH}\nnonsense\n".encode())
    ran = bittern("tracker", *line.split())
    assert ran.code == code
    assert text in ran.error


def test_a_taken_port_is_one_line(bittern: Program) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = bittern("tracker", "--http", f"127.0.0.1:{port}")
    assert ran.code == 1
    assert ran.error == f"cannot listen on 127.0.0.1:{port}: address already in use"


async def test_listeners_are_addresses_of_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker_module, "_has_ipv6", lambda: True)
    listeners = [HostPort("", 6969), HostPort("", 0), HostPort("127.0.0.1", 5), HostPort("::1", 0)]
    assert await resolve_listeners(listeners) == [
        Endpoint("0.0.0.0", 6969),
        Endpoint("::", 6969),
        Endpoint("0.0.0.0", 0),
        Endpoint("127.0.0.1", 5),
        Endpoint("::1", 0),
    ]
    monkeypatch.setattr(tracker_module, "_has_ipv6", lambda: False)
    assert await resolve_listeners(listeners[:1]) == [Endpoint("0.0.0.0", 6969)]
    with pytest.raises(CommandFailed):
        await resolve_listeners([HostPort("x" * 80, 1)])


def test_ipv6_is_there_only_if_a_socket_can_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_ipv6", False)
    assert tracker_module._has_ipv6() is False
    monkeypatch.setattr(socket, "has_ipv6", True)

    def refuse(*args: object) -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    assert tracker_module._has_ipv6() is False


@pytest.mark.usefixtures("stopped_soon")
def test_a_reader_that_has_gone_is_no_address_in_use(
    bittern: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Report, "note", fail)
    ran = bittern("tracker", "--http", "127.0.0.1:0")
    assert (ran.code, ran.error) == (5, "no space left on device")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
def test_a_hangup_has_the_list_read_again(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "list", f"{HASH}\n".encode())
    begin, note = Tracker.__aenter__, Report.note

    async def enter(self: Tracker) -> Tracker:
        server = await begin(self)
        write(path, b"")
        asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGHUP)
        return server

    def stop_then(self: Report, kind: str, text: str, **fields: object) -> None:
        note(self, kind, text, **fields)
        if kind == "allowed":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Tracker, "__aenter__", enter)
    monkeypatch.setattr(Report, "note", stop_then)
    ran = bittern("tracker", "--http", "127.0.0.1:0", "--allow", str(path))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[1:] == ["no torrents allowed"]


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_it_ends_when_nobody_can_be_told_and_whoever_is_refused_hears_so_before(
    bittern: Program, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It went on for ten seconds, and had no answer for those it refused."""
    begin, note = Tracker.__aenter__, Report.note
    answers: list[bytes] = []

    async def enter(self: Tracker) -> Tracker:
        server = await begin(self)
        url = f"{server.announce_urls[0]}?info_hash=a"
        asyncio.get_running_loop().run_in_executor(
            None, lambda: answers.append(urllib.request.urlopen(url).read())
        )
        return server

    def fail(self: Report, kind: str, text: str, **fields: object) -> None:
        if kind == "refused":
            raise OSError(number, os.strerror(number))
        note(self, kind, text, **fields)

    monkeypatch.setattr(Tracker, "__aenter__", enter)
    monkeypatch.setattr(Report, "note", fail)
    monkeypatch.setattr(tracker_module, "STATUS_INTERVAL", 60)
    ran = bittern("tracker", "--http", "127.0.0.1:0", "--jsonl")
    assert len(answers) == 1
    assert b"failure reason" in answers[0]
    if number == errno.EPIPE:
        assert (ran.code, ran.err) == (1, "")
    else:
        assert (ran.code, ran.error) == (5, "no space left on device")
