"""Deadlines of many calls, most of which end long before theirs."""

from __future__ import annotations

import heapq


class Deadlines:
    """Deadlines by message id; adding and discarding cost no more than a dict entry and a push.

    A discarded entry stays in the heap until it surfaces, or until the dead outnumber the live:
    a rebuild then costs a constant amount per call on average.

    Attributes:
        live: Deadlines by message id; to be read only.
    """

    __slots__ = ("_heap", "live")

    _COMPACT_ABOVE = 64  # entries; below it a rebuild costs more than it frees

    def __init__(self) -> None:
        self.live: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def add(self, msgid: int, deadline: float) -> None:
        """Remember that a call must end by `deadline` (monotonic seconds)."""
        heap = self._heap
        self.live[msgid] = deadline
        heapq.heappush(heap, (deadline, msgid))
        if len(heap) > self._COMPACT_ABOVE + 2 * len(self.live):
            self._heap = [(when, msgid) for msgid, when in self.live.items()]
            heapq.heapify(self._heap)

    def discard(self, msgid: int) -> None:
        """The call has ended; an unknown id is ignored."""
        self.live.pop(msgid, None)

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
        """Remove the calls whose deadline has come, and return their ids, earliest first."""
        due: list[int] = []
        while (when := self.next()) is not None and when <= now:
            msgid = heapq.heappop(self._heap)[1]
            del self.live[msgid]
            due.append(msgid)
        return due
