"""The settings refuse what cannot be, and the limits are those of the list of threats."""

from __future__ import annotations

import pytest

from bittern.core.errors import ConfigError
from bittern.dht import limits
from bittern.dht.limits import DhtConfig


def test_defaults_are_the_limits() -> None:
    config = DhtConfig()
    assert config.max_upload_rate == 16_000
    assert config.queries_per_address == 5
    assert (config.max_torrents, config.max_peers, config.max_items) == (2000, 500, 700)


@pytest.mark.parametrize(
    "name",
    ["max_upload_rate", "queries_per_address", "max_torrents", "max_peers", "max_items"],
)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_impossible_values_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=name):
        DhtConfig(**{name: value})  # type: ignore[arg-type]


def test_numbers_of_the_threats() -> None:
    """Limits: N1, N2, N3."""
    assert limits.MAX_STRANGER_FACTOR <= 4
    assert limits.MAX_ANSWER_LENGTH <= 1400
    assert (limits.MAX_VALUES, limits.MAX_VALUES_V6) == (50, 20)
    assert limits.NUM_PATHS == 3
    assert limits.TOKEN_LENGTH == 8
    assert limits.TRANSACTION_ID_LENGTH == 4
    assert limits.MAX_NODES_PER_ANSWER == 8
    buckets = (1 << limits.TOP_BITS) - 1 + 160 - limits.TOP_BITS
    assert buckets * limits.BUCKET_SIZE <= 4000
    assert limits.PEER_LIFETIME == 30 * 60
    assert limits.ITEM_LIFETIME == 2 * 60 * 60
