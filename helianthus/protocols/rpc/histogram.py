"""Counts of durations in buckets whose width grows with the value, as in HdrHistogram.

Each power of two is divided into the same number of buckets, so that the relative error is the same
for a microsecond and for a minute. That is just what the bits of a floating-point number do: its
exponent and the first bits of its mantissa, read as an integer, are the number of its bucket.

Counting one duration at a time costs a twentieth of a whole call in Python. So durations are only
collected, and counted a thousand at a time by functions of the standard library that are written
in C, from the first bits to the last sum.

Source: G. Tene, HdrHistogram, https://hdrhistogram.org
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import repeat
from operator import rshift
from struct import Struct

_DOUBLE, _INTEGER = Struct("=d"), Struct("=q")
_MANTISSA = 52  # bits of a double's mantissa, IEEE 754
COLLECT = 1024
"""Durations that are counted together; they take 32 KiB of memory until then."""


class Histogram:
    """How often which durations were seen, in seconds.

    Args:
        precision: Bits of the mantissa that count; a percentile is off by at most
            1 / 2**(precision + 1) of itself. 5 means 1.6 %.

    Attributes:
        precision: As above.
        collected: What has not been counted yet. Where every nanosecond matters, append to it
            instead of calling `record`, and call `count_collected` once it has `COLLECT`.
    """

    __slots__ = ("_buckets", "_highest", "_total", "collected", "precision")

    def __init__(self, precision: int = 5) -> None:
        if not 0 <= precision <= 10:
            raise ValueError(f"the precision of a histogram must be 0 to 10 bits, got {precision}")
        self.precision = precision
        self._buckets: Counter[int] = Counter()
        self.collected: list[float] = []
        self._total = 0.0
        self._highest = 0.0

    def record(self, seconds: float) -> None:
        """Count a duration of 0 seconds or more."""
        self.collected.append(seconds)
        if len(self.collected) >= COLLECT:
            self.count_collected()

    def record_many(self, seconds: float, count: int) -> None:
        """Count a duration as often as it was seen."""
        if count:
            (bits,) = _INTEGER.unpack(_DOUBLE.pack(seconds))
            self._buckets[bits >> (_MANTISSA - self.precision)] += count
            self._total += seconds * count
            if seconds > self._highest:
                self._highest = seconds

    def count_collected(self) -> None:
        """Put what was collected into buckets."""
        collected = self.collected
        if collected:
            bits = memoryview(array("d", collected)).cast("B").cast("q")
            self._buckets.update(map(rshift, bits, repeat(_MANTISSA - self.precision)))
            self._total += sum(collected)
            self._highest = max(self._highest, max(collected))
            collected.clear()

    @property
    def count(self) -> int:
        """Durations that were recorded."""
        self.count_collected()
        return self._buckets.total()

    @property
    def total(self) -> float:
        """Their sum."""
        self.count_collected()
        return self._total

    @property
    def highest(self) -> float:
        """The longest of them, or 0."""
        self.count_collected()
        return self._highest

    @property
    def mean(self) -> float:
        """Their average; 0 where there are none."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """The duration that this part of those recorded does not exceed; 0 where there are none.

        Args:
            percent: 0 to 100; 99.9 for what is called p999.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, got {percent}")
        self.count_collected()
        buckets = self._buckets
        rank = max(1, math.ceil(buckets.total() * percent / 100))
        seen = 0
        for bucket in sorted(buckets):
            seen += buckets[bucket]
            if seen >= rank:
                return min(self._middle(bucket), self._highest)
        return 0.0

    def counts_up_to(self, bounds: Sequence[float]) -> list[int]:
        """For each of some ascending bounds, how many durations do not exceed it.

        A bucket counts for a bound if its middle does.
        """
        self.count_collected()
        buckets = self._buckets
        known = sorted(buckets)
        totals, seen, place = [], 0, 0
        for bound in bounds:
            while place < len(known) and self._middle(known[place]) <= bound:
                seen += buckets[known[place]]
                place += 1
            totals.append(seen)
        return totals

    def add(self, other: Histogram) -> None:
        """Count all that another one of the same precision has counted."""
        if other.precision != self.precision:
            raise ValueError(f"precisions {self.precision} and {other.precision} cannot be added")
        other.count_collected()
        self._buckets.update(other._buckets)
        self._total += other._total
        self._highest = max(self._highest, other._highest)

    def _middle(self, bucket: int) -> float:
        """The value in the middle of a bucket."""
        shift = _MANTISSA - self.precision
        ends = memoryview(array("q", (bucket << shift, (bucket + 1) << shift))).cast("B").cast("d")
        return (ends[0] + ends[1]) / 2 if bucket else 0.0
