"""
Sources of peers in words for a person.

The texts are not escaped: names and reasons in them come from strangers.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from bittern.core.units import format_duration, format_size
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus

KIND_NAMES = {
    SourceKind.TRACKER: "tracker",
    SourceKind.DHT: "DHT",
    SourceKind.PEX: "peer exchange",
    SourceKind.LSD: "local discovery",
    SourceKind.ZEROCONF: "zeroconf",
    SourceKind.USER: "given peers",
    SourceKind.LINK: "peers in the link",
    SourceKind.INCOMING: "incoming connections",
    SourceKind.WEB_SEED: "web seed",
}
"""What each kind is called in a sentence."""

GIVEN = frozenset({SourceKind.USER, SourceKind.LINK})
"""Kinds that name peers once, at the start."""

HEARD = GIVEN | {SourceKind.PEX, SourceKind.INCOMING}
"""Kinds that speak up by themselves."""


def server_of(url: str) -> str:
    """Return what of a URL may be shown: never the path, where trackers put passkeys."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def count_of(number: int, word: str) -> str:
    """Return a number with its word, as ``1 peer``, ``no peers``."""
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def source_name(status: SourceStatus) -> str:
    """Return what a source is called, as ``tracker udp://host:80`` or ``DHT IPv4``."""
    name = server_of(status.name) if "://" in status.name else status.name
    return f"{KIND_NAMES[status.kind]} {name}".rstrip()


def describe_source(status: SourceStatus, *, now: float) -> str:
    """
    Return how a source stands in one line.

    Args:
        status: of the source.
        now: loop time.

    Returns:
        As ``tracker udp://host:80: failed (timed out); tried again in 32s``.
    """
    match status.state:
        case SourceState.OFF:
            text = "off"
        case SourceState.WAITING:
            text = "nothing yet"
        case SourceState.ASKING:
            text = "being asked"
        case SourceState.WORKING:
            text = _answer(status, now)
        case SourceState.FAILING:
            text = "failed"
    if status.message:
        text += f" ({status.message})"
    if status.next_at is not None and status.state is not SourceState.ASKING:
        word = "tried" if status.state is SourceState.FAILING else "asked"
        wait = status.next_at - now
        text += f"; {word} again " + (f"in {format_duration(wait)}" if wait >= 0.5 else "now")
    return f"{source_name(status)}: {text}"


def _answer(status: SourceStatus, now: float) -> str:
    """Return what a source has named: one that is asked in its answer, the others in all."""
    age = None if status.last_answer_at is None else now - status.last_answer_at
    if status.kind is SourceKind.WEB_SEED:
        return f"has sent {format_size(status.num_bytes)}"
    if status.kind in GIVEN:
        return count_of(status.num_found, "peer")
    if status.kind not in HEARD:
        text = f"{count_of(status.num_peers or 0, 'peer')} in its last answer"
        return text if age is None or age < 1 else f"{text} {format_duration(age)} ago"
    text = f"{count_of(status.num_found, 'peer')} so far"
    return text if age is None or age < 1 else f"{text}, the last {format_duration(age)} ago"
