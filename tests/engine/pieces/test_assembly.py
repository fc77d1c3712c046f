"""engine.pieces.assembly: blocks to pieces to storage and back, over memory, in virtual time."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from bittern.codec import wire
from bittern.codec.bencode import decode, encode
from bittern.codec.info import Info, Version, decode_info
from bittern.codec.wire import MessageId
from bittern.core.errors import DiskFull, Inconsistent, StorageError
from bittern.core.geometry import Geometry
from bittern.engine import events
from bittern.engine.events import TorrentState
from bittern.engine.pieces.assembly import Assembly, find_pad_blocks
from bittern.engine.pieces.upload import SendBuffer
from bittern.engine.store.disk import Disk
from bittern.policy.open_piece import PeerShare
from bittern.policy.picker import Picker
from bittern.proto.peer_events import Request
from bittern.storage.hashing import PieceHashes
from bittern.storage.layout import Layout
from bittern.storage.memory import MemoryStorage
from bittern.testing.disk import SimWorker
from bittern.testing.loop import VirtualLoop
from tests.engine.hash_peers import BlockPeer, connect_v2
from tests.engine.scene import Scene, Watch, in_scene, until
from tests.virtual_time import simulated

BLOCK = 16_384
PIECE = 4 * BLOCK


def make_info(data: bytes, *, files: list[dict[bytes, object]] | None = None) -> Info:
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    value: dict[bytes, object] = {
        b"name": b"content",
        b"piece length": PIECE,
        b"pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces),
    }
    value |= {b"length": len(data)} if files is None else {b"files": files}
    return decode_info(encode(value))  # type: ignore[arg-type]


class Bench:
    """An assembly over memory, and everything it says."""

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        num_pieces: int = 4,
        have: int = 0,
        unverified: int = 0,
        delay: float = 0.1,
        is_parallel: bool = False,
        lengths: Sequence[int] = (),
    ) -> None:
        self.data = random.Random(1).randbytes(num_pieces * PIECE - 100)
        files = [{b"length": n, b"path": [b"%d" % at]} for at, n in enumerate(lengths)]
        self.info = make_info(self.data, files=files or None)
        self.geometry: Geometry = self.info.geometry
        self.layout = Layout(self.info.files, self.geometry)
        self.storage = MemoryStorage(self.layout)
        self.storage.prepare()
        self.picker = Picker(num_pieces, random.Random(1))
        self.picker.set_have(have)
        self.worker = SimWorker(loop, delay=delay, is_parallel=is_parallel)
        self.clock = 0.0
        self.disk = Disk(self.worker, loop, max_queue=1 << 20, clock=lambda: self.clock)
        self.log: list[tuple[object, ...]] = []
        self.loaded: list[tuple[list[Request], bytes]] = []
        self.refused: list[Request] = []
        self.num_not_sent = 0
        self.hashes = PieceHashes(self.info, {})
        self.assembly = Assembly(
            self,
            geometry=self.geometry,
            layout=self.layout,
            storage=self.storage,
            hashes=self.hashes,
            picker=self.picker,
            disk=self.disk,
            send_buffer=SendBuffer(1 << 19),
            unverified=unverified,
        )

    def bit(self, index: int) -> int:
        return 1 << (self.picker.top - index)

    def fill(self) -> None:
        """Put all of the content into storage."""
        self.storage.write(0, [self.data])

    def block(self, index: int, number: int) -> bytes:
        at = index * PIECE + number * BLOCK
        return self.data[at : min(at + BLOCK, (index + 1) * PIECE)]

    def give(self, share: PeerShare, index: int, *numbers: int, is_bad: bool = False) -> None:
        """Let a peer send blocks that it was asked for."""
        blocks = []
        for number in numbers:
            data = self.block(index, number)
            if is_bad:
                data = bytes(len(data))
            blocks.append((index, number * BLOCK, memoryview(bytearray(data))))
        self.assembly.receive(share, blocks)

    def open(self, share: PeerShare, *indices: int) -> None:
        """Ask a peer for whole pieces."""
        for index in indices:
            self.assembly.pieces.plan(share, self.bit(index), 4)

    # --- AssemblyOwner -------------------------------------------------------------------

    def pieces_verified(self, pieces: Sequence[int]) -> None:
        self.log += [("verified", index) for index in pieces]

    def piece_failed(self, index: int, guilty: set[Hashable]) -> None:
        self.log.append(("failed", index, guilty))

    def peers_guilty(self, guilty: set[Hashable], *, is_proven: bool = False) -> None:
        self.log.append(("guilty", guilty))

    def piece_lost(self, index: int) -> None:
        self.log.append(("lost", index))

    def not_sent(self, num_bytes: int) -> None:
        self.num_not_sent += num_bytes

    def file_completed(self, index: int) -> None:
        self.log.append(("file", index))

    def storage_failed(self, error: StorageError) -> None:
        self.log.append(("broken", type(error)))

    def torrent_inconsistent(self, error: Inconsistent) -> None:
        self.log.append(("inconsistent", error))

    # --- LoadedRun -----------------------------------------------------------------------

    def run_loaded(self, requests: list[Request], data: memoryview) -> None:
        self.loaded.append((requests, bytes(data)))

    def run_refused(self, requests: list[Request]) -> None:
        self.refused += requests


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
@simulated
async def test_blocks_in_any_order_make_a_piece(loop: VirtualLoop, order: tuple[int, ...]) -> None:
    bench = Bench(loop)
    share = PeerShare("a")
    bench.open(share, 1)
    for number in order:
        assert bench.log == []
        bench.give(share, 1, number)
    await asyncio.sleep(1)
    assert bench.log == [("verified", 1)]
    assert bench.picker.have == bench.bit(1)
    assert bench.assembly.pieces.open == {}
    found = memoryview(bytearray(PIECE))
    bench.storage.read_into(PIECE, [found])
    assert found == bench.data[PIECE : 2 * PIECE]


@simulated
async def test_a_loop_that_falls_behind_leaves_hashing_to_the_worker(loop: VirtualLoop) -> None:
    """Pieces are judged in the order in which they came, whoever hashes them."""
    bench = Bench(loop, is_parallel=True)
    share = PeerShare("a")
    bench.open(share, 0, 1, 2, 3)
    blocks = [
        (index, number * BLOCK, memoryview(bytearray(bench.block(index, number))))
        for index in (0, 1)
        for number in range(4)
    ]
    bench.assembly.receive(share, blocks)
    assert all(not piece.num_hashed for piece in bench.assembly.pieces.open.values())
    bench.give(share, 2, 0, 1, 2, 3)
    assert bench.log == []
    await asyncio.sleep(1)
    assert bench.log == [("verified", 0), ("verified", 1), ("verified", 2)]
    bench.give(share, 3, 0, 1, 2, 3)
    assert bench.log[3:] == [("verified", 3)]
    await asyncio.sleep(1)


@simulated
async def test_a_file_is_complete_with_its_last_piece(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    share = PeerShare("a")
    bench.open(share, 0, 1, 2, 3)
    for index in range(4):
        bench.give(share, index, 0, 1, 2, 3)
    await asyncio.sleep(1)
    assert bench.log == [("verified", n) for n in range(4)] + [("file", 0)]
    assert bench.picker.is_complete


@simulated
async def test_files_that_share_pieces_are_each_complete_once_and_not_before(
    loop: VirtualLoop, rng: random.Random
) -> None:
    """Whatever order their pieces come in, and however many at once."""
    lengths = [PIECE + 10, 5, 2 * PIECE, 3, 3 * PIECE + 50]
    lengths.append(8 * PIECE - 100 - sum(lengths))
    for _ in range(20):
        await complete_in_batches(Bench(loop, num_pieces=8, lengths=lengths), rng)


async def complete_in_batches(bench: Bench, rng: random.Random) -> None:
    bench.fill()
    heard: list[int] = []
    left, had = rng.sample(range(8), 8), set[int]()
    while left:
        batch = [left.pop() for _ in range(rng.randint(1, len(left)))]
        had.update(batch)
        bench.assembly.take(batch)
        bench.assembly.is_finished(then=lambda: heard.append(len(bench.log)))
        await asyncio.sleep(1)
        whole = [n for n in range(6) if had.issuperset(bench.layout.pieces_of_file(n))]
        told = [int(str(entry[1])) for entry in bench.log if entry[0] == "file"]
        assert sorted(told) == whole
        # Whoever waits for all of them hears once the last one has its name.
        assert heard == ([len(bench.log)] if bench.log[-1][0] == "file" else [])
        heard.clear()


@simulated
async def test_who_sends_a_bad_piece_alone_is_guilty(loop: VirtualLoop) -> None:
    """Limit: H4."""
    bench = Bench(loop)
    share = PeerShare("liar")
    bench.open(share, 0)
    bench.give(share, 0, 0, 1, 2, 3, is_bad=True)
    assert bench.log == [("failed", 0, {"liar"})]
    assert not bench.picker.have
    # It is known who did it, so that anybody may help to fetch the piece again.
    pieces = bench.assembly.pieces
    assert pieces.plan(PeerShare("a"), bench.bit(0), 1) == [(0, 0, BLOCK)]
    assert pieces.plan(PeerShare("b"), bench.bit(0), 1) == [(0, BLOCK, 2 * BLOCK)]


@simulated
async def test_of_two_who_sent_a_bad_piece_the_liar_is_found_later(loop: VirtualLoop) -> None:
    """Limit: H4. Nobody is accused until the piece is known."""
    bench = Bench(loop)
    good, liar = PeerShare("good"), PeerShare("liar")
    bench.open(good, 0)
    bench.give(good, 0, 0, 1)
    bench.give(liar, 0, 2, is_bad=True)
    bench.give(good, 0, 3)
    assert bench.log == [("failed", 0, set())]
    # One peer alone fetches it anew: else a liar among several would spoil it for ever.
    assert bench.assembly.pieces.plan(good, bench.bit(0), 1) == [(0, 0, BLOCK)]
    assert bench.assembly.pieces.plan(liar, bench.bit(0), 1) == []
    bench.open(good, 0)
    bench.give(good, 0, 0, 1, 2, 3)
    assert bench.log[1:] == [("verified", 0), ("guilty", {"liar"})]
    assert bench.assembly.suspects.num_good("good") == 1


@pytest.mark.parametrize("has_judge", [False, True])
@simulated
async def test_what_a_banned_peer_sent_is_fetched_again_where_it_cannot_be_told_from_good(
    loop: VirtualLoop, has_judge: bool
) -> None:
    """Limit: H4. With the hashes of blocks (v2) it is kept until they speak against it."""
    bench = Bench(loop)
    if has_judge:
        bench.assembly.judge_blocks(lambda *_, **__: False)
    good, liar = PeerShare("good"), PeerShare("liar")
    bench.open(liar, 0)
    bench.give(liar, 0, 0, 1)
    bench.give(good, 0, 2)
    bench.assembly.distrust("liar")
    assert bench.assembly.partial_blocks() == {0: [0, 1, 2] if has_judge else [2]}


@simulated
async def test_a_slow_disk_writes_in_the_worker_and_judges_after(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    share = PeerShare("a")
    bench.open(share, 0, 1)
    write = bench.storage.write

    def slow(offset: int, buffers: object) -> None:
        write(offset, buffers)  # type: ignore[arg-type]
        bench.clock += 1.0

    bench.storage.write = slow  # type: ignore[method-assign]
    bench.give(share, 0, 0, 1, 2, 3)
    assert bench.log == [("verified", 0)]
    bench.give(share, 1, 0, 1, 2, 3)
    assert bench.log == [("verified", 0)], "its bytes are not with the system yet"
    assert bench.assembly.partial_blocks() == {}
    await asyncio.sleep(1)
    assert bench.log == [("verified", 0), ("verified", 1)]


@pytest.mark.parametrize("is_slow", [False, True])
@simulated
async def test_a_full_disk_is_told_once(loop: VirtualLoop, is_slow: bool) -> None:
    bench = Bench(loop)
    share = PeerShare("a")
    bench.open(share, 0, 1, 2)
    if is_slow:
        bench.disk._slow_until[bench.storage] = loop.time() + 10
    bench.storage.capacity = BLOCK
    bench.give(share, 0, 0, 1, 2, 3)
    bench.give(share, 1, 0, 1, 2, 3)
    await asyncio.sleep(1)
    assert bench.log == [("broken", DiskFull)]


@simulated
async def test_what_a_full_disk_did_not_take_is_not_left_for_the_next_run(
    loop: VirtualLoop,
) -> None:
    """Limit: F1. A batch of two writes: the first goes through, of the second nothing is there."""
    bench = Bench(loop)
    share = PeerShare("a")
    bench.open(share, 0, 1, 2)
    bench.give(share, 0, 0)
    write = bench.storage.write

    def write_some(offset: int, buffers: Any) -> None:
        if offset >= 2 * PIECE:
            raise DiskFull("no room on the volume")
        write(offset, buffers)

    bench.storage.write = write_some  # type: ignore[method-assign]
    blocks = [(1, 0, memoryview(bench.block(1, 0))), (2, BLOCK, memoryview(bench.block(2, 1)))]
    bench.assembly.receive(share, blocks)
    await asyncio.sleep(1)
    assert bench.log == [("broken", DiskFull)]
    assert bench.assembly.partial_blocks() == {0: [0], 1: [0]}


@pytest.mark.parametrize("is_good", [False, True])
@simulated
async def test_a_piece_that_cannot_be_read_back_to_find_a_liar_is_a_broken_disk(
    loop: VirtualLoop, is_good: bool
) -> None:
    """Limit: H4, F2. What was good before counts all the same."""
    bench = Bench(loop)
    good, liar = PeerShare("good"), PeerShare("liar")
    bench.open(good, 0, 1)
    if is_good:
        bench.give(good, 0, 0, 1, 2)
        bench.give(liar, 0, 3, is_bad=True)
        bench.open(good, 0)
    bench.give(good, 0, 0, 1, 2)
    bench.give(good, 1, 0, 1, 2)

    def fail(*_: object, **__: object) -> bool:
        raise StorageError("cannot be read")

    bench.storage.read_into = fail  # type: ignore[method-assign]
    bench.log.clear()
    last = bench.block(0, 3) if is_good else bytes(BLOCK)
    blocks = [(0, 3 * BLOCK, memoryview(last)), (1, 3 * BLOCK, memoryview(bench.block(1, 3)))]
    bench.assembly.receive(good if is_good else liar, blocks)
    await asyncio.sleep(1)
    verified: list[tuple[object, ...]] = [("verified", 0)] if is_good else []
    assert sorted(bench.log, key=str) == [
        ("broken", StorageError),
        *verified,
        ("verified", 1),
    ]


@simulated
async def test_good_pieces_beside_one_that_contradicts_itself_are_had(loop: VirtualLoop) -> None:
    """Limit: P13."""
    bench = Bench(loop, is_parallel=True)
    share = PeerShare("a")
    bench.open(share, 0, 1, 2)
    is_good = bench.hashes.is_good

    def contradict(index: int, hasher: Any) -> bool:
        if index == 1:
            raise Inconsistent(index, "v1")
        return is_good(index, hasher)

    bench.hashes.is_good = contradict  # type: ignore[method-assign]
    blocks = [(index, n * BLOCK, bench.block(index, n)) for index in range(3) for n in range(4)]
    blocks[-1] = (2, 3 * BLOCK, bytes(BLOCK))
    bench.assembly.receive(share, [(i, begin, memoryview(data)) for i, begin, data in blocks])
    await asyncio.sleep(1)
    assert [entry[0] for entry in bench.log] == ["failed", "verified", "inconsistent"]
    assert bench.picker.have == bench.bit(0)


@simulated
async def test_blocks_of_an_earlier_run_are_gone_on_with(loop: VirtualLoop) -> None:
    bench = Bench(loop, num_pieces=5, have=0x90)
    bench.storage.write(PIECE, [bench.block(1, 0)])
    bench.storage.write(PIECE + 2 * BLOCK, [bench.block(1, 2)])
    # Pieces 0 and 3 are there, and piece 2 was cut off between its last block and its verdict:
    # it takes a block to get to that again.
    bench.storage.write(2 * PIECE, [bench.data[2 * PIECE : 3 * PIECE]])
    bench.assembly.restore({0: [1], 1: [0, 2], 2: [0, 1, 2, 3], 3: [0]})
    assert bench.assembly.partial_blocks() == {1: [0, 2], 2: [0, 1, 2]}
    share = PeerShare("a")
    assert bench.assembly.pieces.plan(share, bench.bit(1), 9) == [
        (1, BLOCK, 2 * BLOCK),
        (1, 3 * BLOCK, 4 * BLOCK),
    ]
    bench.give(share, 1, 1, 3)
    await asyncio.sleep(1)
    assert bench.log == [("verified", 1)]
    assert bench.assembly.pieces.plan(share, bench.bit(2), 9) == [(2, 3 * BLOCK, 4 * BLOCK)]
    bench.give(share, 2, 3)
    await asyncio.sleep(1)
    assert bench.log == [("verified", 1), ("verified", 2)]


# --- out -------------------------------------------------------------------------------------


def message(bench: Bench, index: int, number: int) -> bytes:
    return wire.encode_piece(index, number * BLOCK, bench.block(index, number))


@simulated
async def test_a_run_becomes_messages_at_once(loop: VirtualLoop) -> None:
    bench = Bench(loop, have=0xF0)
    bench.fill()
    requests = [(1, 2 * BLOCK, BLOCK), (1, 3 * BLOCK, BLOCK), (2, 0, BLOCK)]
    data = bench.assembly.load_run(bench, requests)
    assert data is not None
    expected = [message(bench, 1, 2), message(bench, 1, 3), message(bench, 2, 0)]
    assert bytes(data) == b"".join(expected)


@simulated
async def test_what_was_not_hashed_yet_is_hashed_first(loop: VirtualLoop) -> None:
    """Limit: F5. Once for each piece, whoever waits."""
    bench = Bench(loop, have=0xF0, unverified=0xF0)
    bench.fill()
    request = (1, 0, BLOCK)
    for _ in range(3):
        assert bench.assembly.load_run(bench, [request]) is None
    assert bench.loaded == []
    assert bench.worker.backlog == 1
    await asyncio.sleep(1)
    assert bench.loaded == [([request], message(bench, 1, 0))] * 3
    assert bench.assembly.unverified == 0xF0 ^ bench.bit(1)
    assert bench.assembly.load_run(bench, [request]) is not None


@pytest.mark.parametrize("how", ["damaged", "cut off", "gone"])
@simulated
async def test_a_bad_piece_of_a_run_costs_only_its_own_requests(
    loop: VirtualLoop, how: str
) -> None:
    """Limit: F2, F5."""
    bench = Bench(loop, have=0xF0, unverified=0xF0 if how == "damaged" else 0)
    bench.fill()
    if how == "damaged":
        bench.storage.files[0][2 * PIECE] ^= 1
    elif how == "cut off":
        del bench.storage.files[0][2 * PIECE + 5 :]
    else:
        bench.storage.files.clear()
    run = [(1, 3 * BLOCK, BLOCK), (2, 0, BLOCK), (2, BLOCK, BLOCK)]
    assert bench.assembly.load_run(bench, run) is None
    await asyncio.sleep(2)
    if how == "gone":
        assert bench.refused == run
        assert bench.log == [("lost", 1), ("lost", 2)]
        assert bench.loaded == [([], b"")]
    else:
        assert bench.refused == run[1:]
        assert bench.log == [("lost", 2)]
        assert bench.loaded == [(run[:1], message(bench, 1, 3))]
        assert bench.picker.have == 0xF0 ^ bench.bit(2)


@simulated
async def test_a_piece_that_is_lost_while_a_run_waits_is_not_sent(loop: VirtualLoop) -> None:
    """Limit: F5. Who asked for it alone has found out first that it is damaged."""
    bench = Bench(loop, have=0xF0, unverified=0xF0)
    bench.fill()
    bench.storage.files[0][2 * PIECE] ^= 1
    run = [(1, 0, BLOCK), (2, 0, BLOCK)]
    assert bench.assembly.load_run(bench, [(2, BLOCK, BLOCK)]) is None
    assert bench.assembly.load_run(bench, run) is None
    await asyncio.sleep(2)
    assert bench.log == [("lost", 2)]
    assert sorted(bench.refused) == [(2, 0, BLOCK), (2, BLOCK, BLOCK)]
    assert bench.num_not_sent == 2 * BLOCK
    assert ([(1, 0, BLOCK)], message(bench, 1, 0)) in bench.loaded


@simulated
async def test_a_piece_that_is_lost_while_it_is_read_is_not_sent(loop: VirtualLoop) -> None:
    bench = Bench(loop, have=0xF0)
    bench.fill()
    read_into = bench.storage.read_into

    def cold(offset: int, buffers: object, *, nowait: bool = False) -> bool:
        return not nowait and read_into(offset, buffers)  # type: ignore[arg-type]

    bench.storage.read_into = cold  # type: ignore[method-assign]
    run = [(1, 0, BLOCK), (2, 0, BLOCK)]
    assert bench.assembly.load_run(bench, run) is None
    bench.assembly.piece_is_bad(2)
    await asyncio.sleep(2)
    assert bench.refused == run[1:]
    assert bench.loaded == [(run[:1], message(bench, 1, 0))]


@simulated
async def test_a_cold_run_is_read_in_the_worker(loop: VirtualLoop) -> None:
    bench = Bench(loop, have=0xF0)
    bench.fill()
    read_into = bench.storage.read_into

    def cold(offset: int, buffers: object, *, nowait: bool = False) -> bool:
        return not nowait and read_into(offset, buffers)  # type: ignore[arg-type]

    bench.storage.read_into = cold  # type: ignore[method-assign]
    run = [(0, 0, BLOCK), (0, BLOCK, 100)]
    assert bench.assembly.load_run(bench, run) is None
    await asyncio.sleep(1)
    assert [requests for requests, _ in bench.loaded] == [run]
    expected = message(bench, 0, 0) + wire.encode_piece(0, BLOCK, bench.block(0, 1)[:100])
    assert bench.loaded[0][1] == expected
    bench.loaded.clear()
    del bench.storage.files[0][5:]
    assert bench.assembly.load_run(bench, run) is None
    await asyncio.sleep(1)
    assert bench.refused == run


@simulated
async def test_after_the_end_nobody_hears_of_more_than_the_names_of_files(
    loop: VirtualLoop,
) -> None:
    bench = Bench(loop, have=0x30, unverified=0x30)
    bench.fill()
    share = PeerShare("a")
    bench.open(share, 0)
    bench.disk._slow_until[bench.storage] = loop.time() + 10
    bench.give(share, 0, 0, 1, 2, 3)
    bench.assembly.load_run(bench, [(2, 0, BLOCK)])
    bench.assembly.finish_file(0)
    bench.assembly.stop()
    await asyncio.sleep(2)
    bench.assembly.load_run(bench, [(2, 0, BLOCK)])
    bench.assembly.unverified = 0
    bench.storage.read_into = lambda *_, **__: False  # type: ignore[method-assign]
    bench.assembly.load_run(bench, [(3, 0, BLOCK)])
    bench.assembly.stop()
    await asyncio.sleep(2)
    assert (bench.log, bench.loaded, bench.refused) == ([("file", 0)], [], [])


@simulated
async def test_wanted_files_are_prepared_in_the_worker(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    bench.storage.prepare = lambda *_: (_ for _ in ()).throw(StorageError("no"))  # type: ignore[method-assign]
    bench.assembly.prepare(frozenset([0]))
    assert bench.log == []
    await asyncio.sleep(1)
    assert bench.log == [("broken", StorageError)]


@simulated
async def test_whoever_waits_for_the_whole_hears_when_its_files_have_their_names(
    loop: VirtualLoop,
) -> None:
    """And the links are made then, once, where a person asked for them."""
    bench = Bench(loop)
    bench.assembly.make_links = lambda: bench.log.append(("links",))
    assert bench.assembly.is_finished(then=lambda: bench.log.append(("never",)))
    share = PeerShare("a")
    bench.open(share, 0, 1, 2, 3)
    for index in range(4):
        bench.give(share, index, 0, 1, 2, 3)
    done: list[float] = []

    def finished() -> None:
        if bench.assembly.is_finished(then=finished):
            done.append(loop.time())

    finished()
    assert not done
    await asyncio.sleep(1)
    assert bench.log[-2:] == [("file", 0), ("links",)]
    assert len(done) == 1


@simulated
async def test_a_file_that_cannot_be_given_its_name_is_told(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    bench.storage.finish_file = lambda _: (_ for _ in ()).throw(StorageError("no"))  # type: ignore[method-assign,assignment]
    bench.assembly.finish_file(0)
    await asyncio.sleep(1)
    assert bench.log == [("broken", StorageError)]


@simulated
async def test_a_write_in_the_worker_that_fails_is_told_once(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    share = PeerShare("a")
    bench.open(share, 0, 1)
    bench.disk._slow_until[bench.storage] = loop.time() + 10
    bench.storage.capacity = 0
    bench.give(share, 0, 0)
    bench.give(share, 1, 0)
    await asyncio.sleep(1)
    assert bench.log == [("broken", DiskFull)]


@simulated
async def test_a_write_of_part_of_a_piece_decides_nothing(loop: VirtualLoop) -> None:
    bench = Bench(loop)
    share = PeerShare("a")
    bench.open(share, 0)
    bench.disk._slow_until[bench.storage] = loop.time() + 10
    bench.give(share, 0, 0, 1)
    await asyncio.sleep(1)
    assert bench.log == []
    assert bench.assembly.partial_blocks() == {0: [0, 1]}
    assert bench.assembly.is_slow
    bench.give(share, 0, 2, 3)
    await asyncio.sleep(1)
    assert bench.log == [("verified", 0)]


@simulated
async def test_a_bug_in_the_worker_ends_as_a_disk_that_fails(
    loop: VirtualLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """Limit: F17. Nothing waits for ever, and there is an error to see and to retry from."""
    bench = Bench(loop)
    bench.storage.finish_file = lambda _: 1 // 0  # type: ignore[method-assign,assignment]
    bench.assembly.finish_file(0)
    await asyncio.sleep(1)
    assert bench.log == [("broken", StorageError)]
    assert "a bug: ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("is_unverified", [False, True])
@simulated
async def test_a_bug_while_a_run_is_read_is_not_taken_for_a_lost_piece(
    loop: VirtualLoop, is_unverified: bool
) -> None:
    bench = Bench(loop, have=0x80, unverified=0x80 if is_unverified else 0)
    bench.fill()

    def buggy(offset: int, buffers: object, *, nowait: bool = False) -> bool:
        return not nowait and bool(1 // 0)

    bench.storage.read_into = buggy  # type: ignore[method-assign]
    bench.assembly.load_run(bench, [(0, 0, BLOCK)])
    await asyncio.sleep(1)
    assert bench.log == [("broken", StorageError)]
    assert bench.picker.have == 0x80


@simulated
async def test_pieces_that_were_found_elsewhere_are_taken_and_hashed_before_they_are_sent(
    loop: VirtualLoop,
) -> None:
    """Limit: F5."""
    bench = Bench(loop, have=0x30)
    bench.fill()
    bench.assembly.take([0, 1])
    assert bench.log == [("verified", 0), ("verified", 1)]
    assert bench.assembly.unverified == bench.bit(0) | bench.bit(1)
    await asyncio.sleep(1)
    assert bench.log[2:] == [("file", 0)]
    assert bench.picker.is_complete
    assert bench.assembly.load_run(bench, [(0, 0, BLOCK)]) is None
    await asyncio.sleep(1)
    assert bench.loaded == [([(0, 0, BLOCK)], message(bench, 0, 0))]
    assert bench.assembly.unverified == bench.bit(1)
    other = Bench(loop)
    other.assembly.stop()
    other.assembly.take([0])
    assert other.log == []


@simulated
async def test_a_piece_is_lost_once(loop: VirtualLoop) -> None:
    """A recheck and an upload may both find that it is bad."""
    bench = Bench(loop, have=0xF0)
    bench.assembly.piece_is_bad(2)
    bench.assembly.piece_is_bad(2)
    assert bench.log == [("lost", 2)]
    assert bench.picker.have == 0xD0


# --- v2 --------------------------------------------------------------------------------------


@in_scene(version=Version.V2)
async def test_bad_blocks_of_a_v2_piece_are_named_and_the_rest_is_kept(scene: Scene) -> None:
    """BEP 52; Limit: H4. One sender is banned, and one block comes again."""
    seed = await scene.node(is_seed=True, max_upload_rate=20_000)
    poisoner = BlockPeer(scene, lambda number, *_: number == 10)
    node = await scene.node(peers=[poisoner.endpoint, seed])
    watch = Watch(node.torrent)
    await node.complete()
    assert node.has_content()
    assert [event.endpoint for event in watch.of(events.PeerBanned)] == [poisoner.endpoint]
    assert watch.of(events.PieceFailed) == [events.PieceFailed(poisoner.bad[0][0])]
    assert node.torrent.num_downloaded == len(scene.data) + BLOCK
    judge = node.swarm.assembly.judge
    assert judge is not None
    assert not judge.known, "hashes of blocks are kept only until their piece is good"


@in_scene(version=Version.V2)
async def test_a_bad_v2_piece_whose_hashes_nobody_gives_comes_again_as_a_whole(
    scene: Scene,
) -> None:
    poisoner = BlockPeer(scene, lambda number, *_: number == 10)
    node = await scene.node(peers=[poisoner.endpoint])
    watch = Watch(node.torrent)
    await until(lambda: bool(poisoner.bad))
    await asyncio.sleep(1)
    swarm = node.swarm
    # Its blocks are not known to be good, so they are not kept as such.
    assert poisoner.bad[0][0] not in swarm.assembly.partial_blocks()
    seed = await scene.node(is_seed=True)
    node.torrent.add_peers([seed.endpoint], "user")
    await node.complete()
    assert node.has_content()
    assert [event.endpoint for event in watch.of(events.PeerBanned)] == [poisoner.endpoint]
    assert watch.of(events.PieceFailed) == [events.PieceFailed(poisoner.bad[0][0])]


@pytest.mark.parametrize("is_upload", [False, True])
@in_scene(version=Version.HYBRID)
async def test_a_hybrid_that_contradicts_itself_accuses_nobody(
    scene: Scene, is_upload: bool
) -> None:
    """Limit: P13."""
    value: Any = decode(scene.raw)
    value[b"info"][b"pieces"] = bytes(20) + value[b"info"][b"pieces"][20:]
    scene.raw = encode(value)
    honest = BlockPeer(scene, lambda *_: False)
    node = await scene.node(
        is_seed=is_upload, torrent={"skip_check": is_upload}, peers=[honest.endpoint]
    )
    watch = Watch(node.torrent)
    if is_upload:
        peer = await connect_v2(scene, node)
        peer.send(wire.INTERESTED)
        await peer.expect(MessageId.UNCHOKE)
        peer.send(wire.encode_request(0, 0, BLOCK))
    await until(lambda: node.torrent.state is TorrentState.ERROR)
    assert isinstance(node.torrent.error, Inconsistent)
    assert watch.of(events.PeerBanned) == []


# --- pads ------------------------------------------------------------------------------------


def test_blocks_of_padding_are_neither_asked_for_nor_stored() -> None:
    """BEP 47. Only blocks that lie wholly in a pad."""
    length = BLOCK + 100
    pad = PIECE - length
    data = bytes(range(1, 256)) * (length // 255 + 1)
    whole = data[:length] + bytes(pad) + b"z" * 50
    info = make_info(
        whole,
        files=[
            {b"length": length, b"path": [b"a"]},
            {b"attr": b"p", b"length": pad, b"path": [b".pad", str(pad).encode()]},
            {b"length": 50, b"path": [b"b"]},
        ],
    )
    layout = Layout(info.files, info.geometry)
    assert find_pad_blocks(layout, info.geometry) == {0: (2, 3)}


def test_padding_is_told_block_by_block_from_data(rng: random.Random) -> None:
    """A block is left out exactly if no byte of it belongs to a file (BEP 47)."""
    for _ in range(50):
        files: list[dict[bytes, object]] = []
        is_data = bytearray()
        first = rng.randrange(2)
        for number in range(first, first + rng.randint(1, 6)):
            is_pad = bool(number % 2)
            lengths = [1, BLOCK - 1, BLOCK, 3 * BLOCK, PIECE, rng.randrange(1, 3 * PIECE)]
            length = rng.choice(lengths)
            pad: dict[bytes, object] = {b"attr": b"p"} if is_pad else {}
            files.append({**pad, b"length": length, b"path": [b"%d" % number]})
            is_data += bytes([not is_pad]) * length
        info = make_info(bytes(is_data), files=files)
        expected: dict[int, tuple[int, ...]] = {}
        for at in range(0, len(is_data), BLOCK):
            if not any(is_data[at : at + BLOCK]):
                index, begin = divmod(at, PIECE)
                expected[index] = (*expected.get(index, ()), begin // BLOCK)
        found = find_pad_blocks(Layout(info.files, info.geometry), info.geometry)
        assert {index: tuple(sorted(blocks)) for index, blocks in found.items()} == expected
