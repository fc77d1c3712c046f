"""``bittern dht get`` and ``put`` in a network of a few nodes."""

from __future__ import annotations

import io
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.cli.dht_items import check_stored, encode_salt, place_of, read_value, text_of
from bittern.cli.exits import CommandFailed
from bittern.core.errors import KrpcFailure
from bittern.dht.items import mutable_target
from bittern.net.dht_requests import ItemResult
from bittern.net.signing import SigningKey
from bittern.storage.key_file import read_key_file
from tests.cli.dht_network import DhtNetwork
from tests.cli.support import Program

HELLO = "e5f96f6f38320f0f33959cb4d3d656452117aadb"
"""Where "Hello World!" lies (BEP 44)."""
KEY = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e"


@pytest.fixture(scope="module")
def network() -> Iterator[DhtNetwork]:
    with DhtNetwork() as network:
        yield network


@pytest.mark.slow
def test_a_value_is_stored_and_found(bittern: Program, network: DhtNetwork) -> None:
    ran = bittern("dht", "put", "Hello World!", *network.options)
    assert ran.code == 0, ran.err
    assert ran.out.split() == ["target", HELLO, "nodes", "4"]
    ran = bittern("dht", "get", HELLO, *network.options)
    assert (ran.code, ran.out) == (0, "Hello World!\n")
    ran = bittern("dht", "get", HELLO, "--json", *network.options)
    num_copies = ran.json.pop("num_copies")
    assert 1 <= num_copies <= 4
    assert {**ran.json, "num_copies": None} == {
        "target": HELLO,
        "value": b"12:Hello World!".hex(),
        "key": None,
        "salt": None,
        "seq": None,
        "signature": None,
        "text": "Hello World!",
        "num_copies": None,
    }


@pytest.mark.slow
def test_what_nobody_has_is_not_found(bittern: Program, network: DhtNetwork) -> None:
    ran = bittern("dht", "get", "00" * 20, "--json", *network.options)
    assert ran.code == 3
    assert ran.out == ""
    assert ran.error == f"{'00' * 20}: nobody has this item"


@pytest.mark.slow
def test_a_mutable_item_is_replaced_by_a_higher_number(
    bittern: Program, network: DhtNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    first = bittern("dht", "put", "one", "--key", path, "--new-key", "--json", *network.options)
    assert first.code == 0, first.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = SigningKey(read_key_file(path)).public_key
    assert first.json["key"] == key.hex()
    assert first.json["target"] == mutable_target(key).hex()
    assert (first.json["seq"], first.json["num_stored"]) == (0, 4)

    ran = bittern("dht", "put", "two", "--key", path, *network.options)
    assert ran.out.split() == ["target", mutable_target(key).hex(), "key", key.hex(), "seq", "1",
                               "nodes", "4"]  # fmt: skip
    for place in (mutable_target(key).hex(), key.hex(), f"magnet:?xs=urn:btpk:{key.hex()}"):
        assert bittern("dht", "get", place, *network.options).out == "two\n"

    ran = bittern("dht", "put", "three", "--key", path, "--seq", 1, *network.options)
    assert ran.code == 1
    assert ran.error == "not stored: sequence number 1 is stored already"
    ran = bittern("dht", "put", "three", "--key", path, "--cas", 0, *network.options)
    assert ran.code == 1
    assert ran.error == "not stored: sequence number 1 is stored, not 0"
    ran = bittern("dht", "put", "3", "--key", path, "--seq", 9, "--cas", 1, *network.options)
    assert ran.code == 0, ran.err
    ran = bittern("dht", "get", key.hex(), "--json", *network.options)
    assert (ran.json["seq"], ran.json["text"]) == (9, "3")


@pytest.mark.slow
def test_a_salt_tells_items_of_one_key_apart(
    bittern: Program, network: DhtNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "key"
    options = ("--key", path, *network.options)
    assert bittern("dht", "put", "plain", "--new-key", *options).code == 0
    assert bittern("dht", "put", "salted", "--salt", "n", *options).code == 0
    key = SigningKey(read_key_file(path)).public_key.hex()
    assert bittern("dht", "get", key, *network.options).out == "plain\n"
    assert bittern("dht", "get", key, "--salt", "n", *network.options).out == "salted\n"
    link = f"magnet:?xs=urn:btpk:{key}&s=6e"
    assert bittern("dht", "get", link, *network.options).out == "salted\n"


@pytest.mark.slow
def test_what_strangers_stored_cannot_drive_the_terminal(
    bittern: Program, network: DhtNetwork
) -> None:
    result = network.run(lambda node: node.put_immutable(b"\x1b[2J\xe2\x80\xae\xff\n"))
    assert result.item is not None
    target = result.item.target.hex()
    ran = bittern("dht", "get", target, *network.options)
    assert ran.out.removesuffix("\n").isprintable()
    assert "\\x1b[2J" in ran.out
    assert bittern("dht", "get", target, "--json", *network.options).json["text"] is None


@pytest.mark.slow
def test_bencoded_values(bittern: Program, network: DhtNetwork) -> None:
    value = "d1:ali1eee"
    ran = bittern("dht", "put", value, "--bencoded", "--json", *network.options)
    assert ran.code == 0, ran.err
    target = ran.json["target"]
    assert bittern("dht", "get", target, *network.options).out == value + "\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["get", "abc"], "neither a target of 40"),
        (["get", "0" * 39], "neither a target of 40"),
        (["get", "magnet:?xt=urn:btih:" + "0" * 40], "names no public key"),
        (["get", "0" * 64, "--salt", "x" * 65], "--salt: more than 64 bytes"),
        (["put", "v", "--salt", "s"], "are for items with a --key"),
        (["put", "v", "--seq", "1"], "are for items with a --key"),
        (["put", "v", "--cas", "1"], "are for items with a --key"),
        (["put", "v", "--new-key"], "are for items with a --key"),
        (["put", "v" * 1001], "longer than 1000 bytes"),
        (["put", "i01e", "--bencoded"], "the value: "),
        (["put", "d1:b0:1:a0:e", "--bencoded"], "the value: "),
        (["put"], "dht put needs VALUE"),
    ],
)
def test_wrong_usage_costs_no_network(bittern: Program, arguments: list[str], text: str) -> None:
    ran = bittern("dht", *arguments)
    assert ran.code == 2
    assert text in ran.error


