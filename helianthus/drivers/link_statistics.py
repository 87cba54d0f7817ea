"""Links in numbers: each by itself, and those of a driver together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .buffer_statistics import BufferStatistics

if TYPE_CHECKING:
    from .link_output import LinkOutput


@attrs.define
class LinkStatistics:
    """What went through one link or several.

    Attributes:
        links: How many links these are the numbers of.
        bytes_in: Bytes that came from the peer.
        bytes_out: Bytes that the transport has taken.
        writes: How often something was given to the transport; a native driver's system calls.
        partial_writes: How often the transport did not take all of it.
        stalls: How often output had to wait for the transport.
        stalled_time: Seconds that it waited, all together.
        high_mark: The most bytes that waited in a link.
        dropped: Messages that a machine dropped because its peer was slow.
    """

    links: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    writes: int = 0
    partial_writes: int = 0
    stalls: int = 0
    stalled_time: float = 0.0
    high_mark: int = 0
    dropped: int = 0

    def add(self, other: LinkStatistics | LinkOutput[Any]) -> None:
        """Add the numbers of a link, or of several."""
        self.links += other.links
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.writes += other.writes
        self.partial_writes += other.partial_writes
        self.stalls += other.stalls
        self.stalled_time += other.stalled_time
        self.high_mark = max(self.high_mark, other.high_mark)
        self.dropped += other.dropped


@attrs.frozen
class DriverStatistics:
    """A driver in numbers.

    Attributes:
        open_links: Links that are open now.
        links: What went through all links so far, those that have ended included.
        buffers: The driver's pool.
    """

    open_links: int
    links: LinkStatistics
    buffers: BufferStatistics
