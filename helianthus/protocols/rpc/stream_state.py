"""The credit of one call's stream items, both ways."""

from __future__ import annotations

from ..errors import LocalProtocolError, RemoteProtocolError
from .events import Flow


class StreamState:
    """What may be sent and received on a call that has stream items.

    Attributes:
        ours: Whether this side made the call.
        sending: Whether this side may still send items.
        receiving: Whether the peer may still send items.
        credit: Items that this side may send now.
    """

    __slots__ = ("_consumed", "_owed", "_window", "credit", "ours", "receiving", "sending")

    def __init__(self, flow: Flow, *, ours: bool, window: int, credit: int) -> None:
        sends, receives = Flow.FROM_CALLEE, Flow.FROM_CALLER
        if ours:
            sends, receives = receives, sends
        self.ours = ours
        self.sending = bool(flow & sends)
        self.receiving = bool(flow & receives)
        self.credit = credit if self.sending else 0
        self._window = window
        self._owed = window if self.receiving else 0  # items the peer may still send
        self._consumed = 0

    def check_may_send(self, msgid: int) -> None:
        """Raise `LocalProtocolError` where an item cannot be sent now."""
        if not self.sending:
            raise LocalProtocolError(f"this side of call {msgid} sends no (more) items")
        if self.credit < 1:
            raise LocalProtocolError(f"call {msgid} has no credit: wait until the peer grants more")

    def receive_item(self, msgid: int) -> None:
        """Take note of an item; raises `RemoteProtocolError` where none was allowed."""
        if not self.receiving:
            raise RemoteProtocolError(f"the peer sent an item on call {msgid}, whose stream it does not have")
        if self._owed < 1:
            raise RemoteProtocolError(
                f"the peer sent more items on call {msgid} than its credit ({self._window}) allowed"
            )
        self._owed -= 1

    def grant(self, msgid: int) -> int:
        """An item was consumed: how many to grant now. Half a window at a time, to save messages.

        Raises:
            LocalProtocolError: Every item that came has been consumed already.
        """
        if self._owed + self._consumed >= self._window:
            raise LocalProtocolError(f"every item that came on call {msgid} has been consumed already")
        self._consumed += 1
        if not self.receiving or self._consumed * 2 < self._window:
            return 0
        granted, self._consumed = self._consumed, 0
        self._owed += granted
        return granted
