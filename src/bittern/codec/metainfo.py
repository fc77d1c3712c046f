"""
The .torrent file: an info dictionary, and beside it where peers may be found.

What is inside ``info`` is checked strictly, because bytes on disk depend on
it. What is beside it is read leniently: a malformed tracker entry is left out
and costs nothing else. Both are refused or cut before they take much memory.

Source: BEP 3, BEP 5 (``nodes``), BEP 12 (``announce-list``), BEP 17 and BEP 19
(seeds over HTTP), BEP 52 (``piece layers``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType

from bittern.codec.bencode import METAINFO_LIMITS, Encodable, Value, decode_with_spans, encode
from bittern.codec.file_list import FileEntry, text_from, text_to
from bittern.codec.info import Info, Version, build_info, decode_info
from bittern.codec.merkle import HASH_LENGTH, has_zero_hash, is_piece_layer
from bittern.core.errors import BencodeDecodeError, MetainfoError

__all__ = [
    "FileEntry",
    "Info",
    "Metainfo",
    "Version",
    "decode_info",
    "decode_metainfo",
    "encode_metainfo",
    "format_metainfo",
]

MAX_TRACKERS = 1000
"""Limit: P14. Trackers of all tiers that are heeded; magnet links have a lower one."""

MAX_WEB_SEEDS = 100
"""Limit: P14. Web seeds that are heeded; the same for those of BEP 17."""

MAX_NODES = 100
"""Limit: P14. DHT nodes that are heeded."""

MAX_URL_LENGTH = 4096
"""Bytes; longer ones are left out. Common HTTP servers take 8 KiB of request line."""

MAX_DATE = 253_402_300_799
"""Seconds: the end of the year 9999. Some creators wrote milliseconds; such a date is no date."""


@dataclass(frozen=True, slots=True)
class Metainfo:
    """
    A checked .torrent file.

    Args:
        info: the hashed part.
        trackers: tiers of announce URLs, each tier to be shuffled by its user (BEP 12).
        web_seeds: URLs of BEP 19, as they stand.
        http_seeds: URLs of BEP 17, as they stand.
        nodes: DHT nodes as (host, port), hosts unresolved (BEP 5).
        comment: any text; not fit for display as it stands.
        created_by: program that made the file.
        creation_date: seconds since 1970.
        encoding: what the creator says the text was; not heeded.
        piece_layers: by pieces root, for each v2 file longer than a piece: the SHA-256 of its
            pieces end to end, checked against the root (BEP 52).
    """

    info: Info
    trackers: tuple[tuple[str, ...], ...] = ()
    web_seeds: tuple[str, ...] = ()
    http_seeds: tuple[str, ...] = ()
    nodes: tuple[tuple[str, int], ...] = ()
    comment: str | None = None
    created_by: str | None = None
    creation_date: int | None = None
    encoding: str | None = None
    piece_layers: Mapping[bytes, bytes] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def name(self) -> str:
        """The torrent's name: unsafe, see ``Info``."""
        return self.info.name

    def __reduce__(self) -> tuple[object, ...]:
        # A read-only mapping can be neither copied nor pickled.
        others = [getattr(self, spec.name) for spec in fields(self)[:-1]]
        return _restore, (others, dict(self.piece_layers))


def _restore(others: list[object], layers: dict[bytes, bytes]) -> Metainfo:
    values = [*others, MappingProxyType(layers)]
    return Metainfo(*values)  # type: ignore[arg-type]  # as they were


