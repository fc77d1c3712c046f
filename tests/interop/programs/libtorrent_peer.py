"""
A libtorrent client as a program of its own: one torrent, one session, on one address.

It prints one JSON object a line: ``{"event": "complete"}`` once everything is there, ``error`` and
``peer_disconnected`` with a message, and at the end ``result`` with what was moved. SIGTERM ends it
after every file has been closed.
"""

from __future__ import annotations

import argparse
import json
import signal
from pathlib import Path

import libtorrent as lt

# Wire values of libtorrent's enc_policy and enc_level settings.
_FORCED, _DISABLED = 0, 2
_LEVEL_RC4, _LEVEL_BOTH = 2, 3


def session_settings(
    address: str, port: int, transport: str, *, lsd: bool = False
) -> lt.settings_pack:
    """
    Return the settings of a session that talks to named peers and trackers and nobody else.

    With ``lsd`` it looks for neighbours as well.
    """
    is_encrypted, is_utp = transport == "mse", transport == "utp"
    policy = _FORCED if is_encrypted else _DISABLED
    return {
        "listen_interfaces": f"{address}:{port}",
        "outgoing_interfaces": "",
        "enable_dht": False,
        "enable_lsd": lsd,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": is_utp,
        "enable_outgoing_utp": is_utp,
        "enable_incoming_tcp": not is_utp,
        "enable_outgoing_tcp": not is_utp,
        "in_enc_policy": policy,
        "out_enc_policy": policy,
        "allowed_enc_level": _LEVEL_RC4 if is_encrypted else _LEVEL_BOTH,
        "prefer_rc4": is_encrypted,
        "allow_multiple_connections_per_ip": True,
        "unchoke_slots_limit": -1,
        "min_reconnect_time": 1,
        "announce_to_all_trackers": True,
        "announce_to_all_tiers": True,
        "alert_mask": (
            lt.alert.category_t.error_notification
            | lt.alert.category_t.peer_notification
            | lt.alert.category_t.connect_notification
            | lt.alert.category_t.tracker_notification
            | lt.alert.category_t.status_notification
        ),
    }


def say(event: str, **fields: object) -> None:
    """Print one event."""
    print(json.dumps({"event": event, **fields}), flush=True)


def add(session: lt.session, options: argparse.Namespace) -> lt.torrent_handle:
    """Add the one torrent, started."""
    source = str(options.source)
    if source.startswith("magnet:"):
        parameters = lt.parse_magnet_uri(source)
    else:
        parameters = lt.load_torrent_file(source)
    parameters.save_path = str(options.directory)
    flags = lt.torrent_flags
    parameters.flags &= ~(flags.auto_managed | flags.paused)
    if options.seed:
        parameters.flags |= flags.seed_mode
    return session.add_torrent(parameters)


def serve(session: lt.session, handle: lt.torrent_handle, *, is_seed: bool) -> None:
    """Report what happens until SIGTERM."""
    is_running = True

    def leave(*_: object) -> None:
        nonlocal is_running
        is_running = False

    signal.signal(signal.SIGTERM, leave)
    has_reported = is_seed
    while is_running:
        session.wait_for_alert(50)
        for alert in session.pop_alerts():
            say(alert.what(), message=alert.message())
        if not has_reported and handle.status().is_seeding:
            has_reported = True
            say("complete")


def main() -> None:
    """Run one torrent until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help=".torrent file or magnet link")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", action="store_true", help="the data is there; do not check it")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--transport", choices=["tcp", "mse", "utp"], default="tcp")
    parser.add_argument("--peer", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--lsd", action="store_true", help="look for peers on the local network")
    options = parser.parse_args()
    settings = session_settings(options.address, options.port, options.transport, lsd=options.lsd)
    session = lt.session(settings)
    handle = add(session, options)
    for peer in options.peer:
        host, _, port = peer.rpartition(":")
        handle.connect_peer((host, int(port)))
    serve(session, handle, is_seed=options.seed)
    status = handle.status()
    say("result", downloaded=status.total_payload_download, uploaded=status.total_payload_upload)
    # Dropping the last reference waits for the disk threads, so every write has reached its file.
    del handle, session


if __name__ == "__main__":
    main()
