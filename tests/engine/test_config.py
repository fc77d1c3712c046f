"""Settings are checked where they are written."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from typing import Any

import pytest

from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.storage.creator import CreateOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen_port", -1),
        ("listen_port", 65_536),
        ("max_download_rate", 0),
        ("max_upload_rate", -5.0),
        ("max_connections", 0),
        ("max_half_open", 0),
        ("max_web_seeds_per_torrent", 0),
        ("upload_slots", 0),
        ("connect_timeout", 0),
        ("choke_interval", -1.0),
        ("send_buffer_length", 1),
        ("receive_buffer_length", 1 << 30),
        ("hashing_threads", 0),
        ("max_open_files", 0),
        ("rest_after", -1),
    ],
)
def test_an_impossible_value_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        SessionConfig(**{name: value})  # type: ignore[arg-type]  # any setting


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("max_download_rate", 0, "max_download_rate must be at least 1, not 0"),
        ("max_download_rate", "5M", "max_download_rate must be a number or None, not '5M'"),
        ("listen_port", "6881", "listen_port must be a whole number, not '6881'"),
        ("listen_port", None, "listen_port must be a whole number, not None"),
        ("max_connections", None, "max_connections must be a whole number, not None"),
        ("state_dir", "state", "state_dir must be a pathlib.Path or None, not 'state'"),
        ("listen_host", 5, "listen_host must be a str or tuple[str, ...] or None, not 5"),
        ("enable_dht", "no", "enable_dht must be True or False, not 'no'"),
        ("client_prefix", "-xx-", "client_prefix must be bytes, not '-xx-'"),
        ("listen_port_tries", -1, "listen_port_tries must be at least 0, not -1"),
        ("max_write_queue", 0, "max_write_queue must be at least 1, not 0"),
        ("part_suffix", "", "part_suffix must be an end of names, not ''"),
        ("part_suffix", "/part", "part_suffix must be an end of names, not '/part'"),
    ],
)
def test_what_is_wrong_is_said_in_words(name: str, value: object, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SessionConfig(**{name: value})  # type: ignore[arg-type]  # any setting
    assert str(caught.value) == text


URL = "http://tracker.example/announce"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("trackers", URL, "trackers must be tiers, each a tuple of URLs"),
        ("trackers", (URL,), "trackers must be tiers, each a tuple of URLs"),
        ("trackers", ((URL, "nonsense"),), "trackers must be tiers, each a tuple of URLs"),
        ("web_seeds", URL, "web_seeds must be a tuple of URLs"),
        ("web_seeds", ("nonsense",), "web_seeds must be a tuple of URLs"),
    ],
)
def test_urls_that_are_none(name: str, value: object, text: str) -> None:
    """A text is a sequence of texts: it became a tracker for each letter."""
    settings: list[Any] = [TorrentConfig, CreateOptions]
    for make in settings:
        with pytest.raises(ConfigError, match=text):
            make(**{name: value})
        make(trackers=((URL,), ("udp://a.example:1", URL)), web_seeds=(URL,))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("output", "out", "output must be a pathlib.Path, not 'out'"),
        ("data_path", "out", "data_path must be a pathlib.Path or None"),
        ("reuse_from", ("old",), r"reuse_from must be tuple\[pathlib.Path, ...\], not \('old',\)"),
        ("reuse_how", "copy", "reuse_how must be a bittern.ReuseHow, not 'copy'"),
        ("peers", (("127.0.0.1", 5),), r"peers must be tuple\[Endpoint, ...\], not \(\('127"),
        ("peers", (Endpoint("a.example", 5),), "a peer must be an Endpoint with an IP address"),
        ("hinted_peers", (Endpoint("10.0.0.1", 65_536),), "a peer must be an Endpoint with an IP"),
        ("files", frozenset({"a"}), r"files must be frozenset\[int\] or None, not frozenset"),
        ("files", frozenset({True}), r"files must be frozenset\[int\] or None, not frozenset"),
        ("renames", {0: 5}, r"renames must be Mapping\[int, str\], not {0: 5}"),
        ("renames", {-1: "a"}, "an index in renames must be at least 0, not -1"),
        ("priorities", {0: "high"}, r"priorities must be Mapping\[int, int\], not {0: 'high'}"),
        ("priorities", {-1: 4}, "an index in priorities must be at least 0, not -1"),
        ("paused", 1, "paused must be True or False, not 1"),
    ],
)
def test_settings_of_a_wrong_kind_are_named(name: str, value: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        TorrentConfig(**{name: value})  # type: ignore[arg-type]  # any setting


def test_settings_do_not_change_with_what_they_were_made_of() -> None:
    """Or ``Torrent.change`` with the same dictionary, changed, would see no difference."""
    files, priorities, renames = {0, 1}, {0: 7}, {0: "a"}
    config = TorrentConfig(files=files, priorities=priorities, renames=renames)  # type: ignore[arg-type]  # a set does
    files.clear()
    priorities[0] = 1
    renames[1] = "b"
    assert config.files == frozenset({0, 1})
    assert (config.priorities, config.renames) == ({0: 7}, {0: "a"})
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config


def test_several_hosts_may_be_a_list() -> None:
    config = SessionConfig(listen_host=["10.0.0.1", "10.0.0.2"])  # type: ignore[arg-type]  # works
    assert config.listen_hosts == ("10.0.0.1", "10.0.0.2")


def test_a_client_prefix_leaves_room_for_chance() -> None:
    with pytest.raises(ConfigError, match="client_prefix"):
        SessionConfig(client_prefix=b"-bt0100-12345")


@pytest.mark.parametrize("name", ["max_download_rate", "max_upload_rate", "max_connections"])
def test_a_torrent_is_checked_too(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        TorrentConfig(**{name: 0})  # type: ignore[arg-type]  # any setting


def test_files_are_indices() -> None:
    assert TorrentConfig(files=frozenset({0, 3})).files == frozenset({0, 3})
    with pytest.raises(ConfigError, match="files"):
        TorrentConfig(files=frozenset({-1}))


@pytest.mark.parametrize("priority", [0, 8, -1])
def test_priorities_go_from_one_to_seven(priority: int) -> None:
    assert TorrentConfig(priorities={0: 1, 9: 7}).priorities[9] == 7
    with pytest.raises(ConfigError, match=r"priority of file 3 must be from 1 to 7"):
        TorrentConfig(priorities={3: priority})


def test_zeroconf_is_refused_where_its_library_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert SessionConfig(enable_zeroconf=True).enable_zeroconf
    assert not SessionConfig().enable_zeroconf
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(ConfigError, match=r"pip install 'bittern\[zeroconf\]'"):
        SessionConfig(enable_zeroconf=True)
    SessionConfig()


def test_no_limit_is_the_default() -> None:
    config = SessionConfig()
    assert config.max_download_rate is None
    assert config.max_upload_rate is None
    assert dataclasses.replace(config, max_download_rate=1).max_download_rate == 1


@pytest.mark.parametrize(
    ("given", "hosts"),
    [
        (None, ()),
        ("127.0.0.1", ("127.0.0.1",)),
        (("127.0.0.1", "::1"), ("127.0.0.1", "::1")),
        (("0.0.0.0", "::1"), ("0.0.0.0", "::1")),
        ((), ()),
    ],
)
def test_one_address_or_several(
    given: str | tuple[str, ...] | None, hosts: tuple[str, ...]
) -> None:
    assert SessionConfig(listen_host=given).listen_hosts == hosts


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("", "must be an address"),
        (("127.0.0.1", " "), "must be an address"),
        ("1.2.3.4 5.6.7.8", "must be an address"),
        (("::1", "127.0.0.1", "::1"), "::1 twice"),
        (("127.0.0.1", "0.0.0.0"), "0.0.0.0 includes 127.0.0.1"),
        (("::", "::1"), ":: includes ::1"),
    ],
)
def test_addresses_that_make_no_sense(given: str | tuple[str, ...], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SessionConfig(listen_host=given)
