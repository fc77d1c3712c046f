"""Magnet links: a table both ways, refusals, hints that are left out, another reader."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec import magnet as module
from bittern.codec.magnet import Magnet, format_magnet, magnet_of_hash, parse_magnet
from bittern.core.errors import MagnetError
from bittern.core.ids import InfoHash, InfoHashV2
from tests.codec.fuzzing import fuzz
from tests.reference import lt

H1 = InfoHash(bytes(range(20)))
H2 = InfoHashV2(bytes(range(100, 132)))
BTIH = f"magnet:?xt=urn:btih:{H1}"
BTMH = f"magnet:?xt=urn:btmh:1220{H2}"
KEY = "8543d3e6115f0f98c944077a4493dcd543e49c739fd998550a1f614ab36ed63e"

TABLE: list[tuple[Magnet, str]] = [
    (Magnet(H1), BTIH),
    (Magnet(None, H2), BTMH),
    (Magnet(H1, H2), f"{BTIH}&xt=urn:btmh:1220{H2}"),
    (Magnet(H1, name="a b+c&d=é/"), BTIH + "&dn=a%20b%2Bc%26d%3D%C3%A9%2F"),
    (Magnet(H1, name="\udcff"), BTIH + "&dn=%FF"),
    (
        Magnet(H1, trackers=("http://t.example/a?k=1&l=2", "udp://t:1")),
        BTIH + "&tr=http://t.example/a%3Fk%3D1%26l%3D2&tr=udp://t:1",
    ),
    (Magnet(H1, web_seeds=("https://w/x y",)), BTIH + "&ws=https://w/x%20y"),
    (
        Magnet(H1, peers=(("host.example", 1), ("1.2.3.4", 65535), ("2001:db8::1", 6881))),
        BTIH + "&x.pe=host.example:1&x.pe=1.2.3.4:65535&x.pe=[2001:db8::1]:6881",
    ),
    (Magnet(H1, select_only=((0, 0), (2, 2), (4, 4), (6, 8))), BTIH + "&so=0,2,4,6-8"),
    (Magnet(H1, exact_length=10), BTIH + "&xl=10"),
    (Magnet(public_key=bytes.fromhex(KEY)), f"magnet:?xs=urn:btpk:{KEY}"),
    (Magnet(public_key=bytes.fromhex(KEY), salt=b"n"), f"magnet:?xs=urn:btpk:{KEY}&s=6e"),
]


@pytest.mark.parametrize(("magnet", "text"), TABLE, ids=[row[1][8:60] for row in TABLE])
class TestBothWays:
    def test_parses(self, magnet: Magnet, text: str) -> None:
        assert parse_magnet(text) == magnet

    def test_formats(self, magnet: Magnet, text: str) -> None:
        assert format_magnet(magnet) == text

    def test_another_reader_finds_the_same(self, magnet: Magnet, text: str) -> None:
        if magnet.public_key is not None or magnet.name == "\udcff":
            return  # libtorrent knows no BEP 46 and replaces what is no UTF-8
        params = lt.parse_magnet_uri(text)
        assert params.info_hashes.has_v1() == (magnet.info_hash is not None)
        if magnet.info_hash:
            assert str(params.info_hashes.v1) == str(magnet.info_hash)
        if magnet.info_hash_v2:
            assert str(params.info_hashes.v2) == str(magnet.info_hash_v2)
        assert params.name == (magnet.name or "")
        assert tuple(params.trackers) == magnet.trackers
        assert tuple(params.url_seeds) == magnet.web_seeds


ALIKE: list[tuple[str, Magnet]] = [
    (f"  {BTIH}\n", Magnet(H1)),
    (BTIH.replace("magnet", "MAGNET").replace("urn:btih", "URN:BTIH"), Magnet(H1)),
    (BTIH[:20] + str(H1).upper(), Magnet(H1)),
    ("magnet:?xt=urn:btih:" + base64.b32encode(H1).decode(), Magnet(H1)),
    ("magnet:?xt=urn:btih:" + base64.b32encode(H1).decode().lower(), Magnet(H1)),
    (BTIH.replace("urn:btih:", "urn%3Abtih%3A"), Magnet(H1)),
    (f"{BTIH}&xt={BTIH[11:]}", Magnet(H1)),
    (f"magnet:?xt.1={BTIH[11:]}&xt.2={BTMH[11:]}", Magnet(H1, H2)),
    (f"{BTIH}&xt=urn:sha1:ABC&unknown=1&&novalue&=x", Magnet(H1)),
    (f"{BTIH}&dn=a+b%20c", Magnet(H1, name="a b c")),
    (f"{BTIH}&dn=", Magnet(H1)),
    (f"{BTIH}&dn=\udcff&tr=\udcff&ws=\udcff", Magnet(H1, name="\udcff")),  # an argument in Latin-1
    (f"{BTIH}&dn=first&dn=second", Magnet(H1, name="first")),
    (f"{BTIH}&tr.1=udp://a&TR.2=udp://b&tr=udp://a", Magnet(H1, trackers=("udp://a", "udp://b"))),
    (f"{BTIH}&tr=&tr=%00&tr=%ff&tr=X%0aY&ws=+", Magnet(H1, web_seeds=("+",))),
    (f"{BTIH}&so=6-8,2,7-9,3,2", Magnet(H1, select_only=((2, 3), (6, 9)))),
    (f"{BTIH}&so=0-1,5-9,6-7", Magnet(H1, select_only=((0, 1), (5, 9)))),
    (f"{BTIH}&so=", Magnet(H1)),
    (f"{BTIH}&so=1&so=5-6", Magnet(H1, select_only=((1, 1), (5, 6)))),
    (f"{BTIH}&so=1%2C3", Magnet(H1, select_only=((1, 1), (3, 3)))),
    (f"{BTIH}&xl=ten&xl=7&xl=8", Magnet(H1, exact_length=7)),
    (f"{BTIH}&xl=-1&xl={'9' * 19}", Magnet(H1)),
    (f"{BTIH}&s=6e&xs=http://x", Magnet(H1)),
    (f"magnet:?xs=urn:btpk:{KEY}&s=", Magnet(public_key=bytes.fromhex(KEY))),
    (
        f"magnet:?xs=URN%3Abtpk%3A{KEY.upper()}&xs.1=urn:btpk:{KEY}",
        Magnet(public_key=bytes.fromhex(KEY)),
    ),
    (f"{BTIH}&xs=urn:btpk:{KEY}&s=00ff", Magnet(H1, public_key=bytes.fromhex(KEY), salt=b"\0\xff")),
]


@pytest.mark.parametrize(("text", "magnet"), ALIKE, ids=[repr(row[0])[-40:] for row in ALIKE])
def test_other_spellings(text: str, magnet: Magnet) -> None:
    assert parse_magnet(text) == magnet


@pytest.mark.parametrize(
    "peer",
    ["", "host", "host:", ":1", "host:0", "host:65536", "host:99999999999999", "host:-1", "host:x",
     "::1:80", "[::1]", "[]:80", "a b:80", "a%00b:80", "%ff:80", "x" * 254 + ":80", "host:٣"],
)  # fmt: skip
def test_malformed_peers_are_left_out(peer: str) -> None:
    assert parse_magnet(f"{BTIH}&x.pe={peer}&x.pe=ok:1&x.pe=ok:1").peers == (("ok", 1),)


REFUSED: list[tuple[str, str]] = [
    ("", "does not begin with"),
    ("http://example.com/", "does not begin with"),
    ("magnet:", "does not begin with"),
    (str(H1), "does not begin with"),
    ("magnet:?", "no BitTorrent info hash"),
    ("magnet:?dn=x", "no BitTorrent info hash"),
    (f"{BTIH}&dn=\ud83d", "half of a character"),
    (f"{BTIH}&so=\udcff", "no file index or range"),
    ("magnet:?xt=urn:sha1:" + "A" * 32, "no BitTorrent info hash"),
    ("magnet:?xt=urn:btih:", "malformed info hash"),
    ("magnet:?xt=urn:btih:" + "g" * 40, "malformed info hash"),
    ("magnet:?xt=urn:btih:" + "1" * 32, "malformed info hash"),
    (BTIH + "0", "malformed info hash"),
    (BTIH[:-1], "malformed info hash"),
    (BTIH[:-1] + "é", "malformed info hash"),
    (BTMH + "00", "malformed info hash"),
    (BTMH[:-2], "malformed info hash"),
    (BTMH.replace("1220", "1114"), "no SHA-256 multihash"),
    (f"{BTIH}&xt=urn:btih:{'0' * 40}", "two different v1"),
    (f"{BTMH}&xt=urn:btmh:1220{'0' * 64}", "two different v2"),
    ("magnet:?xs=urn:btpk:", "public key"),
    (f"magnet:?xs=urn:btpk:{KEY}00", "public key"),
    ("magnet:?xs=urn:btpk:" + "zz" * 32, "public key"),
    ("magnet:?xs=urn:btpk:" + "a " * 32, "public key"),
    (f"magnet:?xs=urn:btpk:{KEY}&xs=urn:btpk:{'0' * 64}", "two different public keys"),
    (f"magnet:?xs=urn:btpk:{KEY}&s=zz", "salt is not"),
    (f"magnet:?xs=urn:btpk:{KEY}&s=" + "00" * 65, "salt is longer"),
    (f"{BTIH}&so=a", "'a' is no file index"),
    (f"{BTIH}&so=1,", "'' is no file index"),
    (f"{BTIH}&so=-1", "'-1' is no file index"),
    (f"{BTIH}&so=1-", "'1-' is no file index"),
    (f"{BTIH}&so=1-2-3", "'1-2-3' is no file index"),
    (f"{BTIH}&so=9999999999", "is no file index"),
    (f"{BTIH}&so=٣", "is no file index"),
    (f"{BTIH}&so=3-1", "'3-1' runs backwards"),
    (f"{BTIH}&so=" + ",".join(["1"] * 1001), "more than 1000 file ranges"),
    (BTIH + "&dn=" + "x" * 65536, "more than 65536"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), REFUSED, ids=[repr(row[0])[-40:] for row in REFUSED])
def test_refusals(text: str, reason: str) -> None:
    with pytest.raises(MagnetError, match=reason):
        parse_magnet(text)


def test_hints_beyond_the_limits_are_left_out() -> None:
    text = BTIH + "".join(f"&tr=udp://{n}&ws=http://{n}&x.pe=h:{n + 1}" for n in range(200))
    magnet = parse_magnet(text)
    assert len(magnet.trackers) == module.MAX_TRACKERS
    assert len(magnet.web_seeds) == module.MAX_WEB_SEEDS
    assert len(magnet.peers) == module.MAX_PEERS


def test_wire_hash_is_the_v1_hash_or_the_cut_v2_hash() -> None:
    assert Magnet(H1, H2).wire_hash == H1
    assert Magnet(None, H2).wire_hash == H2[:20]
    assert Magnet(public_key=bytes(32)).wire_hash is None


urls = st.text(min_size=1, max_size=20).map(lambda text: "udp://" + text).filter(
    lambda url: url.isprintable() and url == url.strip()
)  # fmt: skip


@given(
    st.builds(
        Magnet,
        st.binary(min_size=20, max_size=20).map(InfoHash),
        st.none() | st.binary(min_size=32, max_size=32).map(InfoHashV2),
        st.none() | st.text(min_size=1) | st.binary(min_size=1).map(
            lambda raw: raw.decode("utf-8", "surrogateescape")
        ),
        st.lists(urls, max_size=3, unique=True).map(tuple),
        st.lists(urls, max_size=3, unique=True).map(tuple),
        st.lists(
            st.tuples(st.sampled_from(["h", "1.2.3.4", "::1"]), st.integers(1, 65535)),
            max_size=3,
            unique=True,
        ).map(tuple),
        st.just(()) | st.just(((1, 2), (4, 9))),
        st.none() | st.integers(0, 10**18 - 1),
    )
)  # fmt: skip
def test_parse_inverts_format(magnet: Magnet) -> None:
    assert parse_magnet(format_magnet(magnet)) == magnet


@pytest.mark.fuzz
def test_only_the_documented_error_escapes() -> None:
    seeds = [text.encode() for _, text in TABLE]
    fuzz(lambda data: parse_magnet(data.decode("latin-1")), seeds, MagnetError)


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("a" * 40, "magnet:?xt=urn:btih:" + "a" * 40),
        ("A" * 32, "magnet:?xt=urn:btih:" + "A" * 32),
        ("b" * 64, "magnet:?xt=urn:btmh:1220" + "b" * 64),
        ("1220" + "b" * 64, "magnet:?xt=urn:btmh:1220" + "b" * 64),
        ("a" * 39, None),
        ("g" * 40, None),
        ("1221" + "b" * 64, None),
        ("x.torrent", None),
        ("\u00e9" * 40, None),
        ("1" * 32, None),
    ],
)
def test_info_hashes_are_known_by_their_form(text: str, link: str | None) -> None:
    assert magnet_of_hash(text) == (None if link is None else parse_magnet(link))
