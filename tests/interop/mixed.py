"""
One swarm of v1-only and v2 clients around a hybrid torrent.

Usage: python -m tests.interop.mixed

Every client that is installed and can read a hybrid leeches at once, whoever seeds; the exit code
is 0 when all complete and every byte is right. Where network namespaces can be made, all run in
one, with real addresses, so that those that refuse loopback peers take part.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

from tests.interop.clients import CLIENTS, FOREIGN_CLIENTS, Client
from tests.interop.place import Place, namespace_pair, namespaces_missing, run_ip
from tests.interop.process import InteropError
from tests.interop.rendezvous import rendezvous
from tests.interop.samples import Sample, make_v2_sample

_SEEDS = ("bittern", "libtorrent", "aria2", "webtorrent", "transmission4")
_LOOPBACK = Place("127.0.0.1")


async def run_mixed(
    seed_name: str,
    leech_names: Sequence[str],
    sample: Sample,
    scratch: Path,
    *,
    timeout: float,
    base: Place = _LOOPBACK,
) -> float:
    """
    Let everybody complete; a second bittern comes with a magnet link of v2 alone.

    Args:
        seed_name: who has everything.
        leech_names: who else takes part.
        sample: the torrent.
        scratch: an empty or absent folder.
        timeout: seconds for each to complete.
        base: where the tracker is; the others get addresses of the same network.

    Returns:
        Seconds until the last one was complete.

    Raises:
        InteropError: somebody did not complete, or has something wrong.
    """
    async with AsyncExitStack() as stack:
        meeting = await stack.enter_async_context(rendezvous(base))
        local = sample.announced_at(meeting.url, scratch)
        local.write_pads()
        link = "magnet:?" + local.magnet(meeting.url).partition("&")[2]
        assert "btmh" in link
        assert "btih" not in link

        async def add(name: str, number: int) -> Client:
            # bittern's announces come from the tracker's own address, wherever it listens; rtorrent
            # keeps one peer for each address.
            place = base if name == "bittern" else neighbour(base, number)
            client = CLIENTS[name](place, scratch / f"{name}-{number}")
            return await stack.enter_async_context(client)

        seed = await add(seed_name, 2)
        await seed.seed(local.torrent, local.data_dir, port=seed.place.free_port())
        await seed.program.guard(meeting.wait_seed(sample.info_hash, timeout=timeout))
        started_at = time.monotonic()
        leeches: list[tuple[Client, Path]] = []
        sources = [("bittern", link), *((name, str(local.torrent)) for name in leech_names)]
        for number, (name, source) in enumerate(sources, 3):
            leech = await add(name, number)
            folder = scratch / f"out-{number}"
            folder.mkdir()
            await leech.leech(source, folder, port=leech.place.free_port())
            leeches.append((leech, folder))
        for leech, _ in leeches:
            await seed.program.guard(leech.wait_complete(timeout=timeout))
        seconds = time.monotonic() - started_at
        for leech, folder in leeches:
            await leech.stop()
            found = sample.differences(folder, ignore_empty=not leech.creates_empty_files)
            if found:
                raise InteropError(f"{leech.name} is complete, but:\n" + "\n".join(found))
        return seconds


def neighbour(base: Place, number: int) -> Place:
    """Return another address of the network of a place, added to it if need be."""
    network = base.address.rpartition(".")[0]
    if base.namespace is None:
        return Place(f"{network}.{number}")
    # The lowest ones are those of the two namespaces.
    place = Place(f"{network}.{10 + number}", base.namespace)
    run_ip(base, "addr", "replace", f"{place.address}/24", "dev", "veth0")
    return place


def able_clients(base: Place) -> list[str]:
    """Return the foreign clients that are here and can take part at a place."""
    return [
        client.name
        for client in FOREIGN_CLIENTS
        if not client.missing()
        and (base.namespace is not None or not client.needs_namespace)
        and client.knows("hybrid")
    ]


async def main() -> int:
    """Run a swarm for each seed; returns the exit code."""
    has_failed = False
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="interop-"))
        base = _LOOPBACK
        if reason := namespaces_missing():
            print(f"on loopback: {reason}")
        else:
            base = stack.enter_context(namespace_pair())[0]
        names = able_clients(base)
        sample = make_v2_sample(Path(folder) / "sample", is_hybrid=True)
        for seed_name in _SEEDS:
            if seed_name != "bittern" and seed_name not in names:
                print(f"{seed_name}: not here")
                continue
            scratch = Path(folder) / seed_name
            try:
                seconds = await run_mixed(
                    seed_name, ["bittern", *names], sample, scratch, timeout=120.0, base=base
                )
            except InteropError as error:
                has_failed = True
                print(f"seed {seed_name}: FAILED: {error}")
            else:
                print(f"seed {seed_name}: two bitterns, {', '.join(names)}: ok {seconds:.1f} s")
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
