"""libtorrent as a DHT node of a network on this machine, in this process and its own threads."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

from tests.reference import lt

HOST = "127.0.0.1"
_POLL_INTERVAL = 0.05


class LibtorrentNode:
    """
    One node.

    Args:
        nodes: ports of nodes on this machine to start from.
    """

    def __init__(self, *nodes: int) -> None:
        self.session = lt.session(
            {
                "listen_interfaces": f"{HOST}:0",
                "enable_dht": True,
                "enable_lsd": False,
                "enable_upnp": False,
                "enable_natpmp": False,
                "dht_bootstrap_nodes": "",
                "dht_restrict_routing_ips": False,
                "dht_restrict_search_ips": False,
                "dht_prefer_verified_node_ids": False,
                "dht_block_ratelimit": 1000,
                "allow_multiple_connections_per_ip": True,
                "alert_mask": lt.alert.category_t.dht_notification
                | lt.alert.category_t.dht_operation_notification
                | lt.alert.category_t.status_notification
                | lt.alert.category_t.stats_notification,
            }
        )
        self._alerts: list[Any] = []
        for port in nodes:
            self.session.add_dht_node((HOST, port))

    @property
    def port(self) -> int:
        """Its UDP port, the same as for TCP."""
        port: int = self.session.listen_port()
        return port

    async def wait_for(
        self, kind: type[Any], is_it: Callable[[Any], bool] = lambda _: True, timeout: float = 20.0
    ) -> Any:
        """Return the next alert of a kind; AssertionError if it does not come in time."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            self._alerts += self.session.pop_alerts()
            for number, alert in enumerate(self._alerts):
                if isinstance(alert, kind) and is_it(alert):
                    self._alerts = self._alerts[number + 1 :]
                    return alert
            self._alerts = []  # popped alerts are valid until the next pop
            await asyncio.sleep(_POLL_INTERVAL)
        raise AssertionError(f"libtorrent gave no {kind.__name__} within {timeout} s")

    async def joined(self, num_nodes: int, timeout: float = 20.0) -> None:
        """Wait until it knows so many nodes."""
        until = time.monotonic() + timeout
        known = -1
        while known < num_nodes:
            assert time.monotonic() < until, f"libtorrent knows {known} of {num_nodes} nodes"
            self.session.post_session_stats()
            stats = await self.wait_for(lt.session_stats_alert)
            known = stats.values["dht.dht_nodes"]
            await asyncio.sleep(_POLL_INTERVAL)

    def announce(self, info_hash: bytes, port: int) -> None:
        """Announce a port for a torrent; nothing tells when it is done."""
        self.session.dht_announce(lt.sha1_hash(info_hash), port, 0)

    async def find_peers(self, info_hash: bytes) -> set[tuple[str, int]]:
        """Look for the peers of a torrent once; returns those that the first answers name."""
        wanted = lt.sha1_hash(info_hash)
        self.session.dht_get_peers(wanted)
        alert = await self.wait_for(
            lt.dht_get_peers_reply_alert, lambda alert: alert.info_hash == wanted
        )
        return {(str(host), int(port)) for host, port in alert.peers()}

    async def put_immutable(self, value: bytes) -> str:
        """Store a string and return its target in hexadecimal."""
        target = self.session.dht_put_immutable_item(value)
        await self.wait_for(lt.dht_put_alert, lambda alert: alert.num_success > 0)
        return str(target)

    async def get_immutable(self, target: str) -> bytes:
        """Return a string that was stored."""
        wanted = lt.sha1_hash(bytes.fromhex(target))
        self.session.dht_get_immutable_item(wanted)
        alert = await self.wait_for(
            lt.dht_immutable_item_alert, lambda alert: alert.target == wanted
        )
        return _plain(alert.item)

    async def put_mutable(self, seed: bytes, public_key: bytes, value: bytes, salt: bytes) -> int:
        """Store a signed string and return its sequence number."""
        self.session.dht_put_mutable_item(expand(seed), public_key, value, salt)
        alert = await self.wait_for(lt.dht_put_alert, lambda alert: alert.num_success > 0)
        seq: int = alert.seq
        return seq

    async def get_mutable(self, public_key: bytes, salt: bytes, *, seq: int) -> bytes:
        """
        Return a signed string that was stored, as soon as that version of it is heard of.

        To wait until libtorrent is sure that there is none newer takes 15 s where a node has
        gone, and it takes everybody that has ever put something for a node.
        """
        self.session.dht_get_mutable_item(public_key, salt)
        alert = await self.wait_for(lt.dht_mutable_item_alert, lambda alert: alert.seq >= seq)
        assert alert.seq == seq
        return _plain(alert.item)

    def close(self) -> None:
        """Leave the network."""
        self.session.pause()


def expand(seed: bytes) -> bytes:
    """Return a private key as libtorrent takes it: the hash of the seed, clamped (RFC 8032)."""
    made = bytearray(hashlib.sha512(seed).digest())
    made[0] &= 248
    made[31] = made[31] & 63 | 64
    return bytes(made)


def _plain(item: Any) -> bytes:
    value = item["value"] if isinstance(item, dict) else item
    assert isinstance(value, bytes), item
    return value
