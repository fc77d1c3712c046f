"""Sockets as asyncio shells. Level 5."""
