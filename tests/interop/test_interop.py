"""
bittern against libtorrent, aria2 and opentracker; the rest is in the matrix (``make interop``).

A program that is not installed makes these tests fail, never skip: the message names the command
that installs it. ``INTEROP_LEFT=libtorrent`` puts another client in bittern's role.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.interop.clients import CLIENTS, Client, Scheme, Transport
from tests.interop.pairing import Pair, transfer_between_peers, transfer_by_tracker
from tests.interop.samples import Sample, make_sample
from tests.interop.trackers import TRACKERS, Tracker
from tests.reference import need_libtorrent

pytestmark = pytest.mark.interop

TIMEOUT = 30.0

LEFT = CLIENTS[os.environ.get("INTEROP_LEFT", "bittern")]
LIBTORRENT = CLIENTS["libtorrent"]
ARIA2 = CLIENTS["aria2"]

both_directions = pytest.mark.parametrize("does_left_seed", [True, False], ids=["seeds", "leeches"])


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("sample"))


def make_pair(
    partner: type[Client],
    *,
    does_left_seed: bool,
    transport: Transport = Transport.TCP,
    is_magnet: bool = False,
) -> Pair:
    """Return bittern and a partner in the asked direction, or fail when one is missing."""
    seed, leech = (LEFT, partner) if does_left_seed else (partner, LEFT)
    if LIBTORRENT in (seed, leech):
        need_libtorrent()
    pair = Pair(seed, leech, transport, is_magnet)
    if reason := pair.missing():
        pytest.fail(reason)
    return pair


def require(tracker: type[Tracker]) -> type[Tracker]:
    if reason := tracker.missing():
        pytest.fail(reason)
    return tracker


@both_directions
async def test_named_peer_is_dialed(sample: Sample, tmp_path: Path, does_left_seed: bool) -> None:
    pair = make_pair(LIBTORRENT, does_left_seed=does_left_seed)
    await transfer_between_peers(
        pair, sample, tmp_path, does_seed_dial=does_left_seed, timeout=TIMEOUT
    )


@both_directions
async def test_connection_is_accepted(sample: Sample, tmp_path: Path, does_left_seed: bool) -> None:
    pair = make_pair(LIBTORRENT, does_left_seed=does_left_seed)
    await transfer_between_peers(
        pair, sample, tmp_path, does_seed_dial=not does_left_seed, timeout=TIMEOUT
    )


@both_directions
@pytest.mark.parametrize("partner", [LIBTORRENT, ARIA2], ids=lambda client: client.name)
async def test_info_dictionary_comes_from_peers(
    sample: Sample, tmp_path: Path, partner: type[Client], does_left_seed: bool
) -> None:
    """BEP 9: the seed is the only one who has it; the leech has a magnet link."""
    pair = make_pair(partner, does_left_seed=does_left_seed, is_magnet=True)
    await transfer_by_tracker(pair, sample, tmp_path, timeout=TIMEOUT)


@both_directions
@pytest.mark.parametrize(
    ("partner", "scheme"),
    [(ARIA2, Scheme.HTTP), (LIBTORRENT, Scheme.HTTP), (LIBTORRENT, Scheme.UDP)],
    ids=["aria2-http", "libtorrent-http", "libtorrent-udp"],
)
async def test_meeting_at_opentracker(
    sample: Sample, tmp_path: Path, partner: type[Client], scheme: Scheme, does_left_seed: bool
) -> None:
    tracker = require(TRACKERS["opentracker"])
    pair = make_pair(partner, does_left_seed=does_left_seed)
    await transfer_by_tracker(
        pair, sample, tmp_path, tracker=tracker, scheme=scheme, timeout=TIMEOUT
    )


@pytest.mark.parametrize("scheme", list(Scheme), ids=lambda item: item.value)
async def test_others_meet_at_our_tracker(sample: Sample, tmp_path: Path, scheme: Scheme) -> None:
    tracker = require(TRACKERS["bittern-tracker"])
    need_libtorrent()
    pair = Pair(LIBTORRENT, LIBTORRENT)
    await transfer_by_tracker(
        pair, sample, tmp_path, tracker=tracker, scheme=scheme, timeout=TIMEOUT
    )
