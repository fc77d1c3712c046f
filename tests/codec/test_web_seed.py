"""codec.web_seed: URLs of files, and the heads of answers to range requests (BEP 19, N8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.bencode import encode
from bittern.codec.info import Info, decode_info
from bittern.codec.web_seed import check_answer, file_url, format_range
from bittern.core.errors import WebSeedError, WebSeedLacksFile, WebSeedUseless


def info_of(name: bytes, *paths: list[bytes]) -> Info:
    """Make a v1 torrent of a single file, or of several."""
    fields: dict[bytes, object] = {b"name": name, b"piece length": 16_384, b"pieces": b"h" * 20}
    if paths:
        fields[b"files"] = [{b"length": 1, b"path": path} for path in paths]
    else:
        fields[b"length"] = 1
    return decode_info(encode(fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://h/dir/", "http://h/dir/a%20b%3F.iso"),
        ("http://h/dir", "http://h/dir"),
        ("http://h/x.iso?key=1", "http://h/x.iso?key=1"),
        ("http://h/", "http://h/a%20b%3F.iso"),
        ("http://h", "http://h/a%20b%3F.iso"),
    ],
)
def test_a_single_file_is_the_url_or_below_it(base: str, url: str) -> None:
    assert file_url(base, info_of(b"a b?.iso"), 0) == url


@pytest.mark.parametrize(
    ("path", "escaped"),
    [
        ([b"one"], "one"),
        ([b"sub dir", b"a#b&c=d+e%f"], "sub%20dir/a%23b%26c%3Dd%2Be%25f"),
        (["ü".encode(), b"x"], "%C3%BC/x"),
        ([b"\xff\xfe"], "%FF%FE"),
        ([b"a/b"], "a%2Fb"),
    ],
)
@pytest.mark.parametrize("base", ["http://h/pub", "http://h/pub/"])
def test_several_files_are_in_the_folder_of_the_torrent(
    base: str, path: list[bytes], escaped: str
) -> None:
    """The slash that many torrents lack is added."""
    info = info_of(b"my name", [b"first"], path)
    assert file_url(base, info, 1) == f"http://h/pub/my%20name/{escaped}"


def test_a_folder_with_one_file_is_a_folder() -> None:
    assert file_url("http://h/pub", info_of(b"n", [b"only"]), 0) == "http://h/pub/n/only"


def test_ranges_include_their_last_byte() -> None:
    assert format_range(0, 1) == "bytes=0-0"
    assert format_range(100, 16_484) == "bytes=100-16483"


# --- answers ---------------------------------------------------------------------------------


def check(status: int, **headers: str) -> bool:
    """Check an answer to a request for bytes 100 to 199 of a file of 1,000."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return check_answer(status, named, start=100, stop=200, length=1_000)


@pytest.mark.parametrize(
    "headers",
    [
        {"content_range": "bytes 100-199/1000"},
        {"content_range": "bytes 100-199/*"},
        {"content_range": " bytes 100-199/1000 ", "content_length": " 100 "},
        {"content_range": "bytes 100-199/1000", "content_encoding": "identity"},
        {"content_range": "bytes 100-199/1000", "content_encoding": "none"},
        # RFC 9112: a length beside a transfer encoding does not count.
        {
            "content_range": "bytes 100-199/1000",
            "content_length": "7",
            "transfer_encoding": "chunked",
        },
    ],
)
def test_the_very_range_is_taken(headers: dict[str, str]) -> None:
    assert check(206, **headers)


