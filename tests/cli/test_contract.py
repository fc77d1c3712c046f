"""
The contract of the command line, row by row: verbs, options, twins in the environment, keys.

Names in these tables are what scripts rely on. Rows may be added, none may change.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from bittern.cli.app import DHT_VERBS, VERBS, build_app
from bittern.cli.exits import ExitCode
from tests.cli.support import Program, content, single_file_torrent, write
from tests.rules import ROOT

V1 = "ab" * 20

REPORT = {"--json", "--jsonl", "--quiet", "-q", "--verbose", "-v"}
NETWORK = {
    "--port", "--bind", "--peer", "--no-dht", "--no-pex", "--no-lsd", "--no-tracker",
    "--no-web-seed", "--zeroconf",
    "--max-download", "--max-upload", "--dht-bootstrap", "--state-dir",
}  # fmt: skip
DHT = {"--bootstrap", "--dht-bootstrap", "--port", "--timeout", "--state-dir", "--bind"}
SEEDING = {"--seed-ratio", "--seed-time", "--skip-check", "--timeout"}

OPTIONS: dict[str, set[str]] = {
    "get": {
        "--output", "-o", "--files", "--sequential", "--seed", "--web-seed",
        *SEEDING, *NETWORK, *REPORT,
    },
    "seed": {"--data", *SEEDING, *NETWORK, *REPORT},
    "create": {
        "--output", "-o", "--tracker", "--web-seed", "--private", "--comment", "--source",
        "--piece-length", "--v1", "--v2", "--hybrid", "--json", "--quiet", "-q",
    },
    "info": {"--json"},
    "verify": {"--data", "--json", "--quiet", "-q"},
    "magnet": {"--json", "--files", "--peer"},
    "follow": {"--output", "-o", "--once", "--interval", "--timeout", *NETWORK, *REPORT},
    "publish": {"--key", "--new-key", "--salt", "--once", "--interval", *DHT, *REPORT},
    "tracker": {"--http", "--udp", "--store", "--interval", *REPORT},
    "demo": {"--json", "--quiet", "-q"},
    "dht node": {*DHT, *REPORT},
    "dht peers": {*DHT, "--json"},
    "dht get": {*DHT, "--json"},
    "dht put": {*DHT, "--json", "--key", "--salt", "--seq"},
    "dht ping": {*DHT, "--json"},
    "dht sample": {*DHT, "--json"},
    "dht stats": {*DHT, "--json"},
}  # fmt: skip

ARGUMENTS = {
    "get": ["x"], "seed": ["x", "--data", "d"], "create": ["x"], "info": ["x"],
    "verify": ["x", "--data", "d"], "magnet": ["x"], "follow": ["x", "-o", "d"],
    "publish": ["x", "--key", "k"], "dht peers": ["x"], "dht get": ["x"], "dht put": ["x"],
    "dht ping": ["h:1"],
}  # fmt: skip
"""What a verb cannot do without."""

VALUES = {
    "--bind": "::1",
    "--port": "7", "--peer": "h:1", "--dht-bootstrap": "h:1", "--bootstrap": "h:1",
    "--max-download": "1Ki", "--max-upload": "1Ki", "--files": "0,2-3", "--seed-ratio": "1.5",
    "--seed-time": "5m", "--timeout": "2h", "--interval": "90s", "--http": ":7", "--udp": ":7",
    "--piece-length": "64Ki", "--node": "h:1", "--seq": "3", "--cas": "2", "--number": "5",
    "--reuse-how": "hardlink", "--trust": "10.0.0.0/8",
}  # fmt: skip
"""Texts that an option takes; the others take any, or none."""


@functools.cache
def the_app() -> Any:
    return build_app()


def options_of(verb: str) -> list[Any]:
    """Return what the parser knows of a verb's options."""
    app = the_app()
    for name in verb.split():
        app = app[name]
    return [
        argument
        for argument in app.assemble_argument_collection()
        if argument.name.startswith("--") and not argument.children
    ]


def parse(verb: str, *more: str) -> dict[str, Any]:
    """Return what a verb would be called with."""
    line = [*verb.split(), *ARGUMENTS.get(verb, ()), *more]
    _, bound, _ = the_app().parse_args(line, exit_on_error=False, print_error=False)
    bound.apply_defaults()
    found: dict[str, Any] = bound.arguments
    return found


def twin_of(option: str) -> str:
    return "BITTERN_" + option.removeprefix("--").upper().replace("-", "_")


def test_no_verb_is_missing() -> None:
    assert set(OPTIONS) == (set(VERBS) - {"dht"}) | {f"dht {verb}" for verb in DHT_VERBS}


