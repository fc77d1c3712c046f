"""engine.reasons.explain: what a diagnosis means, as a table of scenes and sentences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bittern.core.endpoint import Endpoint
from bittern.engine.events import TorrentState
from bittern.engine.reason import ReasonCode
from bittern.engine.reasons.diagnosis import ConnectionSurvey, Diagnosis, Limit, StorageSurvey
from bittern.engine.reasons.explain import explain, what_it_waits_for
from bittern.engine.source_status import SourceKind, SourceState, SourceStatus
from bittern.policy.bans import Ban
from bittern.policy.candidates import Source
from bittern.policy.survey import CandidateSurvey, FailedCandidate

NOW = 500.0
DOWNLOADING = TorrentState.DOWNLOADING
TRACKER = SourceStatus(
    kind=SourceKind.TRACKER, name="udp://t:1", state=SourceState.FAILING, message="timed out"
)
OFF = SourceStatus(kind=SourceKind.DHT, state=SourceState.OFF, message="x")


ONLY_V1 = "The only connected peer does not speak v2, so "
NONE_V2 = "None of the 2 connected peers speaks v2, so "
NO_HASHES = "without which no piece can be checked."


def failures(*causes: str) -> tuple[FailedCandidate, ...]:
    return tuple(
        FailedCandidate(Endpoint("203.0.113.1", n), Source.DHT, 1, cause, NOW + 20)
        for n, cause in enumerate(causes)
    )


def scene(state: TorrentState = DOWNLOADING, **values: Any) -> Diagnosis:
    return Diagnosis(at=NOW, state=state, **values)


ON = "It goes on by itself once that is mounted;"
ANEW = "a recheck fetches anew what is not here."

SCENES: list[tuple[str, Diagnosis, list[str], str]] = [
    (
        "paused",
        scene(TorrentState.PAUSED),
        ["It is paused and goes on when it is resumed."],
        "being resumed",
    ),
    (
        "stopped",
        scene(TorrentState.STOPPED),
        ["It does not run: it was not started yet, or was removed from its session."],
        "being started",
    ),
    (
        "disk full",
        scene(
            TorrentState.ERROR,
            storage=StorageSurvey(error="no room: 'x'", is_full=True, retry_at=NOW + 20),
        ),
        ["It was stopped by an error: no room: 'x'. It is tried again in 20s."],
        "room on the disk",
    ),
    (
        "volume missing",
        scene(
            TorrentState.ERROR,
            storage=StorageSurvey(error="not mounted: '/x'", is_missing=True, retry_at=NOW + 20),
        ),
        [
            f"It waits for storage: not mounted: '/x'. {ON} {ANEW}"
        ],
        "its volume",
    ),
    (
        "paused without its volume",
        scene(
            TorrentState.PAUSED, storage=StorageSurvey(error="not mounted: '/x'", is_missing=True)
        ),
        [
            "It was stopped by an error: not mounted: '/x'. Mount that and resume it; " + ANEW
        ],
        "being resumed",
    ),
    (
        "error",
        scene(TorrentState.ERROR, storage=StorageSurvey(error="input/output error")),
        ["It was stopped by an error: input/output error. Resume it once that is mended."],
        "the error to be mended",
    ),
    (
        "paused after an error",
        scene(TorrentState.PAUSED, storage=StorageSurvey(error="input/output error")),
        ["It was stopped by an error: input/output error. Resume it once that is mended."],
        "being resumed",
    ),
    (
        "checking",
        scene(TorrentState.CHECKING, num_checked=3, num_pieces=40),
        ["What is on disk is being checked: 3 of 40 pieces so far."],
        "the check of what is on disk",
    ),
    (
        "downloading",
        scene(
            download_rate=2048.0,
            connections=ConnectionSurvey(num_open=2, num_useful=1),
            limits=(Limit("max_download_rate", 2048.0, True), Limit("max_upload_rate", 1.0, True)),
        ),
        [
            "It downloads at 2.0 KiB/s from 2 connected peers.",
            "The limit of 2.0 KiB/s for downloads is reached (max_download_rate).",
        ],
        "",
    ),
    (
        "seeding",
        scene(
            TorrentState.SEEDING,
            upload_rate=1024.0,
            connections=ConnectionSurvey(num_open=3, num_interested=2, num_unchoked=1),
            limits=(Limit("max_upload_rate", 1024.0, True),),
        ),
        [
            "Everything is here; 1 peer of 3 are served at 1.0 KiB/s.",
            "The limit of 1.0 KiB/s for uploads is reached (max_upload_rate).",
        ],
        "",
    ),
    (
        "seeding to nobody",
        scene(TorrentState.SEEDING, sources=(TRACKER,)),
        [
            "Everything is here, and nobody is connected.",
            "tracker udp://t:1: failed (timed out)",
        ],
        "peers that want something",
    ),
    (
        "seeding to one",
        scene(TorrentState.SEEDING, connections=ConnectionSurvey(num_open=3, num_interested=1)),
        ["Everything is here; 1 peer of 3 connected wants something."],
        "peers that want something",
    ),
    (
        "seeding to some who want nothing",
        scene(TorrentState.SEEDING, connections=ConnectionSurvey(num_open=3)),
        ["Everything is here; no peers of 3 connected want something."],
        "peers that want something",
    ),
    (
        "nobody known",
        scene(sources=(OFF, TRACKER)),
        [
            "No peer is known yet.",
            "tracker udp://t:1: failed (timed out)",
            "DHT: off (x)",
        ],
        "a connection to a peer",
    ),
    (
        "all sources off",
        scene(sources=(OFF,)),
        ["No peer is known, and every source of peers is off.", "DHT: off (x)"],
        "a connection to a peer",
    ),
    (
        "all given up",
        scene(candidates=CandidateSurvey(num_forgotten=7)),
        ["No peer is known any more: 7 could not be reached, again and again, and were given up."],
        "a connection to a peer",
    ),
    (
        "connecting",
        scene(
            candidates=CandidateSurvey(num_known=2, num_active=2),
            connections=ConnectionSurvey(num_half_open=1),
        ),
        ["1 connection is being made."],
        "a connection to a peer",
    ),
    (
        "in handshake",
        scene(connections=ConnectionSurvey(num_handshaking=2)),
        ["2 connections are being made."],
        "a connection to a peer",
    ),
    (
        "unreachable",
        scene(
            candidates=CandidateSurvey(
                num_known=4, num_failed=3, num_banned=1,
                failed=failures("connection refused", "no answer in time", "connection refused"),
                bans=(Ban("203.0.113.9", NOW + 60, "sent corrupt data"),),
            )
        ),
        [
            ("3 of 4 known peers failed (2 connection refused, 1 no answer in time); "
            "the next is tried in 20s."),
            "1 known peer is banned: sent corrupt data.",
        ],
        "a connection to a peer",
    ),
    (
        "unreachable for an unknown reason",
        scene(
            candidates=CandidateSurvey(
                num_known=3, num_failed=1, num_banned=2,
                failed=(replace(failures("")[0], next_at=None),),
            )
        ),
        ["1 of 3 known peers failed.", "2 known peers are banned."],
        "a connection to a peer",
    ),
    (
        "failures that are not listed",
        scene(candidates=CandidateSurvey(num_known=1, num_failed=1)),
        ["1 of 1 known peer failed."],
        "a connection to a peer",
    ),
    (
        "about to be dialled",
        scene(candidates=CandidateSurvey(num_known=3, num_ready=2, num_waiting=1, next_at=NOW)),
        [
            "2 known peers are about to be tried.",
            ("1 known peer is not tried yet, so that no address is dialled too often; the next is "
            "tried now."),
        ],
        "a connection to a peer",
    ),
    (
        "one waits for another",
        scene(candidates=CandidateSurvey(num_known=1, num_waiting=1)),
        ["1 known peer is not tried yet, so that no address is dialled too often."],
        "a connection to a peer",
    ),
    (
        "limits of connections",
        scene(
            candidates=CandidateSurvey(num_known=2, num_ready=2),
            limits=(
                Limit("max_download_rate", 1.0, False),
                Limit("max_connections", 500, False),
                Limit("max_connections_per_torrent", 50, True),
            ),
        ),
        [
            ("2 known peers are not tried, since the limit max_connections_per_torrent of 50 is "
            "reached.")
        ],
        "a connection to a peer",
    ),
    (
        "limit of attempts",
        scene(
            candidates=CandidateSurvey(num_known=1, num_ready=1),
            limits=(Limit("max_half_open", 20, True),),
        ),
        ["1 known peer is not tried, since the limit max_half_open of 20 is reached."],
        "a connection to a peer",
    ),
    (
        "no metadata",
        scene(TorrentState.METADATA, connections=ConnectionSurvey(num_open=1)),
        ["The only connected peer does not offer the metadata, without which no file is known."],
        "metadata from a peer",
    ),
    (
        "metadata of nobody",
        scene(TorrentState.METADATA, connections=ConnectionSurvey(num_open=2)),
        ["None of the 2 connected peers offers the metadata, without which no file is known."],
        "metadata from a peer",
    ),
    (
        "metadata asked for",
        scene(
            TorrentState.METADATA,
            connections=ConnectionSurvey(num_open=3, num_offering_metadata=2),
        ),
        ["The metadata is being asked of 2 of 3 connected peers."],
        "metadata from a peer",
    ),
    (
        "piece hashes asked for",
        scene(
            TorrentState.METADATA,
            connections=ConnectionSurvey(num_open=3, num_offering_hashes=2),
            num_layers_missing=7,
        ),
        ["Piece hashes of 7 files are being asked of 2 of 3 connected peers."],
        "piece hashes from a peer",
    ),
    (
        "piece hashes of nobody",
        scene(
            TorrentState.METADATA,
            connections=ConnectionSurvey(num_open=1),
            num_layers_missing=1,
        ),
        [
            ONLY_V1 + "it cannot give the piece hashes of 1 file, " + NO_HASHES
        ],
        "piece hashes from a peer",
    ),
    (
        "piece hashes of none of many",
        scene(
            TorrentState.METADATA,
            connections=ConnectionSurvey(num_open=2),
            num_layers_missing=3,
        ),
        [
            NONE_V2 + "none can give the piece hashes of 3 files, " + NO_HASHES
        ],
        "piece hashes from a peer",
    ),
    (
        "nobody to have metadata of",
        scene(TorrentState.METADATA),
        ["No peer is known yet."],
        "a connection to a peer",
    ),
    (
        "some pieces are nowhere",
        scene(
            num_missing=9, num_unavailable=4,
            connections=ConnectionSurvey(num_open=3, num_useful=3),
        ),
        [
            ("None of the 3 connected peers has 4 of the 9 missing pieces; somebody has to come "
            "who has."),
        ],
        "pieces from a peer",
    ),
    (
        "all missing pieces are nowhere",
        scene(
            num_missing=9, num_unavailable=9,
            connections=ConnectionSurvey(num_open=1, num_needless=1),
            candidates=CandidateSurvey(num_known=2, num_ready=1),
        ),
        [
            ("The only connected peer does not have any missing piece; somebody has to come who "
            "has."),
            "1 known peer is about to be tried.",
        ],
        "pieces from a peer",
    ),
    (
        "the last piece is nowhere",
        scene(
            num_missing=1, num_unavailable=1,
            connections=ConnectionSurvey(num_open=2, num_needless=2),
        ),
        ["None of the 2 connected peers has the missing piece; somebody has to come who has."],
        "pieces from a peer",
    ),
    (
        "a web seed alone sends",
        scene(download_rate=2048.0, connections=ConnectionSurvey(num_web_seeds=1)),
        ["It downloads at 2.0 KiB/s from 1 web seed."],
        "",
    ),
    (
        "web seeds beside a peer send",
        scene(
            download_rate=2048.0,
            connections=ConnectionSurvey(num_open=1, num_web_seeds=2),
        ),
        ["It downloads at 2.0 KiB/s from 1 connected peer and 2 web seeds."],
        "",
    ),
    (
        "a web seed is being asked",
        scene(
            connections=ConnectionSurvey(num_web_seeds=1),
            candidates=CandidateSurvey(),
        ),
        ["No peer is known yet."],
        "a web seed",
    ),
    (
        "choked",
        scene(connections=ConnectionSurvey(num_open=3, num_choking=2, num_needless=1)),
        [
            ("2 of 3 connected peers have what we need but do not let us ask for it yet: peers "
            "serve a few at a time, in turn."),
        ],
        "pieces from a peer",
    ),
    (
        "choked by one and snubbed",
        scene(connections=ConnectionSurvey(num_open=2, num_choking=1, num_snubbing=1)),
        [
            ("1 connected peer that should send us blocks sent none for long; others are asked for "
            "them."),
            ("1 of 2 connected peers has what we need but does not let us ask for it yet: peers "
            "serve a few at a time, in turn."),
        ],
        "pieces from a peer",
    ),
    (
        "about to ask",
        scene(connections=ConnectionSurvey(num_open=2, num_useful=2)),
        ["2 peers will be asked for pieces next."],
        "pieces from a peer",
    ),
    (
        "slow disk",
        scene(
            connections=ConnectionSurvey(num_open=1, num_useful=1),
            storage=StorageSurvey(is_slow=True),
        ),
        ["The disk is slow at writing.", "1 peer will be asked for pieces next."],
        "pieces from a peer",
    ),
    (
        "disk that does not keep up",
        scene(
            connections=ConnectionSurvey(num_open=1, num_useful=1),
            storage=StorageSurvey(is_slow=True, is_congested=True, num_queued=64 << 20),
        ),
        [
            ("The disk does not keep up: 64.0 MiB wait to be written, and nothing is read from "
            "peers meanwhile."),
            "1 peer will be asked for pieces next.",
        ],
        "the disk",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("found", "sentences", "waits_for"),
    [pytest.param(*row[1:], id=row[0]) for row in SCENES],
)
def test_what_is_said(found: Diagnosis, sentences: list[str], waits_for: str) -> None:
    assert [str(reason) for reason in explain(found)] == sentences
    assert what_it_waits_for(found) == waits_for


def test_every_code_is_used() -> None:
    used = {reason.code for _, found, _, _ in SCENES for reason in explain(found)}
    assert used == set(ReasonCode)
