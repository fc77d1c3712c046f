"""
Options that mean the same wherever they occur, and how they become settings.

The classes are flattened into a verb's own options; the fields' docstrings are
the help texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token

from bittern.cli.values import (
    HostPort,
    parse_duration,
    parse_file_list,
    parse_host,
    parse_host_port,
    parse_port,
    parse_rate,
    parse_ratio,
    parse_size,
)


def _one(parse: Callable[[str], Any]) -> Callable[[Any, Sequence[Token]], Any]:
    """Return a converter for an option that takes one value."""

    def convert(_hint: Any, tokens: Sequence[Token]) -> Any:
        return parse(tokens[0].value)

    return convert


def _many(parse: Callable[[str], Any]) -> Callable[[Any, Sequence[Token]], Any]:
    """Return a converter for an option that may be repeated."""

    def convert(_hint: Any, tokens: Sequence[Token]) -> Any:
        return tuple(parse(token.value) for token in tokens)

    return convert


def _union(_hint: Any, tokens: Sequence[Token]) -> frozenset[int]:
    """Join lists of files; the option may be repeated."""
    return frozenset().union(*(parse_file_list(token.value) for token in tokens))


def _parse_listener(text: str) -> HostPort:
    return parse_host_port(text, listen=True)


def _single(parse: Callable[[str], Any], **settings: Any) -> Parameter:
    return Parameter(converter=_one(parse), n_tokens=1, accepts_keys=False, **settings)


def _repeated(parse: Callable[[str], Any], **settings: Any) -> Parameter:
    return Parameter(
        converter=_many(parse), n_tokens=1, accepts_keys=False, consume_multiple=False, **settings
    )


Duration = Annotated[float | None, _single(parse_duration, metavar="DURATION")]
Size = Annotated[int | None, _single(parse_size, metavar="SIZE")]
Rate = Annotated[int | None, _single(parse_rate, metavar="RATE")]
Ratio = Annotated[float | None, _single(parse_ratio, metavar="RATIO")]
Port = Annotated[int | None, _single(parse_port, metavar="PORT")]
FileList = Annotated[
    frozenset[int] | None,
    Parameter(
        converter=_union, n_tokens=1, accepts_keys=False, consume_multiple=False, metavar="LIST"
    ),
]
Addresses = Annotated[tuple[HostPort, ...], _repeated(parse_host_port, metavar="HOST:PORT")]
OneAddress = Annotated[HostPort, _single(parse_host_port)]
Listeners = Annotated[tuple[HostPort, ...], _repeated(_parse_listener, metavar="HOST:PORT")]
Hosts = Annotated[tuple[str, ...], _repeated(parse_host, metavar="ADDR")]
Networks = Annotated[tuple[str, ...], Parameter(consume_multiple=False, metavar="NETWORK")]
Urls = Annotated[tuple[str, ...], Parameter(consume_multiple=False, metavar="URL")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """How a running verb reports."""

    json: bool = False
    """Write one JSON object when it is over, and nothing else, to stdout."""
    jsonl: bool = False
    """Write every event as one JSON object a line to stdout."""
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"))] = False
    """Say less: no progress."""
    verbose: Annotated[int, Parameter(name=("--verbose", "-v"), count=True)] = 0
    """Say more: -v every event, -vv every protocol message."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Where peers come from and how fast data may go."""

    port: Port = None
    """Listening port; one of the ten after it if it is taken, 0 takes any. Default: 6881."""
    bind: Hosts = ()
    """Address to listen on and to connect from; repeatable. Default: all."""
    peer: Addresses = ()
    """Connect to this peer; repeatable."""
    no_dht: bool = False
    """Do not use the DHT."""
    no_pex: bool = False
    """Do not exchange addresses with peers."""
    no_lsd: bool = False
    """Do not look for peers on the local network."""
    zeroconf: bool = False
    """Find and be found on the local network by multicast DNS, too (needs the zeroconf extra)."""
    no_tracker: bool = False
    """Do not talk to trackers."""
    no_web_seed: bool = False
    """Do not download from web servers that the torrent names."""
    dht_bootstrap: Addresses = ()
    """Use these DHT nodes instead of the well-known ones; repeatable."""
    max_download: Rate = None
    """Highest download rate in bytes a second, such as 500k or 2Mi; 0 for no limit."""
    max_upload: Rate = None
    """Highest upload rate in bytes a second; 0 for no limit."""
    state_dir: Annotated[Path | None, Parameter(metavar="DIR")] = None
    """Folder of resume data and DHT state. Default: the platform's state folder."""
