"""A pool of buffers in size classes, each a power of two.

Memory for I/O is asked for and given up all the time, in sizes that repeat. The pool keeps what
comes back and lends it again, so that large buffers cost no page faults and the heap is not cut to
pieces. Two limits bound it: buffers in each class, and bytes in all; they count what is lent and what
is kept. Past them it either refuses, or gets memory from the heap that is not kept afterwards.

A pool belongs to one thread, like a driver.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Literal

from ..protocols.machine import Buffer
from .buffer_statistics import BufferLeak, BufferStatistics, SizeClassStatistics
from .errors import BuffersExhausted
from .lease import Block, Lease

KIB = 1024
MIB = 1024 * KIB

DEFAULT_SMALLEST = 512
"""Bytes of the smallest class; below that a view of a buffer takes more memory than the buffer."""

DEFAULT_LARGEST = MIB
"""Bytes of the largest class: four of a reactor's receive buffers."""

DEFAULT_MAX_BYTES = 64 * MIB
"""Bytes that a pool lends and keeps together: a thousand receives of 64 KiB."""

DEFAULT_CLASS_BYTES = 16 * MIB
"""Bytes from which the number of buffers in a class is derived, where it is not given."""

AtLimit = Literal["allocate", "refuse"]

_log = logging.getLogger("helianthus.drivers.buffers")


class SizeClass:
    """The buffers of one size."""

    __slots__ = ("free", "high_mark", "hits", "leased", "limit", "misses", "refused", "size")

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        self.free: list[Block] = []
        self.leased = self.high_mark = self.hits = self.misses = self.refused = 0

    def statistics(self) -> SizeClassStatistics:
        """The present numbers."""
        return SizeClassStatistics(
            self.size,
            self.limit,
            self.leased,
            len(self.free),
            self.high_mark,
            self.hits,
            self.misses,
            self.refused,
        )


