"""
The rules of docs/design/style.md sections 1 and 4 as functions over one module's syntax tree.

Each rule takes a ``Source`` and returns what breaks it, as ``file:line: text``. Nothing is
imported, so a rule sees every branch, also imports inside functions. ``test_architecture.py``
runs them over ``src`` and over snippets that must fail.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "bittern"

LEVELS = {
    "core": 0,
    "codec": 1,
    "proto": 2,
    "dht": 2,
    "policy": 3,
    "storage": 4,
    "net": 5,
    "engine": 5,
    "tracker": 6,
    "cli": 6,
    "testing": 6,
}
"""Level of each package; imports point down only."""

FORBIDDEN_PACKAGES = {
    # A decision is made from values, not from bytes or protocols.
    "policy": {"codec", "proto", "dht"},
    "net": {"engine"},
}
"""Packages that would be low enough, and are forbidden all the same."""

ALLOWED_SIDEWAYS = {
    ("engine", "net"): None,
    # The command line starts the tracker; those two modules and no others.
    ("cli", "tracker"): {"cli/tracker.py", "cli/demo.py"},
}
"""Imports between packages of one level: None for all modules, else those that may."""

ENGINE_ORDER = (
    ("config", "events", "ledger", "limits", "listeners", "reason", "shelf", "source_status"),
    ("services", "store"),
    ("peers",),
    ("pieces",),
    ("hashes",),
    ("sources",),
    ("metadata", "stats"),
    ("reasons",),
)
"""
The folders of ``engine`` and the modules beside them, from the bottom up; what is not named
stands on top. Imports point down, also those for type checking. The same rows, in the same order,
are in docs/design/README.md.
"""

PURE_MODULES = {"tracker/swarm.py"}
"""Modules of higher levels that keep the rules of level 2."""

SURROUNDINGS = {
    "asyncio", "concurrent", "socket", "socketserver", "select", "selectors", "ssl", "http",
    "urllib.request", "ftplib", "smtplib", "threading", "_thread", "multiprocessing", "subprocess",
    "signal", "queue", "sched", "time", "datetime", "random", "secrets", "uuid", "logging", "os",
    "io", "pathlib", "shutil", "tempfile", "glob", "fileinput", "mmap", "fcntl", "sqlite3", "dbm",
    "platform", "getpass", "locale",
}  # fmt: skip
"""Clock, dice, threads, sockets, files, logs: not below level 4."""

SOCKETS = {
    "asyncio", "socket", "socketserver", "select", "selectors", "ssl", "http", "urllib.request",
}  # fmt: skip
"""Not in storage."""

BANNED_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"}
"""Nowhere: they run code that comes from outside (threats.md section 5)."""

BANNED_NAMES = {"util", "utils", "helper", "helpers", "misc", "manager", "common", "stuff", "tools"}
"""Names that say nothing, as a part of a module's or class's name."""

MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 50
MAX_PUBLIC_METHODS = 15
MAX_ATTRIBUTES = 20

THREAD_PLACES = {
    "storage/worker.py": "the storage worker (style.md section 1)",
    "storage/piece_hashing.py": "hashing a whole torrent on all cores, outside of any session",
    "net/dns.py": "getaddrinfo blocks, and a name server may not answer for minutes (F11)",
    "cli/loop.py": "ends the process when the event loop hangs after a signal",
}
"""Modules that may make threads, with the reason."""

LOCK_PACKAGES = {"storage", "testing"}
"""Packages that may import ``threading`` at all: no locks above storage."""

BROAD_EXCEPT_PLACES = {
    "engine/session.py": "the supervisor: a bug ends the task it is in, not the session",
    "engine/condition.py": "a bug while a torrent starts stops the torrent, and can be seen there",
    "storage/worker.py": "an error of a job belongs to whoever submitted it",
    "storage/piece_hashing.py": "an error of a hashing thread is raised in the calling one",
    "cli/main.py": "the top: whatever happens becomes an exit code and a line",
    "testing/loop.py": "an error of an executor's function belongs to whoever awaits it",
    "testing/disk.py": "an error of a job belongs to whoever submitted it",
}
"""Modules that may catch everything and go on, with the reason."""


@dataclass(frozen=True)
class Source:
    """One module: ``name`` is its path below ``src/bittern``, with slashes."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed module."""
        return ast.parse(self.text, self.name)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All that the tree is made of."""
        return list(ast.walk(self.tree))

    @property
    def module(self) -> str:
        """The name by which it is imported."""
        parts = ["bittern", *self.name.removesuffix(".py").split("/")]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        """The package below ``bittern``; empty for modules beside the packages."""
        return self.name.partition("/")[0] if "/" in self.name else ""

    @property
    def level(self) -> int | None:
        """The level of its package."""
        return LEVELS.get(self.package)

    @property
    def is_pure(self) -> bool:
        """True where clock, dice, threads, sockets and files are forbidden."""
        return (self.level is not None and self.level < 4) or self.name in PURE_MODULES

    def at(self, node: ast.AST, text: str) -> str:
        """Return ``text`` with its place."""
        return f"src/bittern/{self.name}:{getattr(node, 'lineno', 1)}: {text}"

    @cached_property
    def imports(self) -> list[tuple[ast.AST, str]]:
        """Every imported module in dotted form, with its statement; names as sub-modules too."""
        found: list[tuple[ast.AST, str]] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += [(node, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                found += [(node, f"{base}.{alias.name}") for alias in node.names]
            elif isinstance(node, ast.Call) and _name_of(node.func).endswith("import_module"):
                found += [
                    (node, argument.value)
                    for argument in node.args
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                ]
        return found

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        here = ["bittern", *self.name.split("/")]
        parents = here[: len(here) - node.level]
        return ".".join([*parents, *([node.module] if node.module else [])])


def read_sources(folder: Path = SRC) -> list[Source]:
    """Return every module below ``folder``, sorted by name."""
    return [
        Source(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.py"))
    ]


def _name_of(node: ast.AST) -> str:
    """Return the dotted text of a name or attribute; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name_of(node.value)}.{node.attr}"
    return ""


