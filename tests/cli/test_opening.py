"""What a session is given for what a person named."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from bittern.cli import opening
from bittern.cli.opening import open_source
from bittern.cli.options import ReportOptions
from bittern.cli.report import Report
from bittern.codec.magnet import Magnet
from bittern.codec.metainfo import decode_metainfo
from bittern.codec.torrent_record import TorrentRecord
from bittern.core.errors import ConfigError, DhtUnreachable, NotPublished
from bittern.core.ids import InfoHash
from bittern.engine import mutable
from bittern.engine.config import SessionConfig
from bittern.engine.session import Session
from bittern.net.signing import SigningKey
from tests.cli.dht_network import DhtNetwork
from tests.cli.support import Program, SeedingThread, content, single_file_torrent, write

KEY = SigningKey(bytes(32))
LINK = f"magnet:?xs=urn:btpk:{KEY.public_key.hex()}"
RECORD = TorrentRecord(InfoHash(b"h" * 20))
ALONE = SessionConfig(
    listen_host="127.0.0.1", listen_port=0, enable_dht=False, enable_lsd=False, dht_bootstrap=()
)


class Keys:
    """A session that knows one key, at the third time it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.num_asked = 0
        self._error = error

    async def resolve(self, magnet: Magnet) -> Magnet:
        self.num_asked += 1
        if self.num_asked < 3:
            raise DhtUnreachable("nobody there")
        if self._error is not None:
            raise self._error
        return RECORD.magnet(magnet)


async def test_what_needs_no_asking_is_left_alone() -> None:
    metainfo = decode_metainfo(single_file_torrent(b"a", b"x"))
    report = Report(ReportOptions())
    session: Session = Keys()  # type: ignore[assignment]
    assert await open_source(metainfo, session, report) is metainfo
    assert await open_source("ab" * 20, session, report) == "ab" * 20
    link = f"magnet:?xt=urn:btih:{RECORD.info_hash}&xs=urn:btpk:{KEY.public_key.hex()}"
    found = await open_source(link, session, report)
    assert isinstance(found, Magnet)
    assert found.info_hash == RECORD.info_hash


async def test_a_key_is_asked_for_until_somebody_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "RETRY_INTERVAL", 0.001)
    session: Session = Keys()  # type: ignore[assignment]
    report = Report(ReportOptions(jsonl=True))
    found = await open_source(f"{LINK}&dn=n", session, report)
    assert found == Magnet(RECORD.info_hash, name="n")
    line = json.loads(capsys.readouterr().out)
    assert (line["type"], line["info_hash"]) == ("resolved", str(RECORD.info_hash))
    assert line["public_key"] == KEY.public_key.hex()
    session = Keys(NotPublished(KEY.public_key))  # type: ignore[assignment]
    with pytest.raises(NotPublished):
        await open_source(LINK, session, report)


async def test_without_a_dht_no_key_is_resolved() -> None:
    async with Session(ALONE) as session:
        with pytest.raises(ConfigError, match="which is switched off by the setting enable_dht"):
            await session.add(LINK)
        assert not session.torrents


@pytest.mark.slow
@pytest.mark.usefixtures("impatient_dht")  # the first program has left when the second comes
def test_get_downloads_what_is_the_newest_under_a_key(bittern: Program, tmp_path: Path) -> None:
    data = content(100_000)
    torrent = single_file_torrent(b"news", data)
    write(tmp_path / "seed" / "news", data)
    info_hash = decode_metainfo(torrent).info.info_hash
    assert info_hash is not None
    with DhtNetwork() as network, SeedingThread(torrent, tmp_path / "seed") as seed:
        common = ("-o", tmp_path / "out", "--bind", "127.0.0.1", "--port", "0", "--no-lsd",
                  "--dht-bootstrap", network.endpoint, "--state-dir", tmp_path / "state",
                  "--timeout", "30", "--json")  # fmt: skip
        ran = bittern("get", LINK, "--peer", seed.address, *common)
        assert (ran.code, ran.out) == (3, "")
        assert "nothing is published under it" in ran.error

        record = TorrentRecord(info_hash)
        done = network.run(lambda node: mutable.publish(node, KEY, record, clock=1))
        assert done.num_stored
        ran = bittern("get", LINK, "--peer", seed.address, *common)
        assert ran.code == 0, ran.err
        assert ran.json["info_hash"] == str(info_hash)
        assert (tmp_path / "out" / "news").read_bytes() == data


@pytest.mark.slow
@pytest.mark.usefixtures("impatient_dht")
def test_with_nobody_in_the_dht_the_code_is_4(bittern: Program, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        ran = bittern("get", LINK, "-o", tmp_path, "--bind", "127.0.0.1", "--port", "0",
                      "--no-lsd", "--dht-bootstrap", f"127.0.0.1:{silent.getsockname()[1]}",
                      "--state-dir", tmp_path / "state", "--timeout", "1.5")  # fmt: skip
        assert ran.code == 4, ran
