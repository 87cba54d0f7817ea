"""The calls of this side: those in flight, and those given up whose answer may still come."""

from __future__ import annotations

from .deadlines import Deadlines
from .wire import MAX_MSGID, is_after

LAST_MSGIDS = MAX_MSGID - 1
"""From here on, ids begin anew: there is no room for a step of two."""


class OwnCalls:
    """Calls in flight by message id.

    Args:
        first_msgid: 1 or 2; ids go up in steps of two, so that those of both ends never meet.
        max_given_up: How many calls that were given up are remembered.

    Attributes:
        pending: Calls that have not ended.
        deadlines: Of those that have one.
        given_up: Calls that the peer may still answer, oldest first.
        first_msgid: As above.
        next_msgid: The id to try for the next call.
    """

    __slots__ = ("_max_given_up", "deadlines", "first_msgid", "given_up", "next_msgid", "pending")

    def __init__(self, first_msgid: int, max_given_up: int) -> None:
        self.pending: set[int] = set()
        self.deadlines = Deadlines()
        self.next_msgid = first_msgid
        self.first_msgid = first_msgid
        self._max_given_up = max_given_up
        self.given_up: dict[int, None] = {}

    def free_msgid(self) -> int:
        """An id that no call has, whose answer is not awaited either."""
        msgid = self.next_msgid
        while msgid in self.pending or msgid in self.given_up:
            msgid = msgid + 2 if msgid < LAST_MSGIDS else self.first_msgid
        return msgid

    def discard(self, msgid: int) -> None:
        """A call has ended."""
        self.pending.discard(msgid)
        self.deadlines.discard(msgid)

    def await_late_answer(self, msgid: int) -> None:
        """A call was given up after it was sent: an answer to it is no surprise."""
        self.given_up[msgid] = None
        if len(self.given_up) > self._max_given_up:
            del self.given_up[next(iter(self.given_up))]

    def take_late_answer(self, msgid: int) -> bool:
        """Whether an answer belongs to a call that was given up; it comes once."""
        if msgid not in self.given_up:
            return False
        del self.given_up[msgid]
        return True

    def never_begun(self, last: int | None) -> list[int]:
        """Calls that a peer has not begun which names the last one that it has, None for none."""
        return sorted(msgid for msgid in self.pending if last is None or is_after(msgid, last))

    def clear(self) -> list[int]:
        """End all of them; gives their ids."""
        ended = sorted(self.pending)
        self.pending.clear()
        self.deadlines.clear()
        return ended
