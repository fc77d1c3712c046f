"""
The values of the command line as text: durations, sizes, rates, file lists, addresses.

``parse_*`` take what a person typed and raise ValueError with one phrase that
says what is wrong; the ``format_*`` of ``core.units`` write for a person. Only
ASCII digits count, so that nothing looks like a number and is read as another one.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple

from bittern.core.units import format_duration, format_rate, format_share, format_size

__all__ = [
    "HostPort",
    "format_duration",
    "format_rate",
    "format_share",
    "format_size",
    "parse_duration",
    "parse_file_list",
    "parse_host_port",
    "parse_port",
    "parse_rate",
    "parse_ratio",
    "parse_size",
]

MAX_FILE_INDEX = 1_000_000
"""Limit: P14. The highest file index a list may name, so that a range cannot fill memory."""

MAX_FILE_RANGES = 1_000
"""Limit: P14. Ranges in one list."""

_MAX_NUMBER = (1 << 63) - 1

_NUMBER = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))? ?([a-z]*)", re.ASCII | re.IGNORECASE)

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12} | {
    "ki": 1 << 10,
    "mi": 1 << 20,
    "gi": 1 << 30,
    "ti": 1 << 40,
}


class HostPort(NamedTuple):
    """A host name or address and a port, not yet looked up; ``host`` is empty for all addresses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_duration(text: str) -> float:
    """Read ``90``, ``90s``, ``1.5m``, ``2h``, ``7d`` or ``1w`` as seconds; ValueError if wrong."""
    match = _NUMBER.fullmatch(text.strip())
    unit = _SECONDS.get(match[3].lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a duration such as 90, 90s, 5m, 2h or 7d")
    return float(f"{match[1]}.{match[2] or 0}") * unit


def parse_size(text: str) -> int:
    """
    Read ``262144``, ``64Ki``, ``1Mi`` or ``1.5M`` as bytes; ValueError if wrong.

    k, M, G and T count in thousands, Ki, Mi, Gi and Ti in 1,024s; case does not
    matter and a final B is allowed.
    """
    match = _NUMBER.fullmatch(text.strip())
    unit = _BYTES.get(match[3].lower().removesuffix("b")) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a size such as 262144, 64Ki, 1Mi or 1.5M")
    fraction = match[2] or ""
    value: int = int(match[1] + fraction) * unit // 10 ** len(fraction)
    if value > _MAX_NUMBER:
        raise ValueError(f"{text!r} is too large")
    return value


def parse_rate(text: str) -> int | None:
    """
    Read bytes per second, written as a size; ValueError if wrong.

    Returns:
        None for 0, which means "no limit" as it does in other clients.
    """
    text = text.strip()
    bare = text[:-2] if text.lower().endswith("/s") else text
    try:
        return parse_size(bare) or None
    except ValueError:
        raise ValueError(f"{text!r} is not a rate such as 65536, 64Ki or 1.5M") from None


def parse_ratio(text: str) -> float:
    """Read a share ratio such as ``1`` or ``2.5``; ValueError if wrong."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[3]:
        raise ValueError(f"{text!r} is not a ratio such as 1 or 2.5")
    return float(f"{match[1]}.{match[2] or 0}")


def parse_file_list(text: str) -> frozenset[int]:
    """
    Read file indices such as ``0,2-5``; ValueError if wrong.

    Limit: P14. At most 1,000 ranges and no index above a million.
    """
    parts = text.split(",")
    if len(parts) > MAX_FILE_RANGES:
        raise ValueError(f"more than {MAX_FILE_RANGES} ranges in a list of files")
    indices: set[int] = set()
    for part in parts:
        match = re.fullmatch(r" *([0-9]{1,7})(?: *- *([0-9]{1,7}))? *", part, re.ASCII)
        if match is None:
            raise ValueError(f"{text!r} is not a list of files such as 0,2-5")
        first = int(match[1])
        last = int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {part.strip()!r} runs backwards")
        if last > MAX_FILE_INDEX:
            raise ValueError(f"file index {last} is above {MAX_FILE_INDEX}")
        indices.update(range(first, last + 1))
    return frozenset(indices)


def parse_port(text: str) -> int:
    """Read a port, 0 to 65535; ValueError if wrong."""
    text = text.strip()
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def parse_host(text: str) -> str:
    """
    Read an address of this machine: ``192.0.2.1``, ``2001:db8::1`` or ``localhost``.

    Raises:
        ValueError: it is none.
    """
    host = text.strip()
    if host == "localhost":
        return "127.0.0.1"
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(f"{text!r} is not an address, as 192.0.2.1 or 2001:db8::1") from None
    if "%" in host:
        raise ValueError(f"{text!r}: a link-local address is of use to nobody else")
    return str(address)


def parse_host_port(text: str, *, listen: bool = False) -> HostPort:
    """
    Read ``example.org:6881``, ``1.2.3.4:6881`` or ``[2001:db8::1]:6881``.

    Args:
        text: what was typed.
        listen: the address is one to listen on: ``:6969`` and ``*:6969`` mean all
            addresses and port 0 any free port.

    Raises:
        ValueError: it is none of these.
    """
    host, colon, port_text = text.strip().rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(f"brackets are for IPv6 addresses: {text!r}")
    elif ":" in host:
        raise ValueError(f"an IPv6 address needs brackets: {text!r}")
    if listen and host == "*":
        host = ""
    port = parse_port(port_text)
    if not listen and (not host or port == 0):
        raise ValueError(f"{text!r} is not HOST:PORT")
    if not host.isprintable() or any(char in " /@\\" for char in host):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return HostPort(host, port)
