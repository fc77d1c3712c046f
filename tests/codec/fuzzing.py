"""
Random mutations for decoders: what may escape is the documented error and nothing else.

``mutate`` changes bytes, so most of what it makes of bencoding is none any more; ``mutate_tree``
changes the values, keys and lists that bytes stand for, and gets behind the first check.

``BITTERN_FUZZ_RUNS`` sets the number of inputs per decoder (default 1,000), ``BITTERN_FUZZ_SEED``
the seed; a failure prints the input itself.
"""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from bittern.codec.bencode import decode, encode

DEFAULT_RUNS = 1000
MAX_SECONDS = 1.0
"""A single input that takes longer than this is a find."""

_INTERESTING = (
    b"", b"\x00", b"\xff", b"-", b"0", b":", b"e", b"i", b"l", b"d", b"le", b"de", b"i-0e",
    b"i0e", b"i-1e", b"i9223372036854775807e", b"i9223372036854775808e", b"0:", b"1:",
    b"i2147483648e", b"4294967295:", b"%", b"%00", b"&", b"..", b"/",
    b"\\", b"\xe2\x80\xae", b"\xc3", b"2:..",
)  # fmt: skip


_ODD_VALUES: Final[tuple[Any, ...]] = (
    0, 1, -1, 2, 16_383, 16_384, 16_385, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 48, (1 << 63) - 1,
    b"", b".", b"..", b"a/b", b"CON", b"A", b"a", b"\xff", b"\xed\xa0\x80", b"\xe2\x80\xae",
    b"x" * 256, b"p", b"l", b"hx", bytes(32), b"http://[::1", [], {}, [b"a"], [[]],
    {b"": {b"length": 1}}, {b"a": {}},
)  # fmt: skip

Mutate = Callable[[bytes, random.Random], bytes]


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


def mutate_tree(data: bytes, rng: random.Random) -> bytes:
    """Return a bencoded list or dictionary with one to three of its values changed, keys sorted."""
    root = decode(data)
    names = [key for _, key in _places(root) if isinstance(key, bytes)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(root))
        if not places:
            break
        holder, key = rng.choice(places)
        found = holder[key]
        match rng.randrange(6):
            case 0:
                del holder[key]
            case 1:
                holder[key] = copy.deepcopy(rng.choice(_ODD_VALUES))
            case 2:
                other, place = rng.choice(places)
                holder[key] = copy.deepcopy(other[place])
            case 3 if isinstance(holder, list):
                holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(found))
            case 3:
                holder[rng.choice((*names, b"", b"..", b"CON"))] = copy.deepcopy(found)
            case 4 if isinstance(found, list):
                rng.shuffle(found)
            case _ if isinstance(found, bytes):
                holder[key] = mutate(found, rng)
            case _ if isinstance(found, int):
                holder[key] = found + rng.choice((-1, 1, 16_384))
            case _:
                pass
    return encode(root)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container inside ``value``, itself included, with each of its keys or indices."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])


def fuzz(
    function: Callable[[bytes], object],
    seeds: Sequence[bytes],
    allowed: type[Exception] | tuple[type[Exception], ...],
    *,
    default_runs: int = DEFAULT_RUNS,
    mutate: Mutate = mutate,
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
