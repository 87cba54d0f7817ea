"""The exceptions of the ground floor."""

from __future__ import annotations


class ProtocolError(Exception):
    """A rule of a protocol was broken; the subclass says by whom."""


class LocalProtocolError(ProtocolError):
    """This side asked for something the protocol or the machine's state does not allow."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something the protocol does not allow."""


class LimitExceeded(RemoteProtocolError):
    """The peer sent more than a limit allows.

    Attributes:
        limit: The limit's name, as it is spelled where it is set.
        maximum: Its value.
    """

    def __init__(self, message: str, *, limit: str, maximum: int) -> None:
        super().__init__(message)
        self.limit = limit
        self.maximum = maximum


class SlowConsumer(LimitExceeded):
    """The peer takes less than it is sent, and more waits for it than a limit allows."""
