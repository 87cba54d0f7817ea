"""The requests of the peer that have not been answered, and how many of them are too many."""

from __future__ import annotations

from .deadlines import Deadlines
from .limits import RpcLimits


class PeerRequests:
    """Unanswered requests by message id. `RpcSession` enters and removes most of them by itself,
    because a method call for each would cost more.

    Attributes:
        sizes: Bytes of each, encoded.
        bytes: Of all of them.
        deadlines: Of those that have one.
        last: The id of the newest request ever, or None.
        max_bytes: The limit of `bytes`.
        max_calls: The limit of how many there are.
    """

    __slots__ = ("bytes", "deadlines", "last", "max_bytes", "max_calls", "sizes")

    def __init__(self, limits: RpcLimits) -> None:
        self.sizes: dict[int, int] = {}
        self.bytes = 0
        self.deadlines = Deadlines()
        self.last: int | None = None
        self.max_calls = limits.max_calls
        self.max_bytes = limits.max_request_bytes

    def excess(self) -> str:
        """Which limit the requests exceed; empty for none."""
        if len(self.sizes) > self.max_calls:
            return f"more than max_calls ({self.max_calls}) requests are in flight"
        if self.bytes > self.max_bytes:
            return f"requests in flight are larger than max_request_bytes ({self.max_bytes})"
        return ""

    def remove(self, msgid: int) -> None:
        """A request is no longer to be answered."""
        self.bytes -= self.sizes.pop(msgid)
        self.deadlines.discard(msgid)

    def clear(self) -> None:
        """None of them will be answered."""
        self.sizes.clear()
        self.bytes = 0
        self.deadlines.clear()
