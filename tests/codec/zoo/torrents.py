"""Good torrents of each kind as plain values, and ways to make bad ones of them."""

from __future__ import annotations

import copy
import hashlib
import random
from typing import Any, Final

from bittern.codec.bencode import encode
from bittern.codec.merkle import block_hashes, piece_layer_of, root_of

BLOCK: Final = 16_384
Tree = dict[bytes, Any]

GONE: Final = object()
"""Stands for a key that is to be taken out."""

_A = random.Random(1).randbytes(40_000)
_B = random.Random(2).randbytes(100)
ROOT_A: Final = root_of(block_hashes(_A))
ROOT_B: Final = root_of(block_hashes(_B))
LAYER_A: Final = piece_layer_of(block_hashes(_A), BLOCK)
ZERO_INSIDE: Final = LAYER_A[:32] + bytes(32) + LAYER_A[64:]
ZERO_INSIDE_ROOT: Final = root_of(ZERO_INSIDE)
ZERO_LAST: Final = LAYER_A[:64] + bytes(32)
ZERO_LAST_ROOT: Final = root_of(ZERO_LAST)


def _sha1s(space: bytes) -> bytes:
    return b"".join(
        hashlib.sha1(space[at : at + BLOCK]).digest() for at in range(0, len(space), BLOCK)
    )


def _pad(length: int) -> Tree:
    return {b"attr": b"p", b"length": length, b"path": [b".pad", b"%d" % length]}


def _file(length: int, *path: bytes) -> Tree:
    return {b"length": length, b"path": list(path)}


def _leaf(length: int, root: bytes | None = None) -> Tree:
    leaf: Tree = {b"length": length}
    if root is not None:
        leaf[b"pieces root"] = root
    return {b"": leaf}


def _torrent(info: Tree, **others: object) -> Tree:
    return {
        b"announce": b"http://tracker.example/announce",
        b"info": {b"name": b"n", b"piece length": BLOCK} | info,
    } | {key.replace("_", " ").encode(): value for key, value in others.items()}


_V1_LIST = {
    b"files": [_file(40_000, b"a"), _file(100, b"d", b"b"), _file(0, b"z")],
    b"pieces": _sha1s(_A + _B),
}
_TREE = {
    b"file tree": {
        b"a": _leaf(40_000, ROOT_A),
        b"d": {b"b": _leaf(100, ROOT_B)},
        b"z": _leaf(0),
    },
    b"meta version": 2,
}
_HYBRID_LIST = {
    b"files": [
        _file(40_000, b"a"),
        _pad(9152),
        _file(100, b"d", b"b"),
        _pad(16_284),
        _file(0, b"z"),
    ],
    b"pieces": _sha1s(_A + bytes(9152) + _B + bytes(16_284)),
}
_V1_SINGLE = {b"length": 40_000, b"pieces": _sha1s(_A)}
_TREE_SINGLE = {b"file tree": {b"n": _leaf(40_000, ROOT_A)}, b"meta version": 2}

BASES: Final[dict[str, Tree]] = {
    "v1": _torrent(_V1_LIST),
    "v1s": _torrent(_V1_SINGLE),
    "v2": _torrent(_TREE, piece_layers={ROOT_A: LAYER_A}),
    "v2s": _torrent(_TREE_SINGLE, piece_layers={ROOT_A: LAYER_A}),
    "hy": _torrent(_TREE | _HYBRID_LIST, piece_layers={ROOT_A: LAYER_A}),
    "hys": _torrent(_TREE_SINGLE | _V1_SINGLE, piece_layers={ROOT_A: LAYER_A}),
}
"""By kind: a multi-file and a single-file torrent of each version, all of them good."""


def changed(base: str, changes: dict[str, object]) -> Tree:
    """
    Return a good torrent with some values replaced.

    Args:
        base: which of ``BASES``.
        changes: new values, or ``GONE``, by place. A place is keys and indices between
            slashes; ``~`` is the empty key, ``+`` appends to a list.
    """
    torrent = copy.deepcopy(BASES[base])
    for place, value in changes.items():
        node: Any = torrent
        *above, last = place.split("/")
        for step in above:
            node = node[_key(node, step)]
        key = _key(node, last)
        if value is GONE:
            del node[key]
        elif last == "+":
            node.append(value)
        else:
            node[key] = value
    return torrent


def _key(node: object, step: str) -> bytes | int:
    if isinstance(node, list):
        return -1 if step == "+" else int(step)
    return b"" if step == "~" else step.encode("latin-1")


def encoded(torrent: Tree) -> bytes:
    """Return the bytes of the .torrent file."""
    return encode(torrent)
