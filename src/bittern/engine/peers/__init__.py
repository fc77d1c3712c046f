"""Connections: those that come, those we make, and what each is about. Level 5."""
