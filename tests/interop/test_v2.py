"""
bittern and others with v2 and hybrid torrents: pairs, a mixed swarm, a poisoner.

libtorrent speaks v2, aria2 only v1. The torrents are made by libtorrent.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bittern.codec.metainfo import decode_metainfo
from tests.interop.clients import CLIENTS, Client
from tests.interop.content import MIB, NAME, Content, digest_of, make_content, random_data
from tests.interop.member import Member
from tests.interop.mixed import run_mixed
from tests.interop.pairing import Pair, transfer_by_tracker
from tests.interop.samples import Sample, make_v2_sample
from tests.interop.test_real_faults import Liar, running
from tests.reference import lt

pytestmark = [pytest.mark.interop, pytest.mark.slow]

TIMEOUT = 60.0
BITTERN, LIBTORRENT, ARIA2 = (CLIENTS[name] for name in ("bittern", "libtorrent", "aria2"))

whole = pytest.mark.soak
both_directions = pytest.mark.parametrize("does_bittern_seed", [True, False])
Samples = dict[str, Sample]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("samples")
    return {
        f"{version}-{shape}": make_v2_sample(
            folder / f"{version}-{shape}",
            is_hybrid=version == "hybrid",
            single_length=1_000_003 if shape == "single" else None,
        )
        for version in ("v2", "hybrid")
        for shape in ("folder", "single")
    }


def make_pair(partner: type[Client], *, does_bittern_seed: bool, is_magnet: bool = False) -> Pair:
    seed, leech = (BITTERN, partner) if does_bittern_seed else (partner, BITTERN)
    pair = Pair(seed, leech, is_magnet=is_magnet)
    if reason := pair.missing():
        pytest.fail(reason)
    return pair


@both_directions
@pytest.mark.parametrize(
    ("name", "is_magnet"),
    [
        pytest.param("v2-folder", False, id="v2-folder-torrent"),
        pytest.param("v2-folder", True, id="v2-folder-magnet"),
        pytest.param("v2-single", False, id="v2-single-torrent", marks=whole),
        pytest.param("v2-single", True, id="v2-single-magnet"),
        pytest.param("hybrid-folder", False, id="hybrid-folder-torrent"),
        pytest.param("hybrid-folder", True, id="hybrid-folder-magnet"),
        pytest.param("hybrid-single", False, id="hybrid-single-torrent", marks=whole),
        pytest.param("hybrid-single", True, id="hybrid-single-magnet", marks=whole),
    ],
)
async def test_with_libtorrent(
    name: str, is_magnet: bool, does_bittern_seed: bool, samples: Samples, tmp_path: Path
) -> None:
    """The folder has an empty file and files shorter than a block; no piece layer is in a link."""
    pair = make_pair(LIBTORRENT, does_bittern_seed=does_bittern_seed, is_magnet=is_magnet)
    await transfer_by_tracker(pair, samples[name], tmp_path, timeout=TIMEOUT)


@both_directions
async def test_a_piece_layer_of_one_hash_more_than_a_message_holds(
    does_bittern_seed: bool, tmp_path: Path
) -> None:
    """512 hashes in one message, and one: there libtorrent asks for a single hash."""
    sample = make_v2_sample(
        tmp_path / "sample",
        is_hybrid=False,
        single_length=512 * 16_384 + 1,
        piece_length=16_384,
    )
    pair = make_pair(LIBTORRENT, does_bittern_seed=does_bittern_seed, is_magnet=True)
    await transfer_by_tracker(pair, sample, tmp_path / "run", timeout=TIMEOUT)


@both_directions
@pytest.mark.parametrize("name", ["hybrid-folder", pytest.param("hybrid-single", marks=whole)])
async def test_a_hybrid_with_aria2(
    name: str, does_bittern_seed: bool, samples: Samples, tmp_path: Path
) -> None:
    """It sees a v1 torrent with padding in files of their own."""
    pair = make_pair(ARIA2, does_bittern_seed=does_bittern_seed)
    await transfer_by_tracker(pair, samples[name], tmp_path, timeout=TIMEOUT)


@pytest.mark.parametrize("seed_name", ["bittern", pytest.param("libtorrent", marks=whole), "aria2"])
async def test_a_hybrid_in_one_swarm_of_v1_and_v2_peers(
    seed_name: str, samples: Samples, tmp_path: Path
) -> None:
    """Whoever seeds, all complete: two bitterns, one by a v2 magnet link, libtorrent and aria2."""
    if reason := ARIA2.missing():
        pytest.fail(reason)
    leeches = ["bittern", "libtorrent", "aria2"]
    await run_mixed(seed_name, leeches, samples["hybrid-folder"], tmp_path, timeout=TIMEOUT)


def make_v2_content(root: Path, length: int, *, piece_length: int) -> Content:
    """Make one file and its v2 torrent with libtorrent."""
    folder = root / "content"
    folder.mkdir(parents=True)
    with (folder / NAME).open("wb") as out:
        for data in random_data(random.Random(length), length):
            out.write(data)
    flags = lt.create_torrent.v2_only
    files = lt.list_files(str(folder / NAME), lambda _: True, flags)
    made = lt.create_torrent(files, piece_length, flags)
    lt.set_piece_hashes(made, str(folder))
    torrent = root / "content.torrent"
    torrent.write_bytes(lt.bencode(made.generate()))
    return Content(torrent, folder, {Path(): digest_of(folder / NAME)})


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@dataclass(frozen=True)
class Poisoned:
    """What became of a download by bittern from a poisoner and an honest libtorrent."""

    liar: Liar
    leech: Member
    num_again: int
    """Bytes fetched more than once."""


async def download_beside_a_poisoner(
    content: Content, max_mib: int, folder: Path, stack: AsyncExitStack
) -> Poisoned:
    """Let bittern download, MiB a second; one block in a hundred of the poisoner's is bad."""
    seed = await stack.enter_async_context(
        Member("libtorrent", content.torrent, "127.0.0.2", folder / "seed", content=content.folder)
    )
    # Not in its seed mode, in which it has not hashed any block: it checks its file first.
    await seed.start([])
    await seed.wait_complete(timeout=TIMEOUT)
    liar = Liar("127.0.0.20", content, share=0.01)
    await stack.enter_async_context(running([liar]))
    leech = await stack.enter_async_context(
        Member("bittern", content.torrent, "127.0.0.10", folder / "state", content=folder / "out")
    )
    await leech.start([seed, liar.endpoint], "--max-download", f"{max_mib}Mi")
    await leech.wait_complete(timeout=TIMEOUT)
    result = await leech.finish()
    assert content.differences(folder / "out") == []
    banned = [event["endpoint"].rpartition(":")[0] for event in leech.events("peer_banned")]
    assert banned == [liar.host]
    return Poisoned(liar, leech, result["downloaded"] - result["wasted"] - result["total_length"])


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_link_that_is_killed_needs_nobody_for_its_metadata(
    version: str, tmp_path: Path, stack: AsyncExitStack
) -> None:
    """Once by kill -9; then the only peer has blocks, and neither metadata nor hashes."""
    if version == "v1":
        content = make_content(tmp_path, {"": 8 * MIB + 777}, piece_length=256 << 10)
    else:
        content = make_v2_content(tmp_path, 8 * MIB + 777, piece_length=256 << 10)
    info = decode_metainfo(content.torrent.read_bytes()).info
    topic = f"btih:{info.info_hash}" if version == "v1" else f"btmh:1220{info.info_hash_v2}"
    seed = await stack.enter_async_context(
        Member(
            "libtorrent",
            content.torrent,
            "127.0.0.2",
            tmp_path / "seed",
            content=content.folder,
            is_seed=True,
        )
    )
    await seed.start([])
    leech = await stack.enter_async_context(
        Member(
            "bittern",
            f"magnet:?xt=urn:{topic}",
            "127.0.0.10",
            tmp_path / "state",
            content=tmp_path / "out",
        )
    )
    await leech.start([seed], "--max-download", "1Mi")
    await leech.wait_for("piece_verified", timeout=TIMEOUT)
    await leech.kill()
    await seed.finish()
    other = Liar("127.0.0.20", content, share=0.0)
    await stack.enter_async_context(running([other]))
    await leech.start([other.endpoint])
    await leech.wait_complete(timeout=TIMEOUT)
    result = await leech.finish()
    assert content.differences(tmp_path / "out") == []
    assert result["downloaded"] < result["total_length"], "pieces of the first run were kept"


