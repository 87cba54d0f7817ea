"""When the calls of a load test are to begin, and what came of them.

A closed loop begins a call when the one before it has ended. A server that stalls then stalls its
measurement too: for the second of a stall there is one slow call, where users would have met a
thousand. That is coordinated omission. An open loop has a rate: the time at which each call is to
begin stands from the first, whatever the server does, and its latency counts from that time, even
where no caller was free to begin then. What could not begin before the end is counted as well.

Source: G. Tene, "How NOT to Measure Latency", and his wrk2, https://github.com/giltene/wrk2
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from .histogram import Histogram
from .status import StatusCode


class Load:
    """The plan and the results of one load test; each caller claims one call after the other.

    Args:
        start: When it begins, in seconds.
        duration: Seconds in which calls may begin.
        rate: Calls a second that are to begin, of all callers together; None for a closed loop.

    Attributes:
        end: No call begins at or after it.
        latency: Of calls with a result, in seconds from the time at which they were to begin.
        delay: Seconds that calls began late.
        errors: How many of the others ended with which code.
        started: Calls that have begun.
    """

    def __init__(self, start: float, duration: float, rate: float | None = None) -> None:
        if not duration > 0 or math.isinf(duration):
            raise ValueError(f"a load test must have a duration of some seconds, got {duration}")
        if rate is not None and (not rate > 0 or math.isinf(rate)):
            raise ValueError(f"the rate of a load test must be more than 0 calls a second, got {rate}")
        self.start = start
        self.end = start + duration
        self.rate = rate
        self.latency = Histogram()
        self.delay = Histogram()
        self.errors: Counter[StatusCode] = Counter()
        self.started = 0
        self._claimed = 0
        self._last_end = start

    def claim(self, now: float) -> float | None:
        """Take the next call.

        Returns:
            When it is to begin: now, earlier where the plan is behind, or later. None where no
            other is to begin.
        """
        if now >= self.end:
            return None
        if self.rate is None:
            return now
        intended = self._intended(self._claimed)
        if intended >= self.end:
            return None
        self._claimed += 1
        return intended

    def began(self, intended: float, now: float) -> None:
        """A call that was claimed has begun."""
        self.started += 1
        self.delay.record(max(0.0, now - intended))

    def ended(self, intended: float, now: float, code: StatusCode) -> None:
        """It has ended."""
        self._last_end = max(self._last_end, now)
        if code is StatusCode.OK:
            self.latency.record(max(0.0, now - intended))
        else:
            self.errors[code] += 1

    def stop(self, now: float) -> None:
        """Nothing begins from now on: the plan ends here."""
        self.end = max(self.start, min(self.end, now))

    @property
    def calls(self) -> int:
        """Calls that have ended."""
        return self.latency.count + self.errors.total()

    @property
    def not_started(self) -> int:
        """Calls that were to begin before the end, and did not."""
        return max(0, self._planned() - self.started) if self.rate is not None else 0

    def summary(self) -> dict[str, Any]:
        """All of it in plain values; durations in seconds."""
        elapsed = max(self._last_end, self.end) - self.start
        return {
            "elapsed": elapsed,
            "calls": self.calls,
            "succeeded": self.latency.count,
            "errors": {code.name: self.errors[code] for code in sorted(self.errors)},
            "unfinished": self.started - self.calls,
            "not_started": self.not_started,
            "calls_per_second": self.latency.count / elapsed if elapsed > 0 else 0.0,
            "latency": _percentiles(self.latency),
            "start_delay": None if self.rate is None else _percentiles(self.delay),
        }

    def _intended(self, number: int) -> float:
        """When a call is to begin; the numbers start with 0. Rounding does not add up."""
        return self.start if self.rate is None else self.start + number / self.rate

    def _planned(self) -> int:
        """Calls that were to begin before the end."""
        number = max(0, round((self.end - self.start) * (self.rate or 0.0)))
        while number > 0 and self._intended(number - 1) >= self.end:
            number -= 1
        while self._intended(number) < self.end:
            number += 1
        return number


def _percentiles(histogram: Histogram) -> dict[str, float]:
    return {
        "mean": histogram.mean,
        "p50": histogram.percentile(50),
        "p99": histogram.percentile(99),
        "p999": histogram.percentile(99.9),
        "max": histogram.highest,
    }
