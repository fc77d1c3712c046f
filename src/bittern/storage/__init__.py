"""Torrent bytes at rest. Level 4."""
