"""What the verbs of ``bittern dht`` share: options, ends in time, nobody there."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from bittern.cli.app import DHT_VERBS
from bittern.cli.dht import (
    DhtOptions,
    joined_dht,
    opened_dht,
    parse_hex,
    parse_info_hash,
    resolve_one,
    run_question,
    within,
)
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.loop import StopSignal, run_loop
from bittern.cli.values import HostPort
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.net.dht import Dht
from tests.cli.dht_network import DhtNetwork
from tests.cli.support import Program

ALONE = DhtOptions(bind=("127.0.0.1",), no_bootstrap=True)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--help",), *((verb, "--help") for verb in DHT_VERBS)])
def test_help_is_there_for_every_verb(bittern: Program, arguments: tuple[str, ...]) -> None:
    ran = bittern("dht", *arguments)
    assert (ran.code, ran.err) == (0, "")
    if len(arguments) < 2:
        assert all(f" {verb} " in ran.out for verb in DHT_VERBS)
    else:
        for option in ("--bootstrap", "--port PORT", "--timeout DURATION", "--json"):
            assert option in ran.out


def test_an_unknown_verb(bittern: Program) -> None:
    assert bittern("dht", "peer").error == "no verb 'peer'; did you mean peers?"
    assert bittern("dht", "xxxx").error == "no verb 'xxxx'; bittern dht --help lists them"


@pytest.mark.slow
@pytest.mark.usefixtures("impatient_dht")
def test_with_nobody_there_the_code_is_4(bittern: Program) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent_options = ("--bind", "127.0.0.1", "--bootstrap",
                          f"127.0.0.1:{silent.getsockname()[1]}")  # fmt: skip
        ran = bittern("dht", "get", "00" * 20, "--timeout", "30", *silent_options)
        assert (ran.code, ran.error) == (4, "no DHT node could be reached")
        ran = bittern("dht", "get", "00" * 20, "--timeout", "0.1", *silent_options)
        assert (ran.code, ran.error) == (7, "no answer within 0.1s")


def test_an_address_that_is_not_ours(bittern: Program) -> None:
    ran = bittern("dht", "stats", "--bind", "192.0.2.1", "--no-bootstrap")
    assert ran.code == 2
    assert ran.error.startswith("cannot listen on 192.0.2.1: ")


def test_a_port_that_is_taken(bittern: Program) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ran = bittern("dht", "stats", "--bind", "127.0.0.1", "--port", port, "--no-bootstrap")
    assert ran.code == 1
    assert ran.error.startswith(f"cannot open UDP port {port}: ")


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.UNFINISHED)],
)
def test_a_signal_ends_a_question(
    number: signal.Signals, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> int:
        os.kill(os.getpid(), number)
        await asyncio.Event().wait()
        return 0

    assert run_loop(lambda stop: within(work(), stop, None)) == code
    assert capsys.readouterr().err in ("bittern: interrupted\n", "bittern: stopped\n")


async def test_work_that_ends_gives_its_code() -> None:
    async def work() -> int:
        return 5

    stop = StopSignal()
    assert await within(work(), stop, 10) == 5


@pytest.mark.slow
async def test_names_become_addresses_of_a_family_we_have() -> None:
    async with opened_dht(ALONE) as dht:
        assert await resolve_one(HostPort("127.0.0.1", 5), dht) == Endpoint("127.0.0.1", 5)
        assert await resolve_one(HostPort("::1", 5), dht) == Endpoint("::1", 5)
        assert await resolve_one(HostPort("localhost", 5), dht) == Endpoint("127.0.0.1", 5)
        with pytest.raises(CommandFailed, match="cannot resolve") as caught:
            await resolve_one(HostPort("no.such.name.invalid", 5), dht)
        assert caught.value.code == ExitCode.NOT_FOUND


@pytest.mark.slow
async def test_a_question_is_asked_by_a_read_only_node() -> None:
    with DhtNetwork(2) as network:
        address = HostPort("127.0.0.1", network.endpoint.port)
        options = DhtOptions(bind=("127.0.0.1",), bootstrap=(address,))
        async with joined_dht(options) as dht:
            [own] = dht.stats()
            assert own.status.num_nodes
        known = {node.endpoint for node in network.nodes[0].shells[0].node.table}
        assert own.endpoint not in known


def test_hexadecimal_of_a_length() -> None:
    assert parse_hex("00fF", 2) == b"\x00\xff"
    for text in ("00f", "00ffff", "00 f", "00fg", ""):
        assert parse_hex(text, 2) is None


@pytest.mark.slow
@pytest.mark.parametrize("joins", [False, True])
def test_a_question_may_be_asked_with_or_without_the_network(joins: bool) -> None:
    with DhtNetwork(2) as network:
        address = HostPort("127.0.0.1", network.endpoint.port)
        options = DhtOptions(bind=("127.0.0.1",), bootstrap=(address,), timeout=30)
        found: list[int] = []

        async def ask(dht: Dht) -> int:
            found.append(dht.num_nodes)
            return 6

        assert run_question(options, ask, joins=joins) == 6
        assert bool(found[0]) is joins


def test_a_question_that_takes_too_long(tmp_path: Path) -> None:
    options = DhtOptions(
        bind=("127.0.0.1",), no_bootstrap=True, timeout=0.1, state_dir=tmp_path / "state"
    )

    async def ask(dht: Dht) -> int:
        await asyncio.Event().wait()
        return 0

    with pytest.raises(CommandFailed, match="no answer within") as caught:
        run_question(options, ask, joins=False)
    assert caught.value.code is ExitCode.UNFINISHED


def test_info_hashes_of_both_versions_and_links() -> None:
    v1, v2 = "a" * 40, "b" * 64
    assert parse_info_hash(v1) == InfoHash(bytes.fromhex(v1))
    assert parse_info_hash(v2) == InfoHash(bytes.fromhex(v2[:40]))
    assert parse_info_hash(f"MAGNET:?xt=urn:btih:{v1}") == InfoHash(bytes.fromhex(v1))
    with pytest.raises(CommandFailed, match="names no info hash"):
        parse_info_hash("magnet:?xs=urn:btpk:" + v2)
    with pytest.raises(CommandFailed, match="not an info hash"):
        parse_info_hash("cat")