@pytest.mark.slow
@pytest.mark.parametrize("verb", OPTIONS)
def test_options_are_there_and_have_twins_that_say_the_same(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = options_of(verb)
    spellings = {name for argument in known for name in argument.parameter.name or argument.names}
    spellings |= {argument.name for argument in known}
    assert OPTIONS[verb] - spellings == set()
    given = ARGUMENTS.get(verb, ())
    default = parse(verb)
    for argument in known:
        if argument.name in given or any(name in given for name in argument.names):
            continue
        is_switch = bool in (argument.hint, *get_args(argument.hint)) or argument.parameter.count
        text = "1" if is_switch else VALUES.get(argument.name, "value")
        on_line = parse(verb, argument.name, *([] if is_switch else [text]))
        assert on_line != default, argument.name
        monkeypatch.setenv(twin_of(argument.name), text)
        assert parse(verb) == on_line, argument.name
        monkeypatch.delenv(twin_of(argument.name))


@pytest.mark.slow
def test_the_other_spelling_has_a_twin_too(monkeypatch: pytest.MonkeyPatch) -> None:
    on_line = parse("dht stats", "--dht-bootstrap", "h:1")
    assert on_line == parse("dht stats", "--bootstrap", "h:1")
    monkeypatch.setenv("BITTERN_DHT_BOOTSTRAP", "h:1")
    assert parse("dht stats") == on_line
    monkeypatch.setenv("BITTERN_BOOTSTRAP", "other:2")
    assert parse("dht stats") == parse("dht stats", "--bootstrap", "other:2")


def test_exit_codes_have_their_numbers() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "ERROR": 1,
        "USAGE": 2,
        "NOT_FOUND": 3,
        "UNREACHABLE": 4,
        "DISK": 5,
        "MISMATCH": 6,
        "UNFINISHED": 7,
        "NOT_ALLOWED": 8,
        "INTERRUPTED": 130,
    }


@pytest.mark.slow
@pytest.mark.parametrize("verb", OPTIONS)
def test_every_verb_has_help(bittern: Program, verb: str) -> None:
    ran = bittern(*verb.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: bittern {verb}")
    assert "ARGS" not in ran.out


INFO_KEYS = {
    "name", "version", "info_hash", "info_hash_v2", "piece_length", "num_pieces", "total_length",
    "private", "trackers", "web_seeds", "comment", "created_by", "creation_date", "files",
}  # fmt: skip
GET_KEYS = {
    "name", "info_hash", "info_hash_v2", "total_length", "downloaded", "uploaded", "wasted",
    "seconds", "download_rate", "peers_seen", "files",
}  # fmt: skip


@pytest.mark.slow
def test_json_has_the_promised_keys(bittern: Program, tmp_path: Path) -> None:
    data = content(40_000)
    torrent = write(tmp_path / "x.torrent", single_file_torrent(b"x", data))
    write(tmp_path / "x", data)
    found = bittern("info", torrent, "--json").json
    assert found.keys() >= INFO_KEYS
    assert found["version"] == "1"
    assert found["files"][0].items() >= {"path": "x", "length": 40_000}.items()
    link = f"magnet:?xt=urn:btih:{V1}"
    assert bittern("info", link, "--json").json.keys() >= INFO_KEYS
    key = "0" * 64
    found = bittern("info", f"magnet:?xs=urn:btpk:{key}&s=6e", "--json").json
    assert (found["public_key"], found["salt"]) == (key, "6e")

    found = bittern("verify", torrent, "--data", tmp_path, "--json").json
    assert found.keys() >= {"num_pieces", "num_good", "bad_pieces", "missing_files"}

    alone = ("--no-dht", "--no-lsd", "--port", "0", "--state-dir", tmp_path / "state")
    found = bittern("get", torrent, "-o", tmp_path, "--json", *alone).json
    assert found.keys() >= GET_KEYS
    lines = bittern("get", torrent, "-o", tmp_path, "--jsonl", *alone).out.splitlines()
    assert all(json.loads(line).keys() >= {"type", "time"} for line in lines)
    found = bittern("seed", torrent, "--data", tmp_path, "--seed-time", "0", "--json", *alone).json
    assert found.keys() >= GET_KEYS


@pytest.mark.slow
@pytest.mark.parametrize("text", [V1, "A" * 32, "cd" * 32, "1220" + "cd" * 32])
def test_get_takes_a_bare_info_hash(bittern: Program, tmp_path: Path, text: str) -> None:
    alone = ("--no-dht", "--no-lsd", "--no-tracker", "--port", "0", "--bind", "127.0.0.1",
             "--state-dir", tmp_path / "state", "-o", tmp_path, "--timeout", "0.2")  # fmt: skip
    ran = bittern("get", text, "--json", *alone)
    assert ran.code == 4
    hashes = (ran.json["info_hash"], ran.json["info_hash_v2"])
    assert hashes == (
        (None, "cd" * 32) if "cd" in text else (V1 if "ab" in text else "0" * 40, None)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("info", ["info", "x.torrent"]),
        ("info", ["info", f"magnet:?xs=urn:btpk:{'0' * 64}"]),
        ("info", ["create", "x", "-o", "y.torrent"]),
        ("verify", ["verify", "x.torrent", "--data", "."]),
        ("magnet", ["magnet", "x.torrent"]),
        ("get", ["get", "x.torrent", "--no-dht", "--no-lsd", "--port", "0"]),
    ],
)
def test_every_key_is_told_of(
    bittern: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    section: str,
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.torrent", single_file_torrent(b"x", content(40_000)))
    write(tmp_path / "x", content(40_000))
    page = (ROOT / "docs/command-line.md").read_text()
    text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"[`\"](\w+)[`\"]", text))
    found = bittern(*words, "--json").json
    inner = {key for file in found.get("files", ()) for key in file}
    assert found.keys() | inner <= told | ({"path", "magnet"} if words[0] == "create" else set())
