"""What a buffer pool tells of itself: its numbers, and leases that were not released."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen
class BufferLeak:
    """A lease that was not released.

    Attributes:
        where: File and line where it was taken, as `file:line`.
        size: Its bytes.
        reason: How it was noticed: "collected" as garbage, or "open" when the pool closed.
    """

    where: str
    size: int
    reason: Literal["collected", "open"]

    def __str__(self) -> str:
        noticed = (
            "was collected as garbage" if self.reason == "collected" else "is open while its pool closes"
        )
        return f"a buffer of {self.size} bytes, taken at {self.where}, {noticed}; release every lease"


@attrs.frozen
class SizeClassStatistics:
    """One size class in numbers.

    Attributes:
        size: Bytes of each buffer.
        limit: Buffers that it lends and keeps at most.
        leased: Buffers that are lent now.
        free: Buffers that are kept for the next.
        high_mark: The most that were lent at a time.
        hits: Leases served with a buffer that was kept.
        misses: Leases for which memory was taken from the heap, pooled or not.
        refused: Leases that were refused at a limit.
    """

    size: int
    limit: int
    leased: int
    free: int
    high_mark: int
    hits: int
    misses: int
    refused: int


@attrs.frozen
class BufferStatistics:
    """A pool in numbers.

    Attributes:
        leased: Buffers that are lent now, those outside the pool's classes included.
        leased_bytes: Their bytes.
        free: Buffers that are kept.
        free_bytes: Their bytes.
        high_mark: The most bytes that were lent at a time.
        hits: Leases served with a buffer that was kept.
        misses: Leases for which memory was taken from the heap, pooled or not.
        unpooled: Those of the misses whose memory was not to be kept.
        refused: Leases that were refused at a limit.
        stranded: Buffers that came back while somebody still used a view of them, and were not kept.
        leaked: Leases that were collected as garbage without having been released.
        classes: The size classes, the smallest first.
    """

    leased: int
    leased_bytes: int
    free: int
    free_bytes: int
    high_mark: int
    hits: int
    misses: int
    unpooled: int
    refused: int
    stranded: int
    leaked: int
    classes: tuple[SizeClassStatistics, ...]
