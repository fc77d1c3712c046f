from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.cli.values import (
    HostPort,
    parse_duration,
    parse_file_list,
    parse_host,
    parse_host_port,
    parse_port,
    parse_rate,
    parse_ratio,
    parse_size,
)

DURATIONS = [
    ("90", 90),
    ("90s", 90),
    ("5m", 300),
    ("2h", 7200),
    ("7d", 604_800),
    ("1w", 604_800),
    ("1.5h", 5400),
    ("0", 0),
    (" 3S ", 3),
    ("10 m", 600),
]

SIZES = [
    ("262144", 262_144),
    ("64Ki", 65_536),
    ("1Mi", 1_048_576),
    ("1.5M", 1_500_000),
    ("0.5Ki", 512),
    ("2G", 2_000_000_000),
    ("2Gi", 1 << 31),
    ("1T", 10**12),
    ("1TiB", 1 << 40),
    ("16kb", 16_000),
    ("7B", 7),
    ("0", 0),
    ("9223372036854775807", (1 << 63) - 1),
]

NO_NUMBERS = [
    "",
    " ",
    "-1",
    "+1",
    "1e3",
    "nan",
    "inf",
    "0x10",
    "1_000",
    "\u0661",
    "1..2",
    ".5",
    "1.",
]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", [*NO_NUMBERS, "5x", "5ms", "s", "1h30m", "9" * 20])
def test_what_is_no_duration_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "length"), SIZES)
def test_a_size_counts_in_thousands_or_1024s(text: str, length: int) -> None:
    assert parse_size(text) == length


@pytest.mark.parametrize("text", [*NO_NUMBERS, "1Xi", "1 2", "Ki", "1iB", "9" * 20])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["9223372036854775808", "9999999999T"])
def test_a_size_beyond_63_bits_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("1Mi", 1 << 20), ("1Mi/s", 1 << 20), ("5MB/s", 5_000_000), ("0", None), ("1", 1)],
)
def test_a_rate_is_a_size_and_zero_is_no_limit(text: str, rate: int | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", [*NO_NUMBERS, "1/s/s", "fast"])
def test_what_is_no_rate_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize(("text", "ratio"), [("1", 1.0), ("2.5", 2.5), ("0", 0.0)])
def test_a_ratio_is_a_plain_number(text: str, ratio: float) -> None:
    assert parse_ratio(text) == ratio


@pytest.mark.parametrize("text", [*NO_NUMBERS, "1k", "100%"])
def test_what_is_no_ratio_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a ratio"):
        parse_ratio(text)


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("0", {0}),
        ("0,2-5", {0, 2, 3, 4, 5}),
        ("5,0,5", {0, 5}),
        (" 1 , 3 - 4 ", {1, 3, 4}),
        ("7-7", {7}),
        ("1000000", {1_000_000}),
    ],
)
def test_a_file_list_holds_indices_and_ranges(text: str, indices: set[int]) -> None:
    assert parse_file_list(text) == indices


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "1-", "-1", "1-2-3", "\u0661", "12345678"])
def test_what_is_no_file_list_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a list of files"):
        parse_file_list(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5-2", "runs backwards"),
        ("0-9999999", "above 1000000"),
        ("0," * 1000 + "0", "more than 1000 ranges"),
    ],
)
def test_a_hostile_file_list_costs_nothing(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_file_list(text)


@given(st.frozensets(st.integers(0, 5000), min_size=1, max_size=50))
def test_a_list_of_single_indices_is_read_back(indices: frozenset[int]) -> None:
    assert parse_file_list(",".join(map(str, sorted(indices)))) == indices


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("example.org:6881", HostPort("example.org", 6881)),
        ("1.2.3.4:1", HostPort("1.2.3.4", 1)),
        ("[2001:db8::1]:65535", HostPort("2001:db8::1", 65535)),
    ],
)
def test_host_and_port_survive_parsing_and_formatting(text: str, value: HostPort) -> None:
    assert parse_host_port(text) == value
    assert str(value) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        "host:0",
        ":6881",
        "*:0",
        "host:65536",
        "host:123456",
        "host:6a",
        "host:\u0661",
        "2001:db8::1:6881",
        "[host]:1",
        "a b:1",
        "a/b:1",
        "a\x1b:1",
        "user@host:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|brackets|is not a port"):
        parse_host_port(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (":6969", HostPort("", 6969)),
        ("*:6969", HostPort("", 6969)),
        ("127.0.0.1:0", HostPort("127.0.0.1", 0)),
        ("[::]:80", HostPort("::", 80)),
    ],
)
def test_a_listening_address_may_be_all_and_any_port(text: str, value: HostPort) -> None:
    assert parse_host_port(text, listen=True) == value


@pytest.mark.parametrize("text", ["", "-1", "65536", "x", "1 2"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a port"):
        parse_port(text)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 0.0.0.0 ", "0.0.0.0"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[::1]", "::1"),
        ("::", "::"),
        ("localhost", "127.0.0.1"),
    ],
)
def test_addresses_of_this_machine(text: str, host: str) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    ["", " ", "eth0", "192.0.2.1:80", "[::1]:80", "1.2.3", "256.1.1.1", "::1::", "fe80::1%lo"],
)
def test_what_is_no_address_of_this_machine(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_host(text)
