"""What stands in a replay for memory that a driver had lent."""

from __future__ import annotations


class KeptLease:
    """A `LeasedBuffer` with the bytes that were in it when it was recorded."""

    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)

    @property
    def view(self) -> memoryview:
        """The bytes."""
        return self._view

    def slice(self, start: int, stop: int) -> KeptLease:
        """Make another owner of a part."""
        return KeptLease(bytes(self._view[start:stop]))

    def release(self) -> None:
        """Let go of the bytes."""
        self._view.release()

    def __len__(self) -> int:
        return len(self._view)

    def __bytes__(self) -> bytes:
        return bytes(self._view)

    def __repr__(self) -> str:  # as a driver's lease has it, so that events read the same
        try:
            return f"<Lease of {len(self._view)} bytes>"
        except ValueError:
            return "<Lease of released>"
