"""
Where a program under test runs: the loopback address, or a network namespace of its own.

Transmission refuses peers in 127.0.0.0/8, so it needs a real address; a veth pair between two
namespaces gives one to each side without touching the machine's own network. Nothing here ever
opens a route to the outside. Namespaces need Linux, iproute2 and root.

Invariant: a ``Place`` only names things; the two namespaces belong to ``namespace_pair``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_NAMESPACES = Path("/run/netns")
_PREFIX = "bittern-"

# Below the range Linux takes for outgoing connections (32768-60999), so that a port stays free
# between the probe and the program that is told to use it.
_PORTS = range(20_000, 32_000)

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """
    One address a program can be run at.

    Attributes:
        address: the IPv4 address to listen at.
        namespace: the network namespace it lives in; None is the machine's own.
        address_v6: an IPv6 address beside it; "" for none.
    """

    address: str = "127.0.0.1"
    namespace: str | None = None
    address_v6: str = ""

    def command(self, argv: list[str]) -> list[str]:
        """Return ``argv`` changed so that it runs inside this place."""
        if self.namespace is None:
            return argv
        return [_find_ip(), "netns", "exec", self.namespace, *argv]

    def socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """Return a new, unbound IPv4 socket that lives in this place."""
        if self.namespace is None:
            return socket.socket(socket.AF_INET, kind)
        with self.inside():
            return socket.socket(socket.AF_INET, kind)

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """
        Return a context in which the calling thread is in this place.

        A socket belongs for ever to the namespace it was made in, so making it is all that has to
        happen inside. There must be no ``await`` in the block; other threads are not moved.
        """
        return contextlib.nullcontext() if self.namespace is None else _inside(self.namespace)

    def free_port(self) -> int:
        """
        Return a port that is free for TCP and for UDP at this place just now.

        Raises:
            OSError: no port of the range was free.
        """
        for port in random.SystemRandom().sample(_PORTS, 50):
            with (
                contextlib.suppress(OSError),
                self.socket() as tcp,
                self.socket(socket.SOCK_DGRAM) as udp,
            ):
                # Any program may listen at the wildcard address, so that is what must be free.
                tcp.bind(("0.0.0.0", port))
                udp.bind(("0.0.0.0", port))
                return port
        raise OSError(f"no free port at {self.address}")


def namespaces_missing() -> str | None:
    """Return why network namespaces cannot be made here, or None when they can."""
    if sys.platform != "linux":
        return "needs Linux network namespaces"
    if not shutil.which("ip", path=_search_path()):
        return "needs ip from iproute2; tests/interop/setup.sh installs it"
    if os.geteuid() != 0:
        return "needs root for network namespaces (sudo)"
    return None


@contextlib.contextmanager
def namespace_pair() -> Iterator[tuple[Place, Place]]:
    """
    Make two network namespaces joined by a veth pair, and remove them at the end.

    Yields:
        The two places, 10.77.0.1 and 10.77.0.2, beside which are fd77::1 and fd77::2.

    Raises:
        subprocess.CalledProcessError: the kernel refused.
    """
    _remove_abandoned()
    number = random.SystemRandom().randrange(1 << 24)
    names = [f"{_PREFIX}{os.getpid()}-{number:x}{side}" for side in "ab"]
    places = [
        Place(f"10.77.0.{index}", name, f"fd77::{index}")
        for index, name in enumerate(names, start=1)
    ]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip(
            *("link", "add", "veth0", "netns", names[0]),
            *("type", "veth", "peer", "name", "veth0", "netns", names[1]),
        )
        for place in places:
            run_ip(place, "addr", "add", f"{place.address}/24", "dev", "veth0")
            settle_at_once(place, "veth0")
            run_ip(place, "addr", "add", f"{place.address_v6}/64", "dev", "veth0")
            for device in ("lo", "veth0"):
                run_ip(place, "link", "set", device, "up")
        yield places[0], places[1]
    finally:
        for name in names:
            if (_NAMESPACES / name).exists():
                _ip("netns", "del", name)


def run_ip(place: Place, *arguments: str) -> None:
    """Run ``ip`` with these arguments on the network of a place in a namespace."""
    assert place.namespace is not None
    _ip("-n", place.namespace, *arguments)


def settle_at_once(place: Place, device: str) -> None:
    """Let IPv6 addresses of a new device be used without asking whether anybody has them."""
    with place.inside():
        Path("/proc/sys/net/ipv6/conf", device, "accept_dad").write_text("0", encoding="ascii")


def wait_multicast_v6(place: Place, device: str, *, timeout: float = 10.0) -> None:
    """
    Wait until a device takes IPv6 multicast.

    Linux notices after about a second that both ends of a cable are up, and drops it until then.
    """
    deadline = time.monotonic() + timeout
    while True:
        with place.inside():
            routes = Path("/proc/thread-self/net/ipv6_route").read_text(encoding="ascii")
        if any(line.startswith("ff00") and line.endswith(device) for line in routes.splitlines()):
            return
        if time.monotonic() > deadline:
            raise OSError(f"{device} takes no IPv6 multicast after {timeout:g} s")
        time.sleep(0.02)


def _remove_abandoned() -> None:
    """Remove namespaces whose maker was killed before it could."""
    if not _NAMESPACES.is_dir():
        return
    for path in _NAMESPACES.glob(f"{_PREFIX}*-*"):
        maker = path.name.removeprefix(_PREFIX).partition("-")[0]
        if maker.isdecimal() and not Path("/proc", maker).exists():
            # Another run may be removing the same one.
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "del", path.name)


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """
    Move the calling thread into a namespace for the length of the block.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as home:
        with (_NAMESPACES / namespace).open("rb") as target:
            _enter(libc, target.fileno())
        try:
            yield
        finally:
            _enter(libc, home.fileno())


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _ip(*arguments: str) -> None:
    subprocess.run([_find_ip(), *arguments], check=True, capture_output=True, text=True)


def _find_ip() -> str:
    return shutil.which("ip", path=_search_path()) or "ip"


def _search_path() -> str:
    """Debian keeps ``ip`` where the PATH of an ordinary user does not look."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
