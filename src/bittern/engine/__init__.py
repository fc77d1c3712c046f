"""Ownership: session, torrents, peers, trackers. Level 5."""
