"""The order of everything: one heap of future events, and the nodes that have something to do now.

Events come in order of (time, sequence of their making). All events of one instant happen before
the nodes they concern run; those then run in the order in which they were woken. Nothing here
draws from a clock, a hash or an address, so the order is the same in every run.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol


class Runnable(Protocol):
    """A node's present life, as the schedule sees it."""

    queued: bool

    def run_slice(self) -> None:
        """Run until nothing is left to do at the present instant."""


class Schedule:
    """The world's clock and what is to happen.

    Attributes:
        ns: The present time in nanoseconds since the beginning of the world.
    """

    __slots__ = ("_heap", "_runnable", "_sequence", "ns")

    def __init__(self) -> None:
        self.ns = 0
        self._heap: list[tuple[int, int, Callable[[Any], None], Any]] = []
        self._sequence = 0
        self._runnable: deque[Runnable] = deque()

    def at(self, ns: int, action: Callable[[Any], None], argument: Any = None) -> None:
        """Have `action(argument)` called at a time; it runs outside every node."""
        self._sequence += 1
        heapq.heappush(self._heap, (ns, self._sequence, action, argument))

    def after(self, delay: int, action: Callable[[Any], None], argument: Any = None) -> None:
        """Have `action(argument)` called `delay` nanoseconds from now."""
        self.at(self.ns + delay, action, argument)

    def wake(self, runnable: Runnable) -> None:
        """Have a node run at the present instant."""
        if not runnable.queued:
            runnable.queued = True
            self._runnable.append(runnable)

    def run(self, limit: int | None, enough: Callable[[], object] | None = None) -> bool:
        """Let everything happen up to a time, until it is enough, or until nothing is left.

        Args:
            limit: Nanoseconds; the clock stands there afterwards, unless it was enough before.
            enough: Asked after every slice of a node and every instant.

        Returns:
            Whether it was enough.
        """
        runnable = self._runnable
        while enough is None or not enough():
            if runnable:
                runnable.popleft().run_slice()
            elif not self._advance(limit):
                return False
        return True

    def step(self, limit: int | None) -> bool:
        """Let one round happen at the present instant, or at the next with something to do.

        Returns:
            Whether there was anything to do up to `limit` nanoseconds.
        """
        if not self._runnable and not self._advance(limit):
            return False
        for _ in range(len(self._runnable)):
            self._runnable.popleft().run_slice()
        return True

    def _advance(self, limit: int | None) -> bool:
        """Go to the next instant that has events, and let them happen."""
        heap = self._heap
        if not heap or (limit is not None and heap[0][0] > limit):
            if limit is not None:
                self.ns = max(self.ns, limit)
            return False
        self.ns = ns = max(self.ns, heap[0][0])
        while heap and heap[0][0] <= ns:
            _, _, action, argument = heapq.heappop(heap)
            action(argument)
        return True

    def is_empty(self) -> bool:
        """Whether nothing is left to do, ever."""
        return not self._heap and not self._runnable

    def clear(self) -> None:
        """Forget everything that was to happen."""
        self._heap.clear()
        self._runnable.clear()
