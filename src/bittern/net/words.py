"""What the system calls an error of the network."""

from __future__ import annotations

import os
import socket


def words_of(number: int) -> str:
    """
    Return the words for an error number, in lower case and without a full stop.

    Windows numbers what sockets say apart, and ``os.strerror`` knows none of these.
    """
    of_sockets: dict[int, str] = getattr(socket, "errorTab", {})
    return (of_sockets.get(number) or os.strerror(number)).rstrip(".").lower()