@pytest.mark.parametrize("headers", [{}, {"content_length": "1000"}])
def test_a_whole_file_is_told_from_a_range(headers: dict[str, str]) -> None:
    assert not check(200, **headers)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "reason"),
    [
        (206, {}, WebSeedUseless, "does not say which range"),
        (206, {"content_range": "bytes 100-199"}, WebSeedUseless, "does not say"),
        (206, {"content_range": "bytes */1000"}, WebSeedUseless, "does not say"),
        (206, {"content_range": "bytes 100-19٩/1000"}, WebSeedUseless, "does not say"),
        (206, {"content_range": "bytes 100-199/" + "9" * 40}, WebSeedUseless, "does not say"),
        (206, {"content_range": "items 100-199/1000"}, WebSeedUseless, "does not say"),
        (206, {"content_range": "bytes 0-99/1000"}, WebSeedUseless, "got 0-99"),
        (206, {"content_range": "bytes 100-198/1000"}, WebSeedUseless, "got 100-198"),
        (206, {"content_range": "bytes 100-299/1000"}, WebSeedUseless, "got 100-299"),
        (206, {"content_range": "bytes 199-100/1000"}, WebSeedUseless, "got 199-100"),
        (206, {"content_range": "bytes 100-199/999"}, WebSeedLacksFile, "999 bytes there, 1000 in"),
        (
            206,
            {"content_range": "bytes 100-199/1000", "content_length": "99"},
            WebSeedUseless,
            "range of 100 bytes comes with a length of 99",
        ),
        (
            206,
            {"content_range": "bytes 100-199/1000", "content_length": "-1"},
            WebSeedUseless,
            "length of -1",
        ),
        (
            206,
            {"content_range": "bytes 100-199/1000", "content_encoding": "gzip"},
            WebSeedLacksFile,
            "compressed",
        ),
        (200, {"content_encoding": "br"}, WebSeedLacksFile, "compressed"),
        (200, {"content_length": "1001"}, WebSeedLacksFile, "1001 bytes there"),
        (200, {"content_length": "100"}, WebSeedLacksFile, "100 bytes there"),
        (404, {}, WebSeedLacksFile, "404"),
        (410, {}, WebSeedLacksFile, "410"),
        (416, {}, WebSeedLacksFile, "416"),
        (401, {}, WebSeedUseless, "401"),
        (403, {}, WebSeedUseless, "403"),
        (451, {}, WebSeedUseless, "451"),
        (204, {}, WebSeedError, "204"),
        (304, {}, WebSeedError, "304"),
        (429, {}, WebSeedError, "429"),
        (500, {}, WebSeedError, "500"),
        (503, {}, WebSeedError, "503"),
    ],
)
def test_anything_else_is_refused(
    status: int, headers: dict[str, str], kind: type[WebSeedError], reason: str
) -> None:
    with pytest.raises(WebSeedError, match=reason) as caught:
        check(status, **headers)
    assert type(caught.value) is kind
    assert caught.value.retry_after is None


def test_a_busy_server_says_when_to_come_back() -> None:
    with pytest.raises(WebSeedError) as caught:
        check(503, retry_after="120")
    assert caught.value.retry_after == 120


NUMBERS = st.one_of(st.integers(-(10**30), 10**30).map(str), st.text(max_size=30))
VALUES = st.one_of(
    NUMBERS,
    st.builds("bytes {}-{}/{}".format, NUMBERS, NUMBERS, NUMBERS),
    st.builds("{}, {} {} {} {}:{}:{} {}".format, *[NUMBERS] * 8),
    st.builds("Fri, {} Dec {} {}:00:00 +{}".format, *[NUMBERS] * 4),
)
NAMES = st.sampled_from(
    ["content-range", "content-length", "content-encoding", "retry-after", "date"]
)


@pytest.mark.fuzz
@given(st.sampled_from([200, 206, 404, 503]), st.dictionaries(NAMES, VALUES))
def test_whatever_a_server_says_is_taken_or_refused(status: int, headers: dict[str, str]) -> None:
    refused: WebSeedError | None = None
    try:
        check_answer(status, headers, start=0, stop=100, length=1_000)
    except WebSeedError as error:
        refused = error
    if refused is not None:
        assert len(str(refused)) < 300
        assert refused.retry_after is None or refused.retry_after >= 0
