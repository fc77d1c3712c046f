"""
Random mutations for decoders: what may escape is the documented error and nothing else.

``BITTERN_FUZZ_RUNS`` sets the number of inputs per decoder (default 1,000), ``BITTERN_FUZZ_SEED``
the seed; a failure prints the input itself.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence

DEFAULT_RUNS = 1000
MAX_SECONDS = 1.0
"""A single input that takes longer than this is a find."""

_INTERESTING = (
    b"", b"\x00", b"\xff", b"-", b"0", b":", b"e", b"i", b"l", b"d", b"le", b"de", b"i-0e",
    b"i0e", b"i-1e", b"i9223372036854775807e", b"i9223372036854775808e", b"0:", b"1:",
    b"i2147483648e", b"4294967295:", b"%", b"%00", b"&", b"..", b"/",
    b"\\", b"\xe2\x80\xae", b"\xc3", b"2:..",
)  # fmt: skip


def new_random() -> random.Random:
    """Return the source of chance of a fuzz test."""
    return random.Random(int(os.environ.get("BITTERN_FUZZ_SEED", "1")))


def num_runs(default: int = DEFAULT_RUNS) -> int:
    """Return how many inputs to try."""
    return int(os.environ.get("BITTERN_FUZZ_RUNS", default))


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with one to four random changes: flips, cuts, copies, odd tokens."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        at = rng.randrange(len(made) + 1)
        end = min(len(made), at + rng.choice((1, 1, 2, 4, 16)))
        match rng.randrange(6):
            case 0:
                if at < len(made):
                    made[at] ^= 1 << rng.randrange(8)
            case 1:
                del made[at:end]
            case 2:
                made[at:at] = made[at:end]
            case 3:
                made[at:end] = rng.choice(_INTERESTING)
            case 4:
                made[at:at] = rng.choice(_INTERESTING)
            case _:
                other = rng.randrange(len(made) + 1)
                made[at:end] = made[other : other + end - at]
    return bytes(made)


def fuzz(
    function: Callable[[bytes], object],
    seeds: Sequence[bytes],
    allowed: type[Exception] | tuple[type[Exception], ...],
    *,
    default_runs: int = DEFAULT_RUNS,
) -> int:
    """
    Feed mutants of ``seeds`` to ``function``; return how many were accepted.

    Raises:
        AssertionError: something else than ``allowed`` escaped, or one call was too slow.
    """
    rng = new_random()
    num_accepted = 0
    for number in range(num_runs(default_runs)):
        data = mutate(rng.choice(seeds), rng)
        began = time.perf_counter()
        try:
            function(data)
            num_accepted += 1
        except allowed as error:
            text = str(error)
            assert text.isprintable(), (number, data, text)
        except Exception as error:
            raise AssertionError(f"input {number}: {data!r}") from error
        assert time.perf_counter() - began < MAX_SECONDS, (number, data)
    return num_accepted
