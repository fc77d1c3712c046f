"""``bittern dht peers``, ``ping``, ``sample``: who has a torrent, who is there, who knows what."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bittern.cli.dht import DhtOptions, parse_hex, parse_info_hash, resolve_one, run_question
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.options import OneAddress
from bittern.cli.output import complain, print_json, print_line
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.core.ids import InfoHash, NodeId
from bittern.dht.events import FoundNode, Sampled
from bittern.engine.reasons.phrases import count_of
from bittern.net.dht import Dht

if TYPE_CHECKING:
    from bittern.cli.output import Json

MAX_AT_ONCE = 8
"""Nodes that are asked for samples at the same time."""


def peers(
    info_hash: Annotated[str, Parameter(name="HASH")],
    /,
    *,
    scrape: bool = False,
    json: bool = False,
    dht: DhtOptions = DhtOptions(),  # noqa: B008 - immutable
) -> int:
    """
    Find peers of a torrent, one a line as they come; exit code 3 if there are none.

    Args:
        info_hash: 40 or 64 hexadecimal digits, 32 letters of base32, or a magnet link.
        scrape: Also estimate how many seeds and leechers there are (BEP 33).
        json: Write one JSON object to stdout, when all have been asked.
        dht: How to get into the DHT.
    """
    wanted = parse_info_hash(info_hash)

    async def ask(node: Dht) -> int:
        search = node.get_peers(wanted, scrape=scrape)
        found: list[Endpoint] = []
        async for endpoint in search:
            found.append(endpoint)
            if not json:
                print_line(str(endpoint))
        result = search.result
        if json:
            print_json(
                {
                    "info_hash": str(wanted),
                    "peers": [str(endpoint) for endpoint in found],
                    "num_seeds": _rounded(result.num_seeds),
                    "num_leechers": _rounded(result.num_leechers),
                    "nodes": [_node_json(each) for each in result.nodes],
                    "num_queries": result.num_queries,
                }
            )
        elif scrape and result.num_seeds is not None:
            complain(
                f"about {count_of(_rounded(result.num_seeds) or 0, 'seed')} and "
                f"{count_of(_rounded(result.num_leechers) or 0, 'leecher')}"
            )
        if not found:
            raise CommandFailed(f"{wanted}: no peers found", ExitCode.NOT_FOUND)
        return ExitCode.DONE

    return run_question(dht, ask)


def ping(
    address: Annotated[OneAddress, Parameter(name="HOST:PORT")],
    /,
    *,
    json: bool = False,
    dht: DhtOptions = DhtOptions(),  # noqa: B008
) -> int:
    """
    Ask one DHT node whether it is there; exit code 4 if it does not answer.

    Args:
        address: Of the node.
        json: Write one JSON object to stdout.
        dht: How to get into the DHT.
    """

    async def ask(node: Dht) -> int:
        endpoint = await resolve_one(address, node)
        try:
            pong = await node.ping(endpoint)
        except QueryTimeout as error:
            raise CommandFailed(f"{endpoint}: no answer", ExitCode.UNREACHABLE) from error
        except KrpcFailure as error:
            raise CommandFailed(f"{endpoint}: {error}") from error
        version = _version_text(pong.version)
        if json:
            print_json(
                {
                    "endpoint": str(endpoint),
                    "node_id": str(pong.node.node_id),
                    "version": version,
                    "round_trip": round(pong.round_trip, 6),
                }
            )
        else:
            delay = f"{pong.round_trip * 1000:.1f} ms"
            print_line(f"{endpoint}  {pong.node.node_id}  {delay}  {version}".rstrip())
        return ExitCode.DONE

    return run_question(dht, ask, joins=False)


def sample(
    address: Annotated[OneAddress | None, Parameter(name="HOST:PORT")] = None,
    /,
    *,
    target: Annotated[str | None, Parameter(metavar="HEX")] = None,
    json: bool = False,
    dht: DhtOptions = DhtOptions(),  # noqa: B008
) -> int:
    """
    Ask for info hashes that nodes store peers of, one a line; exit code 3 if there are none.

    Args:
        address: Ask this node alone. Default: those nearest to the target.
        target: Where to look, 40 hexadecimal digits. Default: anywhere.
        json: Write one JSON object to stdout.
        dht: How to get into the DHT.
    """
    place = secrets.token_bytes(NodeId.SIZE) if target is None else parse_hex(target, NodeId.SIZE)
    if place is None:
        raise CommandFailed(f"--target {target}: not 40 hexadecimal digits", ExitCode.USAGE)

    async def ask(node: Dht) -> int:
        if address is not None:
            endpoints = [await resolve_one(address, node)]
        else:
            result = await node.get_peers(InfoHash(place), found=lambda _peers: None).wait()
            endpoints = [each.endpoint for each in result.nodes]
        answers = await _sample_all(node, endpoints, place)
        hashes = list(dict.fromkeys(one for each in answers for one in each.samples))
        if json:
            print_json(
                {
                    "target": place.hex(),
                    "info_hashes": [str(each) for each in hashes],
                    "nodes": [_sampled_json(each) for each in answers],
                }
            )
        else:
            for each in hashes:
                print_line(str(each))
        if not answers:
            raise CommandFailed("no node gave samples", ExitCode.UNREACHABLE)
        if not hashes:
            raise CommandFailed("the nodes that were asked store no peers", ExitCode.NOT_FOUND)
        return ExitCode.DONE

    return run_question(dht, ask, joins=address is None)


async def _sample_all(node: Dht, endpoints: list[Endpoint], target: bytes) -> list[Sampled]:
    """Ask nodes for samples, some at a time; those that do not answer are left out."""
    room = asyncio.Semaphore(MAX_AT_ONCE)

    async def ask(endpoint: Endpoint) -> Sampled | None:
        async with room:
            try:
                return await node.sample(endpoint, target)
            except (QueryTimeout, KrpcFailure):
                return None

    answers = await asyncio.gather(*(ask(endpoint) for endpoint in endpoints))
    return [each for each in answers if each is not None]


def _rounded(number: float | None) -> int | None:
    return None if number is None else round(number)


def _version_text(version: bytes) -> str:
    """Return the client version of a node: most write two letters and two bytes of number."""
    if version.isalnum():
        return version.decode("ascii")
    if len(version) == 4 and version[:2].isalpha():
        return f"{version[:2].decode('ascii')} {version[2]}.{version[3]}"
    return version.hex()


def _node_json(node: FoundNode) -> Json:
    return {"node_id": str(node.node_id), "endpoint": str(node.endpoint)}


def _sampled_json(sampled: Sampled) -> Json:
    return {
        "node_id": str(sampled.node.node_id),
        "endpoint": str(sampled.node.endpoint),
        "num": sampled.num,
        "interval": sampled.interval,
    }
