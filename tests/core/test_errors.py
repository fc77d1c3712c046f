"""Errors: they carry data, their text is one line, and the tree says who catches what."""

from __future__ import annotations

import copy
import inspect

import pytest

from bittern.core import errors
from bittern.core.errors import (
    BencodeDecodeError,
    BitTorrentError,
    ConfigError,
    DecodeError,
    DiskFull,
    FetchError,
    FileVanished,
    Inconsistent,
    InputError,
    KrpcDecodeError,
    KrpcFailure,
    LsdDecodeError,
    MagnetError,
    MetainfoError,
    MisuseError,
    NotPublished,
    PeerTimeout,
    PeerViolation,
    QueryTimeout,
    RemoteError,
    ResolveError,
    StorageError,
    TrackerDecodeError,
    TrackerFailure,
    TrackerUnreachable,
    UnsafePath,
    WebSeedError,
    WireDecodeError,
)

TEXTS = [
    (DecodeError("too long"), "too long"),
    (DecodeError("too long", limit=5), "too long (limit 5)"),
    (DecodeError("too long", offset=0), "too long at byte 0"),
    (WireDecodeError("too long", offset=7, limit=5), "too long (limit 5) at byte 7"),
    (TrackerFailure("go away"), "tracker refused: go away"),
    (TrackerUnreachable("no route"), "no route"),
    (NotPublished(b"\xaa" * 32), f"key {'aa' * 32}: nothing is published under it"),
    (KrpcFailure(203, "bad token"), "DHT error 203: bad token"),
    (FetchError("no such page", status=404), "no such page"),
    (WebSeedError("busy", retry_after=5), "busy"),
    (StorageError("disk on fire"), "disk on fire"),
    (StorageError("gone", path="/a\\b\n"), "gone: '/a\\\\b\\n'"),
    (StorageError("gone", path="C:\\a b\\c"), "gone: 'C:\\a b\\c'"),
    (StorageError("gone", path="\\\\server\\share"), "gone: '\\\\server\\share'"),
    (DiskFull("no room", path="/a\nb", errno=28), "no room: '/a\\nb'"),
    (PeerViolation("sent nonsense"), "sent nonsense"),
    (
        Inconsistent(3, "v2"),
        (
            "inconsistent torrent: piece 3 matches its v2 hash and not its v1 hash; "
            "only whoever made it can mend that"
        ),
    ),
    (
        Inconsistent(0, "v1"),
        (
            "inconsistent torrent: piece 0 matches its v1 hash and not its v2 hash; "
            "only whoever made it can mend that"
        ),
    ),
    (ResolveError("a\nb", "no such name"), "cannot resolve 'a\\nb': no such name"),
    (ResolveError("a" * 300, "r"), f"cannot resolve '{'a' * 253}': r"),
]


@pytest.mark.parametrize(("error", "text"), TEXTS)
def test_texts(error: BitTorrentError, text: str) -> None:
    assert str(error) == text
    assert text.isprintable()


def test_errors_carry_data() -> None:
    decode = DecodeError("r", offset=3, limit=4)
    assert (decode.reason, decode.offset, decode.limit) == ("r", 3, 4)
    assert TrackerFailure("r", retry_after=60).retry_after == 60
    assert TrackerFailure("r").reason == "r"
    assert TrackerUnreachable("r").is_silent
    assert not TrackerUnreachable("r", is_silent=False).is_silent
    assert NotPublished(bytes(32)).public_key == bytes(32)
    assert (KrpcFailure(201, "m").code, KrpcFailure(201, "m").message) == (201, "m")
    assert (FetchError("r").status, FetchError("r", status=500).status) == (None, 500)
    storage = UnsafePath("r", path="p", errno=5)
    assert (storage.reason, storage.path, storage.errno) == ("r", "p", 5)


@pytest.mark.parametrize(
    ("parent", "children"),
    [
        (InputError, [MetainfoError, MagnetError, ConfigError]),
        (
            DecodeError,
            [
                BencodeDecodeError,
                WireDecodeError,
                KrpcDecodeError,
                TrackerDecodeError,
                LsdDecodeError,
            ],
        ),
        (
            RemoteError,
            [
                PeerViolation,
                PeerTimeout,
                TrackerFailure,
                TrackerUnreachable,
                KrpcFailure,
                QueryTimeout,
                ResolveError,
                FetchError,
            ],
        ),
        (StorageError, [DiskFull, UnsafePath, FileVanished]),
        (BitTorrentError, [InputError, DecodeError, RemoteError, StorageError, MisuseError]),
    ],
)
def test_the_tree(parent: type[Exception], children: list[type[Exception]]) -> None:
    assert all(issubclass(child, parent) for child in children)
    branches = [InputError, DecodeError, RemoteError, StorageError, MisuseError]
    if parent is not BitTorrentError:
        others = [branch for branch in branches if branch is not parent]
        assert not any(issubclass(child, other) for child in children for other in others)


def test_everything_here_has_the_one_root() -> None:
    classes = [value for value in vars(errors).values() if inspect.isclass(value)]
    assert len(classes) > 20
    assert all(issubclass(value, BitTorrentError) for value in classes)


@pytest.mark.parametrize("error", [error for error, _ in TEXTS])
def test_errors_can_be_copied_with_their_data(error: BitTorrentError) -> None:
    """What crosses a task or a process keeps class and text."""
    for twin in (copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)
