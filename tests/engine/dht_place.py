"""Sessions with a DHT in the simulated network of ``Scene``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bittern.core.endpoint import Endpoint
from bittern.engine.gateway import SharedDatagrams
from bittern.engine.session import Session
from bittern.net.dht import Dht
from bittern.net.udp import DHT_BYTES, ReceiveDatagram
from bittern.testing.host import SimHost
from tests.engine.scene import PORT, Scene


class SimSocket:
    """A simulated socket that several share by the first byte, as ``net.udp.UdpSocket``."""

    def __init__(self, host: SimHost, port: int) -> None:
        self.received: list[tuple[bytes, Endpoint]] = []
        self._receivers: dict[int, tuple[ReceiveDatagram, Callable[[], object] | None]] = {}
        self._socket = host.open_datagrams(host.addresses[0], port, self._receive)

    @property
    def endpoint(self) -> Endpoint:
        return self._socket.endpoint

    def send(self, data: bytes, target: Endpoint) -> None:
        self._socket.send(data, target)

    def add_receiver(
        self,
        first_bytes: Iterable[int],
        receive: ReceiveDatagram,
        *,
        batch_ended: Callable[[], object] | None = None,
    ) -> None:
        for number in first_bytes:
            self._receivers[number] = (receive, batch_ended)

    def _receive(self, data: memoryview, source: Endpoint) -> None:
        self.received.append((bytes(data), source))
        receiver = self._receivers.get(data[0])
        if receiver is not None:
            receive, batch_ended = receiver
            receive(data, source)
            if batch_ended is not None:
                batch_ended()

    def close(self) -> None:
        self._socket.close()


class DhtSession(Session):
    """A session whose UDP sockets are in the simulated network."""

    def _open_udp_sockets(self, hosts: tuple[str, ...], port: int) -> Sequence[SharedDatagrams]:
        assert isinstance(self._network, SimHost)
        return [SimSocket(self._network, port)]


class Nodes:
    """DHT nodes that belong to no session; the scene closes them."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.sockets: list[SimSocket] = []
        self.dhts: list[Dht] = []
        scene.at_end.append(self.close)

    @property
    def endpoints(self) -> list[Endpoint]:
        return [socket.endpoint for socket in self.sockets]

    @property
    def bootstrap(self) -> tuple[tuple[str, int], ...]:
        """The setting of a session that starts from the first of them."""
        first = self.sockets[0].endpoint
        return ((first.host, first.port),)

    def options(self, **others: Any) -> dict[str, Any]:
        """Return what ``Scene.node`` needs for a session with a DHT."""
        return {
            "make": DhtSession,
            "enable_dht": True,
            "dht_bootstrap": self.bootstrap if self.sockets else (),
            **others,
        }

    async def add(self) -> Dht:
        rng = self.scene.loop.random
        socket = SimSocket(self.scene.add_host(), PORT)
        dht = Dht(
            [socket],
            nodes=self.bootstrap if self.sockets else (),
            rng=rng,
            random_bytes=rng.randbytes,
        )
        shell = dht.shells[0]
        socket.add_receiver(DHT_BYTES, shell.receive, batch_ended=shell.flush)
        self.sockets.append(socket)
        self.dhts.append(dht)
        await dht.bootstrap()
        return dht

    def close(self) -> None:
        for dht in self.dhts:
            dht.close()
        for socket in self.sockets:
            socket.close()
