"""engine.reasons.stall: when it is said that nothing moves, in virtual time."""

from __future__ import annotations

import asyncio

from bittern.codec import wire
from bittern.engine import events
from bittern.engine.events import Event, Stalled, StallEnded, TorrentState
from bittern.engine.reason import Reason, ReasonCode
from bittern.engine.reasons.diagnosis import Diagnosis
from bittern.engine.reasons.stall import REPEAT_AFTER, STALL_AFTER, StallWatch
from tests.engine.scene import Scene, Watch, in_scene


class FakeTorrent:
    """Stands still for a reason."""

    def __init__(self) -> None:
        self.state = TorrentState.DOWNLOADING
        self.num_downloaded = 0
        self.reason = ReasonCode.CHOKED
        self.reports: list[Event] = []

    def diagnose(self) -> Diagnosis:
        reasons = (Reason(self.reason, "because"), Reason(ReasonCode.SOURCE, "a source"))
        return Diagnosis(at=0.0, state=self.state, reasons=reasons)

    def report(self, event: Event) -> None:
        self.reports.append(event)


def run(torrent: FakeTorrent, watch: StallWatch, start: int, end: int) -> list[tuple[int, Event]]:
    """Tick every second and return what was reported, with its second."""
    found = []
    for now in range(start, end):
        torrent.reports.clear()
        watch.tick(torrent, now=float(now))
        found += [(now, event) for event in torrent.reports]
    return found


def test_it_is_said_once_and_then_now_and_then() -> None:
    torrent, watch = FakeTorrent(), StallWatch()
    found = run(torrent, watch, 0, 100)
    first, again = STALL_AFTER, STALL_AFTER + REPEAT_AFTER
    assert [now for now, _ in found] == [first, again]
    assert found[0][1] == Stalled(STALL_AFTER, torrent.diagnose().reasons)


def test_new_reasons_are_said_soon_but_not_every_second() -> None:
    torrent, watch = FakeTorrent(), StallWatch()
    run(torrent, watch, 0, 6)
    torrent.reason = ReasonCode.SNUBBED
    found = run(torrent, watch, 6, 20)
    assert [now for now, _ in found] == [10]
    assert isinstance(found[0][1], Stalled)
    assert found[0][1].reasons[0].code is ReasonCode.SNUBBED


def test_the_end_is_said_if_the_beginning_was() -> None:
    torrent, watch = FakeTorrent(), StallWatch()
    run(torrent, watch, 0, 3)
    torrent.num_downloaded = 1
    assert run(torrent, watch, 3, 8) == []
    run(torrent, watch, 8, 20)
    torrent.num_downloaded = 2
    assert run(torrent, watch, 20, 24) == [(20, StallEnded(17.0))]


def test_who_wants_nothing_does_not_stand_still() -> None:
    torrent, watch = FakeTorrent(), StallWatch()
    for state in set(TorrentState) - {TorrentState.DOWNLOADING, TorrentState.METADATA}:
        torrent.state = state
        assert run(torrent, watch, 0, 30) == []


@in_scene()
async def test_a_session_says_it_to_whom_listens(scene: Scene) -> None:
    node = await scene.node()
    watch = Watch(node.torrent)
    peer = await scene.scripted(node, bitfield=wire.HAVE_ALL)
    await asyncio.sleep(8)
    (stalled,) = watch.of(events.Stalled)
    assert stalled.reasons[0].code is ReasonCode.CHOKED
    peer.send(wire.UNCHOKE)
    scene.spawn(peer.serve(scene.block))
    await node.complete()
    await asyncio.sleep(1.5)
    (ended,) = watch.of(events.StallEnded)
    assert 7 <= ended.seconds <= 12
