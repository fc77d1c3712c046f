"""Places for requests, shared fairly by hosts; in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from bittern.engine.sources.places import Places
from tests.virtual_time import simulated


class Office:
    """Requests that take so long, and when each began."""

    def __init__(self, num_places: int, max_per_host: int) -> None:
        self.places = Places(num_places, max_per_host)
        self.began: list[tuple[str, float]] = []
        self.num_now = 0
        self.most = 0

    async def ask(self, host: str, seconds: float) -> None:
        async with self.places.at(host):
            loop = asyncio.get_running_loop()
            self.began.append((host, loop.time()))
            self.num_now += 1
            self.most = max(self.most, self.num_now)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.num_now -= 1

    def begun_at(self, host: str) -> list[float]:
        return [at for each, at in self.began if each == host]


@simulated
async def test_a_dead_host_keeps_nobody_waiting() -> None:
    office, began = Office(50, 8), asyncio.get_running_loop().time()
    dead = [office.ask("dead", 30.0) for _ in range(100)]
    good = [office.ask(f"good{number}", 0.1) for number in range(42)]
    await asyncio.gather(*dead, *good)
    assert {at - began for host, at in office.began if host != "dead"} == {0.0}
    assert office.begun_at("dead").count(began) == 8


@simulated
async def test_a_place_goes_to_the_host_that_has_fewest_in_turn() -> None:
    office = Office(4, 3)
    jobs = [office.ask(host, 1.0) for host in "aaaaaabbbccc"]
    await asyncio.gather(*jobs)
    assert [host for host, _ in office.began[:4]] == ["a", "a", "a", "b"]
    assert office.began[4][0] == "c", "who has none comes before those who waited longer"
    assert max(at for _, at in office.began) == office.began[0][1] + 2.0
    assert office.most == 4


@simulated
async def test_who_gives_up_waiting_keeps_no_place() -> None:
    office = Office(1, 1)
    first, second, third = (asyncio.create_task(office.ask("a", 1.0)) for _ in range(3))
    await asyncio.sleep(0.5)
    second.cancel()
    await asyncio.gather(first, third)
    with pytest.raises(asyncio.CancelledError):
        await second
    assert len(office.began) == 2
    assert repr(office.places) == "<Places 1 free, 0 taken, 0 waiting>"


@simulated
async def test_a_turn_that_comes_with_the_end_is_passed_on() -> None:
    office = Office(1, 1)

    async def ask_and_cancel() -> None:
        await office.ask("a", 1.0)
        second.cancel()  # it has its turn by now, and has not heard of it

    first = asyncio.create_task(ask_and_cancel())
    second, third = (asyncio.create_task(office.ask("a", 1.0)) for _ in range(2))
    await asyncio.gather(first, third)
    await asyncio.gather(second, return_exceptions=True)
    assert second.cancelled()
    assert len(office.began) == 2
    assert repr(office.places) == "<Places 1 free, 0 taken, 0 waiting>"


@simulated
async def test_an_error_gives_the_place_back() -> None:
    places = Places(1, 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            async with places.at("a"):
                raise ValueError("x")