def test_a_key_file_that_is_not_there_or_there_already(bittern: Program, tmp_path: Path) -> None:
    path = tmp_path / "key"
    ran = bittern("dht", "put", "v", "--key", path)
    assert ran.code == 3
    path.write_text("rubbish")
    ran = bittern("dht", "put", "v", "--key", path, "--new-key")
    assert ran.code == 1
    assert "file exists" in ran.error
    path.chmod(0o644)
    ran = bittern("dht", "put", "v", "--key", path)
    assert ran.code == 8
    assert "others may read" in ran.error


def test_places_and_values() -> None:
    key = bytes.fromhex(KEY)
    assert place_of(HELLO) == (bytes.fromhex(HELLO), b"")
    assert place_of(HELLO.upper(), b"s") == (bytes.fromhex(HELLO), b"s")
    # The vectors of BEP 46.
    assert place_of(KEY)[0].hex() == "cc3f9d90b572172053626f9980ce261a850d050b"
    assert place_of(KEY, b"n")[0].hex() == "59ee7c2cb9b4f7eb1986ee2d18fd2fdb8a56554f"
    assert place_of(f"magnet:?xs=urn:btpk:{KEY}&s=6e") == (mutable_target(key, b"n"), b"n")
    assert place_of(f"magnet:?xs=urn:btpk:{KEY}&s=6e", b"m") == (mutable_target(key, b"m"), b"m")
    assert encode_salt("é") == b"\xc3\xa9"
    assert read_value("é", is_bencoded=False) == b"\xc3\xa9"
    assert read_value("i5e", is_bencoded=True) == 5
    assert text_of(b"2:\xc3\xa9") == "é"
    assert text_of(b"1:\xff") is None
    assert text_of(b"i5e") is None
    assert text_of(b"x") is None


def test_values_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x00piped")))
    assert read_value("/dev/stdin", is_bencoded=False) == b"\x00piped"


def test_nothing_stored_is_a_failure() -> None:
    check_stored(ItemResult(num_stored=1))
    with pytest.raises(CommandFailed, match="not stored: no room") as caught:
        check_stored(ItemResult(refusals=(KrpcFailure(202, "no room"),)))
    assert caught.value.code == 1
    with pytest.raises(CommandFailed, match="no DHT node took") as caught:
        check_stored(ItemResult())
    assert caught.value.code == 4


@pytest.mark.slow
def test_raw_values_are_written_as_they_are(
    network: DhtNetwork, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from bittern.cli.main import run

    result = network.run(lambda node: node.put_immutable(b"\x00\xff\x1b"))
    assert result.item is not None
    assert run(["dht", "get", result.item.target.hex(), "--raw", *network.options]) == 0
    assert capfdbinary.readouterr().out == b"\x00\xff\x1b"
    result = network.run(lambda node: node.put_immutable([1, b"x"]))
    assert result.item is not None
    assert run(["dht", "get", result.item.target.hex(), "--raw", *network.options]) == 0
    assert capfdbinary.readouterr().out == b"li1e1:xe"


@pytest.mark.slow
def test_the_environment_names_the_nodes_too(
    bittern: Program, network: DhtNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITTERN_BIND", "127.0.0.1")
    for name in ("BITTERN_BOOTSTRAP", "BITTERN_DHT_BOOTSTRAP"):
        monkeypatch.setenv(name, str(network.endpoint))
        ran = bittern("dht", "put", name, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["num_stored"] == 4
        monkeypatch.delenv(name)
