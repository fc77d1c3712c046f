"""
What the program writes: plain lines, JSON, complaints.

Invariant: W11. No control byte, no bidirectional override and no zero-width
character from a file or the network reaches a terminal, a log or a JSON line.
Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

    Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


def printable(text: str) -> str:
    r"""
    Return ``text`` on one line, everything invisible or active escaped as ``\x1b`` or ``\u202e``.

    Limit: P9, W11.
    """
    if text.isprintable():
        return text
    from bittern.storage.names import display_name

    return display_name(text)


def encode_json(value: Json, *, indent: int | None = None) -> str:
    """Return JSON in ASCII, without any control byte besides the line breaks of ``indent``."""
    import json

    # json leaves DEL as it is, which is a control character to a terminal.
    return json.dumps(value, indent=indent, ensure_ascii=True).replace("\x7f", "\\u007f")


def write_text(stream: TextIO, text: str, *, flush: bool = True) -> None:
    """
    Write to one of the standard streams.

    Raises:
        BrokenPipeError: the reader has gone.
        OSError: it cannot be written, as to a full disk; names the stream.
    """
    try:
        stream.write(text)
        if flush:
            stream.flush()
    except OSError as error:
        raise name_stream(error, stream) from error


def write_bytes(data: bytes) -> None:
    """Write to stdout as it is; raises what ``write_text`` does."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise name_stream(error, sys.stdout) from error


def name_stream(error: OSError, stream: TextIO) -> OSError:
    """Return an error of writing to a standard stream with its name; a broken pipe is enough."""
    if isinstance(error, BrokenPipeError):
        return error
    name = "standard error" if stream is sys.stderr else "standard output"
    return OSError(error.errno, error.strerror, name)


def print_json(value: Json) -> None:
    """Write one JSON document to stdout."""
    write_text(sys.stdout, encode_json(value, indent=2) + "\n")


def print_json_line(value: Json) -> None:
    """Write one JSON value on a line of its own to stdout, at once."""
    write_text(sys.stdout, encode_json(value) + "\n")


def print_line(text: str) -> None:
    """Write one line to stdout; ``text`` is escaped."""
    write_text(sys.stdout, printable(text) + "\n", flush=False)


def print_table(rows: Sequence[tuple[str, str]]) -> None:
    """Write names and values in two columns; rows with an empty value are left out."""
    width = max((len(name) for name, value in rows if value), default=0)
    for name, value in rows:
        if value:
            print_line(f"{name:<{width}}  {value}")


def complain(text: str) -> None:
    """Write one line of diagnosis to stderr; ``text`` is escaped."""
    try:
        sys.stderr.write(f"bittern: {printable(text)}\n")
        sys.stderr.flush()
    except OSError:
        pass  # whoever listened has gone; the exit code still tells


def prepare_streams() -> None:
    """
    Make streams that are closed empty ones, and the others survive text they cannot encode.

    Raises:
        OSError: what was written to one before cannot be written; names the stream.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us, as by ">&-"
            # Their descriptors are taken, too: a socket would get what is written to them.
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            try:
                reconfigure(errors="backslashreplace")  # writes what waits in the stream
            except OSError as error:
                raise name_stream(error, stream) from error
