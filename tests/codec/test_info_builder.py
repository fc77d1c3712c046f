"""Making info dictionaries: places and pads by table, and reading back what was made."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.bencode import decode
from bittern.codec.file_list import FileEntry, text_from, text_to
from bittern.codec.info import Version, decode_info
from bittern.codec.info_builder import arrange_files, encode_info
from bittern.codec.merkle import block_hashes, root_of

BLOCK = 16_384
Place = tuple[str, int, int]


def _places(lengths: list[int], version: Version, piece_length: int = BLOCK) -> list[Place]:
    """Path, offset and length of each file, the files being a, b, c..."""
    files = [FileEntry((chr(97 + n),), length, -1) for n, length in enumerate(lengths)]
    return [
        ("/".join(entry.path), entry.offset, entry.length)
        for entry in arrange_files(files, version=version, piece_length=piece_length)
    ]


ARRANGED: list[tuple[Version, list[int], list[Place]]] = [
    (Version.V1, [10, 0, 20_000], [("a", 0, 10), ("b", 10, 0), ("c", 10, 20_000)]),
    (Version.V2, [10, 0, 20_000], [("a", 0, 10), ("b", BLOCK, 0), ("c", BLOCK, 20_000)]),
    (Version.V2, [0, BLOCK, 5], [("a", 0, 0), ("b", 0, BLOCK), ("c", BLOCK, 5)]),
    (
        Version.HYBRID,
        [10, 0, 20_000],
        [
            ("a", 0, 10),
            (".pad/16374", 10, 16_374),
            ("b", BLOCK, 0),
            ("c", BLOCK, 20_000),
            (".pad/12768", 36_384, 12_768),
        ],
    ),
    (
        Version.HYBRID,
        [10, 10, BLOCK + 10],
        [
            ("a", 0, 10),
            (".pad/16374", 10, 16_374),
            ("b", BLOCK, 10),
            (".pad/16374-2", BLOCK + 10, 16_374),
            ("c", 2 * BLOCK, BLOCK + 10),
            (".pad/16374-3", 3 * BLOCK + 10, 16_374),
        ],
    ),
    (Version.HYBRID, [10], [("a", 0, 10)]),
    (Version.HYBRID, [BLOCK, 2 * BLOCK], [("a", 0, BLOCK), ("b", BLOCK, 2 * BLOCK)]),
    (Version.HYBRID, [0, 10], [("a", 0, 0), ("b", 0, 10), (".pad/16374", 10, 16_374)]),
]


@pytest.mark.parametrize(("version", "lengths", "places"), ARRANGED)
def test_places_and_pads(version: Version, lengths: list[int], places: list[Place]) -> None:
    assert _places(lengths, version) == places


def test_info_of_each_version() -> None:
    root = bytes(range(32))
    entry = FileEntry(("d", "f"), 5, 0, is_executable=True, is_hidden=True, pieces_root=root)
    link = FileEntry(("d", "l"), 0, 0, symlink_target=("d", "f"))
    attributes = {b"attr": b"hx", b"length": 5}
    linked = {b"attr": b"l", b"symlink path": [b"d", b"f"]}
    v1 = {
        b"files": [
            attributes | {b"path": [b"d", b"f"]},
            linked | {b"length": 0, b"path": [b"d", b"l"]},
        ],
        b"pieces": b"p" * 20,
    }
    v2 = {
        b"file tree": {
            b"d": {b"f": {b"": attributes | {b"pieces root": root}}, b"l": {b"": linked}}
        },
        b"meta version": 2,
    }
    common = {b"name": b"n", b"piece length": BLOCK, b"private": 1, b"source": b"S"}
    expected = {Version.V1: common | v1, Version.V2: common | v2, Version.HYBRID: common | v1 | v2}
    for version in Version:
        raw = encode_info(
            [entry, link],
            name="n",
            version=version,
            piece_length=BLOCK,
            pieces=b"p" * 20,
            is_private=True,
            source="S",
        )
        assert decode(raw, require_sorted=True) == expected[version]


def test_a_single_file_has_no_list() -> None:
    raw = encode_info(
        [FileEntry(("n",), 5, 0, is_executable=True)],
        name="n",
        version=Version.V1,
        piece_length=7,
        is_single_file=True,
        pieces=b"p" * 20,
    )
    assert raw == b"d4:attr1:x6:lengthi5e4:name1:n12:piece lengthi7e6:pieces20:" + b"p" * 20 + b"e"


names = st.binary(min_size=1, max_size=6).filter(lambda name: name != b".pad").map(text_from)


@st.composite
def trees(draw: st.DrawFn) -> list[FileEntry]:
    """Files of short random contents below random paths, in the order of a file tree."""
    paths = draw(st.lists(st.lists(names, min_size=1, max_size=3).map(tuple), min_size=1))
    kept: list[tuple[str, ...]] = []
    for path in sorted(set(paths), key=lambda path: [text_to(element) for element in path]):
        if not any(path[: len(other)] == other for other in kept):
            kept.append(path)
    files = []
    for path in kept:
        length = draw(st.sampled_from([0, 1, 100, BLOCK]))
        root = root_of(block_hashes(b"x" * length)) if length else None
        is_executable = draw(st.booleans())
        files.append(FileEntry(path, length, 0, is_executable=is_executable, pieces_root=root))
    return files


@given(trees(), st.sampled_from(Version))
def test_what_is_made_is_read_back(files: list[FileEntry], version: Version) -> None:
    if version is Version.V1:
        files = [
            FileEntry(entry.path, entry.length, 0, is_executable=entry.is_executable)
            for entry in files
        ]
    entries = arrange_files(files, version=version, piece_length=BLOCK)
    end = entries[-1].offset + entries[-1].length
    raw = encode_info(
        entries,
        name="name",
        version=version,
        piece_length=BLOCK,
        pieces=bytes(20 * -(-end // BLOCK)),
    )
    info = decode_info(raw)
    assert info.files == entries
    assert info.version is version
    assert info.raw == raw
    expected = hashlib.sha256(raw) if version is Version.V2 else hashlib.sha1(raw)
    assert info.wire_hash == expected.digest()[:20]
