"""
Every limit of a DHT node, with its reason, and the settings a user may change.

Rows N1 to N4 are those of the project's list of threats. Times are seconds, lengths
bytes, rates per second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bittern.core.errors import ConfigError

HostPort = tuple[str, int]

WELL_KNOWN_ROUTERS: Final[tuple[HostPort, ...]] = (
    ("router.bittorrent.com", 6881),
    ("dht.transmissionbt.com", 6881),
    ("router.utorrent.com", 6881),
    ("dht.libtorrent.org", 25401),
    ("dht.aelitis.com", 6881),
)
"""The public nodes that a new node asks first."""

# --- N1: reflection and amplification -----------------------------------------------------

MAX_STRANGER_FACTOR: Final = 4
"""
Limit: N1. An answer to an address that never echoed one of our transaction ids is at
most this many times as long as the query, since the address may be forged.
"""
MAX_ANSWER_LENGTH: Final = 1400
"""Limit: N1. Any datagram of ours; the longest is an item of 1,000 bytes with nodes."""
MAX_PEERS_ANSWER_LENGTH: Final = 1024
"""BEP 32: no datagram above that; only items, which cannot be cut, go beyond."""
MAX_VALUES: Final = 50
"""Limit: N1. IPv4 peers in one answer; 400 bytes."""
MAX_VALUES_V6: Final = 20
"""Limit: N1. IPv6 peers in one answer; 420 bytes."""
PROOF_LIFETIME: Final = 900.0
"""How long an address that echoed a transaction id counts as proven."""
QUERY_BURST: Final = 4.0
"""Limit: N1. Seconds' worth of queries of one address that are answered at once."""
MAX_SOURCES: Final = 4096
"""Addresses whose rate is remembered, in each of two generations."""
MAX_CHALLENGES: Final = 64
"""Limit: N1. Long answers kept back until the asker has proven its address by a ping."""

# --- N2: poisoning and eclipse ------------------------------------------------------------

BUCKET_SIZE: Final = 8
"""BEP 5: K."""
FILL_SIZE: Final = 4
"""Nodes of a bucket far from us that are searched for; more only as they come."""
MAX_SPARES: Final = 8
"""Nodes that wait for a place in a bucket."""
TOP_BITS: Final = 5
"""
The id space is cut into 2**5 buckets at least, so that a lookup starts close to its
target. With 155 buckets towards our own id that is at most 1,496 nodes (Limit: N2,
4,000).
"""
MAX_PER_NETWORK_IN_TABLE: Final = 8
"""
Limit: N2. Nodes of one /24 or /64 in the whole table. In one bucket, and among those
that a lookup relies on, it is one.
"""
NUM_PATHS: Final = 3
"""Limit: N2. Disjoint paths of a lookup."""
MAX_NODES_PER_ANSWER: Final = 8
"""Limit: N2. Nodes of one family that are read from an answer."""
MAX_LOOKUP_QUERIES: Final = 100
"""Limit: N2. Queries of one lookup, however many nodes a liar makes up."""
MAX_CANDIDATES: Final = 1000
"""Limit: N2. Nodes that one lookup remembers."""
TOKEN_LENGTH: Final = 8
"""Limit: N2."""
TOKEN_INTERVAL: Final = 300.0
"""BEP 5: a token is accepted for five to ten minutes."""
TRANSACTION_ID_LENGTH: Final = 4
"""Limit: N2. Random, so that nobody off the path can answer for another node."""
MAX_LOOKUPS: Final = 16
"""Lookups at work at the same time; further ones wait."""
MAX_QUEUED_LOOKUPS: Final = 10_000
"""Lookups that wait."""

# --- N3: what others store with us --------------------------------------------------------

MAX_TORRENTS: Final = 2000
"""Limit: N3. libtorrent keeps as many."""
MAX_PEERS: Final = 500
"""Limit: N3. Peers of one torrent. BEP 33 filters are good to 6,000."""
MAX_ITEMS: Final = 700
"""Limit: N3."""
MAX_VALUE_LENGTH: Final = 1000
"""Limit: N3, BEP 44."""
MAX_SALT_LENGTH: Final = 64
"""Limit: N3, BEP 44."""
PEER_LIFETIME: Final = 1800.0
"""Limit: N3. Clients announce every 15 to 30 minutes."""
ITEM_LIFETIME: Final = 7200.0
"""Limit: N3, BEP 44."""
EVICTION_SAMPLE: Final = 8
"""Entries drawn at random, of which the one from the most crowded network has to go."""
MAX_SAMPLES: Final = 20
"""Info hashes in one answer to sample_infohashes (BEP 51)."""
SAMPLE_INTERVAL: Final = 1800
"""BEP 51: how long the drawn sample stays the same."""
FILTER_INTERVAL: Final = 10.0
"""How long a bloom filter is reused although the swarm has changed (BEP 33)."""
SIGNATURE_RATE: Final = 50.0
"""Limit: N3. Signatures checked for others a second, 0.1 ms each."""

