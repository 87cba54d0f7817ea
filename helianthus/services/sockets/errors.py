"""What operations of sockets raise, besides the errors of transports."""

from __future__ import annotations

from ...drivers.errors import TimedOut
from ...protocols.errors import LocalProtocolError


class OperationTimedOut(TimedOut, TimeoutError):
    """The time of an operation was up: its `timeout`, or that of a scope around it.

    It is Python's `TimeoutError`, too. The socket can still be used.

    Attributes:
        queued: Bytes of the operation that are sent all the same, because they were queued before
            its time was up: from the first on, in order. 0 for one that sends nothing.
    """

    def __init__(self, message: str, *, queued: int = 0, address: str = "") -> None:
        super().__init__(message, address=address)
        self.queued = queued


class OperationCancelled(Exception):
    """An operation was cancelled by a token. The socket can still be used.

    Attributes:
        reason: What the token was cancelled with.
        queued: As of `OperationTimedOut`.
    """

    def __init__(self, message: str, *, reason: str, queued: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.queued = queued


class SocketClosed(LocalProtocolError):
    """This side has closed the socket or listener, or has ended its direction of the stream.

    Attributes:
        queued: Bytes of the operation that were queued before; as of `OperationTimedOut`.
    """

    def __init__(self, message: str, *, queued: int = 0) -> None:
        super().__init__(message)
        self.queued = queued


class SocketBusy(LocalProtocolError):
    """Another task is in the middle of an operation of the same kind."""


class IncompleteRead(EOFError):
    """The peer ended its stream before there was what `recv_exactly` or `recv_until` asked for.

    What there is can still be received.

    Attributes:
        available: Bytes that are there.
    """

    def __init__(self, message: str, *, available: int) -> None:
        super().__init__(message)
        self.available = available
