"""
``docs/reference.md``: every public name of the library, written from the code.

``python -m tests.library_page`` writes it anew, and so does ``make format``; a test fails while it
is not what the code says, or while a field has no text.
"""

from __future__ import annotations

import ast
import enum
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import bittern
from bittern.codec.file_list import FileEntry
from bittern.engine.reasons import diagnosis
from bittern.policy import survey
from bittern.policy.announcing import TrackerState
from bittern.policy.bans import Ban

PATH = Path(__file__).parents[1] / "docs/reference.md"

HEAD = """\
# Reference of the library

What `import bittern` offers, name by name; [library.md](library.md) tells how to use it. Written
from the code by `python -m tests.library_page`.

Lengths are bytes, rates bytes per second, times seconds. Instants (`*_at`) are `loop.time()` unless
something else is said. Names, paths and texts that come from a torrent, a peer or a tracker may
hold anything: escape them before they are shown, and use no path of a torrent as one.
"""

VALUES = [
    ["SessionConfig", "TorrentConfig", "CreateOptions"],
    ["TorrentStats", "PeerInfo", "TrackerStatus", "WebSeedInfo", "SourceStatus"],
    ["Diagnosis", "ConnectionSurvey", "StorageSurvey", "Limit", "CandidateSurvey"],
    ["FailedCandidate", "Ban", "Reason"],
    ["Metainfo", "Info", "FileEntry", "Magnet"],
]
"""Dataclasses, those that are parts of others behind them."""

PARTS: dict[str, Any] = {
    "FileEntry": FileEntry,
    "ConnectionSurvey": diagnosis.ConnectionSurvey,
    "StorageSurvey": diagnosis.StorageSurvey,
    "Limit": diagnosis.Limit,
    "CandidateSurvey": survey.CandidateSurvey,
    "FailedCandidate": survey.FailedCandidate,
    "Ban": Ban,
    "TrackerState": TrackerState,
}
"""What is met as a part of something else, and has no name in ``bittern``."""

ENUMS = [
    "TorrentState",
    "TrackerState",
    "SourceKind",
    "SourceState",
    "ReasonCode",
    "ReuseHow",
    "Version",
]
CLASSES = ["Session", "Torrent", "EventStream", "Endpoint", "InfoHash", "InfoHashV2"]
FUNCTIONS = ["create_torrent", "decode_metainfo", "parse_magnet", "format_magnet"]
ERRORS = [
    *["BitTorrentError", "ConfigError", "MetainfoError", "MagnetError", "FetchError"],
    "StorageError",
]

WITHIN = {
    "Torrent": {
        *{"apply_settings", "candidates", "delete_data", "is_tracing", "metadata_received"},
        *{"peer_opened", "piece_lost", "pieces_opened", "raw_info", "report", "roster", "rouse"},
        *{"start", "stop", "swarm", "swarm_completed", "swarm_failed", "take_file", "tick"},
    },
    "Endpoint": {"from_compact", "to_compact"},
}
"""What the parts of the engine ask of each other."""


def reference() -> str:
    """Return the whole page."""
    parts = [HEAD, "## Classes\n"]
    parts += [text for name in CLASSES for text in _class(name)]
    parts += ["## Functions\n", *(_callable(_node(getattr(bittern, name))) for name in FUNCTIONS)]
    parts += ["## Events\n", "Of `bittern.events`, all frozen.\n", _events()]
    parts += ["## Values and settings\n", "All frozen.\n"]
    parts += [text for group in VALUES for name in group for text in _dataclass(name)]
    parts += ["## Enumerations\n", *(_enum(name) for name in ENUMS)]
    parts += ["## Errors\n", _errors()]
    return "\n".join(parts)


def undocumented() -> list[str]:
    """Return the public names that the page leaves out."""
    told = {*CLASSES, *FUNCTIONS, *ENUMS, *ERRORS, *(name for group in VALUES for name in group)}
    return sorted(set(bittern.__all__) - told - {"Event", "events"})


def _object(name: str) -> Any:
    return PARTS[name] if name in PARTS else getattr(bittern, name)


def _node(thing: Any) -> Any:
    """Return what a class or function is written as."""
    tree = ast.parse(inspect.getsource(inspect.getmodule(thing)))  # type: ignore[arg-type]  # has one
    return next(node for node in tree.body if getattr(node, "name", "") == thing.__name__)


def _prose(text: str) -> str:
    """Return a docstring in the words of the page: no rows of threats.md, one kind of quotes."""
    return re.sub(r"\bLimits?: [A-Z]\d+(, [A-Z]\d+)*\. ?", "", text.replace("``", "`")).strip()


