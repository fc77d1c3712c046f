"""Publishing, resolving and putting anew, in a network that keeps the newest item."""

from __future__ import annotations

import pytest

from bittern.codec.magnet import Magnet
from bittern.codec.torrent_record import MAX_SEQ, TorrentRecord, Version
from bittern.core.errors import (
    ConfigError,
    DhtUnreachable,
    KrpcDecodeError,
    MagnetError,
    NotPublished,
)
from bittern.core.ids import InfoHash, InfoHashV2
from bittern.dht.items import Item, is_genuine, mutable_target, signed_message
from bittern.engine.mutable import (
    is_sound,
    item_of,
    no_dht,
    publish,
    put_again,
    resolve,
    resolve_magnet,
    version_of,
)
from bittern.net.dht_requests import ItemResult
from bittern.net.signing import SigningKey, verify

KEY = SigningKey(bytes(32))
OTHER = SigningKey(bytes(range(32)))
A = TorrentRecord(InfoHash(b"a" * 20))
B = TorrentRecord(InfoHash(b"b" * 20), InfoHashV2(b"B" * 32))
NOW = 1_700_000_000


class Network:
    """Nodes that agree with each other: one item for each target."""

    def __init__(self, num_nodes: int = 3) -> None:
        self.num_nodes = num_nodes
        self.items: dict[bytes, Item] = {}
        self.overtakers: list[Item] = []
        """Items that somebody else puts between our next get and our next put."""

    async def get(self, target: bytes, salt: bytes = b"") -> ItemResult:
        item = self.items.get(target) if self.num_nodes else None
        return ItemResult(item, num_copies=self.num_nodes if item else 0)

    async def put_item(self, item: Item, *, uses_cas: bool = False) -> ItemResult:
        assert is_genuine(item, item.target, verify)
        if self.overtakers:
            other = self.overtakers.pop(0)
            self.items[other.target] = other
        found = self.items.get(item.target)
        if found is not None and found.seq > item.seq:
            return ItemResult(found, num_copies=self.num_nodes)
        if self.num_nodes:
            self.items[item.target] = item
        return ItemResult(item, num_stored=self.num_nodes)


def signed(key: SigningKey, record: TorrentRecord, seq: int, salt: bytes = b"") -> Item:
    from bittern.codec.torrent_record import encode_record

    value = encode_record(record)
    signature = key.sign(signed_message(value, seq, salt))
    return Item(value, key.public_key, salt, seq, signature)


@pytest.fixture
def network() -> Network:
    return Network()


async def test_what_is_published_is_resolved(network: Network) -> None:
    done = await publish(network, KEY, A, salt=b"s", clock=NOW)
    assert (done.version.seq, done.num_stored, done.newer) == (NOW, 3, None)
    found = await resolve(network, KEY.public_key, b"s")
    assert (found.version, found.record, found.num_copies) == (done.version, A, 3)
    link = Magnet(public_key=KEY.public_key, salt=b"s", name="n")
    assert await resolve_magnet(network, link) == Magnet(A.info_hash, name="n")


async def test_the_next_version_goes_above_what_is_there_and_what_is_kept(
    network: Network,
) -> None:
    network.items[mutable_target(KEY.public_key)] = signed(KEY, A, NOW + 50)
    done = await publish(network, KEY, B, clock=NOW)
    assert done.version.seq == NOW + 51
    # The network forgot, and our clock went wrong.
    network.items.clear()
    done = await publish(network, KEY, A, kept=done.version, clock=3)
    assert done.version.seq == NOW + 52


async def test_the_same_torrent_keeps_its_number(network: Network) -> None:
    first = await publish(network, KEY, A, clock=NOW)
    assert await publish(network, KEY, A, clock=NOW + 1000) == first
    network.items.clear()
    assert await publish(network, KEY, A, kept=first.version, clock=NOW + 1000) == first


@pytest.mark.parametrize(
    "kept",
    [
        version_of(signed(OTHER, B, MAX_SEQ)),
        version_of(signed(KEY, B, MAX_SEQ, b"other salt")),
        Version(KEY.public_key, b"", MAX_SEQ, b"s" * 64, b"forged"),
    ],
)
async def test_what_was_kept_for_others_or_damaged_counts_for_nothing(
    network: Network, kept: Version
) -> None:
    assert not is_sound(kept, KEY.public_key, b"")
    assert (await publish(network, KEY, A, kept=kept, clock=NOW)).version.seq == NOW


async def test_a_publisher_that_is_overtaken_goes_above(network: Network) -> None:
    network.overtakers = [signed(KEY, B, NOW + 5)]
    done = await publish(network, KEY, A, clock=NOW)
    assert (done.version.seq, done.num_stored, done.newer) == (NOW + 6, 3, None)
    # One that is overtaken again and again gives up and says by whom.
    network.overtakers = [signed(KEY, B, NOW + 100 * n) for n in (1, 2, 3)]
    done = await publish(network, KEY, TorrentRecord(InfoHash(b"c" * 20)), clock=NOW)
    assert done.newer is not None
    assert (done.newer.seq, done.num_stored) == (NOW + 300, 0)


async def test_numbers_can_be_used_up(network: Network) -> None:
    network.items[mutable_target(KEY.public_key)] = signed(KEY, B, MAX_SEQ)
    with pytest.raises(ConfigError, match="used up"):
        await publish(network, KEY, A, clock=NOW)


async def test_with_nobody_there_nothing_is_stored() -> None:
    done = await publish(Network(0), KEY, A, clock=NOW)
    assert (done.version.seq, done.num_stored) == (NOW, 0)


async def test_a_version_is_put_anew_without_the_key(network: Network) -> None:
    version = (await publish(network, KEY, A, clock=NOW)).version
    network.items.clear()
    assert (await put_again(network, version)).num_stored == 3
    assert (await resolve(network, KEY.public_key)).version == version
    # A newer one is left alone and told.
    network.items[mutable_target(KEY.public_key)] = newer = signed(KEY, B, NOW + 1)
    done = await put_again(network, version)
    assert (done.num_stored, done.newer) == (0, version_of(newer))
    # One that says the same is no rival.
    network.items[mutable_target(KEY.public_key)] = signed(KEY, A, NOW + 2)
    assert (await put_again(network, version)).newer is None


async def test_what_cannot_be_resolved(network: Network) -> None:
    with pytest.raises(NotPublished, match=r"key 3b6a.*: nothing is published"):
        await resolve(network, KEY.public_key)
    with pytest.raises(DhtUnreachable):
        await resolve(Network(0), KEY.public_key)
    value = b"5:hello"
    signature = KEY.sign(signed_message(value, 1))
    target = mutable_target(KEY.public_key)
    network.items[target] = Item(value, KEY.public_key, b"", 1, signature)
    with pytest.raises(KrpcDecodeError, match="no torrent record"):
        await resolve(network, KEY.public_key)
    with pytest.raises(MagnetError, match="no public key"):
        await resolve_magnet(network, Magnet(A.info_hash))


def test_versions_are_items() -> None:
    item = signed(KEY, B, 5, b"salt")
    assert item_of(version_of(item)) == item


def test_without_a_dht_there_are_no_keys_and_it_is_said_why() -> None:
    said = str(no_dht(is_enabled=False))
    assert said.endswith("which is switched off by the setting enable_dht")
    assert str(no_dht(is_enabled=True)).endswith("which has no UDP socket here")
