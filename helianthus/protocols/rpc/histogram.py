"""Counts of durations in buckets whose width grows with the value, as in HdrHistogram.

Each power of two is divided into the same number of buckets, so that the relative error is the same
for a microsecond and for a minute, and memory is fixed. Recording is a shift, a `bit_length` and an
addition.

Source: G. Tene, HdrHistogram, https://hdrhistogram.org
"""

from __future__ import annotations

import math

MAX_BITS = 44
"""Values are nanoseconds below 2**44, 4.9 hours; larger ones are counted as the largest."""


class Histogram:
    """How often which durations were seen, in whole nanoseconds.

    Args:
        precision: Bits of each value that count, besides its highest; a percentile is off by at
            most 1 / 2**(precision + 1) of itself. 5 means 1.6 %, and 10 KiB of memory.

    Attributes:
        count: Durations that were recorded.
        total: Their sum in nanoseconds.
        highest: The longest of them.
        precision: As above.
    """

    __slots__ = ("_buckets", "count", "highest", "precision", "total")

    def __init__(self, precision: int = 5) -> None:
        if not 0 <= precision <= 10:
            raise ValueError(f"the precision of a histogram must be 0 to 10 bits, got {precision}")
        self.precision = precision
        self.count = 0
        self.total = 0
        self.highest = 0
        self._buckets = [0] * ((MAX_BITS - precision + 1) << precision)

    def record(self, duration: int) -> None:
        """Count a duration in nanoseconds; a negative one counts as 0."""
        if duration < 0:
            duration = 0
        self.count += 1
        self.total += duration
        if duration > self.highest:
            self.highest = duration
        if duration >> MAX_BITS:
            duration = (1 << MAX_BITS) - 1
        shift = duration.bit_length() - self.precision - 1
        if shift > 0:
            self._buckets[(shift << self.precision) + (duration >> shift)] += 1
        else:
            self._buckets[duration] += 1

    def percentile(self, percent: float) -> int:
        """The duration that this part of those recorded does not exceed; 0 where there are none.

        Args:
            percent: 0 to 100; 99.9 for what is called p999.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, got {percent}")
        rank = max(1, math.ceil(self.count * percent / 100))
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= rank:
                return min(self._middle(index), self.highest)
        return 0

    @property
    def mean(self) -> float:
        """The average in nanoseconds; 0 where there are none."""
        return self.total / self.count if self.count else 0.0

    def add(self, other: Histogram) -> None:
        """Count all that another one of the same precision has counted."""
        if other.precision != self.precision:
            raise ValueError(f"precisions {self.precision} and {other.precision} cannot be added")
        self.count += other.count
        self.total += other.total
        self.highest = max(self.highest, other.highest)
        for index, count in enumerate(other._buckets):
            if count:
                self._buckets[index] += count

    def counts_up_to(self, bounds: list[int]) -> list[int]:
        """For each of some ascending bounds in nanoseconds, how many durations do not exceed it.

        A bucket counts for a bound if its middle does.
        """
        totals, seen, index = [], 0, 0
        for bound in bounds:
            while index < len(self._buckets) and self._middle(index) <= bound:
                seen += self._buckets[index]
                index += 1
            totals.append(seen)
        return totals

    def _middle(self, index: int) -> int:
        """The value in the middle of a bucket."""
        shift = (index >> self.precision) - 1
        if shift <= 0:
            return index
        lowest = (index - (shift << self.precision)) << shift
        return lowest + (1 << shift) // 2
