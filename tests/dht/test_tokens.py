"""Write tokens (BEP 5; Limit: N2)."""

from __future__ import annotations

import random

import pytest

from bittern.dht.limits import TOKEN_INTERVAL, TOKEN_LENGTH
from bittern.dht.tokens import TokenMint

HERE, THERE = b"\x01\x02\x03\x04", b"\x01\x02\x03\x05"


@pytest.fixture
def mint(rng: random.Random) -> TokenMint:
    return TokenMint(rng.randbytes, now=100.0)


def test_a_token_is_good_for_its_address_only(mint: TokenMint) -> None:
    token = mint.make(HERE, now=100.0)
    assert len(token) == TOKEN_LENGTH == 8
    assert token == mint.make(HERE, now=100.0)
    assert mint.is_valid(token, HERE, now=101.0)
    assert not mint.is_valid(token, THERE, now=101.0)
    assert not mint.is_valid(b"", HERE, now=101.0)
    assert not mint.is_valid(token + b"x", HERE, now=101.0)


@pytest.mark.parametrize(
    ("made_after", "used_after", "is_good"),
    [
        (0, TOKEN_INTERVAL - 1, True),
        (TOKEN_INTERVAL - 1, TOKEN_INTERVAL, True),
        (TOKEN_INTERVAL - 1, 2 * TOKEN_INTERVAL - 1, True),
        (TOKEN_INTERVAL - 1, 2 * TOKEN_INTERVAL, False),
        (0, 10 * TOKEN_INTERVAL, False),
    ],
)
def test_a_token_lives_five_to_ten_minutes(
    rng: random.Random, made_after: float, used_after: float, is_good: bool
) -> None:
    """BEP 5: tokens up to ten minutes old are accepted."""
    start = 1e6  # monotonic seconds may be any
    mint = TokenMint(rng.randbytes, now=start)
    token = mint.make(HERE, now=start + made_after)
    mint.make(HERE, now=start + TOKEN_INTERVAL)
    assert mint.is_valid(token, HERE, now=start + used_after) is is_good


def test_a_token_may_be_kept_and_given_again_for_so_long(mint: TokenMint) -> None:
    """As ``Responder`` does, so that it is not made for each answer."""
    token = mint.make(HERE, now=130.0)
    until = mint.good_until
    assert mint.make(HERE, now=until - 0.001) == token
    assert mint.make(HERE, now=until) != token
    assert mint.good_until == until + TOKEN_INTERVAL


def test_two_nodes_have_different_tokens(mint: TokenMint, rng: random.Random) -> None:
    other = TokenMint(rng.randbytes, now=100.0)
    assert not other.is_valid(mint.make(HERE, now=100.0), HERE, now=100.0)


def test_after_a_long_silence_old_secrets_are_gone(mint: TokenMint) -> None:
    """Limit: F10. A suspended machine does not accept a token from before."""
    token = mint.make(HERE, now=100.0)
    assert not mint.is_valid(token, HERE, now=100.0 + 2 * TOKEN_INTERVAL)
