"""From what a person named to what a session takes: public keys are resolved, patiently."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bittern.cli.source import is_magnet
from bittern.codec.magnet import Magnet, parse_magnet
from bittern.codec.metainfo import Metainfo
from bittern.core.errors import DhtUnreachable

if TYPE_CHECKING:
    from bittern.cli.report import Report
    from bittern.engine.session import Session

RETRY_INTERVAL = 5.0
"""Seconds until the DHT is tried again when nobody in it could be reached."""


async def open_source(
    source: Metainfo | str, session: Session, report: Report
) -> Metainfo | Magnet | str:
    """
    Return what ``Session.add`` takes.

    Args:
        source: metainfo, the http(s) URL of a .torrent file, a magnet link, or an info hash.
        session: asks the DHT for what is the newest under a public key (BEP 46).
        report: hears of it.

    Raises:
        MagnetError: the link is unusable.
        ConfigError, NotPublished, KrpcDecodeError: as ``Session.resolve``. While nobody can
            be reached it waits, as it does for peers.
    """
    if not isinstance(source, str) or not is_magnet(source):
        return source
    magnet = parse_magnet(source)
    if magnet.wire_hash is not None or magnet.public_key is None:
        return magnet
    found = await resolve_patiently(magnet, session)
    report.note(
        "resolved",
        f"the newest torrent under the key is {found.info_hash or found.info_hash_v2}",
        public_key=magnet.public_key,
        info_hash=found.info_hash,
        info_hash_v2=found.info_hash_v2,
    )
    return found


async def resolve_patiently(magnet: Magnet, session: Session) -> Magnet:
    """Resolve a public key; as long as no DHT node can be reached, try again."""
    while True:
        try:
            return await session.resolve(magnet)
        except DhtUnreachable:
            await asyncio.sleep(RETRY_INTERVAL)