def _is_module(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


# --- section 1: layers -----------------------------------------------------------------------


def find_upward_imports(source: Source) -> list[str]:
    """Imports of our own packages that do not point down."""
    found = []
    for node, name in source.imports:
        target = name.split(".")[1] if name.startswith("bittern.") else ""
        if target in LEVELS and target != source.package:
            problem = _judge_import(source, target)
            if problem:
                found.append(source.at(node, f"imports {name}: {problem}"))
    return found


def _judge_import(source: Source, target: str) -> str:
    level = source.level
    if target == "testing":
        return "the test kit is not for programs"
    if level is None:
        return ""
    if target in FORBIDDEN_PACKAGES.get(source.package, ()):
        return f"{source.package} never imports {target}"
    if source.package == "testing":
        return "" if LEVELS[target] < 6 else "the test kit knows no program"
    if (source.package, target) in ALLOWED_SIDEWAYS:
        places = ALLOWED_SIDEWAYS[source.package, target]
        return "" if places is None or source.name in places else "programs do not know each other"
    if LEVELS[target] >= level:
        return f"level {level} imports level {LEVELS[target]}"
    return ""


def find_engine_disorder(source: Source) -> list[str]:
    """Imports within the engine that do not point down."""
    floor, found = _floor_of(source.module), []
    for node, name in source.imports:
        target = _floor_of(name)
        if floor is not None and target is not None and target > floor:
            found.append(source.at(node, f"imports {name}, which stands above it"))
    return found


def _floor_of(module: str) -> int | None:
    """Return how high a module of the engine stands; None for others."""
    parts = module.split(".")
    if parts[:2] != ["bittern", "engine"] or len(parts) < 3:
        return None
    floors = [number for number, names in enumerate(ENGINE_ORDER) if parts[2] in names]
    return floors[0] if floors else len(ENGINE_ORDER)


def find_circles(sources: Sequence[Source]) -> list[tuple[str, ...]]:
    """Return modules that import each other, directly or by way of others, sorted by name."""
    modules = {source.module: source for source in sources}
    below = {
        source.name: {
            modules[found].name
            for _, name in source.imports
            if (found := _module_of(name, modules)) is not None
        }
        - {source.name}
        for source in sources
    }
    reach = {name: _reachable(name, below) for name in below}
    circles = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in below
        if name in reach[name]
    }
    return sorted(circles)


