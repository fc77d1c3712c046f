"""Hashes of v2 files, from peers and for peers (BEP 52). Level 5."""
