"""Plain datagrams, for those who send and receive them as they would with a socket.

Two bounded queues. One that has arrived when its queue is full is dropped and counted, as the system
does with its own; one that is to be sent when its queue is full is refused, and whoever sends may wait
for room. Errors that the network reports are kept, the last of them, until somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

import attrs
from attrs.validators import ge

from .errors import LocalProtocolError
from .machine import Action, Buffer, DatagramAddress, DatagramMachine, Outcome

KEPT_ERRORS = 64
"""Errors that are kept; an older one is forgotten for each that comes."""


@attrs.frozen
class DatagramQueueLimits:
    """Bounds of one socket; a value out of range raises `ValueError`.

    Attributes:
        max_received: Datagrams that have arrived and wait to be taken. Linux' own queue holds some
            250 small ones by default (net.core.rmem_default).
        max_received_bytes: Bytes of these; one more is dropped when they are as many.
        max_queued: Datagrams that wait to be sent.
        max_queued_bytes: Bytes of these; one more is refused when they are as many.
    """

    max_received: int = attrs.field(default=1024, validator=ge(1))
    max_received_bytes: int = attrs.field(default=1024 * 1024, validator=ge(1))
    max_queued: int = attrs.field(default=256, validator=ge(1))
    max_queued_bytes: int = attrs.field(default=256 * 1024, validator=ge(1))


@attrs.define
class DatagramReady:
    """There is what the reader waits for: a datagram, or an error."""


@attrs.define
class DatagramsTaken:
    """The transport has been given everything that was queued: there is room."""


DatagramQueueEvent: TypeAlias = DatagramReady | DatagramsTaken
"""Whatever `take_events()` of a queue of datagrams may hold."""

_READY = DatagramReady()
_TAKEN = DatagramsTaken()


class DatagramQueue(DatagramMachine[DatagramQueueEvent]):
    """What one socket has received and is to send.

    Args:
        limits: How much may wait.

    Attributes:
        limits: As above.
        dropped: Datagrams that arrived when there was no room for them.
        error_count: Errors that were reported so far.
    """

    def __init__(self, limits: DatagramQueueLimits | None = None) -> None:
        self.limits = limits or DatagramQueueLimits()
        self.dropped = 0
        self.error_count = 0
        self._input: deque[tuple[bytes, DatagramAddress]] = deque()
        self._input_bytes = 0
        self._output: deque[tuple[bytes, DatagramAddress]] = deque()
        self._output_bytes = 0
        self._errors: deque[tuple[OSError, DatagramAddress | None]] = deque(maxlen=KEPT_ERRORS)
        self._events: list[DatagramQueueEvent] = []
        self._reader_waits = False
        self._wants_errors = False
        self._writer_waits = False

    # -- receiving -----------------------------------------------------------------------------------

    @property
    def available(self) -> int:
        """Datagrams that wait to be taken."""
        return len(self._input)

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        """Keep those for which there is room."""
        limits = self.limits
        for data, source in batch:
            if len(self._input) >= limits.max_received or self._input_bytes >= limits.max_received_bytes:
                self.dropped += 1
                continue
            self._input.append((bytes(data), source))
            self._input_bytes += len(data)
        self._tell_reader()

    def receive_error(self, error: OSError, address: DatagramAddress | None, now: float) -> None:
        """Keep what the network reports."""
        self.error_count += 1
        self._errors.append((error, address))
        if self._wants_errors:
            self._tell_reader()

    def take(self) -> tuple[bytes, DatagramAddress] | None:
        """The datagram that came first, and where it came from; None where there is none."""
        if not self._input:
            return None
        datagram = self._input.popleft()
        self._input_bytes -= len(datagram[0])
        return datagram

    def take_errors(self) -> list[tuple[OSError, DatagramAddress | None]]:
        """The last errors that nobody has taken, each with whom it is about, if that is known."""
        errors = list(self._errors)
        self._errors.clear()
        return errors

    def await_input(self, *, or_error: bool = False) -> None:
        """Have an event tell when there is a datagram.

        Args:
            or_error: Whether an error will do, too.
        """
        self._reader_waits = True
        self._wants_errors = or_error
        if self._input or (or_error and self._errors):
            self._tell_reader()

    def stop_awaiting_input(self) -> None:
        """Nobody waits for that any more, and nobody is told; may be repeated."""
        self._reader_waits = False
        self._events = [event for event in self._events if event is not _READY]

    def _tell_reader(self) -> None:
        if self._reader_waits:
            self._reader_waits = False
            self._events.append(_READY)

    # -- sending ---------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Datagrams that wait for the transport."""
        return len(self._output)

    def send(self, data: Buffer, destination: DatagramAddress) -> bool:
        """Queue a datagram; False, and nothing is queued, where there is no room."""
        limits = self.limits
        if len(self._output) >= limits.max_queued or self._output_bytes >= limits.max_queued_bytes:
            return False
        payload = bytes(memoryview(data))  # bytes(5) would be something else altogether
        self._output.append((payload, destination))
        self._output_bytes += len(payload)
        return True

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        """Hand over what was queued first."""
        output = self._output
        batch = [output.popleft() for _ in range(min(limit, len(output)))]
        self._output_bytes -= sum(len(data) for data, _ in batch)
        if self._writer_waits and not output:
            self._writer_waits = False
            self._events.append(_TAKEN)
        return batch

    def await_output(self) -> None:
        """Have an event tell when everything that is queued has been given to the transport."""
        self._writer_waits = True
        if not self._output:
            self._writer_waits = False
            self._events.append(_TAKEN)

    def stop_awaiting_output(self) -> None:
        """Nobody waits for that any more, and nobody is told; may be repeated."""
        self._writer_waits = False
        self._events = [event for event in self._events if event is not _TAKEN]

    # -- the rest of the contract ------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """None: a queue has no sense of time."""
        return None

    def handle_timeout(self, now: float) -> None:
        """Nothing: a queue has no sense of time."""

    def take_events(self) -> list[DatagramQueueEvent]:
        """Hand over the events since the last call; the list belongs to the caller."""
        events, self._events = self._events, []
        return events

    def take_actions(self) -> list[Action]:
        """Empty: a queue wants nothing done but its datagrams moved."""
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """Refuse every id.

        Raises:
            LocalProtocolError: Always; a queue gives out no actions.
        """
        raise LocalProtocolError(f"action {action_id} is unknown: a queue of datagrams gives out no actions")
