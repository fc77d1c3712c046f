"""engine.ledger: what is known of pieces and totals, while a swarm runs and while none does."""

from __future__ import annotations

import random
import sys
import tracemalloc
from dataclasses import dataclass

from bittern.core.bitfield import Bitfield
from bittern.engine import ledger as ledger_module
from bittern.engine.ledger import Ledger
from bittern.policy.picker import Picker


@dataclass
class FakeSwarm:
    """What a swarm has counted."""

    picker: Picker
    num_downloaded: int = 10
    num_uploaded: int = 20
    num_wasted: int = 1


def test_at_first_nothing_is_there_and_all_is_wanted() -> None:
    ledger = Ledger(10)
    assert (ledger.have, ledger.wanted) == (0, Bitfield.full(10).bits)
    assert (ledger.num_downloaded, ledger.num_uploaded, ledger.num_wasted) == (0, 0, 0)


def test_before_the_metadata_there_are_no_pieces() -> None:
    ledger = Ledger(0)
    assert (ledger.have, ledger.wanted) == (0, 0)
    ledger.learn(9)
    assert (ledger.have, ledger.wanted) == (0, Bitfield.full(9).bits)


def test_a_part_and_all_come_back_as_they_went_in() -> None:
    ledger, part = Ledger(10), Bitfield.of(10, [1, 9]).bits
    for bits in (part, Bitfield.full(10).bits, 0):
        ledger.have = ledger.wanted = bits
        assert (ledger.have, ledger.wanted) == (bits, bits)
    ledger.wanted = None
    assert ledger.wanted == Bitfield.full(10).bits


def test_everything_takes_no_memory_per_piece() -> None:
    ledger = Ledger(100_000)
    ledger.have = Bitfield.full(100_000).bits
    assert sys.getsizeof(ledger._have) < 100


def test_runs_add_up() -> None:
    ledger = Ledger(4)
    picker = Picker(4, random.Random(1))
    picker.set_have(Bitfield.of(4, [0, 3]).bits)
    picker.set_priorities([0, 4, 4, 4])
    ledger.resume(downloaded=100, uploaded=200)
    for number in (1, 2):
        ledger.open(FakeSwarm(picker))
        for _ in ("it runs", "it has ended"):
            assert ledger.num_downloaded == 100 + 10 * number
            assert ledger.num_uploaded == 200 + 20 * number
            assert ledger.num_wasted == number
            assert ledger.earlier == (100, 200)
            assert list(Bitfield(4, ledger.have)) == [0, 3]
            assert list(Bitfield(4, ledger.wanted)) == [1, 2, 3]
            ledger.close()


def test_while_a_swarm_runs_it_is_asked() -> None:
    ledger, picker = Ledger(4), Picker(4, random.Random(1))
    swarm = FakeSwarm(picker)
    ledger.open(swarm)
    picker.set_have(Bitfield.of(4, [2]).bits)
    swarm.num_downloaded = 77
    assert (list(Bitfield(4, ledger.have)), ledger.num_downloaded) == ([2], 77)
    ledger.close()
    swarm.num_downloaded = 78
    assert ledger.num_downloaded == 77


def test_addresses_are_counted_once_and_up_to_a_limit() -> None:
    ledger = Ledger(1)
    assert ledger.num_seen == 0
    for number in range(ledger_module.MAX_SEEN + 5):
        ledger.meet(str(number))
        ledger.meet("0")
    assert ledger.num_seen == ledger_module.MAX_SEEN


def test_addresses_take_little_memory() -> None:
    """Every torrent of thousands meets ten thousand of them in time, and keeps them at rest."""
    ledger = Ledger(1)
    tracemalloc.start()
    try:
        for number in range(ledger_module.MAX_SEEN):
            ledger.meet(str(number))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ledger.num_seen == ledger_module.MAX_SEEN
    assert taken < 10 * ledger_module.MAX_SEEN
