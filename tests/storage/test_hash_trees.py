"""Answers to hash requests, compared with the whole tree of each file (BEP 52; Limit: H10)."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import pytest

from bittern.codec.info import Version
from bittern.codec.merkle import HashTree, block_hashes, height_of, num_blocks, root_of
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.codec.wire import HashRange
from bittern.storage import hash_trees
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.hash_trees import HashTrees, read_piece_hash, read_piece_tree
from bittern.storage.hashing import PieceHashes
from bittern.storage.layout import Layout
from bittern.storage.memory import MemoryStorage

BLOCK = 16_384
PIECE = 4 * BLOCK
FILES = {
    "a long one": 11 * PIECE + 3 * BLOCK + 5,
    "a short last piece": 4 * PIECE + 1,
    "empty": 0,
    "less than a block": 77,
    "less than a piece": 3 * BLOCK,
    "one piece": PIECE,
}


class Torrent:
    def __init__(self, folder: Path, version: Version, piece_length: int = PIECE) -> None:
        rng = random.Random(7)
        root = folder / "content"
        root.mkdir(parents=True)
        self.data = {name: rng.randbytes(length) for name, length in FILES.items()}
        for name, data in self.data.items():
            (root / name).write_bytes(data)
        options = CreateOptions(version=version, piece_length=piece_length)
        raw = create_torrent(root, options=options, num_threads=1)
        self.metainfo: Metainfo = decode_metainfo(raw)
        info = self.metainfo.info
        self.hashes = PieceHashes(info, self.metainfo.piece_layers)
        self.trees = HashTrees(self.hashes)
        self.storage = MemoryStorage(Layout(info.files, info.geometry))
        self.storage.prepare(None)
        for entry in info.files:
            if not entry.is_pad and entry.length:
                self.storage.write(entry.offset, [self.data[entry.path[-1]]])

    @functools.cached_property
    def all_pieces(self) -> dict[int, HashTree | None]:
        num_pieces = self.metainfo.info.geometry.num_pieces
        return {i: read_piece_tree(self.storage, self.hashes, i) for i in range(num_pieces)}

    def pieces(self, wanted: range) -> dict[int, HashTree]:
        return {index: tree for index in wanted if (tree := self.all_pieces[index])}


@pytest.fixture(params=[Version.V2, Version.HYBRID], ids=["v2", "hybrid"])
def torrent(request: pytest.FixtureRequest, tmp_path: Path) -> Torrent:
    return Torrent(tmp_path, request.param)


def test_every_request_of_a_grid_is_answered_rightly_or_refused(torrent: Torrent) -> None:
    """Limit: H10: base x index x count x proof, each against the tree of all blocks."""
    num_answered = num_refused = 0
    for entry in torrent.metainfo.info.files:
        if entry.pieces_root is None:
            continue
        tree = HashTree(block_hashes(torrent.data[entry.path[-1]]))
        height = height_of(num_blocks(entry.length))
        for base in range(height + 2):
            for length in (0, 1, 2, 3, 4, 8, 16, 32, 64, 1024):
                for index in range(0, 66, max(1, length)):
                    for proof_layers in range(height + 2):
                        wanted = HashRange(entry.pieces_root, base, index, length, proof_layers)
                        needed = torrent.trees.needed(wanted)
                        if needed is None:
                            num_refused += 1
                            continue
                        num_answered += 1
                        found = torrent.trees.answer(wanted, torrent.pieces(needed))
                        assert found == tree.proof(base, index, length, proof_layers), wanted
    assert num_answered > 150
    assert num_refused > 5 * num_answered


def test_what_is_refused(torrent: Torrent) -> None:
    root = next(e.pieces_root for e in torrent.metainfo.info.files if "long" in e.path[-1])
    assert root is not None
    good = HashRange(root, 2, 0, 16, 3)
    assert torrent.trees.needed(good) == range(0)
    for bad in (
        HashRange(bytes(32), 2, 0, 16, 3),
        HashRange(root, 2, 0, 16, 4),
        HashRange(root, 2, 0, 12, 3),
        HashRange(root, 2, 8, 16, 3),
        HashRange(root, 2, 16, 16, 3),
        HashRange(root, 2, 0, 0, 3),
        HashRange(root, 7, 0, 2, 0),
        HashRange(root, 2**32 - 1, 0, 2, 0),
        HashRange(root, 0, 2**32 - 2, 2, 0),
        HashRange(root, 0, 0, 2**32 - 1, 0),
        HashRange(root, 0, 0, 2**31, 2**32 - 1),
        # Blocks of a piece that lies wholly behind the end of the file.
        HashRange(root, 0, 48, 4, 1),
    ):
        assert torrent.trees.needed(bad) is None, bad


def test_a_single_hash_at_the_end_of_a_layer(torrent: Torrent) -> None:
    """Interop: libtorrent asks so for the last of 512n + 1 pieces."""
    entry = next(e for e in torrent.metainfo.info.files if "short last" in e.path[-1])
    assert entry.pieces_root is not None
    wanted = HashRange(entry.pieces_root, 2, 4, 1, 2)
    assert torrent.trees.needed(wanted) == range(0)
    layer = torrent.metainfo.piece_layers[entry.pieces_root]
    assert torrent.trees.answer(wanted, {})[:32] == layer[-32:]


def test_a_request_reads_so_much_and_no_more(
    torrent: Torrent, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = next(e.pieces_root for e in torrent.metainfo.info.files if "long" in e.path[-1])
    assert root is not None
    monkeypatch.setattr(hash_trees, "MAX_READ_LENGTH", 2 * PIECE)
    assert len(torrent.trees.needed(HashRange(root, 0, 0, 8, 0)) or ()) == 2
    assert torrent.trees.needed(HashRange(root, 0, 0, 16, 0)) is None
    # One piece is read however long it is: nothing less proves its blocks.
    monkeypatch.setattr(hash_trees, "MAX_READ_LENGTH", PIECE // 2)
    assert torrent.trees.needed(HashRange(root, 0, 4, 4, 0)) is not None
    assert torrent.trees.needed(HashRange(root, 0, 0, 8, 0)) is None


def test_without_the_layer_there_is_no_answer(torrent: Torrent) -> None:
    info = torrent.metainfo.info
    trees = HashTrees(PieceHashes(info, {}))
    for entry in info.files:
        if entry.pieces_root is not None and entry.length > BLOCK:
            needed = trees.needed(HashRange(entry.pieces_root, 0, 0, 2, 0))
            assert (needed is None) is (entry.length > PIECE)


def test_a_bad_piece_has_no_hashes(torrent: Torrent) -> None:
    entry = next(e for e in torrent.metainfo.info.files if "long" in e.path[-1])
    index = entry.offset // PIECE
    assert read_piece_tree(torrent.storage, torrent.hashes, index) is not None
    torrent.storage.write(entry.offset + 5, [b"bad"])
    assert read_piece_tree(torrent.storage, torrent.hashes, index) is None
    read = torrent.data["a long one"][:5] + b"bad" + torrent.data["a long one"][8:PIECE]
    assert read_piece_hash(torrent.storage, torrent.hashes, index) == root_of(block_hashes(read))


def test_a_long_piece_is_read_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_trees, "READ_LENGTH", BLOCK + 100)
    torrent = Torrent(tmp_path, Version.HYBRID)
    for index in range(3):
        begin = index * PIECE
        expected = block_hashes(torrent.data["a long one"][begin : begin + PIECE])
        tree = read_piece_tree(torrent.storage, torrent.hashes, index)
        assert tree is not None
        assert tree.nodes(0, 0, 4) == expected


def test_trees_are_kept_and_large_ones_are_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torrent = Torrent(tmp_path, Version.V2, BLOCK)
    requests = [
        HashRange(entry.pieces_root, 0, 0, 2, 0)
        for entry in torrent.metainfo.info.files
        if entry.pieces_root is not None and entry.length > 2 * BLOCK
    ]
    assert not any(map(torrent.trees.is_slow, requests))
    monkeypatch.setattr(hash_trees, "MAX_TREES", 2)
    for wanted in requests:
        torrent.trees.answer(wanted, {})
    monkeypatch.setattr(hash_trees, "LARGE_LAYER", 1)
    assert [torrent.trees.is_slow(wanted) for wanted in requests[-2:]] == [False, False]
    assert all(map(torrent.trees.is_slow, requests[:-2]))
    torrent.trees.answer(requests[0], {})
    assert all(map(torrent.trees.is_slow, requests[1:]))
    assert not torrent.trees.is_slow(HashRange(bytes(32), 0, 0, 2, 0))
