from __future__ import annotations

from dataclasses import fields

import pytest

from bittern.cli.options import NetworkOptions
from bittern.cli.wording import SWITCHES, in_options
from bittern.engine.config import SessionConfig
from bittern.engine.reasons.diagnosis import Diagnosis
from bittern.engine.reasons.explain import explain
from bittern.engine.sources.base import switched_off_by
from tests.engine.reasons.test_explain import SCENES

SETTINGS = [setting.name for setting in fields(SessionConfig)]
OPTIONS = {f"--{option.name.replace('_', '-')}" for option in fields(NetworkOptions)}


@pytest.mark.parametrize("name", [name for name in SETTINGS if name.startswith("enable_")])
def test_a_source_that_is_off_names_the_option(name: str) -> None:
    said = in_options(switched_off_by(name))
    if name == "enable_zeroconf":  # off unless asked for
        assert said == "only with --zeroconf"
    elif name != "enable_incoming":  # has no option, and does not say so
        assert said == f"switched off by {SWITCHES[name]}"


def test_the_options_are_there() -> None:
    said = [in_options(f"is reached (max_{way}load_rate)") for way in ("down", "up")]
    assert said == ["is reached (--max-download)", "is reached (--max-upload)"]
    assert {*SWITCHES.values(), "--zeroconf", "--max-download", "--max-upload"} <= OPTIONS


@pytest.mark.parametrize("scene", [found for _, found, *_ in SCENES])
def test_no_explanation_names_a_setting(scene: Diagnosis) -> None:
    for reason in explain(scene):
        said = in_options(str(reason))
        assert not [name for name in SETTINGS if name in said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "not tried, since the limit max_connections of 500 is reached.",
            "not tried, since the limit of 500 connections is reached.",
        ),
        (
            "the limit max_connections_per_torrent of 50 is",
            "the limit of 50 connections of one torrent is",
        ),
        ("the limit max_half_open of 20 is", "the limit of 20 attempts at a time is"),
        ("enable_zeroconf needs the package", "--zeroconf needs the package"),
        ("No peer is known yet.", "No peer is known yet."),
        # A stranger's words about something else stay as they are.
        ("tracker x: failed (enable_dht)", "tracker x: failed (enable_dht)"),
    ],
)
def test_what_is_said(text: str, said: str) -> None:
    assert in_options(text) == said
