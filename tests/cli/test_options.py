from __future__ import annotations

from typing import Any

import pytest
from cyclopts import App, CycloptsError, Parameter

from bittern.cli.options import (
    Addresses,
    Duration,
    FileList,
    Listeners,
    NetworkOptions,
    Networks,
    Port,
    Rate,
    Ratio,
    ReportOptions,
    Size,
    Urls,
)
from bittern.cli.values import HostPort


def parse(hint: Any, *arguments: str) -> Any:
    """Return what an option ``--value`` of this type makes of the arguments."""
    app = App(default_parameter=Parameter(negative=(), json_list=False, json_dict=False))
    got: list[Any] = []

    def take(*, value=None) -> None:  # type: ignore[no-untyped-def]
        got.append(value)

    take.__annotations__ = {"value": hint, "return": None}
    app.default(take)
    app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    return got[0]


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (Duration, "5m", 300.0),
        (Size, "256Ki", 262_144),
        (Rate, "1.5M", 1_500_000),
        (Rate, "0", None),
        (Ratio, "2.5", 2.5),
        (Port, "0", 0),
        (FileList, "0,2-3", {0, 2, 3}),
        (Addresses, "[::1]:5", (HostPort("::1", 5),)),
        (Listeners, ":0", (HostPort("", 0),)),
        (Networks, '["a"]', ('["a"]',)),
        (Urls, "http://a/?x=1,2", ("http://a/?x=1,2",)),
    ],
)
def test_every_type_reads_its_value(hint: Any, text: str, value: object) -> None:
    assert parse(hint, "--value", text) == value
    assert parse(hint, f"--value={text}") == value


@pytest.mark.parametrize("hint", [Addresses, Listeners, Networks, Urls])
def test_lists_are_made_by_repeating(hint: Any) -> None:
    assert len(parse(hint, "--value", "a:1", "--value", "b:2")) == 2
    with pytest.raises(CycloptsError):
        parse(hint, "--value", "a:1", "b:2")


def test_lists_of_files_are_joined() -> None:
    assert parse(FileList, "--value", "0,2-3", "--value", "9") == {0, 2, 3, 9}


@pytest.mark.parametrize("hint", [Duration, Size, Rate, Ratio, Port])
def test_single_values_are_not_repeated(hint: Any) -> None:
    with pytest.raises(CycloptsError, match="multiple times"):
        parse(hint, "--value", "1", "--value", "2")


@pytest.mark.parametrize("hint", [Duration, Size, Rate, Ratio, Port, FileList, Addresses])
def test_a_wrong_value_is_named(hint: Any) -> None:
    with pytest.raises(CycloptsError, match=r"'x y'"):
        parse(hint, "--value", "x y")


def test_without_options_everything_is_on_and_unlimited() -> None:
    network = NetworkOptions()
    assert not any((network.no_dht, network.no_pex, network.no_lsd, network.no_tracker))
    assert not network.zeroconf
    assert network.max_download is network.max_upload is network.port is None
    assert ReportOptions() == ReportOptions(json=False, jsonl=False, quiet=False, verbose=0)
