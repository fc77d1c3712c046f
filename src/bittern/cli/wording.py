"""
What the library says about its settings, in options that a person can type.

The engine explains itself by the names of ``SessionConfig``. On the command line they become
options; a limit for which there is none is told without its name. The tables have what the
library says; every other text stays as it is.
"""

from __future__ import annotations

import re
from typing import Final

SWITCHES: Final = {
    "enable_trackers": "--no-tracker",
    "enable_dht": "--no-dht",
    "enable_pex": "--no-pex",
    "enable_lsd": "--no-lsd",
    "enable_web_seeds": "--no-web-seed",
}
"""The option that switches each source of peers off."""

_PARTS: Final = {
    **{
        f"switched off by the setting {name}": f"switched off by {SWITCHES[name]}"
        for name in SWITCHES
    },
    "switched off by the setting enable_zeroconf": "only with --zeroconf",
    "enable_zeroconf needs": "--zeroconf needs",
    "is reached (max_download_rate)": "is reached (--max-download)",
    "is reached (max_upload_rate)": "is reached (--max-upload)",
}
"""By a part of a text, what stands in its place."""

_LIMITS: Final = {
    "max_connections": "connections",
    "max_connections_per_torrent": "connections of one torrent",
    "max_half_open": "attempts at a time",
}
"""What each limit counts that no option sets."""

_PART: Final = re.compile("|".join(map(re.escape, _PARTS)))
_LIMIT: Final = re.compile(rf"the limit ({'|'.join(_LIMITS)}) of (\S+)")


def in_options(text: str) -> str:
    """Return a text of the library in the words of the command line."""
    text = _PART.sub(lambda found: _PARTS[found[0]], text)
    return _LIMIT.sub(lambda found: f"the limit of {found[2]} {_LIMITS[found[1]]}", text)
