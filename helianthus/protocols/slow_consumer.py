"""What a machine does when its peer takes less than it is sent, and the queue that does it.

Only a machine knows where its messages begin and end, so it decides here what is dropped; a driver
knows bytes and time only, see `LinkOptions`. Whatever is dropped is dropped whole, and has not been
handed to the transport: a peer never sees half of a message.

The three ways are those of message brokers and proxies. A NATS server disconnects a client for which
more than `max_pending` bytes wait, and calls it a slow consumer; Envoy makes whoever writes wait
between two watermarks; brokers of telemetry keep the newest and drop the oldest.
"""

from __future__ import annotations

import enum
from collections import deque

from .machine import Buffer


class SlowConsumerPolicy(enum.Enum):
    """What happens when more would wait for a peer than a limit allows."""

    BLOCK = "block"
    """Whoever sends has to wait, or is refused."""
    DROP_OLDEST = "drop-oldest"
    """The oldest messages that may be dropped are, whole, until there is room."""
    DISCONNECT = "disconnect"
    """The connection fails with a `SlowConsumer` that names the limit."""


BLOCK = SlowConsumerPolicy.BLOCK
DROP_OLDEST = SlowConsumerPolicy.DROP_OLDEST
DISCONNECT = SlowConsumerPolicy.DISCONNECT


def slow_consumer_policy(value: SlowConsumerPolicy | str) -> SlowConsumerPolicy:
    """The policy, or the one of that name.

    Raises:
        ValueError: No policy has that name.
    """
    try:
        return SlowConsumerPolicy(value)
    except ValueError:
        names = ", ".join(policy.value for policy in SlowConsumerPolicy)
        raise ValueError(f"slow_consumer must be one of {names}, got {value!r}") from None


class DroppingQueue:
    """Messages in order, each in pieces, of which the oldest are dropped for room.

    Attributes:
        size: Bytes of all of them.
        dropped: Messages that were dropped.
    """

    __slots__ = ("_messages", "dropped", "size")

    def __init__(self) -> None:
        self._messages: deque[tuple[tuple[Buffer, ...], int]] = deque()
        self.size = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, pieces: tuple[Buffer, ...], size: int, limit: int) -> None:
        """Queue a message of `size` bytes, and drop the oldest until all have no more than `limit`."""
        messages = self._messages
        while messages and self.size + size > limit:
            self.size -= messages.popleft()[1]
            self.dropped += 1
        messages.append((pieces, size))
        self.size += size

    def take(self) -> list[Buffer]:
        """Hand over the pieces of all messages."""
        taken = [piece for pieces, _ in self._messages for piece in pieces]
        self._messages.clear()
        self.size = 0
        return taken
