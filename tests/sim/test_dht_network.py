"""
Whole networks of DHT nodes with loss, churn and liars: does a lookup find what was announced?

Reduced by default; ``-m soak`` runs 5,000 nodes.
"""

from __future__ import annotations

import statistics

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from tests.sim.dht_world import Job, Lie, Network, Outcome, World

MAX_QUERIES = 30
"""What a lookup may send on average."""
LOSS = 0.05
CHURN = 0.10
"""Share of the nodes that is replaced between announce and lookup."""
MAX_LIARS = 0.15
"""Share of liars in the tables of honest nodes; without judgment it is a third to a half."""


def mean_queries(outcomes: list[Outcome]) -> float:
    return statistics.mean(outcome.num_queries for outcome in outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("share_hostile", [0.0, 0.2])
@pytest.mark.parametrize(
    ("num_nodes", "num_lookups", "warm_up", "min_success"),
    [
        (80, 60, 240.0, 0.98),
        pytest.param(5000, 1000, 900.0, 0.99, marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
def test_what_was_announced_is_found(
    seed: int,
    num_nodes: int,
    num_lookups: int,
    warm_up: float,
    min_success: float,
    share_hostile: float,
) -> None:
    """
    Loss of 5 % each way, a tenth of the nodes replaced meanwhile, a fifth of them liars.

    Limit: N2.
    """
    world = World(seed, loss=LOSS)
    network = Network(world, share_hostile=share_hostile)
    network.grow(num_nodes, interval=60 / num_nodes, settle_time=warm_up)
    jobs = [
        Job(network.draw(), InfoHash(world.rng.randbytes(20)), 1000 + number)
        for number in range(num_lookups)
    ]
    announces = network.announce(jobs)
    network.churn(600.0, share=CHURN)
    lookups = network.get_peers([Job(network.draw(), job.info_hash) for job in jobs])
    found = [
        Endpoint(job.endpoint.host, job.port) in lookup.peers
        for job, lookup in zip(jobs, lookups, strict=True)
    ]
    report = (
        f"{num_nodes} nodes, {share_hostile:.0%} hostile: {sum(found)} of {num_lookups} found, "
        f"{mean_queries(announces):.1f} queries to announce, {mean_queries(lookups):.1f} to find, "
        f"tables with {network.share_of_liars():.1%} liars"
    )
    print(report)
    assert sum(found) >= min_success * num_lookups, report
    assert mean_queries(announces) <= MAX_QUERIES, report
    assert mean_queries(lookups) <= MAX_QUERIES, report
    assert network.share_of_liars() <= MAX_LIARS, report


@pytest.mark.slow
def test_liars_who_pass_for_honest_are_outvoted(seed: int) -> None:
    """
    A fifth are liars who cannot be told by what they say of their own surroundings.

    Tables are full of them, so a lookup must see that what it found is too thin (Limit: N2).
    """
    world = World(seed, loss=LOSS)
    network = Network(world, share_hostile=0.2, lies=(Lie.MASK,))
    network.grow(100, interval=0.6, settle_time=120.0)
    jobs = [Job(network.draw(), InfoHash(world.rng.randbytes(20)), 1000 + n) for n in range(40)]
    network.announce(jobs)
    lookups = network.get_peers([Job(network.draw(), job.info_hash) for job in jobs])
    found = [
        Endpoint(job.endpoint.host, job.port) in lookup.peers
        for job, lookup in zip(jobs, lookups, strict=True)
    ]
    assert network.share_of_liars() > 0.15
    assert sum(found) >= 39
    assert mean_queries(lookups) <= MAX_QUERIES


def test_the_same_seed_gives_the_same_network(seed: int) -> None:
    """One seed replays a run exactly."""

    def run() -> tuple[int, list[tuple[int, int]]]:
        world = World(seed, loss=LOSS)
        network = Network(world, share_hostile=0.2)
        network.grow(25, interval=0.5, settle_time=20.0)
        jobs = [Job(network.draw(), InfoHash(bytes([n]) * 20), 1000) for n in range(3)]
        outcomes = network.announce(jobs)
        return world.num_datagrams, [(o.num_queries, len(o.peers)) for o in outcomes]

    assert run() == run()


def test_idle_nodes_are_quiet(seed: int) -> None:
    """What an idle node sends, answers included, is a small part of its budget (Limit: N1)."""
    world = World(seed)
    network = Network(world)
    network.grow(40, interval=1.0, settle_time=600.0)
    before = {endpoint: node.counters.sent_length for endpoint, node in network.honest.items()}
    world.run(1800.0)
    rates = [
        (node.counters.sent_length - before[endpoint]) / 1800.0
        for endpoint, node in network.honest.items()
    ]
    assert max(rates) < 1000.0
    assert statistics.mean(rates) < 300.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_hours", "min_success"),
    [
        (3, 0.6),
        pytest.param(1000, 0.99, marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
def test_a_network_lives_for_a_thousand_hours(
    seed: int, num_hours: int, min_success: float
) -> None:
    """
    Every hour a node is replaced, and what one of the others announces is found by another.

    In six weeks everybody has been replaced many times; nothing may pile up.
    """
    world = World(seed, loss=0.01)
    network = Network(world)
    network.grow(12, interval=10.0, settle_time=120.0)
    num_found = 0
    for hour in range(num_hours):
        network.leave()
        network.join()
        world.run(1800.0)
        job = Job(network.draw(), InfoHash(world.rng.randbytes(20)), 1000 + hour)
        network.announce([job])
        world.run(900.0)
        (lookup,) = network.get_peers([Job(network.draw(), job.info_hash)])
        num_found += Endpoint(job.endpoint.host, job.port) in lookup.peers
        world.run(900.0)
    report = f"{num_found} of {num_hours} found, {world.num_datagrams} datagrams"
    print(report)
    assert num_found >= min_success * num_hours, report
    assert len(network.honest) == 12
    for node in network.honest.values():
        status = node.status
        assert 8 <= status.num_nodes <= 12
        assert status.num_torrents <= 2
        assert status.num_lookups == 0
