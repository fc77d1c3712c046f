"""
The architecture, held by a test: levels, imports, sizes, names, docstrings, bans, mirrored tests.

The rules are in ``rules.py``. Here they run over every module of ``src``, and over snippets that
break them, since a rule that finds nothing proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import unified_diff

import pytest

from tests import library_page, rules
from tests.rules import (
    LEVELS,
    ROOT,
    SRC,
    Source,
    find_bad_names,
    find_banned,
    find_broad_excepts,
    find_circles,
    find_code_in_init,
    find_engine_disorder,
    find_forbidden_modules,
    find_missing_docstrings,
    find_sizes,
    find_threads,
    find_upward_imports,
    place_of_tests,
    read_sources,
)

SIZE_EXCEPTIONS: dict[str, str] = {
    "codec/bencode.py:_scan": "the decoder's one loop; a call for each token doubles its time",
    "dht/node.py:DhtNode methods": "one verb for each thing that a person can ask of a node",
    "engine/peers/connection.py:PeerConnection attributes": "flat slots, for the data path",
    "engine/pieces/swarm.py:Swarm methods": "answers connections and assembly: two protocols",
    "engine/torrent.py:Torrent methods": "the public face of a torrent and its swarm's owner",
    "proto/peer.py:PeerProtocol methods": "one verb for each message that can be sent",
    "storage/system.py:OsCalls attributes": "one for each call of the system",
}
"""What may be larger than style.md section 4 says, with the reason."""

CIRCLE_EXCEPTIONS: dict[tuple[str, ...], str] = {
    (
        "testing/datagrams.py",
        "testing/host.py",
        "testing/network.py",
        "testing/stream.py",
    ): "one simulated world: a machine knows its network and its sockets, and they know it",
}
"""Modules that may import each other, for type checking, with the reason."""

Rule = Callable[[Source], list[str]]


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """Every module with its tree, which is large, so that it goes when these tests are over."""
    return read_sources()


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        find_upward_imports,
        find_engine_disorder,
        find_forbidden_modules,
        find_threads,
        find_bad_names,
        find_missing_docstrings,
        find_code_in_init,
        find_broad_excepts,
        find_banned,
    ],
)
def test_every_module_keeps_the_rule(rule: Rule, sources: list[Source]) -> None:
    found = [line for source in sources for line in rule(source)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.slow
def test_nothing_is_too_large_unless_listed_with_a_reason(sources: list[Source]) -> None:
    found = {name: text for source in sources for name, text in find_sizes(source).items()}
    unlisted = [f"{name}: {text}" for name, text in found.items() if name not in SIZE_EXCEPTIONS]
    assert not unlisted, "\n" + "\n".join(unlisted)
    assert not SIZE_EXCEPTIONS.keys() - found.keys(), "exceptions that are not needed any more"


@pytest.mark.slow
def test_no_modules_import_each_other_unless_listed_with_a_reason(sources: list[Source]) -> None:
    assert set(find_circles(sources)) == CIRCLE_EXCEPTIONS.keys()


def test_the_map_shows_the_order_of_the_engine() -> None:
    text = (ROOT / "docs" / "design" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \|", text.partition("Within `engine`")[2], re.MULTILINE
    )
    assert tuple(tuple(re.findall(r"\w+", row)) for row in rows) == rules.ENGINE_ORDER


def test_every_module_has_its_own_test_file(sources: list[Source]) -> None:
    missing = []
    for source in sources:
        place = place_of_tests(source)
        if place is not None and not place.is_file():
            missing.append(f"{source.name}: {place.relative_to(ROOT)}")
    assert not missing, "\n" + "\n".join(missing)


@pytest.mark.parametrize(
    ("rule", "places"),
    [(find_threads, rules.THREAD_PLACES), (find_broad_excepts, rules.BROAD_EXCEPT_PLACES)],
)
def test_listed_places_are_needed(
    rule: Rule,
    places: dict[str, str],
    sources: list[Source],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("THREAD_PLACES", "BROAD_EXCEPT_PLACES"):
        monkeypatch.setattr(rules, name, {})
    needed = {source.name for source in sources if rule(source)}
    assert needed == places.keys()
    assert all(places.values())


def test_every_package_has_a_level() -> None:
    folders = {path.parent.name for path in SRC.glob("*/*.py")}
    assert folders <= LEVELS.keys()


def test_every_module_was_read(sources: list[Source]) -> None:
    assert len(sources) == len(list(SRC.rglob("*.py"))) > 50


# --- the rules themselves --------------------------------------------------------------------

DOC = '"""Text."""\n'

BROKEN: list[tuple[Rule, str, str, str]] = [
    (find_upward_imports, "core/a.py", "import bittern.codec.wire", "level 0 imports level 1"),
    (find_upward_imports, "core/a.py", "from bittern import net", "level 0 imports level 5"),
    (find_upward_imports, "codec/a.py", "from bittern.proto.b import C", "level 1 imports level 2"),
    (find_upward_imports, "codec/a.py", "from ..proto import b", "level 1 imports level 2"),
    (find_upward_imports, "codec/a.py", "from ..proto.b import C", "level 1 imports level 2"),
    (
        find_upward_imports,
        "codec/a.py",
        "def f():\n    from bittern.net import b",
        "level 1 imports level 5",
    ),
    (
        find_upward_imports,
        "codec/a.py",
        "if TYPE_CHECKING:\n    import bittern.net.b",
        "level 1 imports level 5",
    ),
    (
        find_upward_imports,
        "codec/a.py",
        "importlib.import_module('bittern.net.b')",
        "level 1 imports level 5",
    ),
    (find_upward_imports, "proto/a.py", "import bittern.dht.b", "level 2 imports level 2"),
    (find_upward_imports, "policy/a.py", "import bittern.proto.b", "policy never imports proto"),
    (find_upward_imports, "policy/a.py", "import bittern.codec.b", "policy never imports codec"),
    (find_upward_imports, "net/a.py", "import bittern.engine.b", "net never imports engine"),
    (find_upward_imports, "engine/a.py", "import bittern.cli.b", "level 5 imports level 6"),
    (find_upward_imports, "tracker/a.py", "import bittern.cli.b", "level 6 imports level 6"),
    (
        find_upward_imports,
        "cli/get.py",
        "import bittern.tracker.b",
        "programs do not know each other",
    ),
    (find_upward_imports, "cli/a.py", "import bittern.testing.loop", "the test kit is not for"),
    (find_upward_imports, "__main__.py", "import bittern.testing.loop", "the test kit is not for"),
    (find_upward_imports, "testing/a.py", "import bittern.cli.b", "the test kit knows no program"),
    (
        find_engine_disorder,
        "engine/events.py",
        "from bittern.engine.store.disk import Disk",
        "imports bittern.engine.store.disk.Disk, which stands above it",
    ),
    (
        find_engine_disorder,
        "engine/peers/a.py",
        "if TYPE_CHECKING:\n    from bittern.engine.torrent import Torrent",
        "which stands above it",
    ),
    (find_engine_disorder, "engine/peers/a.py", "from bittern.engine import session", "above it"),
    (find_engine_disorder, "engine/pieces/a.py", "from ..hashes.b import C", "stands above it"),
    (find_engine_disorder, "engine/stats.py", "import bittern.engine.reasons.b", "above it"),
    (find_forbidden_modules, "core/a.py", "import asyncio", "imports asyncio on level 0"),
    (find_forbidden_modules, "proto/a.py", "from time import monotonic", "imports time.monotonic"),
    (find_forbidden_modules, "proto/a.py", "def f():\n    import socket", "imports socket"),
    (find_forbidden_modules, "policy/a.py", "import logging.handlers", "imports logging.handlers"),
    (find_forbidden_modules, "policy/a.py", "import os.path", "imports os.path"),
    (find_forbidden_modules, "policy/a.py", "from pathlib import Path", "imports pathlib.Path"),
    (find_forbidden_modules, "codec/a.py", "open('x')", "calls open()"),
    (find_forbidden_modules, "dht/a.py", "import random\nrandom.choice(x)", "imports random"),
    (find_forbidden_modules, "dht/a.py", "import random\nrandom.Random(1)", "imports random"),
    (find_forbidden_modules, "dht/a.py", "from random import choice", "imports random.choice"),
    (find_forbidden_modules, "dht/a.py", "import cryptography.x", "not the standard library"),
    (find_forbidden_modules, "tracker/swarm.py", "import time", "imports time"),
    (find_forbidden_modules, "storage/a.py", "import asyncio", "imports asyncio on level 4"),
    (find_forbidden_modules, "storage/a.py", "import socket", "imports socket on level 4"),
    (find_threads, "engine/a.py", "import threading", "no locks or threads above storage"),
    (find_threads, "net/a.py", "from concurrent.futures import wait", "no locks or threads"),
    (find_threads, "storage/a.py", "threading.Thread(target=f)", "makes a Thread"),
    (find_threads, "testing/a.py", "ThreadPoolExecutor(4)", "makes a ThreadPoolExecutor"),
    (find_bad_names, "core/utils.py", "", "the name 'utils' says nothing"),
    (find_bad_names, "core/peer_helpers.py", "", "the name 'peer_helpers' says nothing"),
    (find_bad_names, "misc/a.py", "", "the name 'misc' says nothing"),
    (find_bad_names, "core/a.py", "class PeerManager: pass", "the name 'PeerManager' says"),
    (find_missing_docstrings, "core/a.py", "x = 1", "the module has no docstring"),
    (find_missing_docstrings, "core/a.py", DOC + "def f(): pass", "f has no docstring"),
    (find_missing_docstrings, "core/a.py", DOC + "async def f(): pass", "f has no docstring"),
    (find_missing_docstrings, "core/a.py", DOC + "class A: pass", "A has no docstring"),
    (
        find_missing_docstrings,
        "core/a.py",
        DOC + "class A:\n    '''Text.'''\n    def f(self): pass",
        "A.f has no docstring",
    ),
    (
        find_missing_docstrings,
        "core/a.py",
        DOC + "class A:\n    '''Text.'''\n    @property\n    def f(self): pass",
        "A.f has no docstring",
    ),
    (find_code_in_init, "core/__init__.py", DOC + "def f(): pass", "__init__ only re-exports"),
    (find_code_in_init, "core/__init__.py", "names = []", "__init__ only re-exports"),
    (find_code_in_init, "core/__init__.py", "for x in y: pass", "__init__ only re-exports"),
    (find_code_in_init, "__init__.py", "def f(): pass", "__init__ only re-exports"),
    (find_broad_excepts, "net/a.py", "try: f()\nexcept Exception: pass", "catches everything"),
    (find_broad_excepts, "net/a.py", "try: f()\nexcept: pass", "catches everything"),
    (
        find_broad_excepts,
        "net/a.py",
        "try: f()\nexcept (OSError, BaseException) as e: raise X from e",
        "catches everything",
    ),
    (find_banned, "net/a.py", "import pickle", "imports pickle"),
    (find_banned, "net/a.py", "from marshal import loads", "imports marshal.loads"),
    (find_banned, "net/a.py", "eval('1')", "calls eval"),
    (find_banned, "net/a.py", "exec('1')", "calls exec"),
    (find_banned, "net/a.py", "os.system('ls')", "calls os.system"),
    (find_banned, "net/a.py", "subprocess.run('ls', shell=True)", "with shell"),
    (find_banned, "net/a.py", "subprocess.run('ls', shell=flag)", "with shell"),
    (find_banned, "net/a.py", "ssl._create_unverified_context()", "_create_unverified_context"),
    (find_banned, "net/a.py", "context.verify_mode = ssl.CERT_NONE", "uses CERT_NONE"),
    (find_banned, "net/a.py", "get(url, verify=False)", "with verify"),
    (find_banned, "net/a.py", "def f(): raise NotImplementedError", "is not implemented"),
    (find_banned, "net/a.py", "def f(): raise NotImplementedError('x')", "is not implemented"),
    (find_banned, "net/a.py", "x = 1  # TODO", "unfinished work"),
    (find_banned, "net/a.py", "# FIXME: later", "unfinished work"),
]


@pytest.mark.parametrize(("rule", "name", "text", "expected"), BROKEN)
def test_a_module_that_breaks_the_rule_is_found(
    rule: Rule, name: str, text: str, expected: str
) -> None:
    found = rule(Source(name, text))
    assert any(expected in line for line in found), found
    assert all(re.match(rf"src/bittern/{re.escape(name)}:\d+: ", line) for line in found)


FINE: list[tuple[Rule, str, str]] = [
    (find_upward_imports, "codec/a.py", "from bittern.core.ids import InfoHash"),
    (find_upward_imports, "codec/a.py", "from . import b\nfrom .b import C"),
    (find_upward_imports, "policy/a.py", "import bittern.core.ids"),
    (find_upward_imports, "engine/a.py", "import bittern.net.tcp"),
    (find_upward_imports, "cli/tracker.py", "import bittern.tracker.http"),
    (find_upward_imports, "__main__.py", "from bittern.cli.main import run"),
    (find_upward_imports, "testing/a.py", "import bittern.storage.system"),
    (find_engine_disorder, "engine/peers/a.py", "from bittern.engine.peers.b import C"),
    (find_engine_disorder, "engine/peers/a.py", "from bittern.engine.store.b import C"),
    (find_engine_disorder, "engine/store/a.py", "import bittern.engine.services"),
    (find_engine_disorder, "engine/session.py", "from bittern.engine import torrent, gateway"),
    (find_engine_disorder, "cli/a.py", "import bittern.engine.session"),
    (find_engine_disorder, "engine/events.py", "from bittern.engine import config"),
    (find_forbidden_modules, "policy/a.py", "import random\ndef f(rng: random.Random): pass"),
    (find_forbidden_modules, "storage/a.py", "import os, time, logging"),
    (find_forbidden_modules, "net/a.py", "import asyncio, socket, aiohttp"),
    (find_forbidden_modules, "core/a.py", "import struct, enum, hashlib\nre.compile('x')"),
    (find_threads, "storage/a.py", "import threading\nthreading.Lock()"),
    (find_threads, "storage/worker.py", "threading.Thread(target=f)"),
    (find_bad_names, "core/manage.py", "class Helped: pass"),
    (find_missing_docstrings, "core/a.py", DOC + "def _f(): pass\nclass _A:\n    def f(): pass"),
    (
        find_missing_docstrings,
        "core/a.py",
        DOC + "class A:\n    '''Text.'''\n    def __init__(self): pass\n"
        "    @x.setter\n    def x(self, y): pass",
    ),
    (find_code_in_init, "core/__init__.py", DOC + "from .a import b\n__all__ = ['b']"),
    (find_code_in_init, "__init__.py", DOC + "_NAMES = {}\ndef __getattr__(name): ..."),
    (find_code_in_init, "core/a.py", "for x in y: pass"),
    (find_broad_excepts, "net/a.py", "try: f()\nexcept OSError: pass"),
    (find_broad_excepts, "net/a.py", "try: f()\nexcept BaseException:\n    g()\n    raise"),
    (find_broad_excepts, "engine/session.py", "try: f()\nexcept Exception: log()"),
    (find_banned, "net/a.py", "subprocess.run(['ls'], shell=False)\nre.compile('x')"),
    (find_banned, "net/a.py", "try: f()\nexcept NotImplementedError: pass"),
]


@pytest.mark.parametrize(("rule", "name", "text"), FINE)
def test_a_module_that_keeps_the_rule_passes(rule: Rule, name: str, text: str) -> None:
    assert rule(Source(name, text)) == []


CIRCLES: list[tuple[dict[str, str], list[tuple[str, ...]]]] = [
    ({"core/a.py": "from bittern.core.b import C", "core/b.py": "import bittern.core"}, []),
    ({"core/a.py": "import bittern.core.a.b", "core/b.py": "from bittern.core import d"}, []),
    (
        {"core/a.py": "from bittern.core.b import C", "core/b.py": "from . import a"},
        [("core/a.py", "core/b.py")],
    ),
    (
        {
            "core/a.py": "import bittern.core.b",
            "core/b.py": "if TYPE_CHECKING:\n    from bittern.core.c import D",
            "core/c.py": "def f():\n    from bittern.core.a import E",
            "core/d.py": "import bittern.core.a",
        },
        [("core/a.py", "core/b.py", "core/c.py")],
    ),
    (
        {"core/__init__.py": "from .a import B", "core/a.py": "from bittern.core import B"},
        [("core/__init__.py", "core/a.py")],
    ),
]


@pytest.mark.parametrize(("texts", "found"), CIRCLES)
def test_circles_are_found(texts: dict[str, str], found: list[tuple[str, ...]]) -> None:
    assert find_circles([Source(name, text) for name, text in texts.items()]) == found


def lines(count: int, indent: str = "    ") -> str:
    return f"{indent}x = 1\n" * count


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = 1\n" * 600, []),
        ("x = 1\n" * 601, ["core/a.py"]),
        ("def f():\n" + lines(49), []),
        ("def f():\n" + lines(50), ["core/a.py:f"]),
        ('def f():\n    """\n    Text.\n    """\n' + lines(49), []),
        ("class A:\n    async def f(self):\n" + lines(50, " " * 8), ["core/a.py:A.f"]),
        ("def f():\n    def g():\n" + lines(50, " " * 8), ["core/a.py:f", "core/a.py:f.g"]),
        (
            "class A:\n" + "".join(f"    def f{n}(self): pass\n" for n in range(16)),
            ["core/a.py:A methods"],
        ),
        ("class A:\n" + "".join(f"    def _f{n}(self): pass\n" for n in range(16)), []),
        (
            "class A:\n" + "".join(f"    @property\n    def f{n}(self): pass\n" for n in range(16)),
            [],
        ),
        (
            "class A:\n    def __init__(self):\n"
            + "".join(f"        self.x{n} = self.y = 1\n" for n in range(20)),
            ["core/a.py:A attributes"],
        ),
        (
            "class A:\n    def __init__(self):\n"
            + "".join(f"        self.x{n} = self.x0.y = 1\n" for n in range(20)),
            [],
        ),
        (
            "@dataclass(frozen=True)\nclass A:\n" + "".join(f"    x{n}: int\n" for n in range(21)),
            [],
        ),
        ("class A(NamedTuple):\n" + "".join(f"    x{n}: int\n" for n in range(21)), []),
    ],
)
def test_sizes_are_measured(text: str, found: list[str]) -> None:
    assert list(find_sizes(Source("core/a.py", text))) == found


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("core/ids.py", "tests/core/test_ids.py"),
        ("cli/__init__.py", None),
        ("__init__.py", "tests/test_bittern.py"),
        ("__main__.py", "tests/test_bittern.py"),
    ],
)
def test_where_the_tests_of_a_module_are(name: str, place: str | None) -> None:
    assert place_of_tests(Source(name, "")) == (None if place is None else ROOT / place)


# --- the reference ---------------------------------------------------------------------------


def test_the_reference_is_what_the_code_says() -> None:
    """Or else ``make format`` writes it anew."""
    assert library_page.undocumented() == []
    written = library_page.PATH.read_text(encoding="utf-8").splitlines()
    changed = list(unified_diff(written, library_page.reference().splitlines(), n=0))
    assert not changed, "\n".join(["docs/reference.md is stale; make format:", *changed])
