"""
Every knob of the engine with its type, unit, default and reason.

Rates are bytes per second, times are seconds, lengths are bytes. ``None``
means "no limit" where a rate or count is optional. Values are checked when the
object is made, so that a wrong one is refused where it was written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path

from bittern.codec.url import check_tiers, check_urls
from bittern.core.endpoint import Endpoint
from bittern.core.errors import ConfigError
from bittern.core.kinds import check_kinds
from bittern.dht.limits import WELL_KNOWN_ROUTERS
from bittern.policy.picker import LOWEST_PRIORITY, TOP_PRIORITY
from bittern.storage.adopt import ReuseHow
from bittern.storage.renaming import parse_path


def _check(name: str, value: float | None, low: float, high: float = math.inf) -> None:
    """Refuse what is not in a range; None is no limit, or the session's."""
    if value is None or low <= value <= high:
        return
    wanted = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
    raise ConfigError(f"{name} must be {wanted}, not {value!r}")


def check_peers(peers: Iterable[Endpoint]) -> list[Endpoint]:
    """Return what a person says are peers; ConfigError if one is no endpoint, or of no address."""
    found = []
    for peer in peers:
        try:
            found.append(Endpoint.make(*peer))
        except (TypeError, ValueError, AttributeError):
            is_right = False
        else:
            is_right = isinstance(peer, Endpoint)
        if not is_right:
            raise ConfigError(f"a peer must be an Endpoint with an IP address, not {peer!r}")
    return found


