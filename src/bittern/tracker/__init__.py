"""A tracker. Level 6."""
