"""The programs that are run against bittern, and bittern itself, behind one interface."""

from __future__ import annotations

from tests.interop.clients.aria2 import Aria2
from tests.interop.clients.base import Client, Scheme, Transport
from tests.interop.clients.bittern import Bittern
from tests.interop.clients.libtorrent import Libtorrent
from tests.interop.clients.qbittorrent import Qbittorrent
from tests.interop.clients.rtorrent import Rtorrent
from tests.interop.clients.transmission import Transmission, Transmission4
from tests.interop.clients.webtorrent import Webtorrent

FOREIGN_CLIENTS: tuple[type[Client], ...] = (
    Libtorrent,
    Aria2,
    Transmission,
    Transmission4,
    Qbittorrent,
    Rtorrent,
    Webtorrent,
)
CLIENTS: dict[str, type[Client]] = {Bittern.name: Bittern} | {
    client.name: client for client in FOREIGN_CLIENTS
}

__all__ = ["CLIENTS", "FOREIGN_CLIENTS", "Client", "Scheme", "Transport"]
