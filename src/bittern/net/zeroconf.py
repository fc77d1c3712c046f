"""
Torrents as services of the local network, by multicast DNS (BEP 26).

What is advertised: one instance ``<peer id in hex>._bittorrent._tcp.local.`` with our port
and addresses, and for each torrent a pointer to it from the sub type
``_<info hash in hex>._sub._bittorrent._tcp.local.``. The library ``zeroconf``, imported on
first use, speaks mDNS (RFC 6762): it answers questions by its registry, and keeps what it
hears in its cache. It would run a browser with timers for each type that is browsed, and
three tasks for each service; we do without both. One listener here looks at every pointer
that comes by, and what we ask and tell goes out when the caller says, for many torrents at
once.

The instance is believed only as far as it names addresses in networks that we are in
ourselves. mDNS does not say who sent a record, so a neighbour can name another neighbour;
the handshake then fails there.

Instances are not probed for: a peer id is random, so nobody else has the name.

Sources: BEP 26; RFC 6762 (mDNS); RFC 6763 (service discovery); threats.md N9.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash, PeerId
from bittern.core.rate import TokenBucket
from bittern.net.interfaces import Interface, interfaces_for, is_neighbour

if TYPE_CHECKING:
    from zeroconf import (  # type: ignore[attr-defined]  # imported there for its users
        DNSOutgoing,  # pyright: ignore[reportPrivateImportUsage]
        DNSQuestion,  # pyright: ignore[reportPrivateImportUsage]
        RecordUpdate,
        RecordUpdateListener,
        ServiceInfo,
        Zeroconf,
    )

log: logging.Logger = logging.getLogger(__name__)

TYPE = "_bittorrent._tcp.local."
SUB = "._sub." + TYPE
MAX_ADDRESSES = 4
"""Limit: N9. Addresses taken of one instance; a machine has one or two in a network."""
MAX_UNRESOLVED = 64
"""Limit: N9. Instances of which we wait to hear port and addresses; the oldest go first."""
MAX_QUESTION_RATE = 2.0
"""Limit: N9. Questions a second for port and addresses of an instance, so that pointers to
instances that are not there do not make us flood the network."""
MAX_QUESTION_BURST = 10
_GOODBYE = 0
"""The time to live of a record that is withdrawn (RFC 6762 section 10.1)."""
_HEX_LENGTH = 40

# Numbers of DNS (RFC 1035, RFC 2782).
_TYPE_PTR = 12
_TYPE_TXT = 16
_TYPE_SRV = 33
_CLASS_IN = 1
_QUERY = 0
_ANSWER = 0x8400

Heard = Callable[[Endpoint, tuple[InfoHash, ...]], object]
"""Takes where a neighbour listens, and for which of our torrents."""


def type_of(info_hash: InfoHash) -> str:
    """Return the sub type of a torrent."""
    return f"_{info_hash.hex()}{SUB}"


def parse_type(name: str) -> InfoHash | None:
    """Return the torrent of a sub type; None for any other name."""
    name = name.lower()
    if not name.endswith(SUB) or len(name) != 1 + _HEX_LENGTH + len(SUB) or name[0] != "_":
        return None
    try:
        return InfoHash(bytes.fromhex(name[1 : 1 + _HEX_LENGTH]))
    except ValueError:
        return None


class MulticastDns:
    """
    The network described in the module's text; closed again with ``close``.

    Args:
        peer_id: names our instance.
        listen_hosts: where the caller takes connections; see ``interfaces_for``.
        find: returns the interfaces; the system's unless a test brings others.

    Attributes:
        interfaces: those that are used.
    """

    def __init__(
        self,
        peer_id: PeerId,
        *,
        listen_hosts: tuple[str, ...] = (),
        find: Callable[[tuple[str, ...]], tuple[Interface, ...]] = interfaces_for,
    ) -> None:
        self.interfaces: tuple[Interface, ...] = ()
        self._host = f"{peer_id.hex()}.local."
        self._name = f"{peer_id.hex()}.{TYPE}"
        self._listen_hosts = listen_hosts
        self._find = find
        self._advertised: dict[InfoHash, ServiceInfo] = {}
        self._instance: ServiceInfo | None = None
        self._zeroconf: Zeroconf | None = None
        self._listener: _Listener | None = None
        """There while the sockets are of use."""
        self._is_wanted: Callable[[InfoHash], bool] = lambda _: False
        self._heard: Heard = lambda _endpoint, _info_hashes: None

    # --- life ----------------------------------------------------------------------------

    async def open(self, is_wanted: Callable[[InfoHash], bool], heard: Heard) -> None:
        """
        Open the sockets on the running loop; where that fails, ``refresh`` tries again.

        Args:
            is_wanted: tells whether we look for a torrent.
            heard: called with every neighbour that advertises such a one; must not raise.
        """
        self._is_wanted, self._heard = is_wanted, heard
        self.interfaces = self._find(self._listen_hosts)
        await self._open()

    async def refresh(self) -> bool:
        """Look for interfaces, and begin anew when they have changed; True when we did."""
        found = self._find(self._listen_hosts)
        if found == self.interfaces and (self._zeroconf is not None or not found):
            return False
        await self.close()
        self.interfaces = found
        await self._open()
        return self._listener is not None

    async def _open(self) -> None:
        from zeroconf import Error, Zeroconf

        chosen: list[str | int] = [
            str(address.ip)
            for interface in self.interfaces
            for address in interface.addresses
            if address.version == 4
        ]
        with_v6 = chosen + [
            interface.index
            for interface in self.interfaces
            if any(address.version == 6 for address in interface.addresses)
        ]
        # Where the system has no IPv6 sockets, or an address is not ready, IPv4 alone.
        for places in (with_v6, chosen) if with_v6 != chosen else (chosen,):
            if not places:
                continue
            try:
                self._zeroconf = Zeroconf(interfaces=places)
                await self._zeroconf.async_wait_for_start()
            except (OSError, RuntimeError, TimeoutError, Error) as error:
                log.info("no multicast DNS on %s: %r", places, error)
                await self.close()
                continue
            self._listener = _Listener(self._zeroconf, self._name, self._is_wanted, self._resolved)
            self._zeroconf.async_add_listener(_adapter(self._listener), None)
            return

    async def close(self) -> None:
        """Say goodbye and close; idempotent."""
        from zeroconf.asyncio import AsyncZeroconf

        if self._zeroconf is None:
            return
        self._listener = None
        instance, self._instance = self._instance, None
        if instance is not None:
            self._zeroconf.async_send(_answer(instance, self._advertised.values(), _GOODBYE))
            self._zeroconf.registry.async_remove([instance, *self._advertised.values()])
            self._advertised.clear()
        await AsyncZeroconf(zc=self._zeroconf).async_close()
        self._zeroconf = None

    # --- what we say ---------------------------------------------------------------------

    def tell(self, port: int, advertised: Iterable[InfoHash], asked: Iterable[InfoHash]) -> int:
        """
        Advertise torrents and ask who has some.

        Args:
            port: where we take connections.
            advertised: torrents to name; questions for them are answered from now on.
            asked: torrents to look for.

        Returns:
            On how many interfaces; 0 when there is nobody to hear.
        """
        if self._zeroconf is None or self._listener is None:
            return 0
        named = [self._register(info_hash, port) for info_hash in advertised]
        if named and self._instance is not None:
            self._zeroconf.async_send(_answer(self._instance, named, None))
        if types := [type_of(info_hash) for info_hash in asked]:
            self._zeroconf.async_send(self._listener.ask(types))
        return len(self._zeroconf.engine.senders)

    def withdraw(self, info_hashes: Iterable[InfoHash], *, is_silent: bool) -> None:
        """Advertise torrents no more, with a goodbye unless ``is_silent``."""
        gone = [self._advertised.pop(each) for each in info_hashes if each in self._advertised]
        if not gone or self._zeroconf is None:
            return
        self._zeroconf.registry.async_remove(gone)
        if not is_silent:
            self._zeroconf.async_send(_answer(None, gone, _GOODBYE))

    def _register(self, info_hash: InfoHash, port: int) -> ServiceInfo:
        assert self._zeroconf is not None
        if self._instance is None:
            self._instance = self._make(TYPE, port)
            self._zeroconf.registry.async_add(self._instance)
        if (known := self._advertised.get(info_hash)) is not None:
            return known
        made = self._make(type_of(info_hash), port)
        # The registry tells services apart by this key, and would take one type of an
        # instance only. Questions for the instance itself find the one of the plain type.
        made.key = f"{made.type}{made.key}"
        self._zeroconf.registry.async_add(made)
        self._advertised[info_hash] = made
        return made

    def _make(self, type_: str, port: int) -> ServiceInfo:
        from zeroconf import ServiceInfo

        addresses = [
            address.ip.packed
            for interface in self.interfaces
            for address in interface.addresses
            if not (address.version == 6 and address.ip.is_link_local)
        ]
        return ServiceInfo(
            type_, self._name, port, addresses=addresses, server=self._host, properties=b"\0"
        )

    # --- what others say -----------------------------------------------------------------

    def _resolved(
        self, addresses: Iterable[bytes], port: int | None, info_hashes: tuple[InfoHash, ...]
    ) -> None:
        """Hand on an instance, as far as it names neighbours."""
        if not port:
            return
        num_taken = 0
        for packed in addresses:
            host = str(ip_address(packed))
            if num_taken < MAX_ADDRESSES and is_neighbour(host, self.interfaces):
                num_taken += 1
                self._heard(Endpoint.make(host, port), info_hashes)


class _Listener:
    """Finds instances of wanted torrents in the records that come by."""

    def __init__(
        self,
        zeroconf: Zeroconf,
        own_name: str,
        is_wanted: Callable[[InfoHash], bool],
        resolved: Callable[[Iterable[bytes], int | None, tuple[InfoHash, ...]], None],
    ) -> None:
        self._zeroconf = zeroconf
        self._own_name = own_name
        self._is_wanted = is_wanted
        self._found = resolved
        self._new: dict[str, set[InfoHash]] = {}
        """By instance: the torrents that pointers of this batch name."""
        self._unresolved: dict[str, set[InfoHash]] = {}
        self._is_news = False
        """A port or an address has come, of whomever."""
        self._questions: TokenBucket | None = None

    def records(self, now: float, records: list[RecordUpdate]) -> None:
        """Take note of a batch, which is not in the cache yet."""
        for update in records:
            record = update.new
            if record.type != _TYPE_PTR:
                self._is_news = True
            elif not record.is_expired(now):
                self._note(record.name, getattr(record, "alias", ""))

    def _note(self, name: str, instance: str) -> None:
        info_hash, instance = parse_type(name), instance.lower()
        if (
            info_hash is not None
            and instance != self._own_name
            and instance.endswith("." + TYPE)
            and self._is_wanted(info_hash)
        ):
            self._new.setdefault(instance, set()).add(info_hash)

    def complete(self) -> None:
        """Look up port and addresses, now that the batch is in the cache."""
        new, self._new = self._new, {}
        for instance, info_hashes in new.items():
            known = self._unresolved.pop(instance, None) or set()
            if not self._resolve(instance, info_hashes | known):
                self._unresolved[instance] = info_hashes | known
                self._ask_for(instance)
        while len(self._unresolved) > MAX_UNRESOLVED:
            del self._unresolved[next(iter(self._unresolved))]
        if self._is_news:
            self._is_news = False
            for instance, info_hashes in list(self._unresolved.items()):
                if self._resolve(instance, info_hashes):
                    del self._unresolved[instance]

    def _resolve(self, instance: str, info_hashes: set[InfoHash]) -> bool:
        """Hand on an instance; False if its port and addresses are not known yet."""
        from zeroconf import Error, IPVersion, ServiceInfo

        try:
            info = ServiceInfo(TYPE, instance)
        except Error:
            return True  # no name that anybody could have
        if not info.load_from_cache(self._zeroconf):
            return False
        if wanted := tuple(sorted(each for each in info_hashes if self._is_wanted(each))):
            self._found(info.addresses_by_version(IPVersion.All), info.port, wanted)
        return True

    def _ask_for(self, instance: str) -> None:
        if self._may_ask():
            out = _outgoing(_QUERY)
            out.add_question(_question(instance, _TYPE_SRV))  # its addresses come along
            out.add_question(_question(instance, _TYPE_TXT))
            self._zeroconf.async_send(out)

    def _may_ask(self) -> bool:
        assert self._zeroconf.loop is not None
        now = self._zeroconf.loop.time()
        if self._questions is None:
            self._questions = TokenBucket(MAX_QUESTION_RATE, now=now, burst=MAX_QUESTION_BURST)
            self._questions.take(-MAX_QUESTION_BURST, now=now)
        if not self._questions.available(now=now):
            return False
        self._questions.take(1, now=now)
        return True

    def ask(self, types: list[str]) -> DNSOutgoing:
        """Return the question who is of some types; what is known is handed on and named."""
        from zeroconf import current_time_millis

        now = current_time_millis()
        out = _outgoing(_QUERY)
        for type_ in types:
            out.add_question(_question(type_, _TYPE_PTR))
            for record in self._zeroconf.cache.async_all_by_details(type_, _TYPE_PTR, _CLASS_IN):
                if not record.is_stale(now):
                    self._note(type_, getattr(record, "alias", ""))
                    out.add_answer_at_time(record, now)
        self.complete()
        return out


def _outgoing(flags: int) -> DNSOutgoing:
    from zeroconf import DNSOutgoing  # type: ignore[attr-defined]  # as above

    return DNSOutgoing(flags)


def _question(name: str, type_: int) -> DNSQuestion:
    from zeroconf import DNSQuestion  # type: ignore[attr-defined]  # as above

    return DNSQuestion(name, type_, _CLASS_IN)


def _answer(
    instance: ServiceInfo | None, named: Iterable[ServiceInfo], ttl: int | None
) -> DNSOutgoing:
    """Return records that nobody has asked for: the instance first, so that all of it is known."""
    out = _outgoing(_ANSWER)
    if instance is not None:
        out.add_answer_at_time(instance.dns_service(ttl), 0)
        out.add_answer_at_time(instance.dns_text(ttl), 0)
        for record in instance.dns_addresses(ttl):
            out.add_answer_at_time(record, 0)
        out.add_answer_at_time(instance.dns_pointer(ttl), 0)
    for service in named:
        out.add_answer_at_time(service.dns_pointer(ttl), 0)
    return out


def _adapter(listener: _Listener) -> RecordUpdateListener:
    """Return a listener as an object of the library's own class, which it insists on."""
    from zeroconf import RecordUpdateListener

    class Adapter(RecordUpdateListener):
        def async_update_records(
            self,
            zc: Zeroconf,  # noqa: ARG002  # the library's
            now: float,
            records: list[RecordUpdate],
        ) -> None:
            listener.records(now, records)

        def async_update_records_complete(self) -> None:
            listener.complete()

    return Adapter()