# --- times --------------------------------------------------------------------------------

QUERY_TIMEOUT: Final = 4.0
"""A query without an answer has failed."""
SLOW_TIMEOUT: Final = 1.0
"""A lookup asks another node beside one that takes so long, or as long as few others do."""
FIRST_SLOW_TIMEOUT: Final = 0.5
"""The same while nobody has answered yet."""
MIN_SLOW_TIMEOUT: Final = 0.2
"""The same at the least: a busy machine answers so late now and then."""
PATIENCE_FACTOR: Final = 4.0
"""How many times as long a lookup waits before it does without an answer."""
MIN_PATIENCE: Final = 1.0
"""And at the least so long."""
FRESH_LIFETIME: Final = 900.0
"""BEP 5: a node is good for 15 minutes after it was heard from."""
MAX_TRUST: Final = 3600.0
"""A node that asks us things but has not answered for an hour is asked again."""
MAX_FAILURES: Final = 2
"""BEP 5: try once more before discarding a node."""
UPKEEP_INTERVAL: Final = 5.0
"""How often the table is looked after; at most one node is asked each time."""
FILL_INTERVAL: Final = 0.5
"""The same while the table is nearly empty and others ask us something."""
IDLE_INTERVAL: Final = 30.0
"""The same after a time at which there was nothing to do."""
EXAMS_PER_UPKEEP: Final = 4
"""Limit: N1, N2. Newcomers that are examined at each upkeep."""
MAX_SUGGESTIONS: Final = 400
"""Nodes that wait for that."""
SUGGESTIONS_PER_EXAM: Final = 4
"""Limit: N2. Nodes that are examined because one and the same node named them."""
SUSPICION_LIFETIME: Final = 900.0
"""Limit: N2. How long a node that has lied has no place; it may have been young."""
MAX_SUSPECTS: Final = 2000
"""Limit: N2. Liars that are remembered."""
REFRESH_INTERVAL: Final = 60.0
"""At most one bucket is refreshed by a lookup in that time."""
SWEEP_INTERVAL: Final = 60.0
"""How often what has expired is dropped."""
MIN_TABLE_NODES: Final = 8
"""With fewer nodes a node bootstraps again."""
BOOTSTRAP_INTERVAL: Final = 3.0
"""First wait between two tries to bootstrap; doubled up to the next one."""
SILENCE_BEFORE_ROUTERS: Final = 2.0
"""Routers are asked as well when none of the saved nodes has answered after so long."""
MAX_BOOTSTRAP_INTERVAL: Final = 600.0
LINK_DOWN_FAILURES: Final = 16
"""Failures in a row after which our own link is to blame and no node suffers (BEP 45)."""
MAX_SAVED_NODES: Final = 400
"""Nodes kept across runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DhtConfig:
    """
    What may be set for a node.

    Args:
        is_read_only: ask, but answer nobody (BEP 43).
        max_upload_rate: bytes a second of everything we send; answers are dropped
            beyond it (Limit: N1).
        queries_per_address: answers a second for one address, after a first
            burst (Limit: N1).
        max_torrents: torrents with announced peers.
        max_peers: peers of one torrent.
        max_items: stored items of BEP 44.

    Raises:
        ConfigError: a value is below 1.
    """

    is_read_only: bool = False
    max_upload_rate: float = 16_000.0
    queries_per_address: float = 5.0
    max_torrents: int = MAX_TORRENTS
    max_peers: int = MAX_PEERS
    max_items: int = MAX_ITEMS

    def __post_init__(self) -> None:
        for name in (
            "max_upload_rate",
            "queries_per_address",
            "max_torrents",
            "max_peers",
            "max_items",
        ):
            if not getattr(self, name) >= 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name):g}")
