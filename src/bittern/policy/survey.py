"""
The known endpoints of a torrent, sorted by what keeps each from being a connection.

For showing only: nothing here decides.
"""

from __future__ import annotations

from dataclasses import dataclass

from bittern.core.endpoint import Endpoint
from bittern.policy.bans import Ban
from bittern.policy.candidates import Candidates
from bittern.policy.peer_book import Source

MAX_LISTED = 50
"""Failures and bans that are listed one by one; more are counted."""


@dataclass(frozen=True, slots=True)
class FailedCandidate:
    """
    An endpoint that could not be reached, or that misbehaved.

    Args:
        endpoint: as it was named.
        source: by whom.
        num_failures: in a row.
        reason: of the last one.
        next_at: when it may be tried again; None: not soon.
    """

    endpoint: Endpoint
    source: Source
    num_failures: int
    reason: str
    next_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSurvey:
    """
    The endpoints at one instant; each known one is counted in exactly one of the groups.

    Args:
        num_known: all of them.
        num_active: being dialled or connected.
        num_ready: to be dialled as soon as the limits of the session allow.
        num_failed: that rest after a failure.
        num_waiting: kept back by limits per address and network, or for having been lost lately.
        num_seeds_aside: seeds, while we need nothing ourselves.
        num_banned: whose address is banned.
        num_forgotten: given up after too many failures, and so not known any more.
        next_at: the first instant at which one that rests or waits may be dialled.
        failed: the failures, those tried soonest first; at most ``MAX_LISTED``.
        bans: the bans in force in the whole session, the latest first; at most ``MAX_LISTED``.
    """

    num_known: int = 0
    num_active: int = 0
    num_ready: int = 0
    num_failed: int = 0
    num_waiting: int = 0
    num_seeds_aside: int = 0
    num_banned: int = 0
    num_forgotten: int = 0
    next_at: float | None = None
    failed: tuple[FailedCandidate, ...] = ()
    bans: tuple[Ban, ...] = ()


def survey(candidates: Candidates, *, now: float) -> CandidateSurvey:
    """Return how the endpoints stand. O(endpoints)."""
    active = ready = waiting = aside = banned = 0
    failed: list[FailedCandidate] = []
    instants: list[float] = []
    for entry in candidates.entries():
        is_due = entry.next_at is not None and entry.next_at <= now
        if entry.is_active:
            active += 1
        elif candidates.is_banned(entry.endpoint.host, now=now):
            banned += 1
        elif entry.failures and not is_due:
            failed.append(
                FailedCandidate(
                    entry.endpoint, entry.source, entry.failures, entry.reason, entry.next_at
                )
            )
        elif entry.is_seed and candidates.is_seeding:
            aside += 1
        elif is_due:
            ready += 1
        else:
            waiting += 1
        if entry.next_at is not None and not entry.is_active:
            instants.append(max(entry.next_at, now))
    failed.sort(key=lambda each: (each.next_at is None, each.next_at or 0.0, each.endpoint))
    bans = candidates.bans.current(now=now)
    return CandidateSurvey(
        num_known=len(candidates),
        num_active=active,
        num_ready=ready,
        num_failed=len(failed),
        num_waiting=waiting,
        num_seeds_aside=aside,
        num_banned=banned,
        num_forgotten=candidates.num_forgotten,
        next_at=min(instants, default=None),
        failed=tuple(failed[:MAX_LISTED]),
        bans=tuple(reversed(bans[-MAX_LISTED:])),
    )
