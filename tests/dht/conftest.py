"""A node's answering side, ready to be fed."""

from __future__ import annotations

import random

import pytest

from tests.dht.bench import Bench


@pytest.fixture
def bench(rng: random.Random) -> Bench:
    return Bench(rng)


@pytest.fixture
def bench6(rng: random.Random) -> Bench:
    return Bench(rng, is_ipv6=True)
