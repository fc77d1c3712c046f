"""
The values of the resume store, and their form as rows.

A row is a key (the torrent's 20-byte wire hash), a body and a checksum over
both, so that a body that was torn, changed or put under another key is found
out. Bodies of records are JSON; those of states are one line of JSON and then
the have bits and the recent bits in wire form, during a check those not checked
yet as well.

Decoding trusts nothing, whatever the checksum says: types, sizes and spare
bits are checked. Limit: F9.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bittern.core.bitfield import Bitfield
from bittern.core.errors import WireDecodeError
from bittern.core.ids import InfoHash
from bittern.storage.base import FileStamp

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, Json] | None"

Row: TypeAlias = tuple[bytes, bytes]
"""Body and checksum."""

MAX_PIECES: Final = 2_097_152
"""Limit: P7."""

_CHECKSUM_LENGTH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRecord:
    """
    What is decided about a torrent; changes when a person changes it.

    Args:
        info_hash: the wire hash, under which all else is kept.
        name: the torrent's name as last shown.
        save_path: the output folder, absolute.
        paths: paths of the files below it by index, as they were chosen at first, so that
            no later rule changes them (Limit: P10); None while the files are unknown.
        added_at: seconds since 1970.
        opened_at: the same, of when it was opened last, or up to ``OPENED_STEP`` before that.
        options: whatever else the engine wants to find again; any JSON.
    """

    info_hash: InfoHash
    name: str
    save_path: str
    paths: tuple[tuple[str, ...], ...] | None = None
    added_at: float = 0.0
    opened_at: float = 0.0
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorrentState:
    """
    What a torrent had at its last checkpoint.

    Args:
        have: pieces that were verified and synced.
        recent: those of them that the last checkpoint added.
        downloaded: bytes of payload received, all sessions together.
        uploaded: bytes of payload sent, all sessions together.
        stamps: of the files by index, as they were then; empty when not recorded.
        is_settled: nothing was being written then.
        unchecked: pieces of which nothing is known, as a check has not come to them yet, nor
            are they among ``have``; None when no check is under way.
    """

    have: Bitfield
    recent: Bitfield
    downloaded: int = 0
    uploaded: int = 0
    stamps: tuple[FileStamp | None, ...] = ()
    is_settled: bool = False
    unchecked: Bitfield | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """
    One torrent as it is found again.

    Args:
        record: see there.
        have: pieces that may be taken for verified and stored, once ``suspects`` is taken
            away; None when nothing is known, and all must be checked.
        suspects: pieces to hash before anything else: they were being written, or were
            committed last, when a session ended without saying so. Once hashed, tell it with
            ``commit_have(..., is_settled=True)``. None with ``have``.
        downloaded: see TorrentState.
        uploaded: see TorrentState.
        stamps: see TorrentState.
        is_settled: nothing was written since the stamps were taken, as far as anybody knows:
            suspects are those of the last checkpoint alone.
        unchecked: see TorrentState; a check goes on with them if the files are as they were.
    """

    record: ResumeRecord
    have: Bitfield | None = None
    suspects: Bitfield | None = None
    downloaded: int = 0
    uploaded: int = 0
    stamps: tuple[FileStamp | None, ...] = ()
    is_settled: bool = False
    unchecked: Bitfield | None = None


def seal(key: bytes, body: bytes) -> Row:
    """Return the row of ``body`` under ``key``."""
    return body, _checksum(key, body)


def unseal(key: object, row: tuple[object, ...]) -> bytes:
    """
    Return the body of a row.

    Raises:
        ValueError: it is damaged, or belongs to another key.
    """
    body, checksum = row
    if not isinstance(key, bytes) or not isinstance(body, bytes):
        raise ValueError("not of the right type")
    if checksum != _checksum(key, body):
        raise ValueError("checksum does not match")
    return body


def _checksum(key: bytes, body: bytes) -> bytes:
    mixed = len(key).to_bytes(4, "big") + key + body
    return hashlib.blake2b(mixed, digest_size=_CHECKSUM_LENGTH, person=b"bittern-resume").digest()


def encode_record(record: ResumeRecord) -> bytes:
    """Return the body of a record's row."""
    return _dump(
        {
            "name": record.name,
            "save_path": record.save_path,
            "paths": record.paths,
            "added_at": record.added_at,
            "opened_at": record.opened_at,
            "options": dict(record.options),
        }
    )


