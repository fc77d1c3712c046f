"""codec.tracker_query: announce and scrape URLs, and reading them back (BEP 3, 7, 48)."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.codec.tracker_query import (
    announce_url,
    parse_announce_query,
    parse_scrape_query,
    scrape_url,
    tracker_url,
)
from bittern.core.announce import AnnounceRequest, Event
from bittern.core.errors import TrackerDecodeError
from bittern.core.ids import InfoHash, PeerId

HASH = InfoHash(bytes.fromhex("123456789abcdef123456789abcdef123456789a"))
ID = PeerId(b"-bt0100-0123456789ab")
REQUEST = AnnounceRequest(info_hash=HASH, peer_id=ID, port=6881, uploaded=1, downloaded=2, left=3)

requests = st.builds(
    AnnounceRequest,
    info_hash=st.binary(min_size=20, max_size=20).map(InfoHash),
    peer_id=st.binary(min_size=20, max_size=20).map(PeerId),
    port=st.integers(0, 65535),
    uploaded=st.integers(0, 2**63 - 1),
    downloaded=st.integers(0, 2**63 - 1),
    left=st.integers(0, 2**63 - 1),
    event=st.sampled_from(Event),
    key=st.none() | st.integers(0, 2**32 - 1),
    numwant=st.none() | st.integers(0, 2000),
    host=st.none() | st.sampled_from(["192.0.2.1", "2001:db8::1"]),
    tracker_id=st.binary(max_size=256),
)


def test_announce_url_is_exact() -> None:
    assert announce_url("http://tracker.example/announce", REQUEST) == (
        "http://tracker.example/announce?"
        "info_hash=%124Vx%9A%BC%DE%F1%23Eg%89%AB%CD%EF%124Vx%9A"
        "&peer_id=-bt0100-0123456789ab&port=6881&uploaded=1&downloaded=2&left=3"
        "&compact=1&no_peer_id=1"
    )


@settings(max_examples=40)
@given(requests)
def test_query_survives_the_round_trip(request_: AnnounceRequest) -> None:
    url = announce_url("https://t.example:8443/a/announce?pass=x%20y", request_)
    assert url.isascii()
    query = urlsplit(url).query
    assert query.startswith("pass=x%20y&info_hash=")
    assert parse_announce_query(query) == request_


def test_every_byte_is_escaped_alone() -> None:
    for byte in range(256):
        url = scrape_url("http://h/announce", [InfoHash(bytes([byte]) * 20)])
        assert url is not None
        value = url.partition("info_hash=")[2]
        plain = chr(byte)
        is_unreserved = plain.isascii() and (plain.isalnum() or plain in "-._~")
        assert value == (plain if is_unreserved else f"%{byte:02X}") * 20


@pytest.mark.parametrize(
    ("given_url", "sent"),
    [
        ("http://h/announce", "http://h/announce"),
        (" HTTP://H.Example:80/Announce#frag ", "http://h.example:80/Announce"),
        ("http://h", "http://h"),
        ("udp://h:6969", "udp://h:6969"),
        ("http://h/a b\u00e9?x=\u00fc z", "http://h/a%20b%C3%A9?x=%C3%BC%20z"),
        ("http://h/a%20b?k=%41", "http://h/a%20b?k=%41"),
        ("http://b\u00fccher.example/announce", "http://xn--bcher-kva.example/announce"),
        ("http://[2001:DB8::1]:7000/announce", "http://[2001:db8::1]:7000/announce"),
        ("https://u:p@h/announce", "https://u:p@h/announce"),
        ("http://h/a\r\nHost: evil", "http://h/aHost:%20evil"),
    ],
)
def test_urls_are_brought_into_the_form_that_is_sent(given_url: str, sent: str) -> None:
    assert tracker_url(given_url) == sent


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "scheme"),
        ("announce", "scheme"),
        ("ftp://h/announce", "scheme 'ftp'"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("wss://h/announce", "scheme"),
        ("http:///announce", "host"),
        ("http://h|h/announce", "host"),
        ("http://h:port/announce", "malformed"),
        ("http://h:99999/announce", "malformed"),
        ("http://[::1/announce", "malformed"),
        ("http://[::g\u00e9]/announce", "malformed"),
        ("http://" + "a" * 64 + ".example/", "malformed"),
        ("http://h/" + "a" * 4096, "too long"),
    ],
)
def test_unusable_urls_are_refused(url: str, reason: str) -> None:
    with pytest.raises(TrackerDecodeError, match=reason):
        tracker_url(url)
    with pytest.raises(TrackerDecodeError):
        announce_url(url, REQUEST)
    with pytest.raises(TrackerDecodeError):
        scrape_url(url)


@pytest.mark.parametrize(
    ("announce", "scrape"),
    [
        # The examples of the convention that BEP 48 writes down.
        ("http://h/announce", "http://h/scrape"),
        ("http://h/x/announce", "http://h/x/scrape"),
        ("http://h/announce.php", "http://h/scrape.php"),
        ("http://h/a", None),
        ("http://h/announce?x2%0644", "http://h/scrape?x2%0644"),
        ("http://h/announce?x=2/4", "http://h/scrape?x=2/4"),
        ("http://h/x%064announce", None),
        # And what is seen besides.
        ("http://h/announce/passkey", "http://h/scrape/passkey"),
        ("http://h/announce/announce", "http://h/announce/scrape"),
        ("http://h/announcements", None),
        ("http://announce/x", None),
        ("http://h/x?u=/announce", None),
    ],
)
def test_scrape_url_follows_from_the_announce_url(announce: str, scrape: str | None) -> None:
    assert scrape_url(announce) == scrape


def test_scrape_url_keeps_the_passkey_in_front_of_the_hashes() -> None:
    url = scrape_url("http://h/announce?k=1&", [HASH, InfoHash(bytes(20))])
    assert url is not None
    query = urlsplit(url).query
    assert query.startswith("k=1&info_hash=%124Vx")
    assert parse_scrape_query(query) == [HASH, InfoHash(bytes(20))]


def test_empty_path_becomes_the_root() -> None:
    assert announce_url("http://h", REQUEST).startswith("http://h/?info_hash=")


GOOD = f"info_hash={'a' * 20}&peer_id={'b' * 20}&port=1"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "info_hash is missing"),
        (f"peer_id={'b' * 20}&port=1", "info_hash is missing"),
        (f"info_hash={'a' * 19}&peer_id={'b' * 20}&port=1", "info_hash must have 20 bytes, not 19"),
        (f"info_hash={'a' * 20}&port=1", "peer_id is missing"),
        (f"info_hash={'a' * 20}&peer_id=x&port=1", "peer_id must have 20 bytes"),
        (f"info_hash={'a' * 20}&peer_id={'b' * 20}", "port is missing"),
        (GOOD.replace("port=1", "port=65536"), "port is too large"),
        (GOOD.replace("port=1", "port="), "port is missing"),
        (GOOD.replace("port=1", "port=-1"), "port is not a number"),
        (GOOD.replace("port=1", "port=%D9%A1"), "port is not a number"),
        (GOOD + "&left=1e9", "left is not a number"),
        (GOOD + f"&left={2**63}", "left is too large"),
        (GOOD + "&uploaded=" + "9" * 5000, "uploaded is not a number"),
        ("&".join(["a=b"] * 81), "too many parameters"),
    ],
)
def test_bad_announce_queries_say_what_is_wrong(query: str, reason: str) -> None:
    with pytest.raises(TrackerDecodeError, match=reason):
        parse_announce_query(query)


@pytest.mark.parametrize(
    ("extra", "field", "value"),
    [
        ("", "left", 2**63 - 1),
        ("&left=", "left", 2**63 - 1),
        ("&left=0", "left", 0),
        ("", "uploaded", 0),
        ("&downloaded=", "downloaded", 0),
        ("&event=empty", "event", Event.NONE),
        ("&event=%ff", "event", Event.NONE),
        ("&event=stopped&event=started", "event", Event.STOPPED),
        ("&numwant=-1", "numwant", None),
        ("&numwant=x", "numwant", None),
        ("&numwant=999999999999", "numwant", 2000),
        ("&key=zz", "key", None),
        ("&key=123456789", "key", None),
        ("&key=ff", "key", 255),
        ("&trackerid=" + "t" * 300, "tracker_id", b"t" * 256),
        ("&ip=1.2.3.4", "host", "1.2.3.4"),
        ("&&foo&bar=", "port", 1),
    ],
)
def test_habits_of_clients_are_understood(extra: str, field: str, value: object) -> None:
    assert getattr(parse_announce_query(GOOD + extra), field) == value


def test_plus_sign_is_a_byte() -> None:
    assert parse_announce_query(GOOD.replace("a" * 20, "+" * 20)).info_hash == b"+" * 20


def test_scrape_query_limits() -> None:
    assert parse_scrape_query("") == []
    one = "info_hash=" + "a" * 20
    assert len(parse_scrape_query("&".join([one] * 74))) == 74
    with pytest.raises(TrackerDecodeError, match="too many info hashes"):
        parse_scrape_query("&".join([one] * 75))
    with pytest.raises(TrackerDecodeError, match="20 bytes"):
        parse_scrape_query("info_hash=short")


@given(st.text(max_size=200))
def test_any_query_is_read_or_refused(query: str) -> None:
    for parse in (parse_announce_query, parse_scrape_query):
        try:
            parse(query)
        except TrackerDecodeError:
            pass


@given(st.text(max_size=100), st.sampled_from(["", "http://", "udp://", "http://["]))
def test_any_url_is_normalised_or_refused(text: str, start: str) -> None:
    try:
        url = tracker_url(start + text)
    except TrackerDecodeError:
        return
    assert url.isascii()
    assert not set(url) & set(" \r\n\t")
    assert tracker_url(url) == url
