"""What a torrent has on disk, reached from the event loop. Level 5."""
