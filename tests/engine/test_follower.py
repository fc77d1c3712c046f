"""A folder that follows a key: what is believed, what is fetched, what is left alone."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bittern.codec import torrent_record
from bittern.codec.info import Version
from bittern.codec.magnet import Magnet
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.codec.torrent_record import TorrentRecord, encode_record
from bittern.core.endpoint import Endpoint
from bittern.core.errors import (
    ConfigError,
    DhtUnreachable,
    MagnetError,
    NotPublished,
    StorageError,
    UnsafePath,
)
from bittern.core.ids import InfoHash, InfoHashV2
from bittern.dht.items import Item, mutable_target, signed_message
from bittern.engine import follower as follower_module
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.follower import (
    MAX_ABANDONED,
    Follower,
    is_named,
    read_torrent,
    write_torrent,
)
from bittern.engine.session import Session
from bittern.engine.torrent import Torrent
from bittern.net.signing import SigningKey
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.versions import write_version
from tests.cli.support import SeedingThread, content, single_file_torrent, write
from tests.engine.test_mutable import Network

KEY = SigningKey(bytes(32))
LINK = Magnet(public_key=KEY.public_key)
TARGET = mutable_target(KEY.public_key)
FILES = [((b"a",), content(50_000, 1)), ((b"d", b"b"), content(40_000, 2)), ((b"c",), b"ccc")]


class KeySession(Session):
    """A session whose DHT is one that only knows items."""

    network: Any = None

    @property
    def dht(self) -> Any:
        return self.network


def put(network: Network, record: TorrentRecord, seq: int) -> None:
    value = encode_record(record)
    signature = KEY.sign(signed_message(value, seq))
    network.items[TARGET] = Item(value, KEY.public_key, b"", seq, signature)


def record_of(torrent: bytes) -> TorrentRecord:
    info = decode_metainfo(torrent).info
    return TorrentRecord.of(info.info_hash, info.info_hash_v2)


@asynccontextmanager
async def session_on(
    network: Network | None, state_dir: Path | None = None
) -> AsyncIterator[KeySession]:
    config = SessionConfig(
        listen_host="127.0.0.1",
        listen_port=0,
        enable_dht=False,
        enable_lsd=False,
        state_dir=state_dir,
    )
    session = KeySession(config)
    session.network = network
    async with session:
        yield session


def put_files(root: Path, name: str, files: list[tuple[tuple[bytes, ...], bytes]]) -> None:
    for path, data in files:
        write(root.joinpath(name, *(part.decode() for part in path)), data)


def read_files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".bittern" not in path.parts
    }


def names(files: list[tuple[tuple[bytes, ...], bytes]], name: str = "site") -> dict[str, bytes]:
    return {"/".join((name, *(p.decode() for p in path))): data for path, data in files}


# --- what is believed --------------------------------------------------------------------


async def test_only_newer_versions_are_news(tmp_path: Path) -> None:
    network = Network()
    one, two = TorrentRecord(InfoHash(b"1" * 20)), TorrentRecord(InfoHash(b"2" * 20))
    async with session_on(network) as session:
        follower = Follower(session, LINK, tmp_path / "out", state_dir=tmp_path / "state")
        with pytest.raises(NotPublished):
            await follower.look()
        put(network, one, 5)
        assert await follower.look() is True
        assert await follower.look() is False
        put(network, one, 6)  # the same again is no news
        assert await follower.look() is False
        put(network, two, 3)  # an old one is not believed
        assert await follower.look() is False
        assert follower.newest is not None
        assert (follower.newest.record, follower.newest.version.seq) == (one, 6)
        assert not follower.is_current

        # Nor after a restart, and nor when the network forgot.
        again = Follower(session, LINK, tmp_path / "out", state_dir=tmp_path / "state")
        assert again.newest == follower.newest
        network.items.clear()
        assert await again.look() is False
        await again.keep_alive()
        assert network.items[TARGET].seq == 6
        put(network, two, 7)
        assert await again.look() is True


async def test_keys_are_kept_alive_now_and_then_while_copies_are_few(tmp_path: Path) -> None:
    network = Network(9)
    put(network, TorrentRecord(InfoHash(b"1" * 20)), 5)
    async with session_on(network) as session:
        follower = Follower(session, LINK, tmp_path)
        await follower.keep_alive()  # nothing to put yet
        await follower.look()
        network.items.clear()
        await follower.keep_alive()
        assert not network.items, "nine copies are enough"
        put(network, TorrentRecord(InfoHash(b"1" * 20)), 5)
        network.num_nodes = 3
        await follower.look()
        for is_put in (True, False):  # then not again for an hour
            network.items.clear()
            await follower.keep_alive()
            assert bool(network.items) is is_put


async def test_what_cannot_be_followed(tmp_path: Path) -> None:
    async with session_on(Network(0)) as session:
        with pytest.raises(MagnetError, match="no public key"):
            Follower(session, Magnet(InfoHash(bytes(20))), tmp_path)
        follower = Follower(session, LINK, tmp_path)
        with pytest.raises(DhtUnreachable):
            await follower.look()
        session.network = None
        with pytest.raises(ConfigError, match="which is switched off by the setting enable_dht"):
            await follower.look()
        await follower.keep_alive()


@pytest.mark.parametrize("data", [b"", b"rubbish", b"5:hello"])
async def test_damaged_memories_are_forgotten(tmp_path: Path, data: bytes) -> None:
    network = Network()
    record = TorrentRecord(InfoHash(b"1" * 20))
    put(network, record, 5)
    async with session_on(network) as session:
        follower = Follower(session, LINK, tmp_path / "out", state_dir=tmp_path)
        await follower.look()
        (tmp_path / "mutable" / TARGET.hex()).write_bytes(data)
        write(tmp_path / "out" / ".bittern" / TARGET.hex() / "current.torrent", data)
        again = Follower(session, LINK, tmp_path / "out", state_dir=tmp_path)
        assert again.newest is None
        assert again.current is None


# --- what is fetched ---------------------------------------------------------------------


def make(root: Path, files: list[tuple[tuple[bytes, ...], bytes]], version: Version) -> bytes:
    put_files(root, "site", files)
    options = CreateOptions(version=version, piece_length=16_384)
    return create_torrent(root / "site", options=options)


@pytest.mark.slow
@pytest.mark.parametrize("version", list(Version))
async def test_a_folder_goes_from_version_to_version(tmp_path: Path, version: Version) -> None:
    network = Network()
    one = make(tmp_path / "1", FILES, version)
    changed = bytearray(FILES[0][1])
    changed[20_000] ^= 1
    files = [((b"a",), bytes(changed)), ((b"e", b"b"), FILES[1][1]), ((b"new",), b"n" * 100)]
    two = make(tmp_path / "2", files, version)
    out, state = tmp_path / "out", tmp_path / "state"
    with (
        SeedingThread(one, tmp_path / "1") as old_seed,
        SeedingThread(two, tmp_path / "2") as new_seed,
    ):
        peers = tuple(Endpoint("127.0.0.1", seed.port) for seed in (old_seed, new_seed))
        async with session_on(network) as session:
            added: list[str] = []
            follower = Follower(
                session, LINK, out, state_dir=state, config=TorrentConfig(peers=peers),
                torrent_added=lambda torrent: added.append(torrent.name),
            )  # fmt: skip
            put(network, record_of(one), 5)
            await follower.look()
            done = await asyncio.wait_for(follower.update(), 30)
            assert done.downloaded >= sum(len(data) for _, data in FILES)
            assert read_files(out) == names(FILES)
            assert follower.is_current
            served = await follower.serve(is_fresh=True)
            assert served.is_complete
            assert added[-1] == "site"

        # The next run knows where the folder is, and a file of its owner stays.
        write(out / "site" / "d" / "mine", b"mine")
        async with session_on(network) as session:
            follower = Follower(
                session, LINK, out, state_dir=state, config=TorrentConfig(peers=peers)
            )
            assert follower.is_current
            # What was damaged meanwhile is fetched again.
            write(out / "site" / "c", b"bad")
            served = await follower.serve()
            await asyncio.wait_for(served.wait_complete(), 30)
            assert read_files(out) == {**names(FILES), "site/d/mine": b"mine"}

            put(network, record_of(two), 6)
            assert await follower.look()
            assert not follower.is_current
            done = await asyncio.wait_for(follower.update(), 30)
            assert read_files(out) == {**names(files), "site/d/mine": b"mine"}
            # The changed piece and the new file; v1 pieces also hold their neighbours' ends.
            assert done.downloaded <= 16_384 + 100 + (0 if version is Version.V2 else 3 * 16_384)
            assert session.torrents == []
            private = out / ".bittern" / TARGET.hex()
            assert [path.name for path in private.iterdir()] == ["current.torrent"]


@pytest.mark.slow
async def test_the_state_folder_knows_the_present_version_alone(tmp_path: Path) -> None:
    network = Network()
    one = make(tmp_path / "1", FILES, Version.HYBRID)
    two = make(tmp_path / "2", FILES[:2], Version.HYBRID)
    out, state = tmp_path / "out", tmp_path / "state"
    abandoned = InfoHash(b"a" * 20)
    with SeedingThread(one, tmp_path / "1") as old, SeedingThread(two, tmp_path / "2") as new:
        peers = tuple(Endpoint("127.0.0.1", seed.port) for seed in (old, new))
        async with session_on(network, state) as session:
            other = single_file_torrent(b"other", b"x")
            write(tmp_path / "other", b"x")
            await session.add(other, TorrentConfig(output=tmp_path))
            follower = Follower(session, LINK, out, config=TorrentConfig(peers=peers))
            for seq, torrent in enumerate((one, two), 1):
                private = out / ".bittern" / TARGET.hex() / "next"
                write(private / f"{abandoned}.torrent", b"never finished")
                write(private / "not of ours", b"")
                write(state / "torrents" / f"{abandoned}.torrent", b"known")
                put(network, record_of(torrent), seq)
                await follower.look()
                await asyncio.wait_for(follower.update(), 30)
                await follower.serve(is_fresh=True)
                kept = {path.name for path in (state / "torrents").glob("*.torrent")}
                assert kept == {
                    f"{decode_metainfo(raw).info.wire_hash}.torrent" for raw in (torrent, other)
                }


async def test_of_versions_that_were_never_completed_the_latest_are_kept(tmp_path: Path) -> None:
    """A publisher may be quicker than the line for months; their files must not fill the disk."""
    network = Network()
    torrent = make(tmp_path / "1", FILES, Version.HYBRID)
    put(network, record_of(torrent), 5)
    out, state = tmp_path / "out", tmp_path / "state"
    private = out / ".bittern" / TARGET.hex() / "next"
    name = record_of(torrent).info_hash.hex()
    write(private / f"{name}.torrent", torrent)
    put_files(private / name, "site", FILES)
    write(private / "not of ours.torrent", b"")
    os.utime(private / "not of ours.torrent", (0, 0))
    outdated = [InfoHash(bytes([number]) * 20) for number in range(MAX_ABANDONED + 3)]
    for age, each in enumerate(outdated, 1):
        write(private / str(each) / "site" / "a", b"never finished")
        write(private / f"{each}.torrent", b"its metadata")
        os.utime(private / f"{each}.torrent", (age, age))
        write(state / "torrents" / f"{each}.torrent", b"known")
    seen: list[set[str]] = []

    def look(_: Torrent) -> None:
        seen.append({path.name for path in private.iterdir()})

    async with session_on(network, state) as session:
        follower = Follower(session, LINK, out, torrent_added=look)
        await follower.look()
        await asyncio.wait_for(follower.update(), 30)
        kept = {str(each) for each in outdated[-MAX_ABANDONED:]} | {name}
        assert seen == [kept | {f"{each}.torrent" for each in (*kept, "not of ours")}]
        assert [path.stem for path in (state / "torrents").glob("*")] == [name]


@pytest.mark.slow
async def test_an_interrupted_update_goes_on(tmp_path: Path) -> None:
    network = Network()
    torrent = make(tmp_path / "1", FILES, Version.HYBRID)
    put(network, record_of(torrent), 5)
    out = tmp_path / "out"
    async with session_on(network) as session:
        with SeedingThread(torrent, tmp_path / "1") as seed:
            peers = (Endpoint("127.0.0.1", seed.port),)
            follower = Follower(session, LINK, out, config=TorrentConfig(peers=peers))
            await follower.look()
            stage = out / ".bittern" / TARGET.hex() / "next"
            record = record_of(torrent)
            await follower._fetch_metainfo(record, stage / record.info_hash.hex())
        # Without a peer it can only go on with what it has: metainfo, and here the files too.
        put_files(stage / record.info_hash.hex(), "site", FILES)
        done = await asyncio.wait_for(follower.update(), 30)
        assert done.downloaded == 0
        assert read_files(out) == names(FILES)


@pytest.mark.slow
async def test_who_gave_the_metadata_is_asked_for_the_files(tmp_path: Path) -> None:
    """Nobody names him a second time."""
    network = Network()
    torrent = make(tmp_path / "1", FILES, Version.HYBRID)
    put(network, record_of(torrent), 5)
    added: list[Torrent] = []
    with SeedingThread(torrent, tmp_path / "1") as seed:

        def name_him_once(torrent: Torrent) -> None:
            if not added:
                torrent.add_peers([Endpoint("127.0.0.1", seed.port)], "user")
            added.append(torrent)

        async with session_on(network) as session:
            follower = Follower(session, LINK, tmp_path / "out", torrent_added=name_him_once)
            await follower.look()
            await asyncio.wait_for(follower.update(), 10)
    assert len(added) == 2
    assert read_files(tmp_path / "out") == names(FILES)


@pytest.mark.slow
async def test_of_many_peers_those_that_answered_are_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "MAX_HANDED_ON", 1)
    network = Network()
    torrent = make(tmp_path / "1", FILES, Version.HYBRID)
    put(network, record_of(torrent), 5)
    added: list[Torrent] = []
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        SeedingThread(torrent, tmp_path / "1") as seed,
    ):

        def name_both_once(torrent: Torrent) -> None:
            if not added:
                torrent.add_peers([Endpoint(*mute.getsockname())], "user")
                torrent.add_peers([Endpoint("127.0.0.1", seed.port)], "user")
            added.append(torrent)

        async with session_on(network) as session:
            follower = Follower(session, LINK, tmp_path / "out", torrent_added=name_both_once)
            await follower.look()
            await asyncio.wait_for(follower.update(), 10)
    assert len(added) == 2


@pytest.mark.slow
async def test_a_cancelled_update_leaves_no_torrent_behind(tmp_path: Path) -> None:
    network = Network()
    put(network, record_of(single_file_torrent(b"x", b"x")), 5)
    async with session_on(network) as session:
        follower = Follower(session, LINK, tmp_path)
        await follower.look()
        updating = asyncio.create_task(follower.update())
        async with asyncio.timeout(10):
            while not session.torrents:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0)
        updating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await updating
        assert session.torrents == []


@pytest.mark.slow
async def test_a_version_that_would_take_our_own_folder_is_refused(tmp_path: Path) -> None:
    network = Network()
    torrent = single_file_torrent(b".bittern", b"evil")
    put(network, record_of(torrent), 5)
    write(tmp_path / "1" / ".bittern", b"evil")
    with SeedingThread(torrent, tmp_path / "1") as seed:
        async with session_on(network) as session:
            peers = (Endpoint("127.0.0.1", seed.port),)
            follower = Follower(session, LINK, tmp_path / "out", config=TorrentConfig(peers=peers))
            await follower.look()
            with pytest.raises(UnsafePath):
                await asyncio.wait_for(follower.update(), 30)


# --- what is kept ------------------------------------------------------------------------


def test_a_record_names_a_torrent() -> None:
    v1, v2 = InfoHash(b"1" * 20), InfoHashV2(b"2" * 32)
    info = decode_metainfo(single_file_torrent(b"x", b"x")).info
    assert info.info_hash is not None
    assert is_named(info, TorrentRecord(info.info_hash))
    assert not is_named(info, TorrentRecord(v1))
    assert not is_named(info, TorrentRecord(info.info_hash, v2))
    assert not is_named(info, TorrentRecord.of(None, v2))


def test_metainfo_is_kept_with_or_without_piece_layers(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "x.torrent"
    assert read_torrent(path) is None
    metainfo = decode_metainfo(make(tmp_path / "1", FILES, Version.HYBRID))
    write_torrent(path, metainfo)
    found = read_torrent(path)
    assert found is not None
    assert (found.info.raw, found.piece_layers) == (metainfo.info.raw, metainfo.piece_layers)
    write_torrent(path, Metainfo(metainfo.info))
    found = read_torrent(path)
    assert found is not None
    assert (found.info.raw, dict(found.piece_layers)) == (metainfo.info.raw, {})


async def test_whether_the_dht_has_somebody_to_ask(tmp_path: Path) -> None:
    for network, is_connected in ((None, False), (Network(0), False), (Network(2), True)):
        async with session_on(network) as session:
            follower = Follower(session, LINK, tmp_path / "out", state_dir=None)
            assert follower.is_connected is is_connected


async def test_a_kept_version_that_names_no_torrent_is_as_none(tmp_path: Path) -> None:
    """Limit: F9. It is signed rightly, so another program of ours may have kept it."""
    value = b"5:hello"
    signature = KEY.sign(signed_message(value, 5))
    version = torrent_record.Version(KEY.public_key, b"", 5, signature, value)
    (tmp_path / "state").mkdir()
    write_version(tmp_path / "state", TARGET, version)
    network = Network()
    async with session_on(network) as session:
        follower = Follower(session, LINK, tmp_path / "out", state_dir=tmp_path / "state")
        with pytest.raises(NotPublished):
            await follower.look()
        put(network, TorrentRecord(InfoHash(b"1" * 20)), 6)
        assert await follower.look()


def test_metainfo_that_cannot_be_kept_is_an_error_of_the_disk(tmp_path: Path) -> None:
    metainfo = decode_metainfo(single_file_torrent(b"a", b"x"))
    write(tmp_path / "file", b"in the way")
    with pytest.raises(StorageError, match="file"):
        write_torrent(tmp_path / "file" / "a.torrent", metainfo)
