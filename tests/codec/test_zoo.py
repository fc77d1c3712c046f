"""
The zoo before libtorrent: the same verdict, or the reason is told; then mutants of good torrents.

That each torrent of the zoo gets our verdict is tested beside the module that gives it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bittern.codec.metainfo import decode_metainfo
from bittern.core.errors import MetainfoError
from tests.codec.fuzzing import Mutate, fuzz, mutate, mutate_tree, new_random, num_runs
from tests.codec.zoo.cases import ZOO
from tests.codec.zoo.torrents import BASES, encoded
from tests.reference import lt

MAX_ERROR_LENGTH = 200

SEEDS = [encoded(torrent) for torrent in BASES.values()]


def _ours(data: bytes) -> str | None:
    try:
        decode_metainfo(data)
    except MetainfoError as error:
        return str(error)
    return None


def _theirs(data: bytes) -> str | None:
    """libtorrent's refusal, None when it accepts."""
    try:
        return None if lt.load_torrent_buffer(data).ti is not None else "a link, no torrent"
    except RuntimeError as error:
        return str(error)


def test_a_refusal_is_one_short_printable_line() -> None:
    for case in ZOO:
        refusal = _ours(case.data) or "fine"
        assert refusal.isprintable(), case.name
        assert refusal.isascii(), case.name
        assert len(refusal) <= MAX_ERROR_LENGTH, case.name


def test_theirs_is_the_same_or_the_reason_is_told() -> None:
    for case in ZOO:
        differs = (case.refusal is None) != (_theirs(case.data) is None)
        assert differs is (case.why is not None), case.name


def test_every_reason_is_explained_in_the_design_notes() -> None:
    text = (Path(__file__).parents[2] / "docs/design/metainfo.md").read_text()
    reasons = {case.why for case in ZOO if case.why is not None}
    assert len(reasons) > 15
    table = text.partition("## Where libtorrent decides otherwise")[2].partition(
        "## What we create"
    )[0]
    told = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")}
    assert told - {"reason"} == reasons


def test_the_zoo_is_large() -> None:
    assert sum(case.refusal is not None for case in ZOO) >= 300


# What a mutant may be refused for by us alone; each stands in the zoo with its reason.
OUR_REFUSALS = re.compile(
    r"bytes after the end|duplicate key|malformed (integer|string length)|more than 64 bits"
    r"|too many digits|'meta version'|'piece layers' is|piece layers \w+: (missing|\d+ bytes)"
    r"|an empty file has a|'pieces root' is no string|hash of a piece is all zeros"
    r"|'pieces' without|'pieces' is|differs from the file tree"
    r"|but the file tree has|both 'files' and 'length'|'files' is (no list|empty)"
    r"|keys are not sorted|a symlink has a length|in the file tree|not in 'files'|'name' is missing"
)
# And what by them alone.
THEIR_REFUSALS = re.compile(
    r"libtorrent:(6|7|8|9)\]|bdecode:5\]|libtorrent:15\]"  # names, lengths, depth, soft errors
)


@pytest.mark.fuzz
def test_mutants_have_the_same_fate_or_a_known_reason() -> None:
    rng = new_random()
    num_same = 0
    runs = num_runs(1500)
    for _ in range(runs):
        data = rng.choice((mutate, mutate_tree))(rng.choice(SEEDS), rng)
        ours, theirs = _ours(data), _theirs(data)
        if (ours is None) == (theirs is None):
            num_same += 1
        elif ours is not None:
            assert OUR_REFUSALS.search(ours), (ours, data)
        else:
            assert theirs is not None
            assert THEIR_REFUSALS.search(theirs), (theirs, data)
    assert num_same > 0.9 * runs


@pytest.mark.fuzz
def test_mutants_that_both_accept_have_the_same_hashes() -> None:
    rng = new_random()
    num_compared = 0
    for _ in range(num_runs(1000)):
        data = rng.choice((mutate, mutate_tree))(rng.choice(SEEDS), rng)
        if _ours(data) is not None or _theirs(data) is not None:
            continue
        info = decode_metainfo(data).info
        torrent = lt.load_torrent_buffer(data).ti
        assert torrent is not None
        theirs = torrent.info_hashes()
        assert theirs.has_v1() == info.has_v1
        assert theirs.has_v2() == info.has_v2
        if info.info_hash is not None:
            assert str(theirs.v1) == str(info.info_hash)
        if info.info_hash_v2 is not None:
            assert str(theirs.v2) == str(info.info_hash_v2)
        assert torrent.piece_length() == info.piece_length
        assert torrent.num_pieces() == info.geometry.num_pieces
        layout = torrent.layout()
        assert [
            (layout.file_size(index), layout.file_offset(index))
            for index in range(layout.num_files())
            if layout.file_size(index)
            and not layout.file_flags(index) & lt.file_storage.flag_pad_file
        ] == [
            (entry.length, entry.offset)
            for entry in info.files
            if entry.length and not entry.is_pad
        ], data
        num_compared += 1
    assert num_compared > 30


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", [mutate, mutate_tree])
def test_only_the_documented_error_escapes(kind: Mutate) -> None:
    assert fuzz(decode_metainfo, SEEDS, MetainfoError, mutate=kind) > 10
