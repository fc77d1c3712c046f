"""
One end of a transfer as a process of its own: bittern, libtorrent, or bare system calls.

``python -m bench.ends PROGRAM ROLE TORRENT FOLDER PORT [PEER-PORT...]`` prints one
JSON object per line on stdout: first ``{"ready": port}``, a seed after it has
checked its data, a leech before it connects. A leech connects when it reads a
line on stdin, then prints its measurement and ends. A seed ends, and prints
its own, when stdin is closed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from bench.meter import Meter, cpu_seconds, say

TUNED = {
    "send_socket_buffer_size": 4 << 20,
    "recv_socket_buffer_size": 4 << 20,
    "send_buffer_watermark": 16 << 20,
    "max_out_request_queue": 3000,
    "hashing_threads": 2,
}
"""What an expert sets for a fast network."""


async def bittern_end(role: str, torrent: Path, folder: Path, port: int, peers: list[int]) -> None:
    """Run bittern until its part is done."""
    import bittern
    from bittern.core.endpoint import Endpoint

    config = bittern.SessionConfig(
        listen_host="127.0.0.1",
        listen_port=port,
        enable_trackers=False,
        enable_dht=False,
        enable_lsd=False,
        enable_pex=role == "swarm",
        upload_slots=None,
    )
    loop = asyncio.get_running_loop()
    async with bittern.Session(config) as session:
        added = await session.add(torrent, bittern.TorrentConfig(output=folder))
        say(ready=session.port)
        await loop.run_in_executor(None, sys.stdin.readline)
        meter = Meter()
        added.add_peers([Endpoint("127.0.0.1", peer) for peer in peers], "user")
        if role != "seed":
            await added.wait_complete()
            meter.report(added.stats().downloaded)
        await loop.run_in_executor(None, sys.stdin.read)
        if role == "seed":
            meter.report(added.stats().uploaded)
        else:
            say(uploaded=added.stats().uploaded, cpu=cpu_seconds() - meter._cpu)


def libtorrent_end(
    role: str, torrent: Path, folder: Path, port: int, peers: list[int], *, is_tuned: bool
) -> None:
    """Run libtorrent until its part is done."""
    import libtorrent as lt

    settings: dict[str, Any] = {
        "listen_interfaces": f"127.0.0.1:{port}",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "in_enc_policy": 2,
        "out_enc_policy": 2,
        "allow_multiple_connections_per_ip": True,
        "unchoke_slots_limit": -1,
        "alert_mask": 0,
    }
    settings.update(TUNED if is_tuned else {})
    session = lt.session(settings)  # type: ignore[call-overload]  # a dict is what it takes
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(str(torrent))
    params.save_path = str(folder)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    handle = session.add_torrent(params)
    checking = (
        lt.torrent_status.checking_files,
        lt.torrent_status.checking_resume_data,
    )
    while handle.status().state in checking or session.listen_port() == 0:
        time.sleep(0.005)
    say(ready=session.listen_port())
    sys.stdin.readline()
    meter = Meter()
    for peer in peers:
        handle.connect_peer(("127.0.0.1", peer))
    if role != "seed":
        while not handle.status().is_seeding:
            time.sleep(0.005)
        meter.report(handle.status().total_payload_download)
    sys.stdin.read()
    if role == "seed":
        meter.report(handle.status().total_payload_upload)
    else:
        say(uploaded=handle.status().total_payload_upload, cpu=cpu_seconds() - meter._cpu)


def main() -> None:
    """Read the command line and run one end."""
    program, role, torrent, folder, port, *peers = sys.argv[1:]
    ports = [int(peer) for peer in peers]
    # A benchmark that was killed must not leave its ends behind.
    parent = os.getppid()
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    if program == "bittern":
        import uvloop

        uvloop.run(bittern_end(role, Path(torrent), Path(folder), int(port), ports))
    elif program == "bare":
        from bench import bare

        if role == "seed":
            bare.seed(Path(folder))
        else:
            bare.leech(Path(folder), ports)
    else:
        libtorrent_end(
            role, Path(torrent), Path(folder), int(port), ports, is_tuned=program == "tuned"
        )


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main()
