"""
What a diagnosis means, in plain sentences, the most important first.

Pure: from a ``Diagnosis`` to reasons. The order of the tests below is the order of
importance: what must be mended by hand, what is over by itself, what has to come
from outside, and last how each source of peers stands.
"""

from __future__ import annotations

from collections import Counter

from bittern.core.units import format_duration, format_rate, format_size
from bittern.engine.events import TorrentState
from bittern.engine.reason import Reason, ReasonCode
from bittern.engine.reasons.diagnosis import Diagnosis
from bittern.engine.reasons.phrases import GIVEN, count_of, describe_source
from bittern.engine.source_status import SourceState

LIMIT_CODES = {
    "max_connections": ReasonCode.CONNECTION_LIMIT,
    "max_connections_per_torrent": ReasonCode.CONNECTION_LIMIT,
    "max_half_open": ReasonCode.HALF_OPEN_LIMIT,
}
"""The limits that keep a peer from being dialled."""
MAX_CAUSES = 3
"""Causes of failures that a sentence names; the most frequent ones."""


def explain(found: Diagnosis) -> list[Reason]:
    """Return why a torrent does what it does, or nothing; never empty."""
    match found.state:
        case TorrentState.PAUSED if found.storage.error is None:
            return [Reason(ReasonCode.PAUSED, "It is paused and goes on when it is resumed.")]
        case TorrentState.STOPPED:
            text = "It does not run: it was not started yet, or was removed from its session."
            return [Reason(ReasonCode.STOPPED, text)]
        case TorrentState.ERROR | TorrentState.PAUSED:
            return [_error(found)]
        case TorrentState.CHECKING:
            text = (
                f"What is on disk is being checked: {found.num_checked} of "
                f"{count_of(found.num_pieces, 'piece')} so far."
            )
            return [Reason(ReasonCode.CHECKING, text)]
        case TorrentState.SEEDING:
            return _seeding(found)
    if found.is_moving:
        text = f"It downloads at {format_rate(found.download_rate)} from {_senders(found)}."
        return [Reason(ReasonCode.MOVING, text), *_held_back(found, "max_download_rate")]
    return [*_held_back(found, "max_download_rate"), *_no_progress(found), *_sources(found)]


def _senders(found: Diagnosis) -> str:
    num_peers, num_web_seeds = found.connections.num_open, found.connections.num_web_seeds
    if not num_web_seeds:
        return count_of(num_peers, "connected peer")
    web_seeds = count_of(num_web_seeds, "web seed")
    return f"{count_of(num_peers, 'connected peer')} and {web_seeds}" if num_peers else web_seeds


def what_it_waits_for(found: Diagnosis) -> str:
    """Return in a phrase what has to come for a torrent to go on; empty if it goes on."""
    if found.is_moving:
        return ""
    connections = found.connections
    match found.state:
        case TorrentState.PAUSED:
            return "being resumed"
        case TorrentState.STOPPED:
            return "being started"
        case TorrentState.ERROR:
            return _what_mends(found)
        case TorrentState.CHECKING:
            return "the check of what is on disk"
        case TorrentState.SEEDING:
            return "peers that want something"
        case TorrentState.METADATA if connections.num_open:
            return (
                "piece hashes from a peer" if found.num_layers_missing else "metadata from a peer"
            )
    if found.storage.is_congested:
        return "the disk"
    if connections.num_web_seeds:
        return "a web seed"
    if not connections.num_open:
        return "a connection to a peer"
    return "pieces from a peer"


def _what_mends(found: Diagnosis) -> str:
    if found.storage.is_missing:
        return "its volume"
    return "room on the disk" if found.storage.is_full else "the error to be mended"


def _error(found: Diagnosis) -> Reason:
    storage = found.storage
    if storage.is_missing:
        what, how = "It was stopped by an error", "Mount that and resume it"
        if storage.retry_at is not None:
            what, how = "It waits for storage", "It goes on by itself once that is mounted"
        text = f"{what}: {storage.error}. {how}; a recheck fetches anew what is not here."
        return Reason(ReasonCode.VOLUME_MISSING, text)
    code = ReasonCode.DISK_FULL if storage.is_full else ReasonCode.ERROR
    text = f"It was stopped by an error: {storage.error}."
    if storage.retry_at is not None:
        return Reason(code, f"{text} It is tried again {_when(found, storage.retry_at)}.")
    return Reason(code, f"{text} Resume it once that is mended.")


