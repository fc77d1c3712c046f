"""
Magnet links: a torrent named by its hash, with hints where to find it.

What identifies the torrent or says which files are wanted must be right, or
the link is refused. Hints (trackers, web seeds, peers) that are malformed are
left out, and so are those beyond a limit.

Nothing here is safe to use as it stands: ``name`` may hold anything, and
``peers`` may be addresses in the reader's own network, which the engine does
not dial unless told to.

Source: BEP 9 (format), BEP 19 (``ws``), BEP 46 (``urn:btpk``), BEP 52 and the
multihash format (``urn:btmh``), BEP 53 (``so``).
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from bittern.codec.file_list import text_from, text_to
from bittern.core.errors import MagnetError
from bittern.core.ids import InfoHash, InfoHashV2

# Limit: P14, all five.
MAX_LENGTH = 65_536
MAX_TRACKERS = 100
MAX_WEB_SEEDS = 50
MAX_PEERS = 100
MAX_RANGES = 1000

MAX_SALT_LENGTH = 64
"""Bytes (BEP 44)."""

_SCHEME = "magnet:?"
_SHA256_MULTIHASH = "1220"  # function code 0x12, length 0x20
_MAX_NUMBER_DIGITS = 9
_SAFE_IN_URLS = ":/"
_SAFE_IN_PEERS = ":[]"


@dataclass(frozen=True, slots=True)
class Magnet:
    """
    What a magnet link says.

    Args:
        info_hash: v1 hash.
        info_hash_v2: v2 hash; a hybrid may give both.
        name: what to show until the metainfo has come; unsafe.
        trackers: announce URLs, each a tier of its own.
        web_seeds: URLs of BEP 19.
        peers: (host, port) pairs, hosts unresolved: names or addresses without brackets.
        select_only: indices of the wanted files as inclusive ranges, rising and apart; empty
            for all. They are not checked against the files, which are not known yet.
        exact_length: bytes of the torrent, as the link's author says.
        public_key: 32 bytes under which the DHT tells the current info hash (BEP 46).
        salt: goes with ``public_key``, at most 64 bytes.
    """

    info_hash: InfoHash | None = None
    info_hash_v2: InfoHashV2 | None = None
    name: str | None = None
    trackers: tuple[str, ...] = ()
    web_seeds: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()
    select_only: tuple[tuple[int, int], ...] = ()
    exact_length: int | None = None
    public_key: bytes | None = None
    salt: bytes = b""

    @property
    def wire_hash(self) -> InfoHash | None:
        """The 20 bytes of handshakes: the v1 hash if there is one, else the v2 hash cut off."""
        if self.info_hash is None and self.info_hash_v2 is not None:
            return self.info_hash_v2.truncated
        return self.info_hash


def parse_magnet(text: str) -> Magnet:
    """
    Read a magnet link.

    Raises:
        MagnetError: it names no torrent, or a hash or the file selection is malformed.

    Source: BEP 9, BEP 46, BEP 53. Limits: P14.
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise MagnetError(f"magnet link of {len(text)} characters, more than {MAX_LENGTH}")
    if text[: len(_SCHEME)].lower() != _SCHEME:
        raise MagnetError("no magnet link: it does not begin with 'magnet:?'")
    try:
        text_to(text)
    except UnicodeEncodeError:
        raise MagnetError("magnet link: half of a character that takes two") from None
    found: dict[str, list[str]] = {}
    for parameter in text[len(_SCHEME) :].split("&"):
        key, _, value = parameter.partition("=")
        found.setdefault(_plain_key(key), []).append(value)
    info_hash, info_hash_v2 = _read_topics(found.get("xt", ()))
    public_key, salt = _read_public_key(found)
    if info_hash is None and info_hash_v2 is None and public_key is None:
        raise MagnetError("magnet link: no BitTorrent info hash")
    names = found.get("dn")
    peers = [peer for value in found.get("x.pe", ()) if (peer := _read_peer(value)) is not None]
    return Magnet(
        info_hash,
        info_hash_v2,
        # Interop: many sites encode the name as forms do, with + for a space.
        text_from(_unquote(names[0].replace("+", " "))) or None if names else None,
        _read_urls(found.get("tr", ()), MAX_TRACKERS),
        _read_urls(found.get("ws", ()), MAX_WEB_SEEDS),
        tuple(dict.fromkeys(peers))[:MAX_PEERS],
        _read_ranges(found.get("so", ())),
        _read_length(found.get("xl", ())),
        public_key,
        salt,
    )


def magnet_of_hash(text: str) -> Magnet | None:
    """
    Return the link that a bare info hash stands for, None if the text is none.

    A v1 hash is 40 hexadecimal or 32 base32 digits (BEP 9), a v2 hash 64 hexadecimal ones, with
    or without the prefix ``1220`` of its multihash (BEP 52).
    """
    digits = text.removeprefix(_SHA256_MULTIHASH) if len(text) == 68 else text
    try:
        if len(digits) == 2 * InfoHashV2.SIZE:
            return Magnet(info_hash_v2=InfoHashV2.parse(digits))
        return Magnet(info_hash=InfoHash.parse(text))
    except ValueError:
        return None


def _unquote(text: str) -> bytes:
    """Return the bytes of a value; those of an argument that is no UTF-8 are what they were."""
    return unquote_to_bytes(text_to(text))


def _plain_key(key: str) -> str:
    """Return ``xt`` for ``xt.1`` and ``TR.2``: parameters may be numbered."""
    key = key.lower()
    name, dot, number = key.rpartition(".")
    return name if dot and number.isascii() and number.isdigit() else key