def _docstring(node: Any) -> str:
    return _prose(ast.get_docstring(node) or "")


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |\n"


def _class(name: str) -> Iterator[str]:
    node = _node(_object(name))
    yield f"### {name}\n"
    yield _fenced(_docstring(node))
    for member in _members(node):
        hidden = member.name.startswith("_") and member.name != "__init__"
        if not hidden and member.name not in WITHIN.get(name, ()) and ast.get_docstring(member):
            yield _callable(member)


def _members(node: ast.ClassDef) -> list[Any]:
    return [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]


def _callable(node: Any) -> str:
    decorators = {ast.unparse(each) for each in node.decorator_list}
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if "property" in decorators:
        return f"#### `{node.name}{result}`\n\n{_fenced(_docstring(node))}"
    arguments = re.sub(r"^(self|cls)(, |$)", "", ast.unparse(node.args))
    head = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"#### `{head}{node.name}({arguments}){result}`\n\n{_fenced(_docstring(node))}"


def _fenced(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _dataclass(name: str) -> Iterator[str]:
    thing = _object(name)
    assert is_dataclass(thing)
    node = _node(thing)
    summary, about = _split(_docstring(node))
    where = "" if name in PARTS else f"bittern.{name}"
    yield f"### {name}\n"
    yield f"{summary}\n"
    rows = ["| field | type | default | |\n", "|---|---|---|---|\n"]
    for field, doc in _fields(node):
        text = doc or about.get(field.target.id, "")
        if not text:
            raise AssertionError(f"{where or name}.{field.target.id} has no text")
        rows.append(_row(f"`{field.target.id}`", _type(field), _default(field), text))
    for member in _members(node):
        if "property" in {ast.unparse(each) for each in member.decorator_list}:
            result = f"`{ast.unparse(member.returns)}`"
            rows.append(_row(f"`{member.name}`", result, "computed", _docstring(member)))
    yield "".join(rows)


def _fields(node: ast.ClassDef) -> Iterator[tuple[Any, str]]:
    """Return the fields of a dataclass, each with the text below it."""
    for each, behind in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(each, ast.AnnAssign):
            yield each, _text(behind)


def _text(node: ast.stmt | None) -> str:
    """Return the text that stands behind a field or a member of an enumeration; "" for none."""
    value = node.value if isinstance(node, ast.Expr) else None
    is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return _prose(inspect.cleandoc(str(value.value))) if is_text else ""  # type: ignore[union-attr]  # checked


def _type(field: ast.AnnAssign) -> str:
    return f"`{ast.unparse(field.annotation)}`"


def _default(field: ast.AnnAssign) -> str:
    if field.value is None:
        return ""
    text = re.sub(r"^field\(default_factory=(?:lambda: )?(.*)\)$", r"\1", ast.unparse(field.value))
    return f"`{text}`"


def _split(docstring: str) -> tuple[str, dict[str, str]]:
    """Return what a docstring says of the whole, and of each argument."""
    summary, _, rest = docstring.partition("\nArgs:\n")
    rest = re.split(r"\n\n?(?=\w+:\n)", rest)[0]
    about: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", textwrap.dedent(rest)):
        names, _, text = entry.partition(":")
        about |= dict.fromkeys(re.findall(r"\w+", names), text.strip())
    return re.split(r"\n\n?Raises:", summary)[0].strip(), about


def _events() -> str:
    rows = ["| event | fields | |\n", "|---|---|---|\n"]
    kinds = [kind for kind in vars(bittern.events).values() if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, bittern.Event) and kind is not bittern.Event:
            node = _node(kind)
            fields = [
                f"`{each.target.id}: {ast.unparse(each.annotation)}`" for each, _ in _fields(node)
            ]
            rows.append(_row(f"`{kind.__name__}`", ", ".join(fields), _docstring(node)))
    return "".join(rows)


def _enum(name: str) -> str:
    kind = _object(name)
    assert issubclass(kind, enum.Enum)
    node = _node(kind)
    rows = [f"### {name}\n\n{_docstring(node)}\n\n", "| name | value | |\n", "|---|---|---|\n"]
    for each, behind in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(each, ast.Assign):
            name, value = ast.unparse(each.targets[0]), ast.unparse(each.value)
            rows.append(_row(f"`{name}`", f"`{value}`", _text(behind)))
    return "".join(rows)


def _errors() -> str:
    rows = ["| error | base | |\n", "|---|---|---|\n"]
    for name in ERRORS:
        kind = getattr(bittern, name)
        rows.append(_row(f"`{name}`", f"`{kind.__mro__[1].__name__}`", _docstring(_node(kind))))
    return "".join(rows)


if __name__ == "__main__":
    PATH.write_text(reference(), encoding="utf-8")