def _check_hosts(hosts: tuple[str, ...]) -> None:
    for number, host in enumerate(hosts):
        if not host or host.split() != [host]:
            raise ConfigError(f"listen_host must be an address, not {host!r}")
        if host in hosts[:number]:
            raise ConfigError(f"to listen on {host} twice makes no sense")
        everywhere = "::" if ":" in host else "0.0.0.0"  # noqa: S104  # a name of all addresses
        if host != everywhere and everywhere in hosts:
            raise ConfigError(f"to listen on {everywhere} includes {host}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """
    Settings of a whole session.

    Raises:
        ConfigError: a value is outside its range; the text names it.
    """

    # --- listening -----------------------------------------------------------------------
    listen_host: str | tuple[str, ...] | None = None
    """Address to listen on, and to connect from, or several of them; None for all, IPv4 and IPv6.
    Of several in one family the first that leads beyond this machine announces to trackers."""
    listen_port: int = 6881
    """Port for peers, the same on all addresses; 0 takes any free one."""
    listen_port_tries: int = 10
    """Limit: F14. How many further ports are tried when the port is taken."""
    enable_incoming: bool = True
    """Accept connections at all."""

    # --- sources of peers ----------------------------------------------------------------
    enable_trackers: bool = True
    """Announce to HTTP and UDP trackers (BEP 3, 15)."""
    enable_dht: bool = True
    """Run a node of the DHT for each address family, and find peers by it (BEP 5, 32)."""
    enable_pex: bool = True
    """Learn of peers from peers, and tell them of others (BEP 11)."""
    enable_lsd: bool = True
    """Find peers in the local network by multicast (BEP 14)."""
    enable_web_seeds: bool = True
    """Download from HTTP servers that the torrent names as well (BEP 19)."""
    enable_zeroconf: bool = False
    """Advertise torrents to the local network by multicast DNS (BEP 26), as few clients do; needs
    the package ``zeroconf``."""
    dht_bootstrap: tuple[tuple[str, int], ...] = WELL_KNOWN_ROUTERS
    """DHT nodes to start from, by name or address; empty for none but saved ones."""
    announce_to_all_tiers: bool = False
    """Announce to one tracker of every tier instead of the first that works (BEP 12)."""

    # --- limits --------------------------------------------------------------------------
    max_download_rate: float | None = None
    """Bytes per second of blocks, of all torrents together; None is no limit."""
    max_upload_rate: float | None = None
    """The same for what is sent."""
    max_connections: int = 500
    """Established peer connections of all torrents; libtorrent's default is 200."""
    max_connections_per_torrent: int = 200
    """The same for one torrent, which may have a limit of its own."""
    max_web_seeds_per_torrent: int = 3
    """Limit: N8. Web seeds asked at the same time, over one connection each; as in libtorrent."""
    max_half_open: int = 20
    """Limit: H8. Outgoing connection attempts under way at once."""
    max_dials_per_second: int = 20
    """Limit: H8. New outgoing attempts, so that a poisoned peer list floods nobody."""
    max_pending_handshakes: int = 64
    """Limit: H5. Incoming connections that have not yet sent their handshake."""
    max_pending_handshakes_per_address: int = 4
    """Limit: H5. The same from one address; loopback is exempt."""
    upload_slots: int | None = 8
    """Unchoked peers of one torrent; None unchokes everyone who is interested."""
    send_buffer_length: int = 1_048_576
    """Limit: H2. Bytes of blocks read ahead for one peer."""
    receive_buffer_length: int = 1_048_576
    """The loop's one receive buffer, shared by all connections."""

    # --- times ---------------------------------------------------------------------------
    connect_timeout: float = 10.0
    """Until an outgoing connection is given up."""
    handshake_timeout: float = 10.0
    """Limit: H5. A deadline for the whole handshake, not per byte."""
    idle_timeout: float = 150.0
    """Limit: H5. Silence after which a peer is closed: more than the two minutes between
    keep-alives of BEP 3, which some clients, as rtorrent, take to the second and more."""
    keep_alive_interval: float = 100.0
    """Silence of ours after which a peer hears that we are there (BEP 3)."""
    snub_timeout: float = 60.0
    """Limit: H5. No block for this long although some are outstanding: snubbed (BEP 3)."""
    choke_interval: float = 10.0
    """Between two choices of whom to unchoke for what it gives (BEP 3)."""
    optimistic_interval: float = 30.0
    """Between two choices of whom to unchoke by chance (BEP 3)."""
    stop_timeout: float = 5.0
    """Limit: F19. Longest wait for trackers to hear "stopped"; of all torrents together when a
    session ends."""
    checkpoint_interval: float = 30.0
    """Limit: F8. How often verified data is synced and written to the journal."""
    checkpoint_length: int = 67_108_864
    """Limit: F8. The same by amount of new data."""

    rest_after: float = 60.0
    """Time without a connection after which a complete torrent gives up its memory."""

    # --- storage -------------------------------------------------------------------------
    state_dir: Path | None = None
    """Where resume data and DHT state live; None keeps nothing beyond this session."""
    preallocate: bool = False
    """Reserve room for all wanted files at the start, or fail there if there is not enough."""
    part_suffix: str | None = None
    """Suffix of files that are not complete, as ``.part``; None for none."""
    max_open_files: int = 64
    """Limit: F13. Of all torrents at a time; fewer where the system allows few."""
    hashing_threads: int | None = None
    """Threads of a recheck, all but one with a process where that pays; None for one per core."""
    max_write_queue: int = 67_108_864
    """Limit: F16. Bytes waiting for a slow disk above which reading from peers pauses."""

    # --- behaviour -----------------------------------------------------------------------
    allow_multiple_per_address: bool = False
    """Several connections to one address in a torrent (H15); loopback is always allowed."""
    verify_before_upload: bool = True
    """Limit: F5. Hash each piece once per session before its first upload."""
    client_prefix: bytes = b"-bt0100-"
    """How our peer ids begin (BEP 20); at most 12 bytes."""
    client_name: str = "bittern/0.1.0"
    """What peers, trackers and web servers are told that we are (BEP 10)."""

    @property
    def listen_hosts(self) -> tuple[str, ...]:
        """The addresses to listen on; none for all."""
        host = self.listen_host
        return () if host is None else (host,) if isinstance(host, str) else tuple(host)

    def __post_init__(self) -> None:
        check_kinds(self, SessionConfig)
        _check_hosts(self.listen_hosts)
        if self.enable_zeroconf and find_spec("zeroconf") is None:
            raise ConfigError(
                "enable_zeroconf needs the package zeroconf: pip install 'bittern[zeroconf]'"
            )
        _check("listen_port", self.listen_port, 0, 65535)
        for name in ("max_download_rate", "max_upload_rate"):
            _check(name, getattr(self, name), 1)
        for name in (
            "max_connections",
            "max_connections_per_torrent",
            "max_web_seeds_per_torrent",
            "max_half_open",
            "max_dials_per_second",
            "max_pending_handshakes",
            "max_pending_handshakes_per_address",
            "max_open_files",
            "max_write_queue",
            "checkpoint_length",
        ):
            _check(name, getattr(self, name), 1)
        _check("listen_port_tries", self.listen_port_tries, 0)
        _check("rest_after", self.rest_after, 0)
        _check("upload_slots", self.upload_slots, 1)
        _check("send_buffer_length", self.send_buffer_length, 32_768, 1 << 26)
        _check("receive_buffer_length", self.receive_buffer_length, 65_536, 1 << 26)
        _check("hashing_threads", self.hashing_threads, 1, 256)
        for spec in fields(self):
            if spec.name.endswith(("_timeout", "_interval")):
                _check(spec.name, getattr(self, spec.name), 0.001)
        if self.part_suffix is not None and (
            not self.part_suffix or len(parse_path(f"file{self.part_suffix}")) > 1
        ):
            raise ConfigError(f"part_suffix must be an end of names, not {self.part_suffix!r}")
        if len(self.client_prefix) > 12:
            raise ConfigError("client_prefix must leave 8 random bytes of the peer id")


@dataclass(frozen=True, slots=True, kw_only=True)
class TorrentConfig:
    """
    Settings of one torrent.

    Raises:
        ConfigError: a value is outside its range.
    """

    output: Path = field(default_factory=Path)
    """The folder that holds, or will hold, the torrent's file or folder."""
    data_path: Path | None = None
    """Exactly the file or folder of the content, when its name differs from the torrent's."""
    renames: Mapping[int, str] = field(default_factory=dict)
    """By index of a file, its path below ``output``, with ``/``, in place of the torrent's own."""
    files: frozenset[int] | None = None
    """Indices of the files wanted; None for all."""
    priorities: Mapping[int, int] = field(default_factory=dict)
    """By index of a file, from 1 for the last to 7 for the first; of all others it is 4."""
    sequential: bool = False
    """Ask for pieces in their order instead of the rarest first."""
    super_seeding: bool = False
    """Show each peer two pieces at a time, as a lone seed does (BEP 16)."""
    paused: bool = False
    """Add it without starting it; ``Torrent.resume`` does that."""
    skip_check: bool = False
    """
    Take the data for complete until a check is asked for; every piece is still hashed before its
    first upload.
    """
    reuse_session: bool = True
    """Take files that another torrent of the session has, verified, instead of fetching them."""
    reuse_from: tuple[Path, ...] = ()
    """Folders, or files, to look through for missing files; each is verified, then taken."""
    reuse_how: ReuseHow = ReuseHow.COPY
    """How they are taken: copied, cloned (reflink) or hard-linked; copied where that fails."""
    make_links: bool = False
    """Limit: P11. Make the torrent's symbolic links once all of its data is there: those that
    lead to a regular file of the same torrent, and no others."""
    trackers: tuple[tuple[str, ...], ...] = ()
    """Tiers of trackers in addition to the torrent's own."""
    web_seeds: tuple[str, ...] = ()
    """URLs in addition to the torrent's own; they may lead to private addresses (N6)."""
    enable_web_seeds: bool = True
    """Use web seeds, where the session does."""
    peers: tuple[Endpoint, ...] = ()
    """Peers to connect to at once, and again soon when one refuses."""
    hinted_peers: tuple[Endpoint, ...] = ()
    """Peers that somebody else names, as a magnet link does by host name."""
    max_download_rate: float | None = None
    """Bytes per second, within the session's limit; None is no limit of its own."""
    max_upload_rate: float | None = None
    """The same for what is sent."""
    max_connections: int | None = None
    """None takes the session's ``max_connections_per_torrent``."""
    upload_slots: int | None = None
    """None takes the session's."""

    def __post_init__(self) -> None:
        check_tiers("trackers", self.trackers)
        check_urls("web_seeds", self.web_seeds)
        check_kinds(self, TorrentConfig)
        for name in ("max_download_rate", "max_upload_rate", "max_connections", "upload_slots"):
            _check(name, getattr(self, name), 1)
        for path in self.renames.values():
            parse_path(path)
        for name in ("files", "priorities", "renames"):
            for index in getattr(self, name) or ():
                _check(f"an index in {name}", index, 0)
        check_peers((*self.peers, *self.hinted_peers))
        # What the caller changes afterwards changes nothing here.
        object.__setattr__(self, "renames", dict(self.renames))
        object.__setattr__(self, "priorities", dict(self.priorities))
        if self.files is not None:
            object.__setattr__(self, "files", frozenset(self.files))
        for index, priority in self.priorities.items():
            _check(f"the priority of file {index}", priority, LOWEST_PRIORITY, TOP_PRIORITY)
