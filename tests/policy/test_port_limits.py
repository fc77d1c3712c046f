"""policy.port_limits: DHT nodes that the peers of one address name (Limit: N2)."""

from __future__ import annotations

from bittern.core.endpoint import Endpoint
from bittern.policy.port_limits import LIFETIME, MAX_NETWORKS, MAX_NODES, PortLimits


def take(limits: PortLimits, host: str, ports: range, *, now: float = 0.0) -> int:
    return sum(limits.may_take(Endpoint(host, port), now=now) for port in ports)


def test_n2_a_few_nodes_of_each_address() -> None:
    limits = PortLimits()
    assert take(limits, "10.0.0.1", range(1, 500)) == MAX_NODES == 4
    assert take(limits, "10.0.0.2", range(1, 500)) == MAX_NODES


def test_a_node_may_be_named_on_every_connection() -> None:
    limits = PortLimits()
    for _ in range(100):
        assert limits.may_take(Endpoint("10.0.0.1", 6881), now=0)
    assert take(limits, "10.0.0.1", range(1, 500)) == MAX_NODES - 1
    assert limits.may_take(Endpoint("10.0.0.1", 6881), now=1)


def test_a_place_is_free_again_after_a_while_also_if_it_is_named_all_the_time() -> None:
    limits = PortLimits()
    for second in range(int(LIFETIME)):
        assert take(limits, "10.0.0.1", range(1, MAX_NODES + 2), now=second) == MAX_NODES
    assert limits.may_take(Endpoint("10.0.0.1", 5000), now=LIFETIME)


def test_n2_a_subscriber_of_ipv6_is_one_address() -> None:
    limits = PortLimits()
    taken = [limits.may_take(Endpoint(f"2001:db8::{n:x}", 6881), now=0) for n in range(1, 99)]
    assert sum(taken) == MAX_NODES
    assert limits.may_take(Endpoint("2001:db8:0:1::1", 6881), now=0)


def test_n2_the_oldest_addresses_are_forgotten() -> None:
    limits = PortLimits()
    for number in range(MAX_NETWORKS + 10):
        take(limits, f"10.1.{number // 256}.{number % 256}", range(1, 6))
    assert len(limits) == MAX_NETWORKS
    assert take(limits, "10.1.0.0", range(6, 10)) == MAX_NODES, "forgotten"
    assert take(limits, "10.1.1.1", range(6, 10)) == 0
