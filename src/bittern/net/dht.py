"""
The DHT of this host over asyncio: one node for each datagram socket, used as one.

    dht = Dht(sockets, routers=WELL_KNOWN_ROUTERS, state=saved)
    for shell in dht.shells:                      # sockets are shared, so the owner joins them
        socket.add_receiver(DHT_BYTES, shell.receive, batch_ended=shell.flush)
    await dht.bootstrap()
    async for endpoint in dht.get_peers(info_hash): ...
    saved = dht.save()
    dht.close()

``net.dht_host.open_dht`` does all that with sockets of its own. Verbs may be used at
once; requests wait until their node has tried to bootstrap. ``get_peers`` and ``announce``
give a ``PeerSearch``, which needs no task: it takes callbacks, or is iterated, or waited
for. The other verbs are coroutines; cancelling one forgets its request.

Nodes that the user names are ordinary ones; routers, the well-known public nodes, are
asked only when there are too few others, and never enter the table. Names are looked
up off the loop; a name without an address is as if it had not been given.

What ``save`` returns is described in ``dht.state``.

Sources: BEP 5, 32, 33, 42, 43, 44, 45, 51.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bittern.codec.bencode import Value
from bittern.core.endpoint import Endpoint
from bittern.core.errors import MisuseError, QueryTimeout, ResolveError
from bittern.core.ids import InfoHash
from bittern.dht.address import is_loopback, pack_host
from bittern.dht.events import (
    AddressLearned,
    Bootstrapped,
    DhtEvent,
    OtherFamilyHeard,
    Ponged,
    QueryFailed,
    Sampled,
)
from bittern.dht.exchange import DhtCounters
from bittern.dht.items import (
    Item,
    check_put,
    encode_value,
    immutable_target,
    mutable_target,
    next_seq,
    signed_message,
)
from bittern.dht.limits import DhtConfig, HostPort
from bittern.dht.node import DhtNode, DhtStatus
from bittern.dht.operations import MakeItem
from bittern.dht.state import HostStates, write_states
from bittern.net.dht_node import NodeShell, Verb
from bittern.net.dht_requests import ItemResult, ItemSearch, PeerSearch, PeersResult, Search
from bittern.net.dns import HostResolver, Resolver
from bittern.net.signing import Signer, verify
from bittern.net.udp import Datagrams

NAMES_TIMEOUT = 1.0
"""Seconds that a node with saved nodes waits for the routers' names before it goes on."""


@dataclass(frozen=True, slots=True)
class NodeStats:
    """One of our nodes: where it is bound to, its state, what it has done."""

    endpoint: Endpoint
    status: DhtStatus
    counters: DhtCounters


