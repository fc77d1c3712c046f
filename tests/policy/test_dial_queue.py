from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.policy.dial_queue import DialQueue


@dataclass(eq=False)
class Item:
    name: int
    rank: tuple[int, ...] = (0,)
    ticket: int = 0

    def __repr__(self) -> str:
        return str(self.name)


def drain(queue: DialQueue[Item], now: float) -> list[int]:
    names = []
    while (item := queue.pop(now)) is not None:
        names.append(item.name)
    return names


def test_items_come_by_rank_once_their_instant_has_come() -> None:
    queue: DialQueue[Item] = DialQueue()
    for name, rank, instant in [(1, 5, 0.0), (2, 1, 10.0), (3, 3, 0.0), (4, 0, 20.0)]:
        queue.put(Item(name, (rank,)), instant)
    assert queue.next_instant(0.0) == 0.0
    assert drain(queue, 0.0) == [3, 1]
    assert queue.next_instant(5.0) == 10.0
    assert drain(queue, 9.9) == []
    assert drain(queue, 30.0) == [4, 2]
    assert queue.next_instant(30.0) is None
    assert len(queue) == 0


def test_putting_an_item_again_moves_it() -> None:
    queue: DialQueue[Item] = DialQueue()
    item = Item(1)
    queue.put(item, 5.0)
    queue.put(item, 50.0)
    assert len(queue) == 1
    assert drain(queue, 49.0) == []
    queue.put(item, 49.0)
    assert queue.pop(49.0) is item
    assert queue.pop(1e9) is None


def test_an_item_withdrawn_is_not_there() -> None:
    queue: DialQueue[Item] = DialQueue()
    early, ready, late = Item(1), Item(2), Item(3)
    queue.put(early, 0.0)
    queue.put(ready, 0.0)
    queue.put(late, 10.0)
    assert queue.pop(0.0) is early
    queue.withdraw(ready)
    queue.withdraw(ready)
    assert queue.next_instant(0.0) == 10.0
    queue.withdraw(late)
    assert queue.next_instant(0.0) is None
    assert drain(queue, 99.0) == []
    assert len(queue) == 0


def test_parked_items_come_back_when_called() -> None:
    queue: DialQueue[Item] = DialQueue()
    items = [Item(i) for i in range(4)]
    for item in items:
        queue.park(item, "a" if item.name < 3 else "b")
    queue.withdraw(items[1])
    queue.put(items[2], 99.0)
    queue.call("nobody", 0.0)
    assert drain(queue, 50.0) == []
    assert queue.next_instant(50.0) == 99.0
    queue.call("a", 60.0)
    queue.call("a", 60.0)
    assert queue.next_instant(50.0) == 60.0
    assert drain(queue, 60.0) == [0]
    assert len(queue) == 2


def test_ranks_that_changed_count_after_rerank() -> None:
    queue: DialQueue[Item] = DialQueue()
    items = [Item(i, (i,)) for i in range(5)]
    for item in items:
        queue.put(item, 0.0)
    assert queue.pop(0.0) is items[0]
    assert queue.next_instant(7.0) == 7.0
    for item in items:
        item.rank = (-item.name,)
    queue.rerank()
    assert drain(queue, 0.0) == [4, 3, 2, 1]


def test_stale_places_do_not_pile_up() -> None:
    queue: DialQueue[Item] = DialQueue()
    item, other = Item(1, (1,)), Item(2)
    queue.put(other, 0.0)
    for turn in range(2000):
        queue.put(item, 1.0 + turn)
        queue.park(item, "a")
        if turn % 2:
            queue.put(other, 0.0)
            queue.put(item, 0.0)
            assert queue.pop(0.0) is other
            queue.put(other, 0.0)
    num_places = len(queue._waiting) + len(queue._ready) + sum(map(len, queue._parked.values()))
    assert num_places <= 3 * (2 * len(queue) + 65)
    assert drain(queue, 1e9) == [2, 1]


def test_nothing_is_lost_or_out_of_order_when_stale_places_are_dropped(rng: random.Random) -> None:
    queue: DialQueue[Item] = DialQueue()
    items = [Item(name) for name in range(20)]
    for _ in range(200):
        queue.put(rng.choice(items), rng.uniform(0.0, 100.0))
    instants = [rng.uniform(0.0, 100.0) for _ in items]
    for item, instant in zip(items, instants, strict=True):
        queue.put(item, instant)
    for _ in range(200):
        queue.put(items[0], instants[0])
    in_order = sorted(instants)
    assert [queue.next_instant(0.0)] + [
        queue.next_instant(now) for now in in_order[:-1] if queue.pop(now) is not None
    ] == in_order
    parked = Item(99)
    for _ in range(200):
        queue.park(parked, "a")
    queue.call("a", 100.0)
    assert queue.pop(100.0) is items[instants.index(in_order[-1])]
    assert queue.pop(100.0) is parked


orders = st.lists(
    st.tuples(
        st.sampled_from(["put", "park", "call", "withdraw", "pop"]),
        st.integers(0, 5),
        st.integers(0, 8),
    ),
    max_size=80,
)


@pytest.mark.slow
@given(orders)
def test_the_queue_behaves_as_a_plain_list(history: list[tuple[str, int, int]]) -> None:
    queue: DialQueue[Item] = DialQueue()
    items = [Item(i, (i % 3, i)) for i in range(6)]
    places: dict[int, float | str] = {}
    for now, (verb, which, value) in enumerate(history):
        item = items[which]
        match verb:
            case "put":
                queue.put(item, float(now + value))
                places[which] = float(now + value)
            case "park":
                queue.park(item, str(value % 2))
                places[which] = str(value % 2)
            case "call":
                queue.call(str(value % 2), float(now))
                for name, place in places.items():
                    if place == str(value % 2):
                        places[name] = float(now)
            case "withdraw":
                queue.withdraw(item)
                places.pop(which, None)
            case "pop":
                due = [i for i, at in places.items() if isinstance(at, float) and at <= now]
                best = min(due, key=lambda i: items[i].rank, default=None)
                assert queue.pop(now) is (None if best is None else items[best])
                places.pop(-1 if best is None else best, None)
        assert len(queue) == len(places)
        instants = [at for at in places.values() if isinstance(at, float)]
        soonest = max(float(now), min(instants)) if instants else None
        assert queue.next_instant(float(now)) == soonest
