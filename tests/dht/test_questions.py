"""Single queries: ping and sample (BEP 5, BEP 51)."""

from __future__ import annotations

from bittern.codec.krpc_message import Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.core.ids import InfoHash, NodeId
from bittern.dht.events import DhtEvent, FoundNode, Ponged, QueryFailed, Sampled
from bittern.dht.questions import Question, SampleQuestion

HERE, HERE6 = Endpoint("8.8.8.8", 5), Endpoint("2a00::8", 5)
ID = b"i" * 20
NODE = FoundNode(NodeId(ID), HERE)
OTHER = b"n" * 20 + b"\x09\x09\x09\x09\x00\x01"


def answer(**results: object) -> Response:
    return Response(transaction_id=b"aa", node_id=ID, **results)  # type: ignore[arg-type]


def test_ping() -> None:
    events: list[DhtEvent] = []
    question = Question(7, HERE, events.append, now=10.0)
    question.slowed(now=11.0)
    assert events == []
    question.answered(answer(version=b"LT01"), now=11.5)
    assert events == [Ponged(7, NODE, b"LT01", 1.5)]


def test_failures() -> None:
    events: list[DhtEvent] = []
    for error in (QueryTimeout(), KrpcFailure(202, "no")):
        Question(7, HERE, events.append, now=10.0).failed(error, now=15.0)
        assert events.pop() == QueryFailed(7, error)


def test_samples() -> None:
    events: list[DhtEvent] = []
    local = b"l" * 20 + b"\x7f\x00\x00\x01\x00\x01"
    SampleQuestion(7, HERE, events.append, now=0.0).answered(
        answer(samples=b"a" * 20 + b"b" * 20, num=99, interval=60, nodes=OTHER + local), now=1.0
    )
    assert events == [
        Sampled(
            7,
            NODE,
            (InfoHash(b"a" * 20), InfoHash(b"b" * 20)),
            99,
            60,
            (FoundNode(NodeId(b"n" * 20), Endpoint("9.9.9.9", 1)),),
        )
    ]


def test_samples_without_numbers_over_ipv6() -> None:
    events: list[DhtEvent] = []
    other = b"n" * 20 + b"\x2a" + bytes(14) + b"\x09\x00\x01"
    SampleQuestion(7, HERE6, events.append, now=0.0).answered(
        answer(samples=b"a" * 20, nodes=OTHER, nodes6=other), now=1.0
    )
    (event,) = events
    assert isinstance(event, Sampled)
    assert (event.num, event.interval) == (1, 0)
    assert [node.endpoint for node in event.nodes] == [Endpoint("2a00::9", 1)]


def test_who_does_not_know_samples_is_told_apart() -> None:
    """BEP 51: nodes that support it always send ``samples``."""
    events: list[DhtEvent] = []
    SampleQuestion(7, HERE, events.append, now=0.0).answered(answer(nodes=OTHER), now=1.0)
    (event,) = events
    assert isinstance(event, QueryFailed)
    assert isinstance(event.error, KrpcFailure)