def _read_topics(values: list[str] | tuple[()]) -> tuple[InfoHash | None, InfoHashV2 | None]:
    info_hash: InfoHash | None = None
    info_hash_v2: InfoHashV2 | None = None
    for value in values:
        topic = _unquote(value).decode("utf-8", "replace")
        kind, text = topic[:9].lower(), topic[9:]
        try:
            if kind == "urn:btih:":
                one = InfoHash.parse(text)
                if info_hash not in (None, one):
                    raise MagnetError("magnet link: two different v1 info hashes")
                info_hash = one
            elif kind == "urn:btmh:":
                if text[:4] != _SHA256_MULTIHASH:
                    raise MagnetError("magnet link: 'urn:btmh:' is no SHA-256 multihash (1220...)")
                two = InfoHashV2.parse(text[4:])
                if info_hash_v2 not in (None, two):
                    raise MagnetError("magnet link: two different v2 info hashes")
                info_hash_v2 = two
        except ValueError as error:
            raise MagnetError(f"magnet link: malformed info hash: {error}") from None
    return info_hash, info_hash_v2


def _read_public_key(found: dict[str, list[str]]) -> tuple[bytes | None, bytes]:
    key: bytes | None = None
    for value in found.get("xs", ()):
        source = _unquote(value).decode("utf-8", "replace")
        if source[:9].lower() != "urn:btpk:":
            continue
        one = parse_public_key(source[9:])
        if key not in (None, one):
            raise MagnetError("magnet link: two different public keys")
        key = one
    if key is None or not found.get("s"):
        return key, b""
    try:
        salt = bytes.fromhex(found["s"][0])
    except ValueError:
        raise MagnetError("magnet link: the salt is not hexadecimal") from None
    if len(salt) > MAX_SALT_LENGTH:
        raise MagnetError(f"magnet link: the salt is longer than {MAX_SALT_LENGTH} bytes")
    return key, salt


def parse_public_key(text: str) -> bytes:
    """Read a public key, 64 hexadecimal digits; MagnetError if it is none (BEP 46)."""
    if len(text) == 64 and text.isascii():
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    raise MagnetError("magnet link: the public key is not 64 hexadecimal digits")


def _read_urls(values: list[str] | tuple[()], limit: int) -> tuple[str, ...]:
    urls: dict[str, None] = {}
    for value in values:
        try:
            url = _unquote(value).decode().strip()
        except UnicodeDecodeError:
            continue
        if url and url.isprintable() and len(urls) < limit:
            urls[url] = None
    return tuple(urls)


def _read_peer(value: str) -> tuple[str, int] | None:
    """Read ``host:port``, ``1.2.3.4:port`` or ``[address]:port``; None if it is neither."""
    text = _unquote(value).decode("ascii", "replace").strip()
    host, _, digits = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if not (digits.isdigit() and len(digits) <= 5 and 0 < int(digits) < 65536):
        return None
    if not 0 < len(host) <= 253 or not host.isascii() or not host.isprintable() or " " in host:
        return None
    return host, int(digits)


def _read_ranges(values: list[str] | tuple[()]) -> tuple[tuple[int, int], ...]:
    """Read file indices such as ``0,2,6-8`` into rising ranges that do not touch (BEP 53)."""
    text = ",".join(_unquote(value).decode("ascii", "replace") for value in values)
    if not text:
        return ()
    items = text.split(",")
    if len(items) > MAX_RANGES:
        raise MagnetError(f"magnet link: more than {MAX_RANGES} file ranges")
    ranges: list[tuple[int, int]] = []
    for item in items:
        first, dash, last = item.partition("-")
        pair = (first, last if dash else first)
        if not all(part.isdigit() and len(part) <= _MAX_NUMBER_DIGITS for part in pair):
            raise MagnetError(f"magnet link: {item[:40]!a} is no file index or range")
        if int(pair[0]) > int(pair[1]):
            raise MagnetError(f"magnet link: file range {item!a} runs backwards")
        ranges.append((int(pair[0]), int(pair[1])))
    merged: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        if merged and begin <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return tuple(merged)


def _read_length(values: list[str] | tuple[()]) -> int | None:
    for value in values:
        if value.isascii() and value.isdigit() and len(value) <= 18:
            return int(value)
    return None


def format_magnet(magnet: Magnet) -> str:
    """
    Write a magnet link; ``parse_magnet`` reads the same back.

    Source: BEP 9, BEP 46, BEP 53.
    """
    parts: list[str] = []
    if magnet.info_hash is not None:
        parts.append(f"xt=urn:btih:{magnet.info_hash}")
    if magnet.info_hash_v2 is not None:
        parts.append(f"xt=urn:btmh:{_SHA256_MULTIHASH}{magnet.info_hash_v2}")
    if magnet.public_key is not None:
        parts.append(f"xs=urn:btpk:{magnet.public_key.hex()}")
        if magnet.salt:
            parts.append(f"s={magnet.salt.hex()}")
    if magnet.name:
        parts.append("dn=" + quote(text_to(magnet.name), safe=""))
    if magnet.exact_length is not None:
        parts.append(f"xl={magnet.exact_length}")
    parts += ["tr=" + quote(url, safe=_SAFE_IN_URLS) for url in magnet.trackers]
    parts += ["ws=" + quote(url, safe=_SAFE_IN_URLS) for url in magnet.web_seeds]
    for host, port in magnet.peers:
        peer = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        parts.append("x.pe=" + quote(peer, safe=_SAFE_IN_PEERS))
    if magnet.select_only:
        pairs = magnet.select_only
        parts.append("so=" + ",".join(str(a) if a == b else f"{a}-{b}" for a, b in pairs))
    return _SCHEME + "&".join(parts)