class Dht:
    """
    The shell described in the module's text; belongs to one event loop.

    Args:
        sockets: where datagrams leave, one for each address that is to have a node.
        nodes: nodes to start from, by name or address.
        routers: well-known nodes, as above.
        resolver: of their names; one of our own otherwise.
        state: what ``save`` gave in an earlier run; whatever is wrong in it is ignored.
        config: of every node.
        rng: source of chance that need not be secret.
        random_bytes: gives that many unpredictable bytes.
        address_learned: hears how the outside sees us, whenever enough nodes agree on it.
    """

    def __init__(
        self,
        sockets: Sequence[Datagrams],
        *,
        nodes: Iterable[HostPort] = (),
        routers: Iterable[HostPort] = (),
        resolver: HostResolver | None = None,
        state: bytes | None = None,
        config: DhtConfig | None = None,
        rng: random.Random | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        address_learned: Callable[[str], object] = lambda _host: None,
    ) -> None:
        self._address_learned = address_learned
        self._loop = asyncio.get_running_loop()
        self._names = [(each, False) for each in nodes] + [(each, True) for each in routers]
        self._given_resolver = resolver
        self._ready = self._loop.create_future()
        self._tried: set[NodeShell] = set()
        self._is_closed = False
        self._has_saved_nodes = False
        saved = HostStates.read(state)
        self.shells: list[NodeShell] = []
        for socket in sockets:
            own = saved.take(socket.endpoint)
            self._has_saved_nodes |= bool(own.get(b"nodes"))
            node = DhtNode(
                random_bytes=random_bytes,
                rng=rng or random.Random(),
                verify=verify,
                now=self._loop.time(),
                is_ipv6=socket.endpoint.is_ipv6,
                config=config,
                state=own,
            )
            self.shells.append(NodeShell(socket, node, self._heard))
        self._pair()

    def __repr__(self) -> str:
        return f"<Dht {self.shells}>"

    def _pair(self) -> None:
        """Let the first node of each family name the other's nodes (BEP 32)."""
        v4, v6 = self._of_family(is_ipv6=False), self._of_family(is_ipv6=True)
        if v4 and v6:
            v4[0].node.pair(v6[0].node)

    def _of_family(self, *, is_ipv6: bool) -> list[NodeShell]:
        return [shell for shell in self.shells if shell.node.is_ipv6 == is_ipv6]

    # --- life --------------------------------------------------------------------------------

    async def bootstrap(self) -> int:
        """
        Look up the names of the nodes to start from, and join the network.

        To be called once. Cancelled, it leaves the nodes at work, without the names
        that were still being looked up.

        Returns:
            How many nodes are known after the first try; with 0 the nodes go on trying.
        """
        resolver = self._given_resolver or Resolver()
        lookups = [
            asyncio.ensure_future(self._add_name(resolver, name, is_router=is_router))
            for name, is_router in self._names
            if not (is_router and self._is_cut_off)
        ]
        try:
            await self._wait_for_names(lookups)
            for shell in self.shells:
                shell.start()
            if not self._ready.done() and self.shells and not self._is_closed:
                await asyncio.shield(self._ready)
            await asyncio.gather(*lookups)
        finally:
            for lookup in lookups:
                lookup.cancel()
            await asyncio.gather(*lookups, return_exceptions=True)
            if isinstance(resolver, Resolver) and self._given_resolver is None:
                await resolver.close()
            if not self._is_closed:
                for shell in self.shells:
                    shell.start()
        return sum(len(shell.node.table) for shell in self.shells)

    @property
    def _is_cut_off(self) -> bool:
        """True when all our sockets are bound to loopback, from where no router is in reach."""
        return all(is_loopback(pack_host(shell.socket.endpoint.host)) for shell in self.shells)

    async def add_names(self, names: Iterable[HostPort]) -> None:
        """Take nodes by name or address, as a .torrent file names them (BEP 5)."""
        resolver = self._given_resolver or Resolver()
        lookups = (self._add_name(resolver, name, is_router=False) for name in names)
        try:
            await asyncio.gather(*lookups)
        finally:
            if isinstance(resolver, Resolver) and self._given_resolver is None:
                await resolver.close()

    async def _wait_for_names(self, lookups: Sequence[asyncio.Task[bool]]) -> None:
        """Wait until there is somebody to ask, or nobody will come."""
        waiting = set(lookups)
        limit = self._loop.time() + NAMES_TIMEOUT if self._has_saved_nodes else None
        while waiting:
            timeout = None if limit is None else limit - self._loop.time()
            done, waiting = await asyncio.wait(
                waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if not done or any(task.result() for task in done):
                return

    async def _add_name(self, resolver: HostResolver, name: HostPort, *, is_router: bool) -> bool:
        """Hand the addresses of a name to the nodes; True if it has any that we can reach."""
        host, port = name
        try:
            hosts = await resolver.resolve(host)
        except ResolveError:
            return False
        endpoints = [Endpoint.make(each, port) for each in hosts]
        if is_router:
            return self._add(endpoints, is_router=True)
        return self._add(endpoints)

    def add_nodes(self, endpoints: Iterable[Endpoint]) -> None:
        """Take nodes that are known from elsewhere: of a torrent, of a peer's port message."""
        self._add(endpoints)

    def _add(self, endpoints: Iterable[Endpoint], *, is_router: bool = False) -> bool:
        given = [endpoint for endpoint in endpoints if endpoint.port]
        is_any = False
        for shell in self.shells:
            own = [each for each in given if each.is_ipv6 == shell.node.is_ipv6]
            if own and not self._is_closed:
                starts = [] if is_router else [(b"", each) for each in own]
                routers = own if is_router else []
                shell.node.add_nodes(starts, routers=routers, now=self._loop.time())
                shell.flush()
                is_any = True
        return is_any

    def _heard(self, shell: NodeShell, event: DhtEvent) -> None:
        match event:
            case Bootstrapped():
                self._tried.add(shell)
                if len(self._tried) == len(self.shells) and not self._ready.done():
                    self._ready.set_result(None)
            case OtherFamilyHeard(nodes):
                self._add(nodes)
            case AddressLearned(host):
                self._address_learned(host)

    def save(self) -> bytes:
        """Return what the next run should know."""
        return write_states(
            (shell.socket.endpoint.host, shell.node.save()) for shell in self.shells
        )

    def close(self) -> None:
        """Stop; searches end, ``ping`` and ``sample`` raise ``QueryTimeout``. Idempotent."""
        self._is_closed = True
        for shell in self.shells:
            for handle in shell.close():
                owner = getattr(handle, "__self__", None)
                if isinstance(owner, Search):
                    owner.cancel()
                else:
                    handle(QueryFailed(0, QueryTimeout("closed")))
        if not self._ready.done():
            self._ready.set_result(None)

    def stats(self) -> tuple[NodeStats, ...]:
        """Return the state of each node."""
        return tuple(
            NodeStats(shell.socket.endpoint, shell.node.status, shell.node.counters)
            for shell in self.shells
        )

    @property
    def num_nodes(self) -> int:
        """Nodes in all our tables."""
        return sum(len(shell.node.table) for shell in self.shells)

    # --- peers -------------------------------------------------------------------------------

    def get_peers(
        self,
        info_hash: InfoHash,
        *,
        scrape: bool = False,
        noseed: bool = False,
        found: Callable[[tuple[Endpoint, ...]], object] | None = None,
        named: Callable[[tuple[Endpoint, ...], Endpoint], object] | None = None,
        ended: Callable[[Search[PeersResult]], object] | None = None,
    ) -> PeerSearch:
        """
        Find peers of a torrent.

        Args:
            info_hash: of the torrent.
            scrape: also estimate how many there are (BEP 33).
            noseed: ask for peers that are no seeds, as we are one.
            found: called with new peers as they come; otherwise iterate over the result.
            named: the same, called with the node that named them as well.
            ended: called once at the end, not after ``cancel``.

        Raises:
            MisuseError: 10,000 requests are waiting already.
        """

        def factory(_shell: NodeShell) -> Verb:
            return lambda node, now: node.get_peers(
                info_hash, now=now, scrape=scrape, noseed=noseed
            )

        return PeerSearch(self.shells, factory, found=found, named=named, ended=ended)

    def announce(
        self,
        info_hash: InfoHash,
        port: int,
        *,
        implied: bool = False,
        is_seed: bool = False,
        scrape: bool = False,
        found: Callable[[tuple[Endpoint, ...]], object] | None = None,
        named: Callable[[tuple[Endpoint, ...], Endpoint], object] | None = None,
        ended: Callable[[Search[PeersResult]], object] | None = None,
    ) -> PeerSearch:
        """
        Find peers of a torrent, and become one in the eyes of the nodes closest to it.

        Args:
            info_hash: of the torrent.
            port: where we accept peers.
            implied: where a node's own socket has that port, let others take the one
                they see its datagrams come from, right behind a NAT (BEP 5).
            is_seed: we have everything.
            scrape: as for ``get_peers``, as are the following.
            found: called with new peers.
            named: called with new peers and the node that named them.
            ended: called once at the end.
        """

        def factory(shell: NodeShell) -> Verb:
            seen = None if implied and shell.socket.endpoint.port == port else port
            return lambda node, now: node.announce(
                info_hash, seen, now=now, is_seed=is_seed, scrape=scrape
            )

        return PeerSearch(self.shells, factory, found=found, named=named, ended=ended)

    async def scrape(self, info_hash: InfoHash) -> PeersResult:
        """Estimate how many seeds and leechers a torrent has (BEP 33)."""
        return await self.get_peers(info_hash, scrape=True, found=lambda _peers: None).wait()

    # --- items -------------------------------------------------------------------------------

    async def get(self, target: bytes, salt: bytes = b"") -> ItemResult:
        """
        Find the newest item stored under ``target``, 20 bytes.

        Args:
            target: SHA-1 of an immutable item's bencoded value, or of key and salt.
            salt: of a mutable item; its signature cannot be checked without it.

        Source: BEP 44. ``dht.items`` has ``immutable_target`` and ``mutable_target``.
        """
        return await ItemSearch(
            self.shells,
            lambda _shell: lambda node, now: node.get_item(target, now=now, salt=salt),
        ).wait()

    async def put_immutable(self, value: Value) -> ItemResult:
        """
        Store a value; ``result.item.target`` says where it lies.

        Raises:
            ConfigError: the bencoded value has more than 1,000 bytes.
        """
        item = Item(encode_value(value))
        return await self._put(immutable_target(item.value), lambda _found: item)

    async def put_mutable(
        self,
        key: Signer,
        value: Value,
        *,
        seq: int | None = None,
        salt: bytes = b"",
        cas: int | None = None,
    ) -> ItemResult:
        """
        Store a value under a public key.

        Args:
            key: signs it.
            value: what to store.
            seq: sequence number; None for one more than the newest found.
            salt: at most 64 bytes, for several items under one key.
            cas: store only over an item with this sequence number.

        Returns:
            ``num_stored`` nodes took it; with 0 ``refusals`` or ``item``, the newest one
            found, says why.

        Raises:
            ConfigError: the bencoded value or the salt is too long, or a number below 0.
            KrpcFailure: an item that was found forbids it: 301, its sequence number is
                not ``cas``; 302, it is not lower than ``seq``.
        """
        encoded, public_key = encode_value(value), key.public_key
        check_put(salt, seq)
        newest = (await self.get(mutable_target(public_key, salt), salt)).item
        seq = next_seq(newest, encoded, seq=seq, cas=cas)
        signature = key.sign(signed_message(encoded, seq, salt))
        return await self.put_item(
            Item(encoded, public_key, salt, seq, signature), uses_cas=cas is not None
        )

    async def put_item(self, item: Item, *, uses_cas: bool = False) -> ItemResult:
        """
        Store an item as it is, one that somebody else has signed included.

        Args:
            item: what to store; a newer one that is found is left alone.
            uses_cas: let nodes refuse if the item found was replaced meanwhile.
        """

        def make(found: Item | None) -> Item | None:
            return None if found is not None and found.seq > item.seq else item

        return await self._put(item.target, make, salt=item.salt, uses_cas=uses_cas)

    async def _put(
        self, target: bytes, make: MakeItem, *, salt: bytes = b"", uses_cas: bool = False
    ) -> ItemResult:
        return await ItemSearch(
            self.shells,
            lambda _shell: (
                lambda node, now: node.put_item(target, make, now=now, salt=salt, uses_cas=uses_cas)
            ),
        ).wait()

    # --- single nodes ------------------------------------------------------------------------

    async def ping(self, endpoint: Endpoint) -> Ponged:
        """
        Ask one node whether it is there.

        Raises:
            QueryTimeout: it did not answer, or we have no socket of its family.
            KrpcFailure: it refused.
        """
        event = await self._ask(endpoint, lambda node, now: node.ping(endpoint, now=now))
        assert isinstance(event, Ponged), event
        return event

    async def sample(self, endpoint: Endpoint, target: bytes) -> Sampled:
        """
        Ask one node for info hashes that it stores peers of (BEP 51).

        Args:
            endpoint: whom to ask; not before the interval it said last time is over.
            target: 20 bytes; nodes near it are named too.

        Raises:
            QueryTimeout, KrpcFailure: as for ``ping``.
        """
        event = await self._ask(endpoint, lambda node, now: node.sample(endpoint, target, now=now))
        assert isinstance(event, Sampled), event
        return event

    async def _ask(self, endpoint: Endpoint, verb: Verb) -> DhtEvent:
        shells = self._of_family(is_ipv6=endpoint.is_ipv6)
        if not shells or self._is_closed:
            raise QueryTimeout(f"no {'IPv6' if endpoint.is_ipv6 else 'IPv4'} here")
        shell = shells[0]
        if not shell.is_started:
            raise MisuseError("single nodes can be asked once bootstrap() has begun")
        answer: asyncio.Future[DhtEvent] = self._loop.create_future()

        def handle(event: DhtEvent) -> None:
            if answer.done():
                return
            if isinstance(event, QueryFailed):
                answer.set_exception(event.error)
            else:
                answer.set_result(event)

        request_id = shell.begin(verb, handle)
        try:
            return await answer
        finally:
            shell.cancel(request_id)
