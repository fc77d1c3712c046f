"""
What all tests share: one seed, virtual time, and guards against things left behind.

``--seed N`` repeats a run: it drives the ``rng`` and ``simulate`` fixtures, Hypothesis and the
mutations of ``tests/codec/fuzzing.py``. Without it a fresh one is drawn and printed in the header.
Every test derives its own stream from it and its name, so that a single test can be repeated alone.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import ipaddress
import logging
import os
import random
import signal
import socket
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import settings

from bittern.testing.loop import VirtualLoop, run
from bittern.testing.tasks import describe_task

if sys.platform != "win32":
    import fcntl

_T = TypeVar("_T")

_LATER_STEPS = 5
"""Steps that the tasks of a test have for ending after it."""

_SHRINKING_SECONDS = 300
"""
So long does Hypothesis look for a simpler form of what fails. Interrupted at that, it reports a
flaky strategy and not the failure.
"""

FUZZ_RUNS = int(os.environ.get("BITTERN_FUZZ_RUNS", "0"))
"""Inputs for each fuzzed decoder; 0 for the default of ``tests/codec/fuzzing.py``."""

settings.register_profile(
    "bittern",
    # The machine may be busy with other things; time is limited for each test by pytest-timeout.
    deadline=None,
    max_examples=max(50, FUZZ_RUNS // 100),
    print_blob=True,
)
settings.load_profile("bittern")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--seed``."""
    parser.addoption("--seed", type=int, default=None, help="repeat the run that printed this seed")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Draw a seed if none was given, and hand it to everything that takes chances."""
    # A shell's script has what it starts in the background ignore Ctrl-C; tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(1 << 32)
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(config.option.seed)
    os.environ.setdefault("BITTERN_FUZZ_SEED", str(config.option.seed))
    # A process that may not keep what it compiles takes twice as long to start; tests start many.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    config.addinivalue_line("markers", "fuzz: takes random input; more of it with `make fuzz`")


def pytest_report_header(config: pytest.Config) -> str:
    """Print the seed."""
    return f"seed: {config.option.seed} (repeat with --seed {config.option.seed})"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Print the seed again where the failures are, also in quiet runs that have no header."""
    if exitstatus:
        terminalreporter.write_line(pytest_report_header(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """
    Sort the tests: leave out what only ``-m soak`` runs, mark what takes random input, guard every
    test that has an event loop, and bring long files to the front where several workers run them.

    A test that is named on the command line runs whatever its marks.
    """
    is_asked_for = "soak" in config.option.markexpr or any("::" in arg for arg in config.args)
    kinds: dict[bool, list[pytest.Item]] = {False: [], True: []}
    for item in items:
        kinds[not is_asked_for and item.get_closest_marker("soak") is not None].append(item)
    if kinds[True]:
        config.hook.pytest_deselected(items=kinds[True])
        items[:] = kinds[False]
    for item in items:
        # Hypothesis leaves its own attribute on what it drives.
        is_driven = item.name == "runTest" or hasattr(getattr(item, "obj", None), "hypothesis")
        if is_driven or "fuzz" in item.name:
            item.add_marker(pytest.mark.fuzz)
        if is_driven and config.getoption("timeout", None) is None:
            usual = float(config.getini("timeout") or 0)
            item.add_marker(pytest.mark.timeout(usual + _SHRINKING_SECONDS))
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_task_left")
    if hasattr(config, "workerinput"):
        from tests.scheduling import sort_files  # there is pytest-xdist

        sort_files(items)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the garbage collector the collected tests, which stay anyway: 300,000 objects."""
    gc.freeze()


if sys.platform == "win32":

    @pytest.hookimpl(optionalhook=True)
    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        """Run tests on the loop that we need, as the usual one there has no ``add_reader``."""
        return {"selector": asyncio.SelectorEventLoop}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let ``pytest -n`` hand out whole files."""
    from tests.scheduling import FileScheduling

    return FileScheduling(config, log)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this very test."""
    name = request.node.nodeid.encode()
    return zlib.crc32(name, int(request.config.option.seed) & 0xFFFFFFFF)


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Return the test's source of chance."""
    return random.Random(seed)


class Simulate(Protocol):
    """What the ``simulate`` fixture is: ``bittern.testing.loop.run`` with the test's seed."""

    def __call__(
        self,
        main: Coroutine[Any, Any, _T] | Callable[[VirtualLoop], Coroutine[Any, Any, _T]],
        *,
        limit: float = ...,
        start: float = ...,
        grace: float = ...,
        check_leaks: bool = ...,
    ) -> _T:
        """Run a program in virtual time and prove that it left nothing behind."""


@pytest.fixture
def simulate(seed: int) -> Simulate:
    """Run a coroutine in virtual time: ``simulate(main())`` or ``simulate(main)``."""

    def run_with_seed(main: Any, **options: Any) -> Any:
        return run(main, seed=seed, **options)

    return run_with_seed


@pytest.fixture(autouse=True)
def no_error_unseen() -> Iterator[None]:
    """Fail a test during which asyncio reported an error that nobody looked at."""
    seen: list[str] = []
    handler = _Collector(seen)
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    try:
        yield
        gc.collect(1)
    finally:
        logger.removeHandler(handler)
    if seen:
        pytest.fail("asyncio reported: " + "\n".join(seen), pytrace=False)


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fail a test that ends while tasks of its own still run."""
    before = asyncio.all_tasks()
    yield
    for _ in range(_LATER_STEPS):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail("tasks left: " + "; ".join(sorted(map(describe_task, left))), pytrace=False)


_SIOCGSKNS = 0x894C  # Linux: the network namespace of a socket
_LOOPBACK_INDEX = 1  # everywhere
_REACHES_OUT = "this test would reach beyond the machine: "
_INVENTED = ("localhost", ".localhost", ".example", ".invalid", ".test")


@pytest.fixture(autouse=True)
def nothing_leaves_the_machine() -> Iterator[None]:
    """
    Fail a test that sends something to an address that is not loopback, or looks up a real name.

    No public tracker, DHT node or peer must ever hear of a test. Watches Python's own sockets;
    other programs are told by their options, or live in a network namespace.
    """
    # Not the fixture, which everything that comes after would have to outlive: what a test changes
    # is to be as it was when its folders are deleted.
    patch = pytest.MonkeyPatch()
    found: list[str] = []

    def check(sock: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else None
        if isinstance(host, str) and not (_is_here(host) or _cannot_leave(sock)):
            found.append(str(address))
            raise OSError(errno.ENETUNREACH, _REACHES_OUT + str(address))

    def watch(name: str, position: int) -> None:
        real = getattr(socket.socket, name, None)
        if real is None:  # Windows has no sendmsg
            return

        def watched(self: socket.socket, *args: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and len(args) > max(position, 0):
                check(self, args[position])
            return real(self, *args)

        patch.setattr(socket.socket, name, watched)

    real_lookup = socket.getaddrinfo

    def watched_lookup(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        is_name = isinstance(name, str) and len(name.partition(".")[0]) < 64
        if is_name and not (_is_here(name) or name.endswith(_INVENTED)):
            found.append(name)
            raise socket.gaierror(socket.EAI_NONAME, _REACHES_OUT + name)
        return real_lookup(host, *args, **options)

    watch("sendto", -1)
    watch("sendmsg", 3)
    watch("connect", 0)
    watch("connect_ex", 0)
    patch.setattr(socket, "getaddrinfo", watched_lookup)
    yield
    patch.undo()
    if found:
        pytest.fail(_REACHES_OUT + ", ".join(dict.fromkeys(found)), pytrace=False)


def _cannot_leave(sock: socket.socket) -> bool:
    """Tell whether what a socket sends stays on loopback or in a namespace that a test made."""
    if _is_loopback(sock.getsockname()[0]):
        return True
    if sock.family == socket.AF_INET:
        multicast_from = sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4)
        if _is_loopback(socket.inet_ntoa(multicast_from)):
            return True
    elif sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF) == _LOOPBACK_INDEX:
        return True
    if sys.platform != "linux":
        return False
    try:
        namespace = fcntl.ioctl(sock.fileno(), _SIOCGSKNS)
    except OSError:  # not root
        return False
    try:
        return os.fstat(namespace).st_ino != Path("/proc/self/ns/net").stat().st_ino
    finally:
        os.close(namespace)


def _is_here(host: str) -> bool:
    """Tell whether an address is loopback, or no address at all; names are not."""
    return not host or host in ("0.0.0.0", "::") or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


class _Collector(logging.Handler):
    """Keeps errors as text."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        text = record.getMessage()
        if record.exc_info is not None:
            text += f"\n{record.exc_info[1]!r}"
        self._seen.append(text)


@pytest.fixture
def hangups() -> Iterator[None]:
    """Let SIGHUP be heard, also by programs that a test starts, where ``nohup`` runs the suite."""
    number = getattr(signal, "SIGHUP", None)
    before = None if number is None else signal.signal(number, signal.SIG_DFL)
    yield
    if number is not None:
        signal.signal(number, before)