def _module_of(name: str, modules: Container[str]) -> str | None:
    """Return the module that an imported name is or is in; None if it is not ours."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def _reachable(start: str, below: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = below[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def find_forbidden_modules(source: Source) -> list[str]:
    """Imports of the surroundings where they are forbidden, and calls that reach for them."""
    forbidden = SURROUNDINGS if source.is_pure else set[str]()
    if source.package == "storage":
        forbidden = SOCKETS
    found = []
    for node, name in source.imports:
        if _is_module(name, forbidden) and not (name == "random" and _is_random_injected(source)):
            found.append(source.at(node, f"imports {name} on level {source.level}"))
        if source.is_pure and not _is_module(name, set(sys.stdlib_module_names) | {"bittern"}):
            found.append(source.at(node, f"imports {name}, which is not the standard library"))
    if source.is_pure:
        found += [
            source.at(node, f"calls {_name_of(node.func)}()")
            for node in source.nodes
            if isinstance(node, ast.Call) and _name_of(node.func) in ("open", "print", "input")
        ]
    return found


def _is_random_injected(source: Source) -> bool:
    """Chance enters as an argument: ``random.Random`` may be named as a type, never called."""
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and _name_of(node.value) == "random":
            if node.attr != "Random":
                return False
        elif isinstance(node, ast.Call) and _name_of(node.func) == "random.Random":
            return False
    return True


def find_threads(source: Source) -> list[str]:
    """Threads made outside the storage worker, and locks above storage."""
    if source.name in THREAD_PLACES:
        return []
    found = [
        source.at(node, f"imports {name}: no locks or threads above storage")
        for node, name in source.imports
        if source.package not in LOCK_PACKAGES
        and _is_module(name, {"threading", "_thread", "concurrent.futures"})
    ]
    for node in source.nodes:
        if isinstance(node, ast.Call):
            name = _name_of(node.func).rpartition(".")[2]
            if name in ("Thread", "Timer", "ThreadPoolExecutor", "ProcessPoolExecutor"):
                found.append(source.at(node, f"makes a {name}: threads are the storage worker's"))
    return found


# --- section 4: size and names ---------------------------------------------------------------


def find_sizes(source: Source) -> dict[str, str]:
    """
    Return what is too large, by its full name.

    Functions are counted without their docstrings, classes without properties; dataclasses and
    the like may have any number of fields.
    """
    found = {}
    num_lines = source.text.count("\n")
    if num_lines > MAX_MODULE_LINES:
        found[source.name] = f"{num_lines} lines, limit {MAX_MODULE_LINES}"
    for name, node in _walk_named(source.tree):
        full = f"{source.name}:{name}"
        if isinstance(node, ast.ClassDef):
            num_methods, num_attributes = len(_public_methods(node)), len(_attributes(node))
            if num_methods > MAX_PUBLIC_METHODS:
                found[f"{full} methods"] = f"{num_methods} of them, limit {MAX_PUBLIC_METHODS}"
            if num_attributes > MAX_ATTRIBUTES and not _is_value(node):
                found[f"{full} attributes"] = f"{num_attributes} of them, limit {MAX_ATTRIBUTES}"
        else:
            length = _code_length(node)
            if length > MAX_FUNCTION_LINES:
                found[full] = f"{length} lines, limit {MAX_FUNCTION_LINES}"
    return found


_Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _walk_named(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, _Named]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _Named):
            yield prefix + node.name, node
            yield from _walk_named(node, f"{prefix}{node.name}.")
        else:
            yield from _walk_named(node, prefix)


def _code_length(node: _Function) -> int:
    """Return the lines of a function without its docstring and decorators."""
    end = node.end_lineno or node.lineno
    length = end - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def _public_methods(node: ast.ClassDef) -> set[str]:
    """Return the public methods, without properties: those are attributes to their users."""
    return {
        item.name
        for item in node.body
        if isinstance(item, _Function)
        and not item.name.startswith("_")
        and not any("property" in _name_of(mark) for mark in item.decorator_list)
        and not any(_name_of(mark).endswith(".setter") for mark in item.decorator_list)
    }


def _attributes(node: ast.ClassDef) -> set[str]:
    """Return the names that methods assign on ``self``, and annotated fields."""
    fields = {
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    assigned = {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and _name_of(part.value) == "self"
    }
    return fields | assigned


def _is_value(node: ast.ClassDef) -> bool:
    """Tell whether a class is a plain value: settings and results may have many fields."""
    marks = [_name_of(m.func if isinstance(m, ast.Call) else m) for m in node.decorator_list]
    bases = [_name_of(base) for base in node.bases]
    return any(mark.endswith("dataclass") for mark in marks) or any(
        base.rpartition(".")[2] in ("NamedTuple", "TypedDict", "Enum", "IntEnum", "IntFlag")
        for base in bases
    )


def find_bad_names(source: Source) -> list[str]:
    """Modules and classes whose names say nothing."""
    found = [
        source.at(source.tree, f"the name {part!r} says nothing")
        for part in source.name.removesuffix(".py").split("/")
        if set(part.lower().split("_")) & BANNED_NAMES
    ]
    for name, node in _walk_named(source.tree):
        last = name.rpartition(".")[2]
        if isinstance(node, ast.ClassDef) and _words(last) & BANNED_NAMES:
            found.append(source.at(node, f"the name {last!r} says nothing"))
    return found


def _words(name: str) -> set[str]:
    spaced = "".join(f" {char}" if char.isupper() else char for char in name)
    return set(spaced.lower().split())


# --- docstrings, errors, bans ----------------------------------------------------------------


def find_missing_docstrings(source: Source) -> list[str]:
    """Public modules, classes and functions without a docstring."""
    found = []
    if ast.get_docstring(source.tree) is None:
        found.append(source.at(source.tree, "the module has no docstring"))
    found += _undocumented(source, source.tree, "")
    return found


def _undocumented(source: Source, tree: ast.Module | ast.ClassDef, prefix: str) -> list[str]:
    found = []
    for node in tree.body:
        if not isinstance(node, _Named) or node.name.startswith("_"):
            continue
        marks = [_name_of(mark) for mark in node.decorator_list]
        is_stated_before = any(mark.endswith((".setter", "overload", "override")) for mark in marks)
        if ast.get_docstring(node) is None and not is_stated_before:
            found.append(source.at(node, f"{prefix}{node.name} has no docstring"))
        if isinstance(node, ast.ClassDef):
            found += _undocumented(source, node, f"{prefix}{node.name}.")
    return found


def find_code_in_init(source: Source) -> list[str]:
    """Anything but imports and names in an ``__init__.py``; the package's own may be lazy."""
    if not source.name.endswith("__init__.py"):
        return []
    found = []
    for node in source.tree.body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_lazy = source.name == "__init__.py" and (
            (isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__"))
            or isinstance(node, ast.If | ast.AnnAssign)
        )
        is_name = isinstance(node, ast.Assign) and all(
            isinstance(target, ast.Name) and target.id.startswith("_") for target in node.targets
        )
        if not (is_text or is_lazy or is_name or isinstance(node, ast.Import | ast.ImportFrom)):
            found.append(source.at(node, "__init__ only re-exports"))
    return found


def find_broad_excepts(source: Source) -> list[str]:
    """Handlers that catch everything and do not raise it again, outside the listed places."""
    if source.name in BROAD_EXCEPT_PLACES:
        return []
    return [
        source.at(node, "catches everything; list the place with its reason")
        for node in source.nodes
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node)
    ]


