"""The command line as it is parsed: values, environment, wrong usage, help."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern import __version__
from bittern.cli.app import VERBS
from bittern.cli.options import NetworkOptions, ReportOptions
from bittern.cli.values import HostPort
from tests.cli.support import Program, single_file_torrent, write


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Replace ``get`` by a verb that notes what it was called with."""
    import sys
    import types

    from bittern.cli.options import Duration, FileList, Networks, Ratio

    calls: list[tuple[object, ...]] = []

    def get(
        *sources: str,
        files: FileList = None,
        timeout: Duration = None,
        seed_ratio: Ratio = None,
        text: Networks = (),
        network: NetworkOptions = NetworkOptions(),  # noqa: B008 - frozen
        report: ReportOptions = ReportOptions(),  # noqa: B008
    ) -> int:
        """Note the arguments."""
        calls.append((sources, files, timeout, seed_ratio, text, network, report))
        return 0

    # Annotations are text here, and are looked up among the function's globals.
    get.__annotations__ = {
        "sources": str,
        "files": FileList,
        "timeout": Duration,
        "seed_ratio": Ratio,
        "text": Networks,
        "network": NetworkOptions,
        "report": ReportOptions,
        "return": int,
    }
    module = types.ModuleType("bittern.cli.get")
    module.get = get  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bittern.cli.get", module)
    return calls


def test_arguments_arrive_as_values(bittern: Program, parsed: list[tuple[object, ...]]) -> None:
    line = """get a b --files 0,2-3 --timeout 5m --seed-ratio=1.5 --text ["x"] --peer 1.2.3.4:5
        --peer [::1]:6 c --max-upload 64Ki --max-download 0 --no-dht --text {y} -qvv --port 0
        -- --json"""
    ran = bittern(*line.split())
    assert ran.code == 0, ran.err
    [(sources, files, timeout, seed_ratio, text, network, report)] = parsed
    assert sources == ("a", "b", "c", "--json")
    assert files == {0, 2, 3}
    assert timeout == 300
    assert seed_ratio == 1.5
    assert text == ('["x"]', "{y}")
    assert network == NetworkOptions(
        port=0,
        peer=(HostPort("1.2.3.4", 5), HostPort("::1", 6)),
        no_dht=True,
        max_upload=65536,
    )
    assert report == ReportOptions(quiet=True, verbose=2)


def test_every_option_has_a_twin_in_the_environment(
    bittern: Program, parsed: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PORT": "7000",
        "NO_DHT": "1",
        "NO_PEX": "false",
        "PEER": "1.2.3.4:5 6.7.8.9:10",
        "MAX_UPLOAD": "1Mi",
        "TIMEOUT": "2h",
        "FILES": "1",
        "VERBOSE": "2",
        "JSON": "",
        "SOURCES": "not-a-source",
        "SOURCE": "not-a-source",
    }.items():
        monkeypatch.setenv("BITTERN_" + name, value)
    assert bittern("get", "a", "--port", "7001").code == 0
    [(sources, files, timeout, _, _, network, report)] = parsed
    assert sources == ("a",)
    assert files == {1}
    assert timeout == 7200
    assert network == NetworkOptions(
        port=7001,
        no_dht=True,
        no_pex=False,
        peer=(HostPort("1.2.3.4", 5), HostPort("6.7.8.9", 10)),
        max_upload=1 << 20,
    )
    assert report == ReportOptions(verbose=2)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("PORT", "x", "BITTERN_PORT: 'x' is not a port"),
        ("VERBOSE", "9", "BITTERN_VERBOSE must be 0, 1 or 2"),
        ("NO_DHT", "maybe", "BITTERN_NO_DHT"),
    ],
)
def test_a_wrong_environment_is_wrong_usage(
    bittern: Program,
    parsed: list[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    text: str,
) -> None:
    monkeypatch.setenv("BITTERN_" + name, value)
    ran = bittern("get", "a")
    assert ran.code == 2
    assert text in ran.error
    assert parsed == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["gte"], "no verb 'gte'; did you mean get?"),
        (["zzzz"], "no verb 'zzzz'; bittern --help lists them"),
        (["dht", "gte"], "no verb 'gte'; did you mean get?"),
        (["dht", "zzzz"], "no verb 'zzzz'; bittern dht --help lists them"),
        (["get", "--jsno"], "unknown option: --jsno"),
        (["get", "--port", "65536"], "invalid value for --port: '65536' is not a port"),
        (["get", "--port", "1", "--port", "2"], "specified multiple times"),
        (["get", "--port"], "--port needs a value"),
        (["get", "--peer", "nowhere"], "'nowhere' is not HOST:PORT"),
        (["get", "--timeout", "soon"], "'soon' is not a duration"),
        (["get", "--max-upload", "much"], "'much' is not a rate"),
        (["get", "--files", "a\x1b"], "is not a list of files"),
        (["get", "--seed-ratio", "half"], "'half' is not a ratio"),
        (["info"], "info needs SOURCE: see bittern info --help"),
        (["info", "--jsno"], "unknown option: --jsno"),
        (["info", "a", "b"], "unexpected argument 'b'"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    bittern: Program, parsed: list[tuple[object, ...]], arguments: list[str], text: str
) -> None:
    ran = bittern(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert text in ran.error
    assert ran.error.isprintable()


@pytest.mark.parametrize("name", ["NO_TRACKER", "NO_TRACKERS"])
def test_each_name_of_an_option_has_a_twin(
    bittern: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    torrent = single_file_torrent(b"a", b"x", trackers=[["http://t.example/announce"]])
    path = write(tmp_path / "a.torrent", torrent)
    assert "tr=" in bittern("magnet", path).out
    monkeypatch.setenv("BITTERN_" + name, "1")
    assert "tr=" not in bittern("magnet", path).out
    # The first of them counts, where both are there.
    monkeypatch.setenv("BITTERN_NO_TRACKERS", "1")
    monkeypatch.setenv("BITTERN_NO_TRACKER", "0")
    assert "tr=" in bittern("magnet", path).out


def test_help_names_every_verb_and_exit_code(bittern: Program) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        ran = bittern(*arguments)
        assert ran.code == 0
        assert ran.err == ""
        for verb in VERBS:
            assert f" {verb} " in ran.out
        assert "130 interrupted" in ran.out


def test_the_version_is_known_to_the_parser_too(bittern: Program) -> None:
    assert bittern("--version").out == f"bittern {__version__}\n"


def test_help_of_a_verb_shows_its_options(
    bittern: Program, parsed: list[tuple[object, ...]]
) -> None:
    ran = bittern("get", "--help")
    assert ran.code == 0
    for option in ("--files LIST", "--timeout DURATION", "--peer HOST:PORT", "--max-upload RATE"):
        assert option in ran.out
    assert "--no-no" not in ran.out