def decode_metainfo(data: bytes, *, may_lack_layers: bool = False) -> Metainfo:
    """
    Read a .torrent file.

    Args:
        data: all of its bytes, at most 64 MiB.
        may_lack_layers: take one without some of its piece layers, which BEP 52 does not: what is
            kept of a magnet link while they are still being fetched.

    Raises:
        MetainfoError: it is unusable; one line that says what and where.

    Source: BEP 3, BEP 52. Limits: P1-P7, P12, P13.
    """
    if data[-1:].isspace():
        data = data.rstrip()  # Interop: editors and web servers add line ends
    try:
        document = decode_with_spans(data, limits=METAINFO_LIMITS)
    except BencodeDecodeError as error:
        raise MetainfoError(f"not a torrent: {error}") from None
    value = document.value
    if b"info" not in value:
        raise MetainfoError("not a torrent: 'info' is missing")
    start, end = document.spans[b"info"]
    unsorted_at = document.unsorted.get(b"info", -1)
    info = build_info(data[start:end], value[b"info"], unsorted_at)
    layers = {}
    if info.has_v2:
        layers = _read_piece_layers(value.get(b"piece layers"), info, may_lack=may_lack_layers)
    return Metainfo(
        info,
        _read_trackers(value),
        _read_urls(value.get(b"url-list")),
        _read_urls(value.get(b"httpseeds")),
        _read_nodes(value.get(b"nodes")),
        _read_text(value, b"comment.utf-8", b"comment"),
        _read_text(value, b"created by.utf-8", b"created by"),
        _read_date(value.get(b"creation date")),
        _read_text(value, b"encoding"),
        MappingProxyType(layers),
    )


