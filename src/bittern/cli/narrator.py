"""
A voice for stories in a terminal: headings, sentences, facts, bytes with their meaning.

Colours are used on a terminal only, and not where ``NO_COLOR`` is set.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import TextIO

from bittern.cli.display import is_terminal
from bittern.cli.dissect import BYTES_PER_LINE, Part, hex_lines
from bittern.cli.output import printable

MAX_WIDTH = 96
MIN_WIDTH = 20
"""Columns that text is wrapped to at least; a terminal that has fewer wraps it once more."""
_HEX_WIDTH = 3 * BYTES_PER_LINE - 1
_STYLES = {
    "heading": "1;36",
    "bytes": "33",
    "sent": "32",
    "received": "35",
    "fact": "2",
    "good": "1;32",
}


class Narrator:
    """
    Writes to one stream, in one style.

    Args:
        stream: where to.
        silent: write nothing at all.
    """

    def __init__(self, stream: TextIO, *, silent: bool = False) -> None:
        self._stream = stream
        self._silent = silent
        self._is_coloured = is_terminal(stream) and not os.environ.get("NO_COLOR")
        self._width = max(MIN_WIDTH, min(MAX_WIDTH, shutil.get_terminal_size().columns))
        self._num_headings = 0

    def heading(self, title: str) -> None:
        """Begin a numbered chapter."""
        self._num_headings += 1
        self._write("")
        self._write(self._styled("heading", f"{self._num_headings}. {printable(title)}"))

    def say(self, text: str, *, style: str = "") -> None:
        """Write a paragraph, wrapped."""
        for line in textwrap.wrap(printable(text), self._width - 3) or [""]:
            self._write("   " + self._styled(style, line))

    def fact(self, name: str, value: str) -> None:
        """Write a name and a value, not wrapped."""
        self._write(f"     {self._styled('fact', f'{printable(name):<17}')} {printable(value)}")

    def bytes(self, title: str, parts: Sequence[Part], *, style: str = "sent") -> None:
        """
        Write a message with what its bytes mean.

        Args:
            title: who says what to whom.
            parts: of the message.
            style: ``sent`` or ``received``.
        """
        self._write("   " + self._styled(style, printable(title)))
        lines = hex_lines(list(parts))
        width = min(_HEX_WIDTH, max((len(text) for text, _ in lines), default=0))
        for text, meaning in lines:
            padded = self._styled("bytes", f"{text:<{width}}")
            self._write(f"     {padded}  {printable(meaning)}".rstrip())

    def _styled(self, style: str, text: str) -> str:
        if not style or not self._is_coloured:
            return text
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"

    def _write(self, line: str) -> None:
        if not self._silent:
            self._stream.write(line + "\n")
            self._stream.flush()