def decode_record(key: bytes, body: bytes) -> ResumeRecord:
    """
    Read the body of a record's row.

    Raises:
        ValueError: it is no record.
    """
    value = _load(body)
    name, save_path = value.get("name"), value.get("save_path")
    added_at = value.get("added_at")
    opened_at = value.get("opened_at", added_at)
    options = value.get("options")
    if not isinstance(name, str) or not isinstance(save_path, str):
        raise ValueError("name or save path is missing")
    if not isinstance(options, Mapping):
        raise ValueError("options are malformed")
    return ResumeRecord(
        info_hash=InfoHash(key),
        name=name,
        save_path=save_path,
        paths=_read_paths(value.get("paths")),
        added_at=_number(added_at),
        opened_at=_number(opened_at),
        options=options,
    )


def _read_paths(value: Json) -> tuple[tuple[str, ...], ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError("paths are malformed")
    paths = []
    for path in value:
        if isinstance(path, str) or not isinstance(path, Sequence):
            raise ValueError("paths are malformed")
        parts = [part for part in path if isinstance(part, str)]
        if len(parts) != len(path):
            raise ValueError("paths are malformed")
        paths.append(tuple(parts))
    return tuple(paths)


def encode_state(state: TorrentState) -> bytes:
    """Return the body of a state's row."""
    header = _dump(
        {
            "num_pieces": state.have.num_pieces,
            "downloaded": state.downloaded,
            "uploaded": state.uploaded,
            "stamps": state.stamps,
            "is_settled": state.is_settled,
        }
    )
    unchecked = b"" if state.unchecked is None else state.unchecked.to_wire()
    return b"%b\n%b%b%b" % (header, state.have.to_wire(), state.recent.to_wire(), unchecked)


def decode_state(body: bytes) -> TorrentState:
    """
    Read the body of a state's row.

    Raises:
        ValueError: it is no state.
    """
    header, _, bits = body.partition(b"\n")
    value = _load(header)
    num_pieces = value.get("num_pieces")
    if not isinstance(num_pieces, int) or not 0 <= num_pieces <= MAX_PIECES:
        raise ValueError("number of pieces is impossible")
    length = (num_pieces + 7) // 8
    rest = bits[2 * length :]
    try:
        return TorrentState(
            have=Bitfield.from_wire(bits[:length], num_pieces),
            recent=Bitfield.from_wire(bits[length : 2 * length], num_pieces),
            downloaded=int(_number(value.get("downloaded"))),
            uploaded=int(_number(value.get("uploaded"))),
            stamps=_read_stamps(value.get("stamps")),
            is_settled=value.get("is_settled") is True,
            unchecked=Bitfield.from_wire(rest, num_pieces) if rest else None,
        )
    except WireDecodeError as error:
        raise ValueError(str(error)) from error


def _read_stamps(value: Json) -> tuple[FileStamp | None, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ValueError("stamps are malformed")
    stamps: list[FileStamp | None] = []
    for item in value:
        match item:
            case None:
                stamps.append(None)
            case [int() as length, int() as modified_ns, int() as inode]:
                stamps.append(FileStamp(length, modified_ns, inode))
            case _:
                raise ValueError("stamps are malformed")
    return tuple(stamps)


def _number(value: Json) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        raise ValueError("a number is missing or impossible")
    return value


def _dump(value: Mapping[str, Json]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _load(body: bytes) -> Mapping[str, Json]:
    try:
        value: Json = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, Mapping):
        raise ValueError("no object")
    return value