class BufferPool:
    """Lends buffers and takes them back.

    Args:
        smallest: Bytes of the smallest class, a power of two.
        largest: Bytes of the largest class, a power of two.
        max_bytes: Bytes that are lent from the classes and kept in them, together.
        limits: Buffers that a class may lend and keep, by its size; other classes get as many as
            make 16 MiB.
        at_limit: What to do for a lease past a limit, or larger than `largest`: "allocate" memory
            that is freed afterwards, or "refuse" it.
        debug: Whether to note where leases are taken and to report those that are not released. By
            default in Python's development mode (`python -X dev`); it makes a lease cost twice as
            much.
        on_leak: Told of each leak, while `debug` is on; by default it is logged.

    Raises:
        ValueError: A size is no power of two, or a limit is out of its range.
    """

    def __init__(
        self,
        *,
        smallest: int = DEFAULT_SMALLEST,
        largest: int = DEFAULT_LARGEST,
        max_bytes: int = DEFAULT_MAX_BYTES,
        limits: Mapping[int, int] | None = None,
        at_limit: AtLimit = "allocate",
        debug: bool | None = None,
        on_leak: Callable[[BufferLeak], None] | None = None,
    ) -> None:
        _check(smallest, largest, max_bytes, at_limit)
        self.max_bytes = max_bytes
        self.debug = sys.flags.dev_mode if debug is None else debug
        self.on_leak = on_leak or _log_leak
        self._refuses = at_limit == "refuse"
        self._first = smallest.bit_length() - 1
        self._classes = _make_classes(smallest, largest, limits or {})
        self._pooled = 0  # bytes in the classes, lent and kept
        self._leased = self._leased_bytes = self._high_mark = 0
        self._unpooled = self._stranded = self._leaked = 0
        self._beyond = SizeClass(largest, 0)  # counts what no class can have
        self._out: dict[int, tuple[str, int]] = {}  # place and size of open leases, while `debug` is on
        self._closed = False

    def lease(self, size: int) -> Lease:
        """Lend at least memory for `size` bytes; the lease's view has exactly as many.

        Raises:
            BuffersExhausted: A limit is reached, and the pool refuses what is past it.
            ValueError: The size is negative.
            RuntimeError: The pool has been closed.
        """
        if self._closed:
            raise RuntimeError("the buffer pool has been closed; make another")
        index = (size - 1).bit_length() - self._first if size > 0 else self._no_size(size)
        if index < 0:
            index = 0
        if index < len(self._classes):
            size_class = self._classes[index]
            if size_class.free:
                block = size_class.free.pop()
                size_class.hits += 1
            else:
                block = self._grow(size_class, size)
        else:
            block = self._past(self._beyond, size, "largest", self._beyond.size)
        self._charge(block)
        return self._lease_of(block, memoryview(block.memory)[:size])

    def adopt(self, data: Buffer) -> Lease:
        """Make a lease of memory that somebody else has allocated; it is counted, and never kept."""
        block = Block(data, None)
        self._unpooled += 1
        self._charge(block)
        return self._lease_of(block, memoryview(data))

    def trim(self) -> int:
        """Free every buffer that is kept; gives their bytes."""
        freed = sum(len(size_class.free) * size_class.size for size_class in self._classes)
        for size_class in self._classes:
            size_class.free.clear()
        self._pooled -= freed
        return freed

    def close(self) -> None:
        """Free what is kept, and report every lease that is still open; may be repeated.

        What is lent stays valid until its lease is released.
        """
        if self._closed:
            return
        self._closed = True
        self.trim()
        open_leases, self._out = self._out, {}
        for where, size in open_leases.values():
            self.on_leak(BufferLeak(where, size, "open"))

    @property
    def closed(self) -> bool:
        """Whether the pool lends nothing any more."""
        return self._closed

    def statistics(self) -> BufferStatistics:
        """The present numbers."""
        classes = tuple(size_class.statistics() for size_class in self._classes)
        return BufferStatistics(
            leased=self._leased,
            leased_bytes=self._leased_bytes,
            free=sum(entry.free for entry in classes),
            free_bytes=sum(entry.free * entry.size for entry in classes),
            high_mark=self._high_mark,
            hits=sum(entry.hits for entry in classes),
            misses=sum(entry.misses for entry in classes) + self._beyond.misses,
            unpooled=self._unpooled,
            refused=sum(entry.refused for entry in classes) + self._beyond.refused,
            stranded=self._stranded,
            leaked=self._leaked,
            classes=classes,
        )

    def __enter__(self) -> BufferPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- getting memory ---------------------------------------------------------------------------

    def _no_size(self, size: int) -> int:
        if size < 0:
            raise ValueError(f"cannot lease {size} bytes; a lease has 0 or more")
        return 0

    def _grow(self, size_class: SizeClass, size: int) -> Block:
        """Add a buffer to a class that has none to lend."""
        if size_class.leased >= size_class.limit:
            return self._past(size_class, size, f"limits[{size_class.size}]", size_class.limit)
        if self._pooled + size_class.size > self.max_bytes:
            self.trim()
            if self._pooled + size_class.size > self.max_bytes:
                return self._past(size_class, size, "max_bytes", self.max_bytes)
        size_class.misses += 1
        self._pooled += size_class.size
        return Block(bytearray(size_class.size), size_class)

    def _past(self, size_class: SizeClass, size: int, limit: str, maximum: int) -> Block:
        """A limit is reached: refuse, or get memory that will not be kept."""
        if self._refuses:
            size_class.refused += 1
            raise BuffersExhausted(
                f"cannot lease {size} bytes: {limit} is {maximum}, and {self._leased} buffers of "
                f"{self._leased_bytes} bytes are lent; release some, raise the limit, or make the pool "
                'with at_limit="allocate"',
                limit=limit,
                maximum=maximum,
            )
        size_class.misses += 1
        self._unpooled += 1
        return Block(bytearray(size), None)

    def _charge(self, block: Block) -> None:
        size_class = block.size_class
        if size_class is not None:
            size_class.leased += 1
            if size_class.leased > size_class.high_mark:
                size_class.high_mark = size_class.leased
        block.charged = len(block.memory)
        self._leased += 1
        self._leased_bytes += block.charged
        if self._leased_bytes > self._high_mark:
            self._high_mark = self._leased_bytes

    # -- what leases tell -------------------------------------------------------------------------

    def _lease_of(self, block: Block, view: memoryview) -> Lease:
        if not self.debug:
            return Lease(self, block, view, "")
        where = _place()
        lease = Lease(self, block, view, where)
        self._out[id(lease)] = (where, len(view))
        return lease

    def _returned(self, lease: Lease) -> None:
        """A lease that was noted has been released."""
        self._out.pop(id(lease), None)

    def _collected(self, lease: Lease) -> None:
        """Nobody refers to a lease any more, and it has not been released."""
        self._leaked += 1
        noted = self._out.pop(id(lease), None)
        if noted is not None:
            self.on_leak(BufferLeak(*noted, "collected"))

    def _take_back(self, block: Block) -> None:
        """Nobody owns a part of a block any more."""
        self._leased -= 1
        self._leased_bytes -= block.charged
        size_class = block.size_class
        if size_class is None:
            return
        size_class.leased -= 1
        if block.in_use:
            self._stranded += 1
            self._pooled -= size_class.size
        elif self._closed:
            self._pooled -= size_class.size
        else:
            size_class.free.append(block)


def _check(smallest: int, largest: int, max_bytes: int, at_limit: str) -> None:
    for name, size in (("smallest", smallest), ("largest", largest)):
        if size < 1 or size & (size - 1):
            raise ValueError(f"{name} is {size} bytes; it must be a power of two")
    if smallest > largest:
        raise ValueError(f"smallest ({smallest} bytes) is more than largest ({largest})")
    if max_bytes < 0:
        raise ValueError(f"max_bytes is {max_bytes}; it must be 0 or more")
    if at_limit not in ("allocate", "refuse"):
        raise ValueError(f'at_limit is {at_limit!r}; it must be "allocate" or "refuse"')


def _make_classes(smallest: int, largest: int, limits: Mapping[int, int]) -> list[SizeClass]:
    sizes = [1 << bits for bits in range(smallest.bit_length() - 1, largest.bit_length())]
    for size, limit in limits.items():
        if size not in sizes:
            raise ValueError(f"limits names {size} bytes, and the classes are {', '.join(map(str, sizes))}")
        if limit < 0:
            raise ValueError(f"limits[{size}] is {limit}; it must be 0 or more")
    return [SizeClass(size, limits.get(size, max(1, DEFAULT_CLASS_BYTES // size))) for size in sizes]


def _place() -> str:
    """Who asked for a lease: the nearest caller outside of the pool's own files."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename in _OWN_FILES:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "an unknown place"


_OWN_FILES = (Lease.release.__code__.co_filename, _place.__code__.co_filename)


def _log_leak(leak: BufferLeak) -> None:
    _log.warning("%s", leak)
