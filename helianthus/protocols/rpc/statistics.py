"""What calls of methods have come to: plain integers, counted call by call.

Whoever makes or serves calls keeps one `CallStatistics` for each method and peer, and adds them up
when somebody asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from .histogram import Histogram
from .status import StatusCode

LATENCY_PRECISION = 2
"""Bits of the latency histogram: percentiles are off by 12 % at most."""


class CallStatistics:
    """Calls of one method by one peer, or of many added up.

    Attributes:
        running: Calls that have begun and not ended; counted when statistics are asked for.
        notifications: Calls without an answer; they count nowhere else.
        latency: Of calls that have ended, in seconds; a server counts from the moment that it
            begins with a request, a client from the call. For streams it is their whole length.
        durations: Those that wait to be counted, see `Histogram.collected`.
        errors: How many of them ended with which code; all others had a result.
        bytes_in: What came of them, encoded.
        bytes_out: What was sent for them, encoded.
        retries: Further attempts, after the first.
        hedges: Those of them that were made while another was under way.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "durations",
        "errors",
        "hedges",
        "latency",
        "notifications",
        "retries",
        "running",
    )

    def __init__(self) -> None:
        self.running = 0
        self.notifications = 0
        self.latency = Histogram(LATENCY_PRECISION)
        self.durations = self.latency.collected
        self.errors: dict[StatusCode, int] = {}
        self.bytes_in = 0
        self.bytes_out = 0
        self.retries = 0
        self.hedges = 0

    @property
    def calls(self) -> int:
        """Calls that have ended, in whatever way."""
        return self.latency.count

    @property
    def failed(self) -> int:
        """Calls that have ended with an error."""
        return sum(self.errors.values())

    def ended(self, seconds: float, code: StatusCode) -> None:
        """A call has ended."""
        self.latency.record(seconds)
        if code is not StatusCode.OK:
            self.errors[code] = self.errors.get(code, 0) + 1

    def add(self, other: CallStatistics) -> None:
        """Count all that others have counted."""
        self.running += other.running
        self.notifications += other.notifications
        self.latency.add(other.latency)
        for code, count in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.retries += other.retries
        self.hedges += other.hedges

    def summary(self) -> dict[str, Any]:
        """The same in plain values, as `node.stats` gives them; durations in seconds."""
        latency = self.latency
        return {
            "calls": self.calls,
            "errors": {code.name: self.errors[code] for code in sorted(self.errors)},
            "running": self.running,
            "notifications": self.notifications,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "retries": self.retries,
            "hedges": self.hedges,
            "latency": {
                "mean": latency.mean,
                "p50": latency.percentile(50),
                "p99": latency.percentile(99),
                "p999": latency.percentile(99.9),
                "max": latency.highest,
            },
        }


class StatisticsTable:
    """Statistics by method, of a bounded number of methods.

    Args:
        max_methods: How many have an entry of their own; all others share that of `OTHERS`.
    """

    OTHERS = ""

    def __init__(self, max_methods: int = 1000) -> None:
        self.by_method: dict[str, CallStatistics] = {}
        self._max_methods = max_methods

    def of(self, method: str) -> CallStatistics:
        """The entry of a method; made where there is none."""
        entry = self.by_method.get(method)
        if entry is None:
            if len(self.by_method) >= self._max_methods:
                method = self.OTHERS
            entry = self.by_method.setdefault(method, CallStatistics())
        return entry

    def add(self, other: StatisticsTable) -> None:
        """Count all that another one has counted."""
        for method, entry in other.by_method.items():
            self.of(method).add(entry)

    def with_running(self, running: Iterable[CallStatistics]) -> StatisticsTable:
        """A copy.

        Args:
            running: The entry of each call that runs now, as often as there are calls.
        """
        counts = Counter(map(id, running))
        copy = StatisticsTable(self._max_methods)
        for method, entry in self.by_method.items():
            copied = copy.of(method)
            copied.add(entry)
            copied.running += counts[id(entry)]
        return copy

    def summary(self) -> dict[str, Any]:
        """The summary of each method."""
        return {method: self.by_method[method].summary() for method in sorted(self.by_method)}

    def count_collected(self) -> None:
        """Count the durations that were only collected so far."""
        for entry in self.by_method.values():
            entry.latency.count_collected()

    def total(self) -> CallStatistics:
        """All methods together."""
        total = CallStatistics()
        for entry in self.by_method.values():
            total.add(entry)
        return total
