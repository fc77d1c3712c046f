"""
Where the files of a torrent are on a web server, and whether an answer is what was asked for.

A web seed is a URL under which an ordinary HTTP server has the torrent's files:

    torrent       URL            file is at
    single file   ends in "/"    URL + name (also when it has no path at all)
    single file   otherwise      URL
    several       any            URL + "/" (unless it is there) + name + "/" + path

A range of a file is asked for with ``Range: bytes=first-last``, both included. The
answer must be 206 with exactly that range in ``Content-Range``, or 200 with the whole
file from a server that knows no ranges. Everything that an answer claims of a length
must be right: a file of another length is another file.

Sources: BEP 19; RFC 9110 section 14 (ranges).
Limit: N8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from bittern.codec.file_list import text_to
from bittern.codec.inflate import PLAIN
from bittern.codec.info import Info
from bittern.codec.retry_after import parse_retry_after
from bittern.core.errors import WebSeedError, WebSeedLacksFile, WebSeedUseless

OK, PARTIAL = 200, 206
_GONE = frozenset({404, 410})
_REFUSED = frozenset({401, 402, 403, 405, 407, 451})
_BAD_RANGE = 416

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_DECIMAL = re.compile(r"\d{1,18}", re.ASCII)


def file_url(base: str, info: Info, index: int) -> str:
    """
    Return where a web seed has file ``index`` of a torrent.

    Args:
        base: the URL as the torrent or the user gives it, normalised.
        info: of the torrent.
        index: of a file that is no padding.

    Source: BEP 19.
    """
    # Interop: many torrents of several files lack the slash, and every client adds it.
    folder = base if base.endswith("/") else base + "/"
    if info.is_single_file:
        return folder + _escape(info.name) if folder == base or _is_bare(base) else base
    return folder + "/".join(map(_escape, (info.name, *info.files[index].path)))


def _is_bare(url: str) -> bool:
    """Tell whether a URL names a server only."""
    return "/" not in url.partition("://")[2]


def _escape(name: str) -> str:
    """Return a name as one element of a path; bytes that are no UTF-8 stay what they are."""
    return quote(text_to(name), safe="")


def format_range(start: int, stop: int) -> str:
    """Return the ``Range`` header for bytes ``start`` up to, not including, ``stop``."""
    return f"bytes={start}-{stop - 1}"


def check_answer(
    status: int, headers: Mapping[str, str], *, start: int, stop: int, length: int
) -> bool:
    """
    Check the head of an answer to a range request.

    Args:
        status: of the answer.
        headers: names in lower case.
        start: first byte that was asked for.
        stop: the byte after the last one.
        length: of the file, as the torrent has it.

    Returns:
        True when the body is the range, False when it is the whole file.

    Raises:
        WebSeedError: it is neither; the error says whether to come back.
    """
    if status not in (OK, PARTIAL):
        raise _refusal(status, headers)
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in PLAIN:
        raise WebSeedLacksFile(f"file comes compressed ({encoding[:20]})")
    if status == OK:
        _check_length(headers, length, "file")
        return False
    text = headers.get("content-range", "").strip()
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        raise WebSeedUseless("answer does not say which range it is")
    first, last, total = match.groups()
    if total != "*" and int(total) != length:
        raise _other_length(int(total), length)
    if (int(first), int(last)) != (start, stop - 1):
        raise WebSeedUseless(f"asked for bytes {start}-{stop - 1}, got {first}-{last}")
    _check_length(headers, stop - start, "range")
    return True


def _check_length(headers: Mapping[str, str], expected: int, what: str) -> None:
    text = headers.get("content-length")
    if text is None or "transfer-encoding" in headers:
        return  # RFC 9112: then the length does not count, and the body is cut by what was asked
    number = int(text) if _DECIMAL.fullmatch(text.strip()) else -1
    if number == expected:
        return
    if what == "file":
        raise _other_length(number, expected)
    raise WebSeedUseless(f"range of {expected} bytes comes with a length of {number}")


def _other_length(found: int, expected: int) -> WebSeedError:
    return WebSeedLacksFile(f"file has {found} bytes there, {expected} in the torrent")


def _refusal(status: int, headers: Mapping[str, str]) -> WebSeedError:
    """Return what a status other than success means."""
    reason = f"HTTP status {status}"
    if status in _GONE or status == _BAD_RANGE:
        return WebSeedLacksFile(reason)
    if status in _REFUSED:
        return WebSeedUseless(reason)
    return WebSeedError(reason, retry_after=parse_retry_after(headers))
