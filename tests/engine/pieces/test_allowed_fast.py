"""What newcomers may request while choked: little, and together a tenth of a copy (BEP 6, H9)."""

from __future__ import annotations

import pytest

from bittern.core.bitfield import Bitfield
from bittern.core.endpoint import Endpoint
from bittern.core.ids import InfoHash
from bittern.engine.pieces.allowed_fast import MAX_GRANTS, grants

INFO_HASH = InfoHash(b"\xaa" * 20)
PEER = Endpoint("80.4.4.200", 6881)
FULL = Bitfield.full(1_313)


def ask(
    have: Bitfield = FULL, remote: Bitfield | None = None, *, peer: Endpoint = PEER, count: int = 1
) -> list[int]:
    return grants(INFO_HASH, peer, have, remote or Bitfield(have.num_pieces), num_peers=count)


def test_the_example_of_bep_6() -> None:
    assert ask()[:7] == [1059, 431, 808, 1217, 287, 376, 1188]
    assert len(ask()) == MAX_GRANTS


@pytest.mark.parametrize(("num_peers", "expected"), [(0, 10), (13, 10), (20, 6), (65, 2), (132, 0)])
def test_all_together_get_a_tenth(num_peers: int, expected: int) -> None:
    assert len(ask(count=num_peers)) == expected


def test_who_has_pieces_or_is_one_of_very_many_gets_none() -> None:
    some = Bitfield.of(FULL.num_pieces, range(MAX_GRANTS))
    assert ask(remote=some) == []
    assert ask(remote=FULL) == []
    assert ask(Bitfield.full(100_000), count=200)
    assert ask(Bitfield.full(100_000), count=201) == []
    assert ask(peer=Endpoint("2001:db8::1", 6881)) == []


def test_only_what_we_have_and_the_peer_has_not() -> None:
    assert ask(Bitfield(FULL.num_pieces)) == []
    have = Bitfield.of(FULL.num_pieces, [1059, 808, 3])
    assert ask(have, Bitfield.of(FULL.num_pieces, [808])) == [1059]
