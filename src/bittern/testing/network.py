"""
A simulated network in virtual time: hosts and the links between them.

Everything that can go wrong is a call: a cut link, a firewall, a host that
crashes or vanishes, a port where nobody listens, lost datagrams. Chance comes
from the loop's ``random``, so a seed repeats a run exactly; ``trace`` shows
whether it did.

    network = SimNetwork(loop, link=Link(delay=0.02))
    seed = network.add_host("10.0.0.1", upload_rate=1_000_000)
    listener = seed.listen("10.0.0.1", 6881, accept)

A ``SimHost`` is the ``net.stream.Network`` of the program that runs on it.
Machines are in ``bittern.testing.host``, streams in ``bittern.testing.stream``,
datagrams in ``bittern.testing.datagrams``.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass

from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError
from bittern.testing.host import SimHost
from bittern.testing.loop import VirtualLoop
from bittern.testing.stream import SEND_BUFFER_LENGTH, Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """
    What lies between two hosts; the same both ways.

    Streams know only ``delay`` and ``jitter``: TCP hides the rest.
    """

    delay: float = 0.01
    """Seconds one way."""
    jitter: float = 0.0
    """Seconds; each transfer takes up to this much longer, drawn evenly."""
    loss: float = 0.0
    """Chance from 0 to 1 that a datagram is lost."""
    duplication: float = 0.0
    """Chance that a datagram comes twice."""
    reordering: float = 0.0
    """Chance that a datagram takes up to ten delays longer, and so comes after later ones."""


_LOOPBACK = Link(delay=0.0)


class SimNetwork:
    """
    All hosts and links.

    Args:
        loop: the loop that everything runs on; open streams, listeners and datagram
            sockets at its end are leaks.
        link: between hosts that have no link of their own.
        send_buffer_length: bytes that a stream's ``send`` takes ahead.
        is_traced: keep ``trace``.

    Attributes:
        trace: (instant, what happened), equal for equal runs; data with its checksum.
        attempts: connection attempts by the endpoint that was dialled.
        datagram_lengths: bytes of datagrams sent, by (source, destination).
    """

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        link: Link = Link(),
        send_buffer_length: int = SEND_BUFFER_LENGTH,
        is_traced: bool = False,
    ) -> None:
        self.loop = loop
        self.send_buffer_length = send_buffer_length
        self.trace: list[tuple[float, str]] = []
        self.attempts: Counter[Endpoint] = Counter()
        self.datagram_lengths: Counter[tuple[Endpoint, Endpoint]] = Counter()
        self.held_up: list[Upload] = []
        """One entry for each arrival that a cut link holds up."""
        self._is_traced = is_traced
        self._default_link = link
        self._links: dict[tuple[SimHost, SimHost], Link] = {}
        self._cuts: set[frozenset[SimHost]] = set()
        self._hosts: dict[str, SimHost] = {}
        loop.leak_checks.append(self._find_open)

    def add_host(
        self,
        *addresses: str,
        upload_rate: float | None = None,
        download_rate: float | None = None,
        is_reachable: bool = True,
    ) -> SimHost:
        """
        Add a machine.

        Args:
            addresses: one or more IP addresses, IPv4 and IPv6 as wanted.
            upload_rate: bytes per second of its line; None for no limit.
            download_rate: the same inwards.
            is_reachable: False for a machine behind a firewall that answers nothing
                it has not asked for.
        """
        hosts = {Endpoint.make(address, 0).host for address in addresses}
        if not hosts or hosts & self._hosts.keys():
            raise MisuseError(f"no address, or one that is taken: {addresses}")
        made = SimHost(self, tuple(Endpoint.make(address, 0).host for address in addresses))
        made.upload.rate = upload_rate
        made.download.rate = download_rate
        made.is_reachable = is_reachable
        self._hosts.update(dict.fromkeys(made.addresses, made))
        return made

    def host_of(self, address: str) -> SimHost | None:
        """Return the machine that has ``address`` and is there."""
        host = self._hosts.get(address)
        return None if host is None or host.is_gone else host

    @property
    def hosts(self) -> list[SimHost]:
        """All machines, in the order in which they were added, also those that are gone."""
        return list(dict.fromkeys(self._hosts.values()))

    # --- links -------------------------------------------------------------------------------

    def link(self, a: SimHost, b: SimHost) -> Link:
        """Return the link between two hosts; a host reaches itself without delay."""
        if a is b:
            return _LOOPBACK
        return self._links.get((a, b), self._default_link)

    def set_link(self, a: SimHost, b: SimHost, link: Link) -> None:
        """Give two hosts a link of their own; counts for what is sent from now on."""
        self._links[a, b] = self._links[b, a] = link

    def cut(self, a: SimHost, b: SimHost) -> None:
        """Let nothing pass between two hosts; streams hang, as in real life, without an error."""
        self._cuts.add(frozenset((a, b)))
        self.record("cut", a, b)

    def heal(self, a: SimHost, b: SimHost) -> None:
        """Undo ``cut``; what streams sent meanwhile arrives now, datagrams stay lost."""
        self._cuts.discard(frozenset((a, b)))
        self.record("heal", a, b)
        held_up, self.held_up = self.held_up, []
        for upload in held_up:
            if upload.hosts == {a, b}:
                self.loop.call_background(self.loop.time(), upload.arrive)
            else:
                self.held_up.append(upload)

    def is_cut(self, a: SimHost, b: SimHost) -> bool:
        """Tell whether the link between two hosts is cut."""
        return bool(self._cuts) and frozenset((a, b)) in self._cuts

    def draw_delay(self, a: SimHost, b: SimHost) -> float:
        """Return the seconds that one transfer between two hosts takes, jitter included."""
        link = self.link(a, b)
        return link.delay + self.loop.random.random() * link.jitter if link.jitter else link.delay

    # --- watching ----------------------------------------------------------------------------

    def record(self, what: str, *who: object) -> None:
        """Add a line to the trace."""
        if self._is_traced:
            self.trace.append((self.loop.time(), " ".join([what, *map(str, who)])))

    def record_data(self, data: bytes | bytearray, source: Endpoint, target: Endpoint) -> None:
        """Add arrived bytes to the trace, as length and checksum."""
        if self._is_traced:
            self.record("data", source, target, len(data), f"{zlib.crc32(data):08x}")

    def _find_open(self) -> list[str]:
        return [
            f"open {thing!r}"
            for host in self.hosts
            if not host.is_gone
            for thing in host.open_things()
        ]