def _is_broad(node: ast.ExceptHandler) -> bool:
    kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(kind is None or _name_of(kind) in ("Exception", "BaseException") for kind in kinds)


def _raises_again(node: ast.ExceptHandler) -> bool:
    """Tell whether a handler ends by raising what it caught."""
    last = node.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def find_banned(source: Source) -> list[str]:
    """What runs foreign code or switches a check off, and what is not finished."""
    found = [
        source.at(node, f"imports {name}")
        for node, name in source.imports
        if _is_module(name, BANNED_MODULES)
    ]
    for node in source.nodes:
        if isinstance(node, ast.Call):
            found += _judge_call(source, node)
        elif isinstance(node, ast.Attribute | ast.Name):
            name = _name_of(node).rpartition(".")[2]
            if name in ("_create_unverified_context", "CERT_NONE"):
                found.append(source.at(node, f"uses {name}"))
        elif isinstance(node, ast.Raise) and "NotImplementedError" in ast.dump(node):
            found.append(source.at(node, "is not implemented"))
    found += [
        f"src/bittern/{source.name}:{number}: unfinished work is not committed"
        for number, line in enumerate(source.text.splitlines(), 1)
        if any(f"{mark}:" in line or f"# {mark}" in line for mark in ("TODO", "FIXME", "XXX"))
    ]
    return found


def _judge_call(source: Source, node: ast.Call) -> list[str]:
    name = _name_of(node.func)
    if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"):
        return [source.at(node, f"calls {name}")]
    return [
        source.at(node, f"calls {name} with {keyword.arg}")
        for keyword in node.keywords
        if (keyword.arg == "shell" and not _is_constant(keyword.value, False))
        or (keyword.arg in ("verify", "check_hostname") and _is_constant(keyword.value, False))
    ]


def _is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


# --- tests -----------------------------------------------------------------------------------


def place_of_tests(source: Source) -> Path | None:
    """Return where a module's tests belong; None for a package's ``__init__``."""
    if source.name in ("__init__.py", "__main__.py"):
        return ROOT / "tests" / "test_bittern.py"
    folder, _, name = source.name.rpartition("/")
    if name == "__init__.py":
        return None
    return ROOT / "tests" / folder / f"test_{name}"
