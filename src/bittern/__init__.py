"""A complete BitTorrent system in pure Python."""

__version__ = "0.1.0"
