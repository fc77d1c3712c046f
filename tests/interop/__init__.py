"""bittern against the other BitTorrent programs; how each is run is in docs/design/peers.md."""
