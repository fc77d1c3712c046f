"""
The list of info hashes that a tracker serves: a file, which is read again on SIGHUP.

Source: BEP 52 (what trackers see of a v2 hash).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from bittern.cli.exits import CommandFailed, describe
from bittern.cli.output import complain
from bittern.cli.report import Report
from bittern.core.ids import InfoHash, InfoHashV2
from bittern.engine.reasons.phrases import count_of
from bittern.storage.worker import run_aside


class Allowed:
    """
    The info hashes in a file; ``in`` asks for one of them.

    Args:
        path: of the file, which is read at once.

    Raises:
        CommandFailed: a line is no info hash.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hashes = read_allowed(path)
        self._wanted = asyncio.Event()

    def __contains__(self, info_hash: object) -> bool:
        return info_hash in self._hashes

    def ask(self) -> None:
        """Have the file read again soon."""
        self._wanted.set()

    async def keep(self, told: Report) -> None:
        """
        Read the file again whenever that is asked for, and tell; until cancelled.

        What cannot be read, or has a bad line, is complained of, and the hashes stay as they are.

        Raises:
            OSError: nobody can be told.
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                # Beside the loop: a million lines take a second or two. Its own pool would take
                # one more thread to be closed.
                self._hashes = await asyncio.wrap_future(
                    run_aside(lambda: read_allowed(self._path))
                )
            except (CommandFailed, OSError) as error:
                reason = describe(error)
                complain(f"warning: {reason}; the list stays as it was")
                told.note("allow_failed", "", reason=reason)
            else:
                number = len(self._hashes)
                told.note("allowed", f"{count_of(number, 'torrent')} allowed", num_allowed=number)


def read_allowed(path: Path) -> frozenset[bytes]:
    """
    Read a list of info hashes, one a line; empty lines and those that begin with # are skipped.

    v2 hashes are listed as what trackers see of them, the first 20 bytes.

    Raises:
        CommandFailed: a line is no info hash.
        OSError: the file cannot be read.
    """
    found: set[bytes] = set()
    text = path.read_text("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            is_v2 = len(line) == 2 * InfoHashV2.SIZE
            found.add(InfoHashV2.parse(line).truncated if is_v2 else InfoHash.parse(line))
        except ValueError as error:
            raise CommandFailed(f"{path}: line {number}: {error}") from None
    return frozenset(found)
