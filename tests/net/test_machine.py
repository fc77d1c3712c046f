"""net.machine: a clock that sleep does not stop, and our addresses on the way out."""

from __future__ import annotations

import socket
import sys
import time

import pytest

from bittern.net.machine import LocalMachine


@pytest.mark.skipif(sys.platform != "linux", reason="the clock of Linux")
def test_the_clock_goes_on_in_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= LocalMachine().time() <= before + 10
    monkeypatch.setattr(time, "clock_gettime", lambda clock: float(clock))
    assert LocalMachine().time() == time.CLOCK_BOOTTIME


@pytest.mark.parametrize(
    ("platform", "shown"), [("darwin", float(time.CLOCK_MONOTONIC)), ("win32", 7.0)]
)
def test_other_systems_have_other_clocks(
    platform: str, shown: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: float(clock))
    monkeypatch.setattr(time, "monotonic", lambda: 7.0)
    assert LocalMachine().time() == shown


class Probe:
    """A socket that is connected and never sends; there is no way to IPv6 hosts."""

    def __init__(self, family: int, kind: int) -> None:
        self.family = family
        assert kind == socket.SOCK_DGRAM

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def connect(self, target: tuple[str, int]) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(101, "Network is unreachable")
        assert target[0] == "192.0.2.1"

    def getsockname(self) -> tuple[str, int]:
        return "10.1.1.1", 1234


def test_our_addresses_are_those_of_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Probe)
    assert LocalMachine().hosts() == {"10.1.1.1"}
    assert LocalMachine(is_local=True).hosts() == frozenset()
