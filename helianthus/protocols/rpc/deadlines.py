"""Deadlines of calls, nearly all of which end long before theirs."""

from __future__ import annotations

import math


class Deadlines:
    """Deadlines by message id, of which only a bound is kept in order.

    `next` may be too early, where the call that had the earliest deadline has ended since. When that
    time has come all deadlines are looked through, which happens about once in a timeout. A heap
    would be exact; with it, a call with a deadline took a fifth more instructions at both ends.

    Attributes:
        live: Deadlines by message id. To discard one that may be there is `live.pop(msgid, None)`.
        bound: A time that none of `live` is earlier than; means nothing while there are none.
    """

    __slots__ = ("bound", "live")

    def __init__(self) -> None:
        self.live: dict[int, float] = {}
        self.bound = math.inf

    def add(self, msgid: int, deadline: float) -> None:
        """Remember that a call must end by `deadline` (monotonic seconds)."""
        live = self.live
        if deadline < self.bound or not live:
            self.bound = deadline
        live[msgid] = deadline

    def discard(self, msgid: int) -> None:
        """The call has ended; an unknown id is ignored."""
        self.live.pop(msgid, None)

    def clear(self) -> None:
        """Forget all of them."""
        self.live.clear()

    def next(self) -> float | None:
        """A time that no deadline is earlier than, or None where there is no deadline."""
        return self.bound if self.live else None

    def pop_due(self, now: float) -> list[int]:
        """Remove the calls whose deadline has come, and return their ids, earliest first."""
        live = self.live
        if now < self.bound or not live:
            return []
        due = sorted((when, msgid) for msgid, when in live.items() if when <= now)
        for _, msgid in due:
            del live[msgid]
        self.bound = min(live.values(), default=math.inf)
        return [msgid for _, msgid in due]
