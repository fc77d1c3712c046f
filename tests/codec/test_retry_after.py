"""codec.retry_after: when a web server wants to be asked again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.retry_after import parse_retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, None),
        (
            {
                "retry-after": "Fri, 31 Dec 1999 23:59:59 GMT",
                "date": "Fri, 31 Dec 1999 23:59:00 GMT",
            },
            59,
        ),
        (
            {
                "retry-after": "Fri, 31 Dec 1999 23:59:00 GMT",
                "date": "Fri, 31 Dec 1999 23:59:59 GMT",
            },
            0,
        ),
        (
            {
                "retry-after": "Fri, 31 Dec 1999 23:59:59 -0000",
                "date": "Fri, 31 Dec 1999 23:00 GMT",
            },
            None,
        ),
        (
            {
                "retry-after": "Fri, 31 Dec 1999 23:59:59222222222222222222 GMT",
                "date": "Fri, 31 Dec 1999 23:59:00 GMT",
            },
            None,
        ),
        ({"retry-after": "Fri, 99 Dec 1999 23:59:59 GMT", "date": "x"}, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_against_the_servers_own_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert parse_retry_after(headers) == seconds


NUMBERS = st.one_of(st.integers(-(10**30), 10**30).map(str), st.text(max_size=30))
VALUES = st.one_of(
    NUMBERS,
    st.builds("{}, {} {} {} {}:{}:{} {}".format, *[NUMBERS] * 8),
    st.builds("Fri, {} Dec {} {}:00:00 +{}".format, *[NUMBERS] * 4),
)


@pytest.mark.fuzz
@given(st.dictionaries(st.sampled_from(["retry-after", "date"]), VALUES))
def test_whatever_a_server_says_is_no_time_in_the_past(headers: dict[str, str]) -> None:
    seconds = parse_retry_after(headers)
    assert seconds is None or seconds >= 0
