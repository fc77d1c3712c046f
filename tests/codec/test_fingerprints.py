"""codec.fingerprints: what names the content of a file in whatever torrent."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace

import pytest

from bittern.codec.bencode import encode
from bittern.codec.fingerprints import fingerprints
from bittern.codec.info import Info, decode_info
from tests.codec.zoo.torrents import BASES, ROOT_A, ROOT_B

PIECE_LENGTH = 16_384


def pieces_of(data: bytes, piece_length: int = PIECE_LENGTH) -> bytes:
    return b"".join(
        hashlib.sha1(data[at : at + piece_length]).digest()
        for at in range(0, len(data), piece_length)
    )


def v1(*files: bytes, name: bytes = b"n", piece_length: int = PIECE_LENGTH, pads: str = "") -> Info:
    """Make a torrent of files, or of one; ``pads`` marks those that are padding with a p."""
    fields: dict[bytes, object] = {
        b"name": name,
        b"piece length": piece_length,
        b"pieces": pieces_of(b"".join(files), piece_length),
    }
    if len(files) == 1:
        fields[b"length"] = len(files[0])
    else:
        fields[b"files"] = [
            {b"length": len(data), b"path": [b"%d" % number]}
            | ({b"attr": b"p"} if pads[number : number + 1] == "p" else {})
            for number, data in enumerate(files)
        ]
    return decode_info(encode(fields))  # type: ignore[arg-type]


RNG = random.Random(7)
DATA = RNG.randbytes(3 * PIECE_LENGTH + 100)
PAD = bytes(PIECE_LENGTH - 100)
OTHER = RNG.randbytes(2 * PIECE_LENGTH)


@pytest.mark.parametrize(
    ("info", "index"),
    [
        (v1(DATA, name=b"called otherwise"), 0),
        (v1(OTHER, DATA), 1),
        (v1(DATA, OTHER), 0),
        (v1(DATA, PAD, OTHER, pads=" p "), 0),
        (v1(DATA, PAD, DATA, pads=" p "), 2),
    ],
)
def test_a_file_is_known_wherever_it_begins_with_a_piece(info: Info, index: int) -> None:
    [ours] = fingerprints(v1(DATA), 0)
    assert len(ours) == 32
    assert fingerprints(info, index) == (ours,)


def test_a_file_within_pieces_is_known_where_it_is_cut_alike() -> None:
    [ours] = fingerprints(v1(b"x" * 100, DATA), 1)
    assert fingerprints(v1(OTHER, b"y" * 100, DATA, OTHER), 2) == (ours,)
    assert fingerprints(v1(b"x" * 101, DATA), 1) != (ours,)
    assert fingerprints(v1(DATA), 0) != (ours,)


@pytest.mark.parametrize(
    ("info", "index"),
    [
        (v1(DATA, piece_length=2 * PIECE_LENGTH), 0),
        (v1(DATA[:-1]), 0),
        (v1(DATA[:PIECE_LENGTH] + b"!" + DATA[PIECE_LENGTH + 1 :]), 0),
    ],
)
def test_another_cut_length_or_content_is_another_file(info: Info, index: int) -> None:
    assert fingerprints(info, index) != fingerprints(v1(DATA), 0)


@pytest.mark.parametrize(
    ("info", "index"),
    [
        (v1(DATA[: PIECE_LENGTH - 1]), 0),
        (v1(b"x", DATA[: 2 * PIECE_LENGTH - 2]), 1),
        (v1(b"", DATA), 0),
        (v1(DATA, bytes(4 * PIECE_LENGTH), OTHER, pads=" p "), 1),
    ],
)
def test_what_has_no_whole_piece_of_its_own_has_none(info: Info, index: int) -> None:
    assert fingerprints(info, index) == ()


@pytest.mark.parametrize(("base", "num_v1"), [("v1", 1), ("v2", 0), ("hy", 1)])
def test_each_half_of_a_torrent_that_can_name_its_files_does(base: str, num_v1: int) -> None:
    """Files of v2 alone have nothing to hash of v1: all of a length would be the same."""
    info = decode_info(encode(BASES[base][b"info"]))
    files = [index for index, entry in enumerate(info.files) if not entry.is_pad]
    long, short, empty = (fingerprints(info, index) for index in files)
    num_roots = 0 if base == "v1" else 1
    assert long[:num_roots] == (ROOT_A,) * num_roots
    assert len(long) == num_roots + num_v1
    assert short == (ROOT_B,) * num_roots, "no whole piece is its own"
    assert empty == ()


def test_a_link_has_none() -> None:
    info = v1(DATA, OTHER)
    link = replace(info.files[0], symlink_target=("1",))
    assert fingerprints(replace(info, files=(link, info.files[1])), 0) == ()