def _seeding(found: Diagnosis) -> list[Reason]:
    connections = found.connections
    if found.is_moving:
        text = (
            f"Everything is here; {count_of(connections.num_unchoked, 'peer')} of "
            f"{connections.num_open} are served at {format_rate(found.upload_rate)}."
        )
        return [Reason(ReasonCode.MOVING, text), *_held_back(found, "max_upload_rate")]
    text = "Everything is here, and nobody is connected."
    if connections.num_open:
        wanting = connections.num_interested
        text = (
            f"Everything is here; {count_of(wanting, 'peer')} of {connections.num_open} "
            f"connected {'wants' if wanting == 1 else 'want'} something."
        )
    return [
        Reason(ReasonCode.COMPLETE, text),
        *_held_back(found, "max_upload_rate"),
        *_sources(found),
    ]


def _held_back(found: Diagnosis, rate_name: str) -> list[Reason]:
    """Return what of ours slows things down: the disk, a limit of rate."""
    reasons, storage = [], found.storage
    if storage.is_congested:
        text = (
            f"The disk does not keep up: {format_size(storage.num_queued)} wait to be written, "
            "and nothing is read from peers meanwhile."
        )
        reasons.append(Reason(ReasonCode.DISK_SLOW, text))
    elif storage.is_slow:
        reasons.append(Reason(ReasonCode.DISK_SLOW, "The disk is slow at writing."))
    for limit in found.limits:
        if limit.name == rate_name and limit.is_reached:
            way = "downloads" if "down" in rate_name else "uploads"
            text = f"The limit of {format_rate(limit.value)} for {way} is reached ({limit.name})."
            reasons.append(Reason(ReasonCode.RATE_LIMIT, text))
    return reasons


def _no_progress(found: Diagnosis) -> list[Reason]:
    if not found.connections.num_open:
        return _nobody(found)
    if found.state is TorrentState.METADATA:
        return [_metadata(found)]
    return _no_pieces(found)


def _metadata(found: Diagnosis) -> Reason:
    num_open, offering = found.connections.num_open, found.connections.num_offering_metadata
    if found.num_layers_missing:
        files = count_of(found.num_layers_missing, "file")
        able = found.connections.num_offering_hashes
        if able:
            text = f"Piece hashes of {files} are being asked of {able} of "
            text += f"{count_of(num_open, 'connected peer')}."
        else:
            who = _none_of(num_open, "does not speak v2, so it cannot", "speaks v2, so none can")
            text = f"{who} give the piece hashes of {files}, without which no piece can be checked."
        return Reason(ReasonCode.FETCHING_HASHES, text)
    if not offering:
        who = _none_of(num_open, "does not offer", "offers")
        text = f"{who} the metadata, without which no file is known."
        return Reason(ReasonCode.NO_METADATA, text)
    text = f"The metadata is being asked of {offering} of {count_of(num_open, 'connected peer')}."
    return Reason(ReasonCode.FETCHING_METADATA, text)


def _no_pieces(found: Diagnosis) -> list[Reason]:
    """Return why connected peers send nothing."""
    connections, reasons = found.connections, []
    num_open = connections.num_open
    if found.num_unavailable:
        what = f"{found.num_unavailable} of the {count_of(found.num_missing, 'missing piece')}"
        if found.num_unavailable == found.num_missing:
            what = "any missing piece" if found.num_missing > 1 else "the missing piece"
        who = _none_of(num_open, "does not have", "has")
        text = f"{who} {what}; somebody has to come who has."
        reasons.append(Reason(ReasonCode.PIECES_MISSING, text))
    if connections.num_snubbing:
        text = (
            f"{count_of(connections.num_snubbing, 'connected peer')} that should send us blocks "
            "sent none for long; others are asked for them."
        )
        reasons.append(Reason(ReasonCode.SNUBBED, text))
    if connections.num_choking:
        text = (
            f"{connections.num_choking} of {count_of(num_open, 'connected peer')} "
            f"{'has' if connections.num_choking == 1 else 'have'} what we need but "
            f"{'does' if connections.num_choking == 1 else 'do'} not let us ask for it yet: "
            "peers serve a few at a time, in turn."
        )
        reasons.append(Reason(ReasonCode.CHOKED, text))
    if connections.num_useful and not reasons:
        text = f"{count_of(connections.num_useful, 'peer')} will be asked for pieces next."
        reasons.append(Reason(ReasonCode.ABOUT_TO_ASK, text))
    return reasons + _unconnected(found)