@pytest.mark.parametrize("num_mib", [32, pytest.param(256, marks=pytest.mark.soak)])
async def test_a_poisoner_is_banned_at_its_first_bad_block(
    num_mib: int, tmp_path: Path, stack: AsyncExitStack
) -> None:
    """Limit: H4. libtorrent, which is honest, gives the hashes."""
    content = make_v2_content(tmp_path, num_mib * MIB + 777, piece_length=256 << 10)
    # Half of it from the poisoner: a bad block in 0.4 s, which is time for a question about hashes.
    found = await download_beside_a_poisoner(content, 8, tmp_path, stack)
    # That one, and at most one more that was under way when it came.
    assert 1 <= found.liar.num_bad <= 2
    assert len(found.leech.events("piece_failed")) <= 2
    # The good blocks of the piece were kept.
    assert 0 < found.num_again <= found.liar.num_bad * 16_384


@pytest.mark.parametrize(
    ("piece_mib", "num_mib"), [(16, 64), (32, 96), pytest.param(128, 384, marks=whole)]
)
async def test_a_poisoner_of_long_pieces_costs_its_bad_blocks(
    piece_mib: int, num_mib: int, tmp_path: Path, stack: AsyncExitStack
) -> None:
    """Limit: H4. The hashes of 1,024 blocks, and of 2,048, are asked for in parts."""
    content = make_v2_content(tmp_path, num_mib * MIB + 777, piece_length=piece_mib * MIB)
    found = await download_beside_a_poisoner(content, num_mib // 4, tmp_path, stack)
    # It is known for what it is when the first of its pieces is whole.
    assert 1 <= len(found.leech.events("piece_failed")) <= 2
    assert 0 < found.num_again <= found.liar.num_bad * 16_384
