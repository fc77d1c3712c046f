from __future__ import annotations

import pytest

from bittern.core.endpoint import Endpoint
from bittern.policy.peer_book import Candidate, PeerBook, Source


class Book:
    """A book whose entries are made from a number, and what it has dropped."""

    def __init__(self, limit: int) -> None:
        self.dropped: list[int] = []
        self.book = PeerBook(limit, lambda entry: self.dropped.append(entry.endpoint.port))

    def add(
        self, number: int, source: Source = Source.TRACKER, named_by: str | None = None
    ) -> bool:
        if not (self.book.has_share(named_by) and self.book.has_room(source)):
            return False
        self.book.insert(Candidate(Endpoint("5.6.7.8", number), source, "", named_by, 0))
        return True

    def __getitem__(self, number: int) -> Candidate:
        return self.book.entries[Endpoint("5.6.7.8", number)]

    @property
    def numbers(self) -> list[int]:
        return sorted(endpoint.port for endpoint in self.book.entries)


def test_an_untried_endpoint_makes_room_only_for_a_better_source() -> None:
    book = Book(3)
    assert all(book.add(i, Source.DHT) for i in range(3))
    assert not book.add(9, Source.PEX)
    assert not book.add(9, Source.DHT)
    assert book.add(9, Source.INCOMING)
    assert len(book.dropped) == 1
    assert 9 in book.numbers


def test_failures_go_first_and_a_twentieth_at_once() -> None:
    book = Book(40)
    for i in range(40):
        book.add(i, Source.PEX)
    for i, failures in [(7, 1), (8, 3), (9, 2), (10, 1)]:
        book[i].failures = failures
    book.book.changed()
    assert book.add(100, Source.PEX)
    assert book.dropped[:2] == [8, 9]
    assert len(book.dropped) == 3


def test_seeds_make_room_only_while_we_need_nothing() -> None:
    book = Book(3)
    for i in range(3):
        book.add(i)
        book[i].is_seed = book[i].was_useful = True
    book[1].is_active = True
    assert not book.add(9)
    book.book.is_seeding = True
    assert book.add(9)
    assert len(book.dropped) == 1
    assert 1 in book.numbers
    book.book.is_seeding = False
    assert not book.add(10)


@pytest.mark.parametrize("reason", ["active", "useful", "user"])
def test_what_is_worth_keeping_stays(reason: str) -> None:
    book = Book(2)
    book.add(1, Source.USER if reason == "user" else Source.PEX)
    book[1].is_active = reason == "active"
    book[1].was_useful = reason == "useful"
    book[1].failures = 5 if reason != "useful" else 0
    book.add(2)
    assert not book.add(3)
    assert not book.add(3, Source.PEX)
    assert book.numbers == [1, 2]
    book[1].is_active = False
    book.book.changed()
    assert book.add(3) == (reason == "active")


def test_a_useful_endpoint_that_fails_now_may_go() -> None:
    book = Book(1)
    book.add(1)
    book[1].was_useful = True
    assert not book.add(2, Source.USER)
    book[1].failures = 1
    assert not book.add(2, Source.USER)
    book.book.changed()
    assert book.add(2, Source.USER)


def test_a_vain_search_is_not_repeated_for_sources_of_less_trust() -> None:
    book = Book(2)
    book.add(1, Source.DHT)
    book.add(2, Source.DHT)
    assert not book.add(3, Source.DHT)
    assert not book.add(3, Source.PEX)
    assert book.add(3, Source.TRACKER)
    assert book.add(4, Source.TRACKER)
    assert not book.add(5, Source.TRACKER)
    book.book.remove(book[3])
    assert book.add(5, Source.PEX)
    assert book.numbers == [4, 5]


def test_a_smaller_limit_drops_the_worst() -> None:
    book = Book(10)
    for i in range(10):
        book.add(i, Source.PEX if i % 2 else Source.TRACKER)
    book[0].failures = 1
    book[1].is_active = True
    book[3].was_useful = True
    book.book.limit = 4
    assert book.book.limit == 4
    assert len(book.numbers) == 4
    assert {1, 3} <= set(book.numbers)
    assert 0 in book.dropped
    assert sum(i % 2 == 0 for i in book.numbers) == 2
    book.book.limit = 5
    assert book.add(11)


def test_one_partner_names_a_tenth() -> None:
    """Limit: H8."""
    book = Book(20)
    assert [book.add(i, Source.PEX, "a") for i in range(3)] == [True, True, False]
    assert book.add(3, Source.PEX, "b")
    assert book.add(4, Source.PEX)
    book.book.remove(book[0])
    assert book.add(5, Source.PEX, "a")
    assert not book.add(6, Source.PEX, "a")
    book.book.remove(book[1])
    book.book.remove(book[5])
    assert [book.add(i, Source.PEX, "a") for i in (7, 8, 9)] == [True, True, False]


def test_rank_puts_failures_before_familiarity_before_priority() -> None:
    def entry(source: Source, priority: int, **history: int) -> Candidate:
        made = Candidate(Endpoint("5.6.7.8", 1), source, "", None, priority)
        for name, value in history.items():
            setattr(made, name, value)
        return made

    order = [
        entry(Source.USER, 5),
        entry(Source.DHT, 4, was_useful=1),
        entry(Source.LSD, 3),
        entry(Source.ZEROCONF, 2),
        entry(Source.PEX, 9),
        entry(Source.TRACKER, 8),
        entry(Source.USER, 99, failures=1),
        entry(Source.TRACKER, 99, failures=1),
        entry(Source.USER, 99, failures=2),
    ]
    ranks = [candidate.rank for candidate in order]
    assert ranks == sorted(ranks)