def _read_piece_layers(value: Value | None, info: Info, *, may_lack: bool) -> dict[bytes, bytes]:
    wanted: dict[bytes, FileEntry] = {
        entry.pieces_root: entry
        for entry in info.files
        if entry.pieces_root is not None and entry.length > info.piece_length
    }
    if value is None and (may_lack or not wanted):
        return {}
    if not isinstance(value, dict):
        raise MetainfoError(
            "'piece layers' is " + ("missing" if value is None else "no dictionary")
        )
    layers: dict[bytes, bytes] = {}
    for root, layer in value.items():
        place = f"piece layers {root[:HASH_LENGTH].hex()}"
        if root not in wanted:
            raise MetainfoError(f"{place}: no file of more than one piece has this root")
        if not isinstance(layer, bytes):
            raise MetainfoError(f"{place}: no string")
        layers[root] = layer
    for entry in info.files:
        if entry.pieces_root is None or entry.length <= info.piece_length:
            continue
        root = entry.pieces_root
        place = f"piece layers {root.hex()}"
        if root not in layers:
            if may_lack:
                continue
            raise MetainfoError(f"{place}: missing")
        num_pieces = -(-entry.length // info.piece_length)
        if len(layers[root]) != num_pieces * HASH_LENGTH:
            raise MetainfoError(f"{place}: {len(layers[root])} bytes for {num_pieces} pieces")
        if wanted[root] is not entry:
            continue
        if has_zero_hash(layers[root]):
            raise MetainfoError(f"{place}: the hash of a piece is all zeros")
        if not is_piece_layer(
            layers[root], root=root, length=entry.length, piece_length=info.piece_length
        ):
            raise MetainfoError(f"{place}: does not hash to its root")
    return layers


def _read_trackers(value: dict[bytes, Value]) -> tuple[tuple[str, ...], ...]:
    """Return tiers without empty ones and without repeated URLs; ``announce-list`` goes first."""
    tiers: list[tuple[str, ...]] = []
    seen: set[str] = set()
    announce_list = value.get(b"announce-list")
    for tier in announce_list if isinstance(announce_list, list) else ():
        # Interop: some creators write a plain list of URLs, each of which is a tier then.
        found = tuple(_new_urls(tier if isinstance(tier, list) else [tier], seen, MAX_TRACKERS))
        if found:
            tiers.append(found)
    if tiers:
        return tuple(tiers)
    found = tuple(_new_urls([value.get(b"announce")], seen, MAX_TRACKERS))
    return (found,) if found else ()


def _read_urls(value: Value | None) -> tuple[str, ...]:
    return tuple(_new_urls(value if isinstance(value, list) else [value], set(), MAX_WEB_SEEDS))


def _new_urls(values: Iterable[Value | None], seen: set[str], limit: int) -> Iterator[str]:
    """Yield what can be a URL and was not seen yet, until ``limit`` were."""
    for value in values:
        if len(seen) >= limit:
            return
        if not isinstance(value, bytes) or len(value) > MAX_URL_LENGTH:
            continue
        try:
            url = value.decode().strip()
        except UnicodeDecodeError:
            continue
        if url and url.isprintable() and url not in seen:
            seen.add(url)
            yield url


def _read_nodes(value: Value | None) -> tuple[tuple[str, int], ...]:
    nodes: list[tuple[str, int]] = []
    for item in value if isinstance(value, list) else ():
        match item:
            case [bytes() as host, int() as port] if (
                0 < port < 65536 and 0 < len(host) < 256 and host.isascii()
            ):
                nodes.append((host.decode("ascii"), port))
        if len(nodes) == MAX_NODES:
            break
    return tuple(nodes)


def _read_text(value: dict[bytes, Value], *keys: bytes) -> str | None:
    for key in keys:
        text = value.get(key)
        if isinstance(text, bytes) and text:
            return text_from(text)
    return None


def _read_date(value: Value | None) -> int | None:
    return value if isinstance(value, int) and 0 <= value <= MAX_DATE else None


def encode_metainfo(
    info: bytes,
    *,
    trackers: Iterable[Iterable[str]] = (),
    web_seeds: Iterable[str] = (),
    nodes: Iterable[tuple[str, int]] = (),
    comment: str | None = None,
    created_by: str | None = None,
    creation_date: int | None = None,
    piece_layers: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """
    Write a .torrent file around an info dictionary.

    Args:
        info: the bytes of the info dictionary; they are copied, never encoded anew.
        trackers: tiers of announce URLs. ``announce`` is the first URL, ``announce-list`` is
            written when there are more.
        web_seeds: URLs of BEP 19; a single one is written as a string.
        nodes: DHT nodes as (host, port).
        comment: any text.
        created_by: program that makes the file.
        creation_date: seconds since 1970.
        piece_layers: needed for v2 and hybrid; None leaves the key out.

    Returns:
        The bytes of the file; the same for the same arguments.
    """
    tiers = [[text_to(url) for url in tier] for tier in trackers]
    tiers = [tier for tier in tiers if tier]
    fields: dict[bytes, Encodable] = {}
    if tiers:
        fields[b"announce"] = tiers[0][0]
        if len(tiers) > 1 or len(tiers[0]) > 1:
            fields[b"announce-list"] = tiers
    if comment:
        fields[b"comment"] = text_to(comment)
    if created_by:
        fields[b"created by"] = text_to(created_by)
    if creation_date is not None:
        fields[b"creation date"] = creation_date
    listed_nodes = [(text_to(host), port) for host, port in nodes]
    if listed_nodes:
        fields[b"nodes"] = listed_nodes
    if piece_layers is not None:
        fields[b"piece layers"] = piece_layers
    seeds = [text_to(url) for url in web_seeds]
    if seeds:
        fields[b"url-list"] = seeds[0] if len(seeds) == 1 else seeds
    before = b"".join(
        encode(key) + encode(item) for key, item in sorted(fields.items()) if key < b"info"
    )
    after = b"".join(
        encode(key) + encode(item) for key, item in sorted(fields.items()) if key > b"info"
    )
    return b"d" + before + b"4:info" + info + after + b"e"


def format_metainfo(metainfo: Metainfo) -> bytes:
    """Write the .torrent file of metainfo; the info dictionary keeps its bytes."""
    return encode_metainfo(
        metainfo.info.raw,
        trackers=metainfo.trackers,
        web_seeds=metainfo.web_seeds,
        nodes=metainfo.nodes,
        comment=metainfo.comment,
        created_by=metainfo.created_by,
        creation_date=metainfo.creation_date,
        piece_layers=metainfo.piece_layers if metainfo.info.has_v2 else None,
    )
