"""Bytes to values and back, stateless. Level 1."""
