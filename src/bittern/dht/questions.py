"""
Requests that are one query to one node: ping, and samples of its info hashes.

Sources: BEP 5 (ping), BEP 51 (sample_infohashes).
"""

from __future__ import annotations

from collections.abc import Callable

from bittern.codec.krpc_message import NODE_ID_LENGTH, Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.core.ids import InfoHash, NodeId
from bittern.dht.address import Reach, pack_host, reach_of, read_nodes, unpack_endpoint
from bittern.dht.events import DhtEvent, FoundNode, Ponged, QueryFailed, Sampled

_NOT_SUPPORTED = KrpcFailure(204, "no samples in the answer")


class Question:
    """
    A ping, and the base of other single queries.

    Args:
        request_id: marks the one event that follows.
        endpoint: who is asked.
        emit: takes the event.
        now: monotonic seconds.
    """

    __slots__ = ("_asked_at", "_emit", "_endpoint", "_request_id")

    is_hurried: bool = False

    def __init__(
        self,
        request_id: int,
        endpoint: Endpoint,
        emit: Callable[[DhtEvent], None],
        *,
        now: float,
    ) -> None:
        self._request_id = request_id
        self._endpoint = endpoint
        self._emit = emit
        self._asked_at = now

    def answered(self, response: Response, /, *, now: float) -> None:
        """Emit what the answer says."""
        node = FoundNode(NodeId(response.node_id), self._endpoint)
        self._emit(self._read(response, node, now - self._asked_at))

    def failed(self, error: KrpcFailure | QueryTimeout, /, *, now: float) -> None:  # noqa: ARG002  # as Waiter has it
        """Emit the failure."""
        self._emit(QueryFailed(self._request_id, error))

    def slowed(self, *, now: float) -> None:
        """Wait on."""

    def _read(self, response: Response, node: FoundNode, round_trip: float) -> DhtEvent:
        return Ponged(self._request_id, node, response.version, round_trip)


class SampleQuestion(Question):
    """Asks for a sample of the info hashes that a node stores peers of."""

    __slots__ = ()

    def _read(self, response: Response, node: FoundNode, round_trip: float) -> DhtEvent:  # noqa: ARG002
        samples = response.samples
        if samples is None:  # BEP 51: that is how one sees who does not know the query
            return QueryFailed(self._request_id, _NOT_SUPPORTED)
        packed = pack_host(self._endpoint.host)
        nodes = response.nodes if len(packed) == 4 else response.nodes6
        is_local = reach_of(packed) is Reach.LOCAL
        return Sampled(
            self._request_id,
            node,
            tuple(
                InfoHash(samples[at : at + NODE_ID_LENGTH])
                for at in range(0, len(samples), NODE_ID_LENGTH)
            ),
            response.num if response.num is not None else len(samples) // NODE_ID_LENGTH,
            response.interval or 0,
            tuple(
                FoundNode(NodeId(node_id), unpack_endpoint(compact))
                for node_id, compact in read_nodes(nodes or b"", len(packed), from_local=is_local)
            ),
        )
