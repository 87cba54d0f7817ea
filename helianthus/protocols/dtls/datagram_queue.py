"""The simplest machine on top of DTLS: datagrams of one peer, kept until somebody wants them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

import attrs

from ..errors import LocalProtocolError
from ..machine import Action, Buffer, DatagramAddress, Outcome

MAX_WAITING = 256
"""Datagrams that wait in either direction: of 1,200 bytes each, 300 KB."""


@attrs.define
class DatagramsCame:
    """There is something to take, and there was nothing before."""


@attrs.define
class RoomMade:
    """There is room to put something, and there was none before."""


@attrs.define
class DatagramLost:
    """The network says that a datagram did not get there.

    Attributes:
        error: One of `drivers.errors`.
    """

    error: OSError


QueueEvent: TypeAlias = DatagramsCame | RoomMade | DatagramLost


class DatagramQueue:
    """Datagrams from and for one peer.

    Args:
        peer: Its address.

    Attributes:
        dropped: How many have come while too many waited.
    """

    def __init__(self, peer: DatagramAddress) -> None:
        self.dropped = 0
        self._peer = peer
        self._received: deque[bytes] = deque()
        self._unsent: deque[bytes] = deque()
        self._events: list[QueueEvent] = []

    @property
    def has_room(self) -> bool:
        """Whether `put` takes another."""
        return len(self._unsent) < MAX_WAITING

    def put(self, data: Buffer) -> None:
        """Have a datagram sent.

        Raises:
            LocalProtocolError: Too many wait.
        """
        if not self.has_room:
            raise LocalProtocolError(f"{MAX_WAITING} datagrams wait to be sent to {self._peer} already")
        self._unsent.append(bytes(data))

    def take(self) -> bytes | None:
        """The oldest that has come, or None."""
        return self._received.popleft() if self._received else None

    # -- DatagramMachine ---------------------------------------------------------------------------

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        """Keep what has come; what is too much is dropped, as the system does it."""
        if not self._received:
            self._events.append(DatagramsCame())
        for data, _ in batch:
            if len(self._received) < MAX_WAITING:
                self._received.append(bytes(data))
            else:
                self.dropped += 1

    def receive_error(self, error: OSError, address: DatagramAddress | None, now: float) -> None:
        """Tell that a datagram was lost."""
        if len(self._events) < MAX_WAITING:
            self._events.append(DatagramLost(error))

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        """Hand over what is to be sent."""
        was_full = not self.has_room
        taken = [(self._unsent.popleft(), self._peer) for _ in range(min(limit, len(self._unsent)))]
        if was_full and taken:
            self._events.append(RoomMade())
        return taken

    def take_events(self) -> list[QueueEvent]:
        """Hand over the events since the last call."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """It waits for nothing."""
        return None

    def handle_timeout(self, now: float) -> None:
        """It waits for nothing."""

    def take_actions(self) -> list[Action]:
        """It has none."""
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """It has no actions."""
        raise LocalProtocolError(f"no action {action_id} was given")
