"""The requests of the peer that have not been answered, and how many of them are too many."""

from __future__ import annotations

from .deadlines import Deadlines
from .limits import RpcLimits


class PeerRequests:
    """Unanswered requests by message id.

    Attributes:
        sizes: Bytes of each, encoded.
        bytes: Of all of them.
        deadlines: Of those that have one.
        last: The id of the newest request ever, or None.
    """

    __slots__ = ("_max_bytes", "_max_calls", "bytes", "deadlines", "last", "sizes")

    def __init__(self, limits: RpcLimits) -> None:
        self.sizes: dict[int, int] = {}
        self.bytes = 0
        self.deadlines = Deadlines()
        self.last: int | None = None
        self._max_calls = limits.max_calls
        self._max_bytes = limits.max_request_bytes

    def add(self, msgid: int, size: int) -> bool:
        """Note a request; false where there are too many now, see `excess`."""
        self.last = msgid
        self.sizes[msgid] = size
        self.bytes += size
        return len(self.sizes) <= self._max_calls and self.bytes <= self._max_bytes

    def excess(self) -> str:
        """Which limit the requests exceed; empty for none."""
        if len(self.sizes) > self._max_calls:
            return f"more than max_calls ({self._max_calls}) requests are in flight"
        if self.bytes > self._max_bytes:
            return f"requests in flight are larger than max_request_bytes ({self._max_bytes})"
        return ""

    def remove(self, msgid: int) -> None:
        """A request was answered."""
        self.bytes -= self.sizes.pop(msgid)
        if self.deadlines.live:
            self.deadlines.discard(msgid)

    def clear(self) -> None:
        """None of them will be answered."""
        self.sizes.clear()
        self.bytes = 0
        self.deadlines.clear()
