"""
A process that downloads, to be killed: writes pieces as the engine does and says what it did.

It prints ``ready``, then ``w<index>`` once a piece is wholly written and
``c<index>`` once it is committed. Started again in the same folder it goes on.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

KEY = bytes(range(20))
NUM_PIECES = 2000
PIECE_LENGTH = 5000
BATCH = 8


def piece_content(index: int) -> bytes:
    """The right bytes of a piece."""
    return hashlib.shake_128(index.to_bytes(4, "big")).digest(PIECE_LENGTH)


def main(folder: Path) -> None:
    """Download for ever, or until all is there."""
    from bittern.core.bitfield import Bitfield
    from bittern.core.ids import InfoHash
    from bittern.storage.resume import Checkpoint, ResumeRecord, ResumeStore

    def say(text: str) -> None:
        os.write(1, text.encode() + b"\n")

    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / "data", os.O_RDWR | os.O_CREAT)
    store = ResumeStore(folder / "state")
    info_hash = InfoHash(KEY)
    found = store.load(info_hash)
    if found is None or found.have is None:
        store.save(ResumeRecord(info_hash=info_hash, name="n", save_path=str(folder)), b"x")
        store.commit_have([Checkpoint(info_hash=info_hash, have=Bitfield(NUM_PIECES))])
        have = Bitfield(NUM_PIECES)
    else:
        have = found.have
    say("ready")
    new: list[int] = []
    missing = [index for index in range(NUM_PIECES) if index not in have]
    for number in range(0, len(missing), BATCH):
        batch = missing[number : number + BATCH]
        store.mark_open(info_hash, batch)
        for index in batch:
            content = piece_content(index)
            for begin in range(0, PIECE_LENGTH, 1000):
                os.pwrite(fd, content[begin : begin + 1000], index * PIECE_LENGTH + begin)
            say(f"w{index}")
            have.add(index)
            new.append(index)
        if number // BATCH % 3 == 2:
            os.fdatasync(fd)
            store.commit_have([Checkpoint(info_hash=info_hash, have=have)])
            # Each once: nobody reads until we are killed, and a full pipe would stop us.
            while new:
                say(f"c{new.pop()}")
    signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
