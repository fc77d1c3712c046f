"""A torrent awake: its swarm, and the way of blocks to verified pieces and out again. Level 5."""
