"""
The machine's network interfaces with their addresses, as ``ifaddr`` finds them.

Nothing is kept: interfaces come and go, and asking takes a fraction of a millisecond.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)

Address = IPv4Interface | IPv6Interface
"""An address with the network it is in."""


@dataclass(frozen=True, slots=True)
class Interface:
    """
    One interface.

    Args:
        name: the system's.
        index: the system's number of it.
        addresses: at least one.
    """

    name: str
    index: int
    addresses: tuple[Address, ...]

    @property
    def is_loopback(self) -> bool:
        """True when it leads nowhere but to this machine."""
        return any(address.ip.is_loopback for address in self.addresses)

    def restricted_to(self, addresses: Iterable[Address]) -> Interface:
        """Return the interface with some of its addresses alone."""
        return Interface(self.name, self.index, tuple(addresses))


def list_interfaces() -> tuple[Interface, ...]:
    """Return the interfaces that have addresses, in the system's order; none on an error."""
    import ifaddr

    found = []
    with contextlib.suppress(OSError):
        for adapter in ifaddr.get_adapters():
            addresses = []
            for ip in adapter.ips:
                host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
                with contextlib.suppress(ValueError):
                    plain = str(ip_address(host.partition("%")[0]))
                    addresses.append(ip_interface(f"{plain}/{ip.network_prefix}"))
            if addresses and adapter.index is not None:
                found.append(Interface(adapter.name, adapter.index, tuple(addresses)))
    return tuple(found)


def interfaces_for(
    hosts: Sequence[str] = (), interfaces: tuple[Interface, ...] | None = None
) -> tuple[Interface, ...]:
    """
    Return the interfaces on which one who listens at ``hosts`` can be reached by neighbours.

    Args:
        hosts: the addresses listened on; none for all, IPv4 and IPv6; ``0.0.0.0`` or ``::``
            for all of a family. Loopback counts only when it is named. A host name has none.
        interfaces: those there are; None to ask the system.
    """
    known = list_interfaces() if interfaces is None else interfaces
    named: set[IPv4Address | IPv6Address] = set()
    for host in hosts or ("0.0.0.0", "::"):  # noqa: S104  # not bound to
        with contextlib.suppress(ValueError):
            named.add(ip_address(host))
    families = {address.version for address in named if address.is_unspecified}
    found = (
        each.restricted_to(
            mine
            for mine in each.addresses
            if mine.ip in named or (mine.version in families and not each.is_loopback)
        )
        for each in known
    )
    return tuple(each for each in found if each.addresses)


def is_neighbour(host: str, interfaces: tuple[Interface, ...]) -> bool:
    """
    Tell whether an address is in a network that one of the interfaces is in.

    An IPv6 link-local address is not one: without the interface, which an ``Endpoint`` does
    not name, nobody can connect to it.
    """
    address = ip_address(host)
    if address.version == 6 and address.is_link_local:
        return False
    return any(
        address.version == mine.version and address in mine.network
        for interface in interfaces
        for mine in interface.addresses
    )
