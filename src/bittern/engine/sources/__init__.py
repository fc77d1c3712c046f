"""Where peers come from: trackers, DHT, the local network, and those that are heard. Level 5."""
