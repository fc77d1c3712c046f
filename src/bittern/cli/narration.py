"""
Engine events in words for a person, and as JSON for a program.

The JSON form of an event is its class name in snake case under ``type`` and
its fields by name: endpoints as ``host:port``, bytes in hexadecimal, states by
value, instants (``*_at``) as seconds since 1970. Fields are only ever added.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import re
import time
from typing import TYPE_CHECKING

from bittern.cli.values import HostPort, format_duration, format_size
from bittern.cli.wording import in_options
from bittern.core.endpoint import Endpoint
from bittern.engine import events
from bittern.engine.reason import Reason
from bittern.engine.reasons.phrases import describe_source, server_of
from bittern.engine.source_status import SourceKind

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from bittern.cli.output import Json

STATE_TEXTS = {
    events.TorrentState.METADATA: "fetching metadata",
    events.TorrentState.CHECKING: "checking",
    events.TorrentState.DOWNLOADING: "downloading",
    events.TorrentState.SEEDING: "seeding",
    events.TorrentState.PAUSED: "paused",
    events.TorrentState.ERROR: "stopped by an error",
    events.TorrentState.STOPPED: "stopped",
}
"""What each state is called on the screen."""

_TRACE = (events.MessageSent, events.MessageReceived, events.PeerDialled)
"""Told only to whom wants everything."""


def event_name(event: events.Event) -> str:
    """Return the name under which an event appears in JSON: ``piece_verified``."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()


def event_json(event: events.Event) -> dict[str, Json]:
    """Return an event as a JSON object."""
    return {"type": event_name(event), **fields_json(event)}


def fields_json(value: DataclassInstance) -> dict[str, Json]:
    """Return the fields of a value by name; instants of the loop become seconds since 1970."""
    since_1970 = time.time() - time.monotonic()
    result: dict[str, Json] = {}
    for field in dataclasses.fields(value):
        found = getattr(value, field.name)
        if field.name.endswith("_at") and isinstance(found, float):
            found = round(found + since_1970, 3)
        result[field.name] = plain(found)
    return result


def plain(value: object) -> Json:
    """Return a value that occurs in events or statistics in a form that JSON has."""
    match value:
        case enum.Enum():
            return plain(value.value)
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Endpoint() | HostPort():
            return str(value)
        case Reason():
            return {"code": value.code.value, "text": in_options(value.text)}
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case tuple() | list():
            return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return fields_json(value)
    return str(value)


def is_trace(event: events.Event) -> bool:
    """Tell whether an event is about a single message or attempt."""
    return isinstance(event, _TRACE)


def event_lines(event: events.Event) -> list[str]:
    """
    Return an event in words for a person, not yet escaped, by lines.

    It is one line, none when there is nothing to say, and for ``Stalled`` one more for each
    reason. A line break within a line is somebody else's.
    """
    if isinstance(event, events.Stalled):
        beginning = f"nothing has arrived for {format_duration(event.seconds)}:"
        return [beginning, *(f"  {in_options(str(reason))}" for reason in event.reasons)]
    text = event_text(event)
    return [text] if text else []


def event_text(event: events.Event) -> str:
    """Return an event in words, not yet escaped; empty when it says nothing."""
    match event:
        case events.StateChanged(state):
            return STATE_TEXTS[state]
        case events.MetadataReceived(name, length):
            return f"metadata of {name} received, {format_size(length)}"
        case events.CheckProgressed():
            return ""  # the progress display tells that
        case events.PieceVerified(index, num_have, num_pieces):
            return f"piece {index} verified ({num_have} of {num_pieces})"
        case events.PieceFailed(index):
            return f"piece {index} does not match its hash and is fetched again"
        case events.PieceLost(index):
            return f"piece {index} is not on disk any more and is fetched again"
        case events.PieceDamaged(index, num_bad, num_blocks):
            return f"piece {index} is damaged: {num_bad} of {num_blocks} blocks are fetched again"
        case events.FileCompleted(_, path):
            return f"file complete: {path}"
        case events.FileReused(_, path, _, source, how):
            return f"{path}: taken from {source} ({how})"
        case events.TorrentCompleted():
            return "complete"
        case events.StorageFailed(reason):
            return f"disk: {reason}"
        case events.TorrentUnusable(reason):
            return reason
        case events.MessageSent(endpoint, _, text, _):
            return f"{endpoint} <- {text}"
        case events.MessageReceived(endpoint, _, text, _):
            return f"{endpoint} -> {text}"
    return _source_text(event)


def _source_text(event: events.Event) -> str:
    match event:
        case events.TrackerAsked(url, what):
            return f"asking tracker {server_of(url)}" + (f" ({what})" if what else "")
        case events.SourceChanged(source) if source.kind is SourceKind.TRACKER:
            return ""  # events of their own say that of trackers
        case events.SourceChanged(source):
            return describe_source(source, now=time.monotonic())
        case events.TrackerAnnounced():
            return _announced(event)
        case events.TrackerFailed(url, reason, retry_at, is_refusal):
            verb = "refused" if is_refusal else "failed"
            return f"tracker {server_of(url)} {verb}: {reason}{_retry(retry_at)}"
        case events.PeersFound(source, num_peers):
            return f"{num_peers} {_plural('peer', num_peers)} from {source}"
    return _peer_text(event)


def _peer_text(event: events.Event) -> str:
    match event:
        case events.PeerDialled(endpoint):
            return f"connecting to {endpoint}"
        case events.PeerUnreachable(endpoint, reason, retry_at):
            return f"no connection to {endpoint}: {reason}{_retry(retry_at)}"
        case events.PeerUnchoked(endpoint, is_optimistic):
            return f"serving {endpoint} from now on" + (", by chance" if is_optimistic else "")
        case events.PeerChoked(endpoint, reason):
            return f"not serving {endpoint} for now: {reason}"
        case events.StallEnded(seconds):
            return f"bytes arrive again, after {format_duration(seconds)}"
        case events.PeerConnected(endpoint, is_outgoing, _, client):
            way = "to" if is_outgoing else "from"
            return f"connected {way} {endpoint}" + (f" ({client})" if client else "")
        case events.PeerDisconnected(endpoint, reason):
            return f"disconnected from {endpoint}: {reason}"
        case events.PeerBanned(endpoint, reason):
            return f"banned {endpoint}: {reason}"
    return event_name(event).replace("_", " ")


def _announced(event: events.TrackerAnnounced) -> str:
    what = f" ({event.event})" if event.event else ""
    text = f"tracker {server_of(event.url)}{what}: {event.num_peers} "
    text += _plural("peer", event.num_peers)
    if event.num_seeds is not None and event.num_leechers is not None:
        text += f"; {event.num_seeds} seeding, {event.num_leechers} downloading"
    return f"{text}; next announce in {format_duration(event.interval)}"


def _retry(instant: float | None) -> str:
    if instant is None:
        return ""
    return f"; tried again in {format_duration(instant - time.monotonic())}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else word + "s"
