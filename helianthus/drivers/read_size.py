"""How large a buffer to read into, where it is handed on with what was read.

A buffer that is much larger than what arrives holds memory for nothing, as long as somebody keeps the
bytes; one that is too small costs system calls. So the size follows what arrives, as in Netty's
`AdaptiveRecvByteBufAllocator`: it grows by four when it was filled, and is halved when twice in a row
half of it would have done.
"""

from __future__ import annotations

SMALLEST = 1024
"""Bytes; Netty's default is 64, and its first guess 2048."""

FIRST = 2048
"""Bytes of the first buffer of a link."""

LARGEST = 256 * 1024
"""Bytes; as much as a reactor's shared receive buffer."""


class ReadSize:
    """The size for the next read of one link.

    Attributes:
        bytes: As many.
    """

    __slots__ = ("_small", "bytes")

    def __init__(self) -> None:
        self.bytes = FIRST
        self._small = False  # so was the last read

    def note(self, received: int) -> None:
        """So many bytes came in the last read."""
        if received >= self.bytes:
            self.bytes = min(self.bytes * 4, LARGEST)
            self._small = False
        elif received > self.bytes // 2:
            self._small = False
        elif self._small:
            self.bytes = max(self.bytes // 2, SMALLEST)
            self._small = False
        else:
            self._small = True
