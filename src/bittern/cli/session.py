"""Options of the command line as settings of the engine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from pathlib import Path

from bittern.cli.options import NetworkOptions
from bittern.cli.output import complain
from bittern.cli.values import HostPort
from bittern.core.endpoint import Endpoint
from bittern.engine.config import SessionConfig


def session_config(network: NetworkOptions) -> SessionConfig:
    """
    Return the session's settings.

    Raises:
        ConfigError: a value is out of range.
    """
    defaults = SessionConfig()
    return SessionConfig(
        listen_host=network.bind,
        listen_port=defaults.listen_port if network.port is None else network.port,
        enable_trackers=not network.no_tracker,
        enable_dht=not network.no_dht,
        enable_pex=not network.no_pex,
        enable_lsd=not network.no_lsd,
        dht_bootstrap=tuple((host, port) for host, port in network.dht_bootstrap)
        or defaults.dht_bootstrap,
        max_download_rate=network.max_download,
        max_upload_rate=network.max_upload,
        state_dir=choose_state_dir(network.state_dir),
    )


def choose_state_dir(given: Path | None) -> Path | None:
    """
    Return the folder for resume data, made if need be.

    Without one that can be written we go on, but remember nothing.
    """
    if given is None:
        from platformdirs import user_state_path

        given = user_state_path("bittern", appauthor=False)
    try:
        given.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        complain(f"warning: {given}: {reason}; downloads will be checked anew next time")
        return None
    return given


async def resolve_peers(peers: Iterable[HostPort]) -> tuple[Endpoint, ...]:
    """Look up the addresses of peers; a name without one is complained about and left out."""
    found: dict[Endpoint, None] = {}
    loop = asyncio.get_running_loop()
    for peer in peers:
        try:
            found[Endpoint.make(peer.host, peer.port)] = None
            continue
        except ValueError:
            pass
        try:
            answers = await loop.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            complain(f"warning: {peer}: {error}")
            continue
        for *_, address in answers:
            found[Endpoint.make(str(address[0]), peer.port)] = None
    return tuple(found)
