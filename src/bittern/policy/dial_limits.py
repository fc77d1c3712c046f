"""
How often one address and one network may be dialled.

Whoever fills peer lists with a victim's address wants many clients to connect to
it at once (BEP 11 calls that to mind). However the lists look, an address is
tried three times in ten minutes and a network eight times a minute.

Invariant: only attempts of the last ten minutes are remembered, so the memory is
bounded by the rate at which the caller dials.

Source: threats.md H8.
"""

from __future__ import annotations

import ipaddress

from bittern.core.endpoint import is_local

TRIES_PER_ADDRESS = 3
"""Limit: H8. Attempts at one address (IPv6: /64) within ``ADDRESS_WINDOW``."""
ADDRESS_WINDOW = 600.0

TRIES_PER_NETWORK = 8
"""Limit: H8. Attempts at one network (IPv4: /24, IPv6: /48) within ``NETWORK_WINDOW``."""
NETWORK_WINDOW = 60.0

_SWEEP_INTERVAL = 60.0


class DialLimits:
    """The attempts of late, by address and by network."""

    __slots__ = ("_by_address", "_by_network", "_swept_at")

    def __init__(self) -> None:
        self._by_address: dict[str, tuple[float, ...]] = {}
        self._by_network: dict[str, tuple[float, ...]] = {}
        self._swept_at = 0.0

    def blocked_until(self, address: str | None, host: str, *, now: float) -> float | None:
        """
        Return the instant from which an address may be dialled, or None for at once.

        Args:
            address: what counts as one address, as ``core.endpoint.network_of`` makes it; None
                for one that may be tried as often as its network.
            host: decides about the network; local networks have no limit of their own.
            now: monotonic seconds.
        """
        tries = self._by_address.get(address or "", ())
        if len(tries) >= TRIES_PER_ADDRESS and tries[0] + ADDRESS_WINDOW > now:
            return tries[0] + ADDRESS_WINDOW
        tries = self._by_network.get(_network(host), ())
        if len(tries) >= TRIES_PER_NETWORK and tries[0] + NETWORK_WINDOW > now:
            return tries[0] + NETWORK_WINDOW
        return None

    def note(self, address: str, host: str, *, now: float) -> None:
        """Count an attempt."""
        if now - self._swept_at >= _SWEEP_INTERVAL:
            self._sweep(now)
        tries = self._by_address.get(address, ())
        self._by_address[address] = (*tries[1 - TRIES_PER_ADDRESS :], now)
        if not is_local(host):
            network = _network(host)
            tries = self._by_network.get(network, ())
            self._by_network[network] = (*tries[1 - TRIES_PER_NETWORK :], now)

    def forgive(self, address: str) -> None:
        """Forget the attempts at an address that turned out to be a peer."""
        self._by_address.pop(address, None)

    def _sweep(self, now: float) -> None:
        self._swept_at = now
        for tries, window in (
            (self._by_address, ADDRESS_WINDOW),
            (self._by_network, NETWORK_WINDOW),
        ):
            for key in [key for key, instants in tries.items() if instants[-1] + window <= now]:
                del tries[key]

    def __len__(self) -> int:
        return len(self._by_address) + len(self._by_network)


def _network(host: str) -> str:
    if ":" not in host:
        return host.rpartition(".")[0]
    return ipaddress.ip_address(host).packed[:6].hex()
