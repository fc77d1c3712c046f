"""
The zoo: good torrents with something changed, our verdict, and why libtorrent's is another.

A case has a refusal, which is a part of our error (None when we accept), and the reason why
libtorrent 2.1.1 (``load_torrent_buffer``) decides otherwise (None where it decides the same).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from bittern.codec.metainfo import decode_metainfo
from bittern.core.errors import MetainfoError
from tests.codec.zoo.torrents import (
    BASES,
    BLOCK,
    GONE,
    LAYER_A,
    ROOT_A,
    ROOT_B,
    ZERO_INSIDE,
    ZERO_INSIDE_ROOT,
    ZERO_LAST,
    ZERO_LAST_ROOT,
    changed,
    encoded,
)

# Why they decide otherwise.
BOTH: Final = "BEP 3 forbids both; they prefer the list"
FALLBACK: Final = "we fall back on the plain path"
NO_BYTES: Final = "BEP 3 allows a torrent of empty files; they find nothing to do in it"
NAMES: Final = "names are made safe later; they find nothing left of this one"
LONGEST: Final = "our limit is 512 MiB, theirs 16 KiB less"
META_VERSION: Final = "BEP 52 knows 2 only; they take less for v1, and cut to 32 bits"
EMPTY_ROOT: Final = "BEP 52: a root is for non-empty files; they do not look"
LONE_PIECES: Final = "SHA-1s of what is not listed; they ignore them"
NO_PIECES: Final = "a v1 half without hashes cannot be checked; they keep its info hash"
NO_LAYERS: Final = "BEP 52: not valid without piece layers; they ask peers for them"
SAME_ROOT: Final = "one root cannot stand for two lengths; they check one file only"
EMPTY_FILES: Final = "empty files are made on disk, by one name only; they compare the others"
DUPLICATE: Final = "nobody can tell which value counts; they take the first, save in a v2 info"
TRAILING: Final = "what follows the end is a sign of damage; they stop reading there"
SPELLING: Final = "BEP 3 has one spelling for a number; they mind it in a v2 info only"
ZERO_NODE: Final = "no data has this hash; they look at roots only"
EMPTY_LINKS: Final = (
    "what a link leads to is part of the content; they compare files of some length"
)
LINK_LENGTH: Final = "BEP 47: a link has no content; they mind it in a v1 list only"
NAMED_PAD: Final = (
    "BitComet's name for pads says nothing of a file that the tree has; they take it for one"
)
DEEP: Final = "100 containers, where they count the value inside too"


class Case(NamedTuple):
    """One torrent of the zoo."""

    name: str
    data: bytes
    refusal: str | None
    why: str | None

    def check(self) -> None:
        """Assert that our verdict is the one expected."""
        try:
            decode_metainfo(self.data)
        except MetainfoError as error:
            assert self.refusal is not None, f"{self.name}: {error}"  # noqa: PT017
            assert self.refusal in str(error), self.name  # noqa: PT017
        else:
            assert self.refusal is None, self.name


Row = tuple[Any, ...]
"""Which base, the changes, the refusal, and perhaps why they decide otherwise."""

_LONG = b"x" * 300

_V1_FILES: list[Row] = [
    ("v1", {"info/files": GONE}, "'length' is missing"),
    ("v1", {"info/files": []}, "'files' is empty"),
    ("v1", {"info/files": {}}, "'files' is no list"),
    ("v1", {"info/files": 1}, "'files' is no list"),
    ("v1", {"info/files": b"a"}, "'files' is no list"),
    ("v1", {"info/files/0": 1}, "files[0]: no dictionary"),
    ("v1", {"info/files/1": []}, "files[1]: no dictionary"),
    ("v1", {"info/files/0": {}}, "files[0]: 'length' is missing"),
    ("v1", {"info/files/0/length": GONE}, "files[0]: 'length' is missing"),
    ("v1", {"info/files/1/length": -1}, "files[1]: 'length' is negative"),
    ("v1", {"info/files/0/length": -(1 << 63)}, "files[0]: 'length' is negative"),
    ("v1", {"info/files/0/length": b"5"}, "files[0]: 'length' is no integer"),
    ("v1", {"info/files/0/length": [5]}, "files[0]: 'length' is no integer"),
    ("v1", {"info/files/0/length": 1 << 48}, "files[0]: 'length' is above 2^48 - 1"),
    ("v1", {"info/files/0/length": (1 << 63) - 1}, "files[0]: 'length' is above 2^48 - 1"),
    ("v1", {"info/files/0/length": (1 << 48) - 1}, "files[1]: the files are longer than 2^48 - 1"),
    ("v1", {"info/files/0/length": 40_001}, None),
    ("v1", {"info/files/0/length": 60_000}, "'pieces' has 60 bytes, not 20 for each of 4"),
    ("v1", {"info/files/0/path": GONE}, "files[0]: 'path' is missing"),
    ("v1", {"info/files/0/path": []}, "files[0]: 'path' is empty"),
    ("v1", {"info/files/0/path": b"a"}, "files[0]: 'path' is no list of strings"),
    ("v1", {"info/files/0/path": {}}, "files[0]: 'path' is no list of strings"),
    ("v1", {"info/files/0/path": [1]}, "files[0]: 'path' is no list of strings"),
    ("v1", {"info/files/0/path": [b"a", []]}, "files[0]: 'path' is no list of strings"),
    ("v1", {"info/files/0/path": [b"a"] * 100}, None),
    ("v1", {"info/files/0/path": [b"a"] * 101}, "files[0]: path has more than 100 elements"),
    ("v1", {"info/files/0/path": [b".."]}, None),
    ("v1", {"info/files/0/path": [b""]}, None),
    ("v1", {"info/files/0/path": [b"", b""]}, None),
    ("v1", {"info/files/0/path": [b"..", b"..", b"etc", b"passwd"]}, None),
    ("v1", {"info/files/0/path": [b"/etc/passwd"]}, None),
    ("v1", {"info/files/0/path": [b"C:\\Windows"]}, None),
    ("v1", {"info/files/0/path": [b"a\x00b"]}, None),
    ("v1", {"info/files/0/path": [b"\xff\xfe"]}, None),
    ("v1", {"info/files/0/path": [b"\xc0\xae\xc0\xae"]}, None),
    ("v1", {"info/files/0/path": [b"\xed\xa0\x80"]}, None),
    ("v1", {"info/files/0/path": ["\u202egpj.exe".encode()]}, None),
    ("v1", {"info/files/0/path": [b"CON"]}, None),
    ("v1", {"info/files/0/path": [b"\x1b[2J"]}, None),
    ("v1", {"info/files/0/path": [_LONG]}, None),
    ("v1", {"info/files/1/path": [b"a"]}, None),
    ("v1", {"info/files/1/path": [b"A"]}, None),
    ("v1", {"info/files/1/path": [b"a", b"a"]}, None),
    ("v1", {"info/files/0/path.utf-8": [b"\xff"]}, None),
    ("v1", {"info/files/0/path.utf-8": 1}, None),
    ("v1", {"info/files/0/path.utf-8": []}, None, FALLBACK),
    ("v1", {"info/files/0/path.utf-8": ["é".encode()], "info/files/0/path": [b"\xe9"]}, None),
    ("v1", {"info/files/0/path.utf-8": [b"a"], "info/files/0/path": GONE}, None),
    ("v1", {"info/files/0/attr": b"x"}, None),
    ("v1", {"info/files/0/attr": b"hx?!"}, None),
    ("v1", {"info/files/0/attr": 5}, None),
    ("v1", {"info/files/0/attr": b"l"}, "files[0]: a symlink has a length"),
    ("v1", {"info/files/2/attr": b"l"}, None),
    ("v1", {"info/files/2/attr": b"l", "info/files/2/length": GONE}, None),
    ("v1", {"info/files/2/attr": b"l", "info/files/2/symlink path": [b"a"]}, None),
    ("v1", {"info/files/2/attr": b"l", "info/files/2/symlink path": [b"..", b"x"]}, None),
    ("v1", {"info/files/2/attr": b"l", "info/files/2/symlink path": [b"/etc"]}, None),
    ("v1", {"info/files/2/attr": b"l", "info/files/2/symlink path": 1}, None),
    (
        "v1",
        {"info/files/2/attr": b"l", "info/files/2/symlink path": [1]},
        "files[2]: 'symlink path' is no list of strings",
    ),
    (
        "v1",
        {"info/files/2/attr": b"l", "info/files/2/symlink path": [b"a"] * 101},
        "files[2]: path has more than 100 elements",
    ),
    ("v1", {"info/files/1/attr": b"p"}, None),
    ("v1", {"info/files/1/attr": b"p", "info/files/1/path": GONE}, None),
    ("v1", {"info/files/1/attr": b"p", "info/files/1/path": []}, None),
    ("v1", {"info/files/1/attr": b"p", "info/files/1/path": 1}, None),
    ("v1", {"info/files/1/path": [b"_____padding_file_0_____"]}, None),
    ("v1", {"info/files/0/attr": b"p", "info/files/1/attr": b"p", "info/files/2/attr": b"p"}, None),
    ("v1", {"info/files/0/sha1": b"x" * 20}, None),
    ("v1", {"info/files/0/sha1": b"short"}, None),
    ("v1", {"info/files/0/mtime": -5}, None),
    ("v1", {"info/files/0/mtime": b"x"}, None),
    (
        "v1",
        {"info/files/0/length": 0, "info/files/1/length": 0, "info/pieces": b""},
        None,
        NO_BYTES,
    ),
    ("v1", {"info/files/+": {b"length": 0, b"path": [b"zz"]}}, None),
]

_INFO: list[Row] = [
    ("v1", {}, None),
    ("v1s", {}, None),
    ("v2", {}, None),
    ("v2s", {}, None),
    ("hy", {}, None),
    ("hys", {}, None),
    ("v1", {"info": GONE}, "'info' is missing"),
    ("v1", {"info": []}, "info: no dictionary"),
    ("v1", {"info": b"x"}, "info: no dictionary"),
    ("v1", {"info": {}}, "'name' is missing"),
    ("v1", {"info/name": GONE}, "'name' is missing"),
    ("v1", {"info/name": 5}, "'name' is missing"),
    ("v1", {"info/name": [b"n"]}, "'name' is missing"),
    ("v1", {"info/name": b""}, None),
    ("v1s", {"info/name": b""}, None, NAMES),
    ("v2", {"info/name": b""}, None),
    ("v1", {"info/name": b".."}, None),
    ("v1s", {"info/name": b".."}, None, NAMES),
    ("v1s", {"info/name": b"../../etc/passwd"}, None),
    ("v1s", {"info/name": b"/"}, None, NAMES),
    ("v1s", {"info/name": b"a\x00"}, None),
    ("v1s", {"info/name": b"\xff"}, None),
    ("v1s", {"info/name": b"\xff", "info/name.utf-8": b"\xfe"}, None),
    ("v1s", {"info/name": b"n", "info/name.utf-8": "é".encode()}, None),
    ("v1s", {"info/name": GONE, "info/name.utf-8": b"n"}, None),
    ("v1s", {"info/name.utf-8": 1}, None),
    ("v1s", {"info/name": _LONG}, None),
    ("v1", {"info/piece length": GONE}, "'piece length' is missing"),
    ("v1", {"info/piece length": b"16384"}, "'piece length' is no integer"),
    ("v1", {"info/piece length": []}, "'piece length' is no integer"),
    ("v1", {"info/piece length": 0}, "'piece length' is 0"),
    ("v1", {"info/piece length": -BLOCK}, "'piece length' is -16384"),
    ("v1", {"info/piece length": -(1 << 63)}, "'piece length' is -9223372036854775808"),
    ("v1", {"info/piece length": (1 << 63) - 1}, "'piece length' is 9223372036854775807"),
    ("v1", {"info/piece length": (1 << 32) + BLOCK}, "'piece length' is 4294983680"),
    ("v1", {"info/piece length": (512 << 20) + 1}, "'piece length' is 536870913"),
    ("v1", {"info/piece length": 512 << 20, "info/pieces": b"x" * 20}, None, LONGEST),
    ("v1", {"info/piece length": 256 << 20, "info/pieces": b"x" * 20}, None),
    ("v1", {"info/piece length": 1, "info/pieces": b"x" * 20 * 40_100}, None),
    ("v1", {"info/piece length": 10_000, "info/pieces": b"x" * 100}, None),
    ("v1", {"info/pieces": GONE}, "'pieces' is missing"),
    ("v1", {"info/pieces": 5}, "'pieces' is no string"),
    ("v1", {"info/pieces": [b"x" * 20]}, "'pieces' is no string"),
    ("v1", {"info/pieces": b""}, "'pieces' has 0 bytes"),
    ("v1", {"info/pieces": b"x" * 19}, "'pieces' has 19 bytes"),
    ("v1", {"info/pieces": b"x" * 59}, "'pieces' has 59 bytes"),
    ("v1", {"info/pieces": b"x" * 61}, "'pieces' has 61 bytes"),
    ("v1", {"info/pieces": b"x" * 80}, "'pieces' has 80 bytes"),
    ("v1", {"info/pieces": bytes(60)}, None),
    ("v1s", {"info/length": 0, "info/pieces": b""}, None, NO_BYTES),
    ("v1s", {"info/length": -1}, "info: 'length' is negative"),
    ("v1s", {"info/length": b"1"}, "info: 'length' is no integer"),
    ("v1s", {"info/length": GONE}, "info: 'length' is missing"),
    ("v1s", {"info/length": 1 << 48}, "info: 'length' is above 2^48 - 1"),
    ("v1s", {"info/length": (1 << 48) - 1}, "17179869184 pieces, more than 2097152"),
    ("v1s", {"info/length": BLOCK * 2_097_152 + 1}, "2097153 pieces, more than 2097152"),
    (
        "v1s",
        {"info/length": BLOCK * 2_097_152},
        "'pieces' has 60 bytes, not 20 for each of 2097152",
    ),
    ("v1s", {"info/attr": b"l"}, "info: a symlink has a length"),
    ("v1s", {"info/attr": b"p"}, None),
    ("v1s", {"info/attr": b"x"}, None),
    ("v1", {"info/private": 1}, None),
    ("v1", {"info/private": 2}, None),
    ("v1", {"info/private": b"1"}, None),
    ("v1", {"info/source": 1}, None),
    ("v1", {"info/unknown": [{b"x": 1}]}, None),
    ("v2", {"info/pieces": b"x" * 20}, "'pieces' without 'files' or 'length'"),
    ("v1", {"info/length": 1}, "both 'files' and 'length'", BOTH),
    ("v1", {"info/meta version": 1}, "'meta version' is not 2", META_VERSION),
    ("v1", {"info/meta version": 0}, "'meta version' is not 2", META_VERSION),
    ("v1", {"info/meta version": -1}, "'meta version' is not 2", META_VERSION),
    ("v1", {"info/meta version": 3}, "'meta version' 3 is newer than we know"),
    ("v1", {"info/meta version": 1 << 62}, "is newer than we know", META_VERSION),
    ("v1", {"info/meta version": (1 << 32) + 2}, "is newer than we know"),
    ("v1", {"info/meta version": b"2"}, "'meta version' is not 2", META_VERSION),
    ("v1", {"info/meta version": 2}, "'file tree' is missing"),
    ("v1", {"info/file tree": {}}, "'file tree' without 'meta version'"),
]

_V2: list[Row] = [
    ("v2", {"info/meta version": GONE}, "'file tree' without 'meta version'"),
    ("v2", {"info/meta version": 3}, "newer than we know"),
    ("v2", {"info/meta version": 1}, "'meta version' is not 2"),
    ("v2", {"info/piece length": 8192}, "not a power of two"),
    ("v2", {"info/piece length": 20_000}, "not a power of two"),
    ("v2", {"info/piece length": 3 * BLOCK}, "not a power of two"),
    ("v2", {"info/piece length": 1 << 30}, "'piece length' is 1073741824"),
    ("v2", {"info/piece length": 512 << 20, "piece layers": {}}, None, LONGEST),
    ("v2", {"info/piece length": 2 * BLOCK}, "96 bytes for 2 pieces"),
    ("v2", {"info/file tree": GONE}, "'file tree' is missing"),
    ("v2", {"info/file tree": {}}, "file tree: no files"),
    ("v2", {"info/file tree": []}, "'file tree' is no dictionary"),
    ("v2", {"info/file tree": b""}, "'file tree' is no dictionary"),
    ("v2", {"info/file tree": {b"": {b"length": 0}}}, "the root is a file"),
    ("v2", {"info/file tree": {b"": {b"length": 5, b"pieces root": ROOT_B}}}, "the root is a file"),
    ("v2", {"info/file tree/e": {}}, None),
    ("v2", {"info/file tree/e": {b"f": {b"g": {}}}}, None),
    ("v2", {"info/file tree": {b"e": {}}, "piece layers": {}}, "file tree: no files"),
    ("v2", {"info/file tree/e": 1}, "file tree 'e': no dictionary"),
    ("v2", {"info/file tree/e": []}, "file tree 'e': no dictionary"),
    ("v2", {"info/file tree/e": b"x"}, "file tree 'e': no dictionary"),
    ("v2", {"info/file tree/a/~": 1}, "file tree 'a': no dictionary"),
    ("v2", {"info/file tree/a/~": []}, "file tree 'a': no dictionary"),
    ("v2", {"info/file tree/a/~": {}}, "file tree 'a': 'length' is missing"),
    ("v2", {"info/file tree/a/c": {}}, "file tree 'a': both a file and a folder"),
    ("v2", {"info/file tree/d/~": {b"length": 0}}, "file tree 'd': both a file and a folder"),
    ("v2", {"info/file tree/a/~/length": GONE}, "file tree 'a': 'length' is missing"),
    ("v2", {"info/file tree/a/~/length": -1}, "file tree 'a': 'length' is negative"),
    ("v2", {"info/file tree/a/~/length": b"1"}, "file tree 'a': 'length' is no integer"),
    ("v2", {"info/file tree/a/~/length": 1 << 48}, "'length' is above 2^48 - 1"),
    ("v2", {"info/file tree/a/~/length": (1 << 48) - 1}, "files are longer than 2^48 - 1"),
    ("v2", {"info/file tree/a/~/length": 1 << 40}, "pieces, more than 2097152"),
    ("v2", {"info/file tree/a/~/length": 0}, "an empty file has a 'pieces root'"),
    (
        "v2",
        {"info/file tree/z/~/pieces root": ROOT_B},
        "an empty file has a 'pieces root'",
        EMPTY_ROOT,
    ),
    (
        "v2",
        {"info/file tree/z/~/pieces root": bytes(32)},
        "an empty file has a 'pieces root'",
        EMPTY_ROOT,
    ),
    ("v2", {"info/file tree/a/~/pieces root": GONE}, "'pieces root' is missing"),
    ("v2", {"info/file tree/a/~/pieces root": b"x" * 31}, "no string of 32 bytes"),
    ("v2", {"info/file tree/a/~/pieces root": b"x" * 33}, "no string of 32 bytes"),
    ("v2", {"info/file tree/a/~/pieces root": b""}, "no string of 32 bytes"),
    ("v2", {"info/file tree/a/~/pieces root": 5}, "no string of 32 bytes"),
    ("v2", {"info/file tree/z/~/pieces root": 5}, "no string of 32 bytes", EMPTY_ROOT),
    ("v2", {"info/file tree/a/~/pieces root": bytes(32)}, "'pieces root' is all zeros"),
    ("v2", {"info/file tree/d/b/~/pieces root": bytes(32)}, "'pieces root' is all zeros"),
    ("v2", {"info/file tree/d/b/~/pieces root": b"y" * 32}, None),
    ("v2", {"info/file tree/a/~/attr": b"x"}, None),
    ("v2", {"info/file tree/a/~/attr": b"p"}, "a pad, which v2 does not have"),
    ("v2", {"info/file tree/z/~/attr": b"p"}, "a pad, which v2 does not have"),
    ("v2", {"info/file tree/_____padding_file_0_": {b"": {b"length": 0}}}, None),
    ("v2", {"info/file tree/a/~/attr": b"l"}, "a symlink has a length"),
    ("v2", {"info/file tree/z/~/attr": b"l"}, None),
    ("v2", {"info/file tree/z/~": {b"attr": b"l", b"symlink path": [b"a"]}}, None),
    ("v2", {"info/file tree/d/b/~/attr": b"l"}, "a symlink has a length", LINK_LENGTH),
    ("v2", {"info/file tree/z/~": {b"attr": b"l", b"symlink path": [b"..", b"a"]}}, None),
    ("v2", {"info/file tree/..": {b"": {b"length": 0}}}, None),
    ("v2", {"info/file tree/.": {b"x": {b"": {b"length": 0}}}}, None),
    ("v2", {"info/file tree/e": {b"/etc/passwd": {b"": {b"length": 0}}}}, None),
    ("v2", {"info/file tree/\xff": {b"": {b"length": 0}}}, None),
    ("v2", {"info/file tree/A": {b"": {b"length": 0}}}, None),
    ("v2", {"info/pieces": b"x" * 80}, "'pieces' without 'files' or 'length'", LONE_PIECES),
    ("v2s", {"info/name": b"other"}, None),
    ("v2s", {"info/file tree/m": {b"": {b"length": 0}}}, None),
    (
        "v2",
        {
            "info/file tree/a/~/length": 0,
            "info/file tree/a/~/pieces root": GONE,
            "info/file tree/d": GONE,
            "piece layers": {},
        },
        None,
        NO_BYTES,
    ),
]

_LAYERS: list[Row] = [
    ("v2", {"piece layers": GONE}, "'piece layers' is missing", NO_LAYERS),
    ("v2", {"piece layers": {}}, f"piece layers {ROOT_A.hex()}: missing", NO_LAYERS),
    ("v2", {"piece layers": []}, "'piece layers' is no dictionary", NO_LAYERS),
    ("v2", {"piece layers": b"x"}, "'piece layers' is no dictionary", NO_LAYERS),
    ("v2", {"piece layers": {ROOT_A: LAYER_A[:-32]}}, "64 bytes for 3 pieces"),
    ("v2", {"piece layers": {ROOT_A: LAYER_A + bytes(32)}}, "128 bytes for 3 pieces"),
    ("v2", {"piece layers": {ROOT_A: LAYER_A[:-1]}}, "95 bytes for 3 pieces"),
    ("v2", {"piece layers": {ROOT_A: b""}}, "0 bytes for 3 pieces"),
    ("v2", {"piece layers": {ROOT_A: 5}}, "no string"),
    ("v2", {"piece layers": {ROOT_A: [LAYER_A]}}, "no string"),
    ("v2", {"piece layers": {ROOT_A: bytes(96)}}, "the hash of a piece is all zeros"),
    ("v2", {"piece layers": {ROOT_A: LAYER_A[32:] + LAYER_A[:32]}}, "does not hash to its root"),
    ("v2", {"piece layers": {ROOT_A: LAYER_A, ROOT_B: ROOT_B}}, "no file of more than one piece"),
    ("v2", {"piece layers": {ROOT_A: LAYER_A, b"short": LAYER_A}}, "no file of more than one"),
    ("v2", {"piece layers": {ROOT_A: LAYER_A, b"": b""}}, "no file of more than one piece"),
    ("v2", {"piece layers": {b"x" * 32: LAYER_A}}, "no file of more than one piece"),
    ("v2", {"info/file tree/a/~/pieces root": b"x" * 32}, "no file of more than one piece"),
    ("v2", {"info/file tree/a/~/length": 49_153}, "96 bytes for 4 pieces"),
    ("v2", {"info/file tree/a/~/length": 100}, "no file of more than one piece"),
    ("v2", {"info/file tree/c": {b"": {b"length": 40_000, b"pieces root": ROOT_A}}}, None),
    (
        "v2",
        {"info/file tree/c": {b"": {b"length": 60_000, b"pieces root": ROOT_A}}},
        "96 bytes for 4 pieces",
        SAME_ROOT,
    ),
    ("v2", {"info/file tree/c": {b"": {b"length": 100, b"pieces root": ROOT_A}}}, None),
    (
        "v2",
        {"info/file tree/a/~/pieces root": ZERO_INSIDE_ROOT}
        | {"piece layers": {ZERO_INSIDE_ROOT: ZERO_INSIDE}},
        "the hash of a piece is all zeros",
        ZERO_NODE,
    ),
    (
        "hy",
        {"info/file tree/a/~/pieces root": ZERO_LAST_ROOT}
        | {"piece layers": {ZERO_LAST_ROOT: ZERO_LAST}},
        "the hash of a piece is all zeros",
        ZERO_NODE,
    ),
    ("v2", {"piece layers": {ROOT_A: LAYER_A[:64] + bytes(32)}}, "the hash of a piece is all"),
    ("hy", {"piece layers": {}}, f"piece layers {ROOT_A.hex()}: missing", NO_LAYERS),
    ("hy", {"piece layers": {ROOT_A: LAYER_A[:64]}}, "64 bytes for 3 pieces"),
    ("hy", {"piece layers": {ROOT_A: LAYER_A + bytes(32)}}, "128 bytes for 3 pieces"),
    ("hy", {"piece layers": {ROOT_A: LAYER_A[32:] + LAYER_A[:32]}}, "does not hash to its root"),
    ("hy", {"piece layers": {ROOT_A: LAYER_A, ROOT_B: ROOT_B}}, "no file of more than one piece"),
    ("hys", {"piece layers": {ROOT_A: LAYER_A[:64]}}, "64 bytes for 3 pieces"),
    (
        "hys",
        {"info/piece length": 4 * BLOCK, "info/pieces": b"x" * 20, "piece layers": GONE},
        None,
    ),
    ("hy", {"piece layers": GONE}, "'piece layers' is missing", NO_LAYERS),
    ("hy", {"piece layers": {ROOT_A: bytes(96)}}, "the hash of a piece is all zeros"),
    ("v1", {"piece layers": {ROOT_A: bytes(96)}}, None),
    ("v1", {"piece layers": 5}, None),
]

_HYBRID: list[Row] = [
    ("hy", {"info/files": GONE}, "'pieces' without 'files' or 'length'", LONE_PIECES),
    ("hy", {"info/files": []}, "'files' is empty", LONE_PIECES),
    ("hy", {"info/pieces": GONE}, "'pieces' is missing", NO_PIECES),
    ("hy", {"info/pieces": b""}, "'pieces' has 0 bytes"),
    ("hy", {"info/pieces": b"x" * 60}, "'pieces' has 60 bytes"),
    ("hy", {"info/file tree": GONE}, "'file tree' is missing"),
    ("hy", {"info/file tree/a/~/length": 40_001}, "files[0]: differs from the file tree"),
    ("hy", {"info/files/0/length": 40_001}, "files[0]: differs from the file tree"),
    ("hy", {"info/files/2/length": 99}, "files[2]: differs from the file tree"),
    ("hy", {"info/files/0/path": [b"b"]}, "files[0]: 'b', but the file tree has 'a'"),
    ("hy", {"info/files/2/path": [b"b"]}, "files[2]: 'b', but the file tree has 'd/b'"),
    (
        "hy",
        {"info/files/2/path": [b"d/b"]},
        "files[2]: a path of 1, but the file tree has a path of 2",
    ),
    ("hy", {"info/files/4/path": [b"y"]}, "files[4]: 'y', but the file tree has 'z'", EMPTY_FILES),
    ("hy", {"info/files/0/attr": b"x"}, None),
    ("hy", {"info/files/0/mtime": 1}, None),
    ("hy", {"info/files/1": GONE}, "files[1]: starts at 40000, but in the file tree at 49152"),
    ("hy", {"info/files/1/attr": GONE}, "files[1]: '.pad/9152', but the file tree has 'd/b'"),
    (
        "hy",
        {"info/files/1/length": 9151},
        "files[1]: a pad of 9151 bytes, where 9152 fill the piece up",
    ),
    ("hy", {"info/files/1/length": 9152 + BLOCK}, "files[1]: a pad of 25536 bytes"),
    ("hy", {"info/files/1/length": 9152 + BLOCK, "info/pieces": b"x" * 100}, "a pad of 25536"),
    ("hy", {"info/files/1/path": GONE}, None),
    ("hy", {"info/files/1/path": [b"whatever"]}, None),
    ("hy", {"info/files/3": GONE}, None),
    ("hy", {"info/files/3/length": 16_283}, "files[3]: a pad of 16283 bytes"),
    ("hy", {"info/files/3/length": 16_285, "info/pieces": b"x" * 100}, "a pad of 16285"),
    ("hy", {"info/files/4": GONE}, "file tree 'z': not in 'files'"),
    ("hy", {"info/files/+": {b"length": 0, b"path": [b"zz"]}}, "files[5]: not in the file tree"),
    (
        "hy",
        {"info/files/+": {b"length": 1, b"path": [b"zz"]}, "info/pieces": b"x" * 100},
        "files[5]: not in the file tree",
    ),
    (
        "hy",
        {
            "info/files/0": {b"length": 100, b"path": [b"d", b"b"]},
            "info/files/2": {b"length": 40_000, b"path": [b"a"]},
        },
        "files[0]: 'd/b', but the file tree has 'a'",
    ),
    ("hy", {"info/file tree/d/b/~/pieces root": GONE}, "file tree 'd/b': 'pieces root' is missing"),
    ("hy", {"info/file tree/d/b/~/pieces root": b"x" * 31}, "no string of 32 bytes"),
    ("hy", {"info/file tree/d/b/~/pieces root": bytes(32)}, "'pieces root' is all zeros"),
    (
        "hy",
        {"info/file tree/z/~/pieces root": ROOT_B},
        "an empty file has a 'pieces root'",
        EMPTY_ROOT,
    ),
    ("hy", {"info/file tree/d/b/~/attr": b"p"}, "a pad, which v2 does not have"),
    (
        "hy",
        {
            "info/file tree/.pad": {
                b"9152": {b"": {b"attr": b"p", b"length": 9152, b"pieces root": ROOT_B}}
            }
        },
        "file tree '.pad/9152': a pad, which v2 does not have",
    ),
    (
        "hy",
        {
            "info/files/2/path": [b"d", b"_____padding_file_0_"],
            "info/file tree/d": {
                b"_____padding_file_0_": {b"": {b"length": 100, b"pieces root": ROOT_B}}
            },
        },
        None,
        NAMED_PAD,
    ),
    ("hy", {"info/files/1": {b"length": 9152, b"path": [b"_____padding_file_0_"]}}, None),
    ("hy", {"info/meta version": GONE}, "'file tree' without 'meta version'"),
    ("hy", {"info/meta version": 1}, "'meta version' is not 2"),
    ("hy", {"info/meta version": 3}, "newer than we know"),
    ("hy", {"info/piece length": 2 * BLOCK}, "files[1]: a pad of 9152 bytes, where 25536 fill"),
    ("hy", {"info/piece length": 10_000}, "not a power of two"),
    ("hy", {"info/files/0/path": [b"A"]}, "files[0]: 'A', but the file tree has 'a'"),
    ("hy", {"info/files/0/path.utf-8": [b"b"]}, "files[0]: 'b', but the file tree has 'a'"),
    ("hy", {"info/files/0/path": [b"b"], "info/files/0/path.utf-8": [b"a"]}, None),
    ("hy", {"info/file tree/a/~/attr": b"x"}, None),
    ("hy", {"info/files/0/attr": b"h", "info/file tree/a/~/attr": b"x"}, None),
    (
        "hy",
        {"info/files/1": {b"attr": b"p", b"length": 9000}},
        "files[1]: a pad of 9000 bytes, where 9152 fill the piece up",
    ),
    (
        "hy",
        {"info/files/3": {b"attr": b"p", b"length": 0}},
        "files[3]: a pad of 0 bytes, where 16284 fill the piece up",
    ),
    (
        "hy",
        {"info/files/+": {b"attr": b"p", b"length": 0}},
        "files[5]: a pad of 0 bytes, where 0 fill the piece up",
    ),
    (
        "hy",
        {
            "info/files/0": {b"attr": b"p", b"length": BLOCK},
            "info/files/1": {b"length": 40_000, b"path": [b"a"]},
            "info/pieces": b"x" * 100,
        },
        "files[0]: a pad of 16384 bytes, where 0 fill the piece up",
    ),
    (
        "hy",
        {
            "info/files/0": {b"length": 0, b"path": [b"z"]},
            "info/files/4": {b"length": 40_000, b"path": [b"a"]},
            "info/pieces": b"x" * 100,
        },
        "files[0]: 'z', but the file tree has 'a'",
    ),
    ("hy", {"info/file tree/z/~/attr": b"l"}, "files[4]: differs", EMPTY_LINKS),
    (
        "hy",
        {
            "info/files/4": {b"attr": b"l", b"path": [b"z"], b"symlink path": [b"a"]},
            "info/file tree/z/~": {b"attr": b"l", b"symlink path": [b"d", b"b"]},
        },
        "files[4]: differs from the file tree",
        EMPTY_LINKS,
    ),
    (
        "hy",
        {
            "info/files/4": {b"attr": b"l", b"path": [b"z"], b"symlink path": [b"a"]},
            "info/file tree/z/~": {b"attr": b"l", b"symlink path": [b"a"]},
        },
        None,
    ),
    ("hys", {"info/name.utf-8": b"m"}, "files[0]: 'm', but the file tree has 'n'"),
    ("hys", {"info/name": b"m", "info/name.utf-8": b"n"}, None),
    (
        "hys",
        {"info/length": GONE, "info/files": [{b"length": 40_000, b"path": [b"n"]}]},
        None,
    ),
    ("hy", {"info/file tree/y": {b"": {b"length": 0}}}, "files[4]: 'z', but the file tree has 'y'"),
    ("hy", {"info/files/4/attr": b"l"}, "files[4]: differs from the file tree", EMPTY_FILES),
    ("hy", {"info/files/4/attr": b"l", "info/file tree/z/~/attr": b"l"}, None),
    ("hy", {"info/length": 40_000}, "both 'files' and 'length'", BOTH),
    (
        "hy",
        {"info/files/+": {b"attr": b"p", b"length": BLOCK}, "info/pieces": b"x" * 100},
        "files[5]: a pad of 16384 bytes, where 0 fill the piece up",
    ),
    ("hys", {"info/length": 40_001}, "files[0]: differs from the file tree"),
    ("hys", {"info/length": 0, "info/pieces": b""}, "files[0]: differs from the file tree"),
    ("hys", {"info/name": b"m"}, "files[0]: 'm', but the file tree has 'n'"),
    ("hys", {"info/file tree/m": {b"": {b"length": 0}}}, "but the file tree has 'm'"),
    ("hys", {"info/file tree/o": {b"": {b"length": 0}}}, "file tree 'o': not in 'files'"),
    ("hys", {"info/length": GONE}, "'pieces' without 'files' or 'length'", LONE_PIECES),
    ("hys", {"info/pieces": b"x" * 40}, "'pieces' has 40 bytes"),
    ("hys", {"info/attr": b"p"}, "files[0]: a pad of 40000 bytes, where 0 fill the piece up"),
]

_BESIDE: list[Row] = [
    ("v1", {"announce": GONE}, None),
    ("v1", {"announce": 5}, None),
    ("v1", {"announce": b"\xff"}, None),
    ("v1", {"announce-list": 5}, None),
    ("v1", {"announce-list": [5, [5], [[]], b"udp://x"]}, None),
    ("v1", {"announce-list": [[b"udp://t"] * 3, []]}, None),
    ("v1", {"url-list": 5}, None),
    # An address, since a name would be looked up.
    ("v1", {"url-list": [5, [], b"http://127.0.0.1:9"]}, None),
    ("v1", {"httpseeds": [5]}, None),
    ("v1", {"nodes": 5}, None),
    ("v1", {"nodes": [5, [b"h"], [1, 2], [b"h", -1], [b"h", 70_000], [b"h", 1]]}, None),
    ("v1", {"comment": 5}, None),
    ("v1", {"comment": b"\xff"}, None),
    ("v1", {"created by": []}, None),
    ("v1", {"creation date": b"x"}, None),
    ("v1", {"creation date": -1}, None),
    ("v1", {"creation date": (1 << 63) - 1}, None),
    ("v1", {"encoding": b"GBK"}, None),
]

_NAME = b"4:name1:n"
_SIZE = b"i16384e"

_PLAIN: list[Case] = [
    Case("nothing", b"", "not a dictionary", None),
    Case("a list", b"le", "not a dictionary", None),
    Case("a number", b"i0e", "not a dictionary", None),
    Case("a page", b"<html></html>", "not a dictionary", None),
    Case("zeros", bytes(1000), "not a dictionary", None),
    Case("an empty dictionary", b"de", "'info' is missing", None),
    Case("a cut dictionary", b"d", "input ends too early", None),
]


def _damaged(base: str, data: bytes) -> list[Case]:
    """Return cases in which the bytes themselves are wrong."""
    is_v1 = base.startswith("v1")
    only_v1 = SPELLING if is_v1 else None
    twice = DUPLICATE if is_v1 else None
    body = data[:-1]

    def swapped(old: bytes, new: bytes) -> bytes:
        assert data.count(old) == 1
        return data.replace(old, new)

    def deep(depth: int) -> bytes:
        return body + b"1:z" + b"l" * depth + b"e" * depth + b"e"

    rows: list[tuple[str, bytes, str | None, str | None]] = [
        ("bytes after the end", data + b"e", "bytes after the end", TRAILING),
        ("zeros after the end", data + bytes(9), "bytes after the end", TRAILING),
        ("line ends after the end", data + b"\r\n", None, None),
        ("a space before", b" " + data, "not a dictionary", None),
        ("one byte less", body, "input ends too early", None),
        ("half", data[: len(data) // 2], "not a torrent", None),
        (
            "name twice",
            swapped(_NAME, _NAME * 2),
            "duplicate key b'name'",
            twice,
        ),
        ("announce twice", b"d8:announce1:x" + data[1:], "duplicate key b'announce'", DUPLICATE),
        ("info twice", body + b"4:infodee", "duplicate key b'info'", DUPLICATE),
        ("unsorted, outside", b"d1:zi1e" + data[1:], None, None),
        (
            "unsorted, in info",
            swapped(_NAME + b"12:piece length" + _SIZE, b"12:piece length" + _SIZE + _NAME),
            None if is_v1 else "keys are not sorted",
            None,
        ),
        ("01: for a length", swapped(_NAME, b"4:name01:n"), "malformed string length", only_v1),
        ("016384", swapped(_SIZE, b"i016384e"), "malformed integer", only_v1),
        ("+16384", swapped(_SIZE, b"i+16384e"), "malformed integer", None),
        ("a space in a number", swapped(_SIZE, b"i16384 e"), "malformed integer", None),
        ("16_384", swapped(_SIZE, b"i16_384e"), "malformed integer", None),
        ("16384.0", swapped(_SIZE, b"i16384.0e"), "malformed integer", None),
        ("no digits", swapped(_SIZE, b"ie"), "malformed integer", None),
        ("2^63", swapped(_SIZE, b"i9223372036854775808e"), "more than 64 bits", None),
        ("2^64 + 16384", swapped(_SIZE, b"i18446744073709568000e"), "more than 64 bits", None),
        ("30 digits", swapped(_SIZE, b"i" + b"1" * 30 + b"e"), "too many digits", None),
        ("2^32 + 1 as length", swapped(_NAME, b"4:name4294967297:n"), "longer than the", None),
        ("11 digits of length", swapped(_NAME, b"4:name99999999999:n"), "too many digits", None),
        ("number for a key", swapped(_NAME, b"i4e1:x" + _NAME), "key is not a string", None),
        ("key without value", body + b"1:ze", "key b'z' has no value", None),
        ("98 lists", deep(98), None, None),
        ("99 lists", deep(99), None, DEEP),
        ("100 lists", deep(100), "nested too deeply (limit 100)", None),
        ("a million lists", body + b"1:z" + b"l" * 1_000_000, "nested too deeply", None),
    ]
    return [Case(f"{base}: {name}", made, refusal, why) for name, made, refusal, why in rows]


def _case(row: Row) -> Case:
    base, changes, refusal, *why = row
    name = " ".join([base, *(f"{place}={_short(value)}" for place, value in changes.items())])
    return Case(name, encoded(changed(base, changes)), refusal, *(why or [None]))


def _short(value: object) -> str:
    return "gone" if value is GONE else repr(value)[:24]


GROUPS: Final[dict[str, list[Case]]] = {
    "file_list": [_case(row) for row in _V1_FILES],
    "info": [_case(row) for row in _INFO],
    "file_tree": [_case(row) for row in _V2 + _HYBRID],
    "metainfo": [_case(row) for row in _LAYERS + _BESIDE]
    + _PLAIN
    + [case for base in BASES for case in _damaged(base, encoded(BASES[base]))],
}
"""By the module that decides."""

ZOO: Final[list[Case]] = [case for group in GROUPS.values() for case in group]
