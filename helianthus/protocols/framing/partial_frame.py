"""A frame of known size that comes in piece by piece.

Joining old and new bytes on every input would copy a large frame once per receive buffer, which is
quadratic. Here each byte is copied twice, whatever the pieces: into the buffer as it arrives, and
into the `bytes` object that the frame's owner gets. Memory grows with what has arrived, not with
what was announced: a peer that announces much and sends nothing costs nothing.
"""

from __future__ import annotations

from ..machine import Buffer


class PartialFrame:
    """Collects one frame at a time.

    Attributes:
        missing: Bytes that the frame under way lacks; 0 when none is under way.
    """

    __slots__ = ("_buffer", "missing")

    def __init__(self) -> None:
        self.missing = 0
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    def begin(self, size: int, first: Buffer) -> None:
        """Start a frame of `size` bytes with those that are there, fewer than `size`."""
        self._buffer += first
        self.missing = size - len(first)

    def fill(self, data: Buffer) -> int:
        """Add what the frame lacks from the front of `data`; return how many bytes that were."""
        used = min(self.missing, len(data))
        if used == len(data):
            self._buffer += data
        else:
            with memoryview(data) as view:
                self._buffer += view[:used]
        self.missing -= used
        return used

    def take(self) -> bytes:
        """The frame, which lacks nothing; another may begin."""
        frame = bytes(self._buffer)
        self.drop()
        return frame

    def drop(self) -> None:
        """Forget the frame under way and free its memory."""
        self.missing = 0
        self._buffer = bytearray()
