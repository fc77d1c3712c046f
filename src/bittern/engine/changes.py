"""
Settings that may change while a session and its torrents run.

``Session.change`` and ``Torrent.change`` take them by name, as ``SessionConfig`` and
``TorrentConfig`` have them; those take the new values, so that ``config`` always tells what
holds. Here is what a swarm at work has to do about it.

A lower download limit holds from that instant on. What was asked for is withdrawn (cancel), and
what is on the way all the same is counted against the new limit: requests for a few seconds
ahead would otherwise arrive at the old rate.

Source: BEP 3 (cancel), BEP 16 (super seeding).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import replace
from typing import TypedDict

from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.peers.roster import Roster
from bittern.engine.pieces.swarm import Swarm
from bittern.engine.shelf import Shelf
from bittern.engine.store.content import check_choice, wanted_priorities


class SessionChanges(TypedDict, total=False):
    """What ``Session.change`` takes; each as in ``SessionConfig``."""

    max_download_rate: float | None
    max_upload_rate: float | None
    max_connections: int
    max_connections_per_torrent: int
    upload_slots: int | None


class TorrentChanges(TypedDict, total=False):
    """What ``Torrent.change`` takes; each as in ``TorrentConfig``."""

    files: Set[int] | None
    priorities: Mapping[int, int]
    sequential: bool
    super_seeding: bool
    trackers: tuple[tuple[str, ...], ...]
    web_seeds: tuple[str, ...]
    max_download_rate: float | None
    max_upload_rate: float | None
    max_connections: int | None
    upload_slots: int | None


def change_session(config: SessionConfig, changes: SessionChanges) -> SessionConfig:
    """Return settings with some changed; ConfigError as when they are made."""
    _check_names(changes, SessionChanges)
    return replace(config, **changes)


def change_torrent(config: TorrentConfig, changes: TorrentChanges, shelf: Shelf) -> TorrentConfig:
    """Return settings with some changed; ConfigError as when they are made, or for a wrong file."""
    _check_names(changes, TorrentChanges)
    changed = replace(config, **changes)  # type: ignore[arg-type]  # a set becomes a frozenset
    return check_choice(changed, shelf.metainfo().info) if shelf.has_metainfo else changed


def when_checked(config: TorrentConfig, *, is_forced: bool) -> TorrentConfig:
    """Return settings for a check: once one was asked for, the data is not just believed in."""
    return replace(config, skip_check=False) if is_forced and config.skip_check else config


def _check_names(changes: Mapping[str, object], known: type) -> None:
    for name in changes:
        if name not in known.__annotations__:
            raise TypeError(f"{name!r} cannot be changed while it runs")


def download_rate(swarm: Swarm) -> float:
    """Return the limit that holds for a swarm's downloads; inf for none."""
    rate = swarm.download_gate.rate
    return math.inf if rate is None else rate


def slow_down(swarm: Swarm, rate_before: float) -> None:
    """Let a lower download limit be felt at once, ``rate_before`` being that before it."""
    if download_rate(swarm) < rate_before:
        swarm.withdraw_requests()
        swarm.ask_all()


def apply_to_swarm(
    swarm: Swarm, config: TorrentConfig, before: TorrentConfig, session: SessionConfig
) -> None:
    """
    Let a torrent's settings hold in its swarm.

    Args:
        swarm: at work.
        config: what is to hold.
        before: what has held.
        session: what is not said there is taken from here.
    """
    rate_before = download_rate(swarm)
    swarm.download_gate.set_rate(config.max_download_rate)
    swarm.upload_gate.set_rate(config.max_upload_rate)
    slow_down(swarm, rate_before)
    swarm.picker.sequential = config.sequential
    swarm.choking.set_num_slots(config.upload_slots or session.upload_slots)
    apply_to_roster(swarm.roster, config, session)
    swarm.set_super_seeding(config.super_seeding)
    if is_chosen_anew(config, before):
        layout = swarm.assembly.layout
        swarm.set_wanted(wanted_priorities(layout, swarm.picker.num_pieces, config))
        swarm.assembly.prepare(config.files)


def is_chosen_anew(config: TorrentConfig, before: TorrentConfig) -> bool:
    """Tell whether other files are wanted, or some of them sooner than others."""
    return (config.files, config.priorities) != (before.files, before.priorities)


def apply_to_roster(roster: Roster, config: TorrentConfig, session: SessionConfig) -> None:
    """Let the limit of connections hold; those beyond it are closed that move least."""
    limit = config.max_connections or session.max_connections_per_torrent
    roster.max_connections = limit
    peers = sorted(roster.peers, key=lambda peer: (peer.is_open, peer.down.rate + peer.up.rate))
    for peer in peers[: max(0, len(peers) - limit)]:
        peer.close("too many connections")
