"""CRC-32C (Castagnoli), as SCTP and PROXY headers have it (RFC 9260, Appendix A)."""

from __future__ import annotations

from ..machine import Buffer

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits in reverse order


def _entry(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(map(_entry, range(256)))


def crc32c(data: Buffer) -> int:
    """The checksum of some bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
