"""Deadlines of many that wait, of which many end before theirs."""

from __future__ import annotations

import heapq


class DeadlineHeap:
    """Deadlines by ticket; adding and discarding cost no more than a dict entry and a push.

    A discarded entry stays in the heap until it surfaces, or until the dead outnumber the live:
    a rebuild then costs a constant amount each on average.

    Attributes:
        live: Deadlines by ticket; to be read only.
    """

    __slots__ = ("_heap", "live")

    _COMPACT_ABOVE = 64  # entries; below it a rebuild costs more than it frees

    def __init__(self) -> None:
        self.live: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def add(self, ticket: int, deadline: float) -> None:
        """Remember that the wait must end by `deadline` (monotonic seconds)."""
        heap = self._heap
        self.live[ticket] = deadline
        heapq.heappush(heap, (deadline, ticket))
        if len(heap) > self._COMPACT_ABOVE + 2 * len(self.live):
            self._heap = [(when, ticket) for ticket, when in self.live.items()]
            heapq.heapify(self._heap)

    def discard(self, ticket: int) -> None:
        """The wait has ended; an unknown id is ignored."""
        self.live.pop(ticket, None)

    def clear(self) -> None:
        """Forget all of them."""
        self.live.clear()
        self._heap.clear()

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        heap, live = self._heap, self.live
        while heap and live.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float) -> list[int]:
        """Remove those whose deadline has come, and return their ids, earliest first."""
        due: list[int] = []
        while (when := self.next()) is not None and when <= now:
            ticket = heapq.heappop(self._heap)[1]
            del self.live[ticket]
            due.append(ticket)
        return due