def _nobody(found: Diagnosis) -> list[Reason]:
    """Return why no peer is connected."""
    candidates, reasons = found.candidates, []
    if not candidates.num_known and not found.connections.num_handshaking:
        text = "No peer is known yet."
        asked = [source for source in found.sources if source.kind not in GIVEN]
        if candidates.num_forgotten:
            text = (
                f"No peer is known any more: {candidates.num_forgotten} could not be reached, "
                "again and again, and were given up."
            )
        elif asked and all(source.state is SourceState.OFF for source in asked):
            text = "No peer is known, and every source of peers is off."
        reasons.append(Reason(ReasonCode.NO_PEERS_KNOWN, text))
    connections = found.connections
    under_way = max(
        connections.num_handshaking, min(candidates.num_active, connections.num_half_open)
    )
    if under_way:
        text = f"{count_of(under_way, 'connection')} {_is_are(under_way)} being made."
        reasons.append(Reason(ReasonCode.CONNECTING, text))
    return reasons + _unconnected(found)


def _unconnected(found: Diagnosis) -> list[Reason]:
    """Return what keeps known peers from being connections."""
    candidates, reasons = found.candidates, []
    if candidates.num_failed:
        causes = Counter(each.reason for each in candidates.failed if each.reason)
        told = ", ".join(f"{number} {cause}" for cause, number in causes.most_common(MAX_CAUSES))
        of = count_of(candidates.num_known, "known peer")
        text = f"{candidates.num_failed} of {of} failed" + (f" ({told})" if told else "")
        next_at = candidates.failed[0].next_at if candidates.failed else None
        if next_at is not None:
            text += f"; the next is tried {_when(found, next_at)}"
        reasons.append(Reason(ReasonCode.PEERS_UNREACHABLE, text + "."))
    if candidates.num_banned:
        causes = Counter(ban.reason for ban in candidates.bans if ban.reason)
        told = f": {causes.most_common(1)[0][0]}" if causes else ""
        text = f"{count_of(candidates.num_banned, 'known peer')} {_is_are(candidates.num_banned)}"
        reasons.append(Reason(ReasonCode.PEERS_BANNED, f"{text} banned{told}."))
    if candidates.num_ready:
        reasons.append(_ready(found))
    if candidates.num_waiting:
        text = f"{count_of(candidates.num_waiting, 'known peer')} {_is_are(candidates.num_waiting)}"
        text += " not tried yet, so that no address is dialled too often"
        if candidates.next_at is not None:
            text += f"; the next is tried {_when(found, candidates.next_at)}"
        reasons.append(Reason(ReasonCode.PEERS_WAIT, text + "."))
    return reasons


def _ready(found: Diagnosis) -> Reason:
    """Return why peers that may be dialled are not yet."""
    number = found.candidates.num_ready
    text = f"{count_of(number, 'known peer')} {_is_are(number)}"
    for limit in found.limits:
        code = LIMIT_CODES.get(limit.name)
        if limit.is_reached and code is not None:
            text += f" not tried, since the limit {limit.name} of {limit.value:g} is reached."
            return Reason(code, text)
    return Reason(ReasonCode.PEERS_READY, f"{text} about to be tried.")


def _sources(found: Diagnosis) -> list[Reason]:
    """Return a line for each source of peers; those that are off last."""
    lines = sorted(found.sources, key=lambda source: source.state is SourceState.OFF)
    return [Reason(ReasonCode.SOURCE, describe_source(line, now=found.at)) for line in lines]


def _when(found: Diagnosis, instant: float) -> str:
    wait = instant - found.at
    return f"in {format_duration(wait)}" if wait >= 0.5 else "now"


def _none_of(number: int, negated: str, verb: str) -> str:
    if number == 1:
        return f"The only connected peer {negated}"
    return f"None of the {number} connected peers {verb}"


def _is_are(number: int) -> str:
    return "is" if number == 1 else "are"
