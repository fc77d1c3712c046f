"""
What the engine decides about a torrent, as the record that the state folder keeps of it.

A record's options are JSON that a disk may have changed: what makes no sense is left out.

Source: threats.md F9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from bittern.core.errors import ConfigError
from bittern.core.geometry import Geometry
from bittern.core.ids import InfoHash
from bittern.storage.renaming import parse_path
from bittern.storage.resume import ResumeRecord
from bittern.storage.resume_rows import Json

_RENAMES = "renames"
"""Option of a record: by index, the paths of files that a person has named."""
_VOLUME = "volume"
"""Option of a record: where the volume is mounted that the files are on."""
_PARTIAL = "partial"
"""Option of a record: blocks of pieces that were in progress at a clean end."""


def make_record(
    info_hash: InfoHash,
    name: str,
    root: Path,
    paths: list[tuple[str, ...]],
    added_at: float,
    renames: Mapping[int, str] = MappingProxyType({}),
    volume: Path | None = None,
) -> ResumeRecord:
    """Return the record of a torrent whose files are below ``root``, some under other names."""
    return ResumeRecord(
        info_hash=info_hash,
        name=name,
        save_path=str(root),
        paths=tuple(paths),
        added_at=added_at,
        opened_at=added_at,
        options=with_volume(with_renames({}, renames), volume),
    )


def with_renames(options: Mapping[str, Json], renames: Mapping[int, str]) -> dict[str, Json]:
    """Return a record's options with the names that a person has given to files."""
    others = {name: value for name, value in options.items() if name != _RENAMES}
    kept = {str(index): path for index, path in renames.items()}
    return {**others, _RENAMES: kept} if kept else others


def read_renames(record: ResumeRecord) -> dict[int, str]:
    """Return the names that a record has for files; none where they are no safe names."""
    stored = record.options.get(_RENAMES)
    found: dict[int, str] = {}
    for text, path in stored.items() if isinstance(stored, Mapping) else ():
        if not (text.isascii() and text.isdigit() and len(text) < 8 and isinstance(path, str)):
            return {}
        try:
            parse_path(path)
        except ConfigError:
            return {}
        found[int(text)] = path
    return found


def with_volume(options: Mapping[str, Json], volume: Path | None) -> dict[str, Json]:
    """Return a record's options with where the volume is mounted; None where that is not known."""
    others = {name: value for name, value in options.items() if name != _VOLUME}
    return others if volume is None else {**others, _VOLUME: str(volume)}


def read_volume(record: ResumeRecord) -> Path | None:
    """Return where the volume was mounted; None where a record does not say."""
    stored = record.options.get(_VOLUME)
    return Path(stored) if isinstance(stored, str) and stored else None


def with_partial(record: ResumeRecord, partial: Mapping[int, list[int]]) -> ResumeRecord:
    """Return a record that names the blocks of pieces in progress, by index of the piece."""
    blocks = {str(index): numbers for index, numbers in partial.items()}
    return replace(record, options={**record.options, _PARTIAL: blocks})


def read_partial(record: ResumeRecord, geometry: Geometry) -> dict[int, list[int]]:
    """Return the blocks that a record names, without those that do not exist."""
    stored = record.options.get(_PARTIAL)
    if not isinstance(stored, Mapping):
        return {}
    found: dict[int, list[int]] = {}
    for text, numbers in stored.items():
        if not (text.isascii() and text.isdigit() and len(text) < 8) or not isinstance(
            numbers, list | tuple
        ):
            continue
        index = int(text)
        if index < geometry.num_pieces:
            limit = geometry.num_blocks(index)
            found[index] = [n for n in numbers if isinstance(n, int) and 0 <= n < limit]
    return found
