"""codec.lsd: announces to the local network (BEP 14), both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec.lsd import (
    GROUP_V4,
    GROUP_V6,
    MAX_COOKIE_LENGTH,
    MAX_DATAGRAM_LENGTH,
    MAX_SENT_LENGTH,
    LsdAnnounce,
    decode_lsd,
    encode_lsd,
    max_info_hashes,
)
from bittern.core.errors import LsdDecodeError
from bittern.core.ids import InfoHash
from tests.codec.fuzzing import fuzz

ONE, TWO = InfoHash(b"\x1f" * 20), InfoHash(b"\xa0" * 20)
HEX_ONE, HEX_TWO = "1f" * 20, "a0" * 20
START = "BT-SEARCH * HTTP/1.1\r\n"

CANONICAL = [
    (
        LsdAnnounce(6881, (ONE,), "c00k1e"),
        GROUP_V4,
        (
            f"{START}Host: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: {HEX_ONE}\r\n"
            "cookie: c00k1e\r\n\r\n\r\n"
        ),
    ),
    (
        LsdAnnounce(1, (ONE, TWO)),
        GROUP_V6,
        (
            f"{START}Host: [ff15::efc0:988f]:6771\r\nPort: 1\r\nInfohash: {HEX_ONE}\r\n"
            f"Infohash: {HEX_TWO}\r\n\r\n\r\n"
        ),
    ),
]


@pytest.mark.parametrize(("announce", "group", "text"), CANONICAL)
def test_both_ways(announce: LsdAnnounce, group: str, text: str) -> None:
    assert encode_lsd(announce, group) == text.encode()
    assert decode_lsd(text.encode()) == announce
    assert decode_lsd(memoryview(text.encode())) == announce
    assert decode_lsd(text.encode() + b"anything: else\r\n") == announce


@pytest.mark.parametrize(
    ("text", "announce"),
    [
        # As libtorrent, Transmission, aria2 and the npm package write it.
        (
            (
                f"{START}Host: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: {HEX_ONE}\r\n"
                "cookie: 3c5f12\r\n\r\n\r\n"
            ),
            LsdAnnounce(6881, (ONE,), "3c5f12"),
        ),
        (
            (
                f"{START}Host: 239.192.152.143:6771\r\nPort: 51413\r\n"
                f"Infohash: {HEX_TWO.upper()}\r\n\r\n\r\n"
            ),
            LsdAnnounce(51413, (TWO,)),
        ),
        # As HTTP permits.
        (f"bt-search * http/1.0\ninfoHASH:{HEX_ONE}\nPORT:  7 \n\n", LsdAnnounce(7, (ONE,))),
        (f"{START}X-New: 1\r\nPort: 7\r\nInfohash: {HEX_ONE}", LsdAnnounce(7, (ONE,))),
        # The first of several counts, info hashes are taken once each.
        (
            (
                f"{START}Port: 7\r\nPort: 8\r\nInfohash: {HEX_ONE}\r\nInfohash: {HEX_ONE}\r\n"
                "cookie: a\r\nCookie: b\r\n\r\n"
            ),
            LsdAnnounce(7, (ONE,), "a"),
        ),
        # One bad info hash does not spoil the others.
        (
            f"{START}Port: 7\r\nInfohash: xyz\r\nInfohash: {HEX_ONE}0\r\nInfohash: {HEX_TWO}\r\n",
            LsdAnnounce(7, (TWO,)),
        ),
    ],
)
def test_what_others_send_is_read(text: str, announce: LsdAnnounce) -> None:
    assert decode_lsd(text.encode()) == announce


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no BT-SEARCH"),
        (b"M-SEARCH * HTTP/1.1\r\n\r\n", "no BT-SEARCH"),
        (b"BT-SEARCH * HTTP/1.1", "no BT-SEARCH"),
        (START.encode() + b"\r\n\r\n", "no port"),
        (START.encode() + b"Port: 7\r\n\r\n", "no info hash"),
        (f"{START}Infohash: {HEX_ONE}\r\n\r\n".encode(), "no port"),
        (f"{START}\r\nPort: 7\r\nInfohash: {HEX_ONE}\r\n".encode(), "no port"),
        (f"{START}Port: 7\r\nwhat is this\r\nInfohash: {HEX_ONE}\r\n".encode(), "no header"),
        *(
            (f"{START}Port: {port}\r\nInfohash: {HEX_ONE}\r\n\r\n".encode(), "1 to 65535")
            for port in ("", "0", "65536", "-1", "+7", "7.0", "0x7", "999999", "7 7", "\u0667")
        ),
        (START.encode() + b"X: " + b"y" * MAX_DATAGRAM_LENGTH, "too long (limit 2048)"),
    ],
)
def test_malformed_datagrams_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(LsdDecodeError) as caught:
        decode_lsd(data)
    assert reason in str(caught.value)


def test_a_cookie_is_cut() -> None:
    text = f"{START}Port: 7\r\nInfohash: {HEX_ONE}\r\ncookie: {'x' * 999}\r\n\r\n"
    assert decode_lsd(text.encode()).cookie == "x" * MAX_COOKIE_LENGTH


@pytest.mark.parametrize("group", [GROUP_V4, GROUP_V6])
@pytest.mark.parametrize("cookie", ["", "0123456789abcdef"])
def test_a_full_datagram_stays_within_1400_bytes(group: str, cookie: str) -> None:
    """BEP 14: beyond that it might be cut into fragments."""
    count = max_info_hashes(group, cookie)
    hashes = tuple(InfoHash(bytes([n]) * 20) for n in range(count + 1))
    full = encode_lsd(LsdAnnounce(65535, hashes[:count], cookie), group)
    assert MAX_SENT_LENGTH - 52 < len(full) <= MAX_SENT_LENGTH
    assert decode_lsd(full).info_hashes == hashes[:count]
    assert len(encode_lsd(LsdAnnounce(65535, hashes, cookie), group)) > MAX_SENT_LENGTH


@given(
    st.integers(1, 65535),
    st.lists(
        st.binary(min_size=20, max_size=20).map(InfoHash), min_size=1, max_size=20, unique=True
    ),
    st.text("0123456789abcdef", max_size=16),
    st.sampled_from([GROUP_V4, GROUP_V6]),
)
def test_what_is_written_is_read(
    port: int, hashes: list[InfoHash], cookie: str, group: str
) -> None:
    announce = LsdAnnounce(port, tuple(hashes), cookie)
    assert decode_lsd(encode_lsd(announce, group)) == announce


@pytest.mark.slow
def test_fuzz_of_datagrams() -> None:
    seeds = [text.encode() for _, _, text in CANONICAL]
    assert fuzz(decode_lsd, seeds, LsdDecodeError) > 0
