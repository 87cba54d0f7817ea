"""The credit of one call's stream items, both ways."""

from __future__ import annotations

from collections import deque

from ..errors import LocalProtocolError, RemoteProtocolError
from .events import Flow


class StreamState:
    """What may be sent and received on a call that has stream items.

    Attributes:
        ours: Whether this side made the call.
        sending: Whether this side may still send items.
        receiving: Whether the peer may still send items.
        credit: Items that this side may send now.
        owed: Items that the peer may still send.
        waiting: Encoded items for which there was no credit, where nobody waits for that.
        waiting_size: Their bytes.
        answer: The encoded answer that is to follow them, or None.
        end_due: Whether the end of this side's items is to follow them.
    """

    __slots__ = (
        "_consumed",
        "_window",
        "answer",
        "credit",
        "end_due",
        "ours",
        "owed",
        "receiving",
        "sending",
        "waiting",
        "waiting_size",
    )

    def __init__(self, flow: Flow, *, ours: bool, window: int, credit: int) -> None:
        sends, receives = Flow.FROM_CALLEE, Flow.FROM_CALLER
        if ours:
            sends, receives = receives, sends
        self.ours = ours
        self.sending = bool(flow & sends)
        self.receiving = bool(flow & receives)
        self.credit = credit if self.sending else 0
        self._window = window
        self.owed = window if self.receiving else 0
        self._consumed = 0
        self.waiting: deque[bytes] = deque()
        self.waiting_size = 0
        self.answer: bytes | None = None
        self.end_due = False

    def drop_waiting(self) -> None:
        """Drop the oldest item that waits for credit."""
        self.waiting_size -= len(self.waiting.popleft())

    def refusal(self, msgid: int) -> LocalProtocolError:
        """Why no item can be sent now."""
        if not self.sending:
            return LocalProtocolError(f"this side of call {msgid} sends no (more) items")
        return LocalProtocolError(f"call {msgid} has no credit: wait until the peer grants more")

    def fault(self, msgid: int) -> RemoteProtocolError:
        """What the peer did wrong when it sent an item that it was not allowed."""
        if not self.receiving:
            return RemoteProtocolError(
                f"the peer sent an item on call {msgid}, whose stream it does not have"
            )
        return RemoteProtocolError(
            f"the peer sent more items on call {msgid} than its credit ({self._window}) allowed"
        )

    def grant(self, msgid: int, items: int) -> int:
        """Items were consumed: how many to grant now. Half a window at a time, to save messages.

        Raises:
            LocalProtocolError: Every item that came has been consumed already.
        """
        if self.owed + self._consumed + items > self._window:
            raise LocalProtocolError(f"every item that came on call {msgid} has been consumed already")
        self._consumed += items
        if not self.receiving or self._consumed * 2 < self._window:
            return 0
        granted, self._consumed = self._consumed, 0
        self.owed += granted
        return granted
