"""``bittern publish`` in a network of a few nodes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.cli import publish as publish_module
from bittern.cli.exits import CommandFailed
from bittern.cli.publish import record_for
from bittern.codec.magnet import parse_magnet
from bittern.codec.torrent_record import TorrentRecord, decode_record
from bittern.core.ids import InfoHash, InfoHashV2
from bittern.dht.items import mutable_target
from bittern.engine import mutable
from bittern.net.signing import SigningKey
from bittern.storage.key_file import read_key_file
from bittern.storage.versions import read_version
from tests.cli.dht_network import DhtNetwork
from tests.cli.support import Program, content, single_file_torrent, write

V1 = "ab" * 20
V2 = "cd" * 32


@pytest.fixture(scope="module")
def network() -> Iterator[DhtNetwork]:
    with DhtNetwork() as network:
        yield network


@pytest.fixture
def options(network: DhtNetwork, tmp_path: Path) -> tuple[object, ...]:
    return (*network.options, "--key", tmp_path / "key", "--state-dir", tmp_path / "state")


@pytest.mark.slow
def test_versions_follow_each_other_under_one_link(
    bittern: Program, network: DhtNetwork, options: tuple[object, ...], tmp_path: Path
) -> None:
    torrent = write(tmp_path / "a.torrent", single_file_torrent(b"a", content(40_000)))
    ran = bittern("publish", torrent, "--new-key", "--once", *options)
    assert ran.code == 0, ran.err
    link, said = ran.out.splitlines()
    key = SigningKey(read_key_file(tmp_path / "key")).public_key
    assert link == f"magnet:?xs=urn:btpk:{key.hex()}"
    assert "4 nodes took it" in said
    first = network.run(lambda node: mutable.resolve(node, key))
    assert first.record == record_for(str(torrent))

    ran = bittern("publish", V1, "--once", "--json", *options)
    assert ran.code == 0, ran.err
    second = network.run(lambda node: mutable.resolve(node, key))
    assert second.record == TorrentRecord(InfoHash.parse(V1))
    assert second.version.seq > first.version.seq
    assert ran.json == {
        "magnet": link,
        "public_key": key.hex(),
        "salt": "",
        "target": mutable_target(key).hex(),
        "seq": second.version.seq,
        "info_hash": V1,
        "info_hash_v2": None,
        "num_stored": 4,
    }
    assert read_version(tmp_path / "state", mutable_target(key)) == second.version
    # The same again is the same version.
    assert bittern("publish", V1, "--once", "--json", *options).json["seq"] == second.version.seq


@pytest.mark.slow
def test_a_salt_and_a_v2_torrent(
    bittern: Program, network: DhtNetwork, options: tuple[object, ...]
) -> None:
    more = ("--salt", "blog", "--new-key", "--once", "--json")
    ran = bittern("publish", f"magnet:?xt=urn:btmh:1220{V2}", *more, *options)
    assert ran.code == 0, ran.err
    link = parse_magnet(ran.json["magnet"])
    assert link.salt == b"blog"
    key = link.public_key
    assert key is not None
    found = network.run(lambda node: mutable.resolve(node, key, b"blog"))
    # Others read 20 bytes, and find the swarm with them.
    assert decode_record(found.version.value).info_hash.hex() == V2[:40]
    assert found.record == TorrentRecord.of(None, InfoHashV2.parse(V2))
    assert (ran.json["info_hash"], ran.json["info_hash_v2"]) == (None, V2)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient_dht")
def test_it_is_put_anew_until_a_signal_comes(
    bittern: Program,
    options: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_again = mutable.put_again
    count = 0

    async def counted(*args: object) -> mutable.Published:
        nonlocal count
        count += 1
        if count == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return await put_again(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(mutable, "put_again", counted)
    ran = bittern("publish", V1, "--new-key", "--interval", "0.01", "--jsonl", *options)
    assert ran.code == 0, ran.err
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["type"] for line in lines[:3]] == ["link", "published", "published"]
    assert len({line["seq"] for line in lines[1:]}) == 1
    assert (lines[-1]["type"], lines[-1]["num_stored"]) == ("result", 4)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient_dht")  # the node of the test before has left the network
def test_a_newer_version_of_another_machine_ends_it(
    bittern: Program,
    network: DhtNetwork,
    options: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    put_again = mutable.put_again

    async def overtaken(dht: object, version: object) -> mutable.Published:
        done = await put_again(dht, version)  # type: ignore[arg-type]
        monkeypatch.setattr(mutable, "put_again", put_again)
        key = SigningKey(read_key_file(tmp_path / "key"))
        other = TorrentRecord(InfoHash(b"o" * 20))
        seq = done.version.seq + 1
        # In a thread, because the other nodes ask us meanwhile.
        await asyncio.to_thread(
            network.run, lambda node: mutable.publish(node, key, other, clock=seq)
        )
        return done

    monkeypatch.setattr(mutable, "put_again", overtaken)
    ran = bittern("publish", V1, "--new-key", "--interval", "0.01", "-q", *options)
    assert ran.code == 1
    assert "was published elsewhere" in ran.error


@pytest.mark.slow
@pytest.mark.usefixtures("impatient_dht")
def test_nobody_there(bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish_module, "RETRY_INTERVAL", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        alone = ("--bind", "127.0.0.1", "--key", tmp_path / "key", "--state-dir", tmp_path / "s",
                 "--bootstrap", f"127.0.0.1:{silent.getsockname()[1]}")  # fmt: skip
        ran = bittern("publish", V1, "--new-key", "--once", *alone)
        assert (ran.code, ran.error) == (4, "not published: no DHT node took it")
        ran = bittern("publish", V1, "--timeout", "1.5", "-q", *alone)
        assert (ran.code, ran.error) == (4, "not published: no DHT node took it")


def test_what_can_be_published(tmp_path: Path) -> None:
    assert record_for(V1) == TorrentRecord(InfoHash.parse(V1))
    assert record_for(V2) == record_for("1220" + V2) == TorrentRecord.of(None, InfoHashV2.parse(V2))
    link = f"magnet:?xt=urn:btih:{V1}&xt=urn:btmh:1220{V2}"
    assert record_for(link) == TorrentRecord(InfoHash.parse(V1), InfoHashV2.parse(V2))
    for source, code in (
        (f"magnet:?xs=urn:btpk:{'0' * 64}", 2),
        ("http://example.com/a.torrent", 2),
        (str(tmp_path / "none.torrent"), 3),
    ):
        with pytest.raises(CommandFailed) as caught:
            record_for(source)
        assert caught.value.code == code


def test_private_torrents_are_not_for_the_dht(bittern: Program, tmp_path: Path) -> None:
    from bittern.codec.bencode import Encodable, encode
    from bittern.codec.metainfo import encode_metainfo

    info: dict[bytes, Encodable] = {
        b"name": b"p",
        b"length": 1,
        b"piece length": 16384,
        b"pieces": b"x" * 20,
        b"private": 1,
    }
    path = write(tmp_path / "p.torrent", encode_metainfo(encode(info)))
    ran = bittern("publish", path, "--key", tmp_path / "key", "--new-key")
    assert ran.code == 8
    assert "private torrent" in ran.error
    assert not (tmp_path / "key").exists()


def test_wrong_usage(bittern: Program, tmp_path: Path) -> None:
    assert bittern("publish", V1).code == 2
    ran = bittern("publish", V1, "--key", tmp_path / "none")
    assert ran.code == 3
