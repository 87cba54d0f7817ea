"""One heap of timers per driver."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from ..protocols.timeouts import check_time

LONGEST_WAIT = 86400.0
"""Seconds for which a platform is asked to wait at most, since platforms refuse or wrap very long waits;
then the driver looks again."""


class Timer:
    """A call that is due at a time; cancelling is cheap and may be repeated.

    Attributes:
        when: Driver time in seconds.
    """

    __slots__ = ("_heap", "_sequence", "callback", "when")

    def __init__(self, heap: TimerHeap, when: float, sequence: int, callback: Callable[[], None]) -> None:
        self._heap = heap
        self._sequence = sequence
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Make sure that the callback is not called any more."""
        if self.callback is not None:
            self.callback = None
            self._heap._timer_cancelled()

    def __lt__(self, other: Timer) -> bool:
        if self.when != other.when:
            return self.when < other.when
        return self._sequence < other._sequence


class TimerHeap:
    """Timers in order of their time, and of their making where the times are equal.

    Cancelled timers stay in the heap until they surface, or until they outnumber the live ones.
    """

    _COMPACT_ABOVE = 64  # below this many dead entries a rebuild costs more than it frees

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._sequence = 0
        self._dead = 0
        self._aside: list[Timer] = []  # due, but added during this run

    def __len__(self) -> int:
        return len(self._heap) + len(self._aside) - self._dead

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Add a timer.

        Raises:
            ValueError: `when` is no number, or NaN, which would leave the heap without an order.
        """
        if when.__class__ is not float or when != when:
            check_time(when)
        self._sequence += 1
        timer = Timer(self, when, self._sequence, callback)
        heapq.heappush(self._heap, timer)
        return timer

    def next_time(self) -> float | None:
        """When the earliest live timer is due, or None."""
        heap = self._heap
        while heap and heap[0].callback is None:
            heapq.heappop(heap)
            self._dead -= 1
        return heap[0].when if heap else None

    def run_due(self, now: float, report: Callable[[Exception], None]) -> None:
        """Call every timer that is due, earliest first.

        Timers that the callbacks add are left for the next run, so that a timer which sets
        itself again without delay cannot keep the driver from its links.

        Args:
            now: Driver time in seconds.
            report: Told of an exception that a callback let out; the others still run.
        """
        newest = self._sequence
        try:
            while self._heap and self._heap[0].when <= now:
                timer = heapq.heappop(self._heap)
                if timer._sequence > newest:
                    self._aside.append(timer)  # out of the way of older ones that are due later
                    continue
                callback = timer.callback
                if callback is None:
                    self._dead -= 1
                    continue
                timer.callback = None
                try:
                    callback()
                except Exception as error:  # noqa: BLE001 - one timer's fault must not stop the others
                    report(error)
        finally:
            for timer in self._aside:
                heapq.heappush(self._heap, timer)
            self._aside.clear()

    def _timer_cancelled(self) -> None:
        self._dead += 1
        if self._dead > self._COMPACT_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.callback is not None]
            heapq.heapify(self._heap)
            self._dead = sum(timer.callback is None for timer in self._aside)
