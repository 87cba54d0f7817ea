"""What every framing shares: both directions' states, the output queue, the events.

A framing cuts a byte stream into frames and lets each direction end by itself, as TCP does. Its
states are therefore the four combinations of "we ended" and "the peer ended", plus two in which
nothing moves any more: the peer broke a rule, or the transport went away.

A subclass says how bytes become frames (`_parse`) and frames become bytes (`_encode`), how much of
an unfinished frame it holds (`unfinished_input`) and how to drop it (`_drop_unfinished`). In `_parse`
it appends `FrameReceived` to `_events` and, where the peer broke a rule, calls `_fail` and returns.
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from typing import NoReturn

from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError, SlowConsumer
from ..machine import Action, Buffer, Closing, ConnectionFailed, Outcome, StreamMachine
from ..slow_consumer import BLOCK, DROP_OLDEST, DroppingQueue, SlowConsumerPolicy, slow_consumer_policy
from .events import ConnectionLost, EndOfStream, FramingEvent

DEFAULT_MAX_FRAME_SIZE = 4 * 1024 * 1024
"""Bytes in one frame, either way. gRPC lets a message have as much unless it is told otherwise
(GRPC_DEFAULT_MAX_RECV_MESSAGE_LENGTH): enough for anything but bulk data, and an amount that a
server can spend on each of a few thousand hostile peers."""

DEFAULT_MAX_QUEUED_OUTPUT = 16 * 1024 * 1024
"""Bytes that wait to be sent: four of the largest frames. A sender further ahead of its peer than
that gains no throughput, only memory use."""

DEFAULT_MAX_UNDRAINED_INPUT = 1024 * 1024
"""Bytes of input behind events that nobody has taken, before `wants_read` turns False. Sixteen
receive buffers of 64 KiB; a driver that drains after each input never gets there."""


class FramingState(enum.Enum):
    """How far each direction of the stream has got."""

    OPEN = "open"
    """Frames go both ways."""
    LOCAL_ENDED = "local ended"
    """`close()` was called; frames still come in."""
    PEER_ENDED = "peer ended"
    """The peer sends nothing more; we may."""
    ENDED = "ended"
    """Both directions have ended in good order."""
    FAILED = "failed"
    """The peer broke the framing; its input is ignored."""
    CUT_OFF = "cut off"
    """The peer took less than it was sent, and is disconnected; what waited for it is dropped."""
    LOST = "lost"
    """The transport is gone."""


class FramingInput(enum.Enum):
    """What moves a framing from one state to another."""

    CLOSE = "close()"
    EOF = "end of stream"
    FAULT = "the peer's fault"
    SLOW = "slow consumer"
    LOSS = "connection lost"


TRANSITIONS: dict[tuple[FramingState, FramingInput], FramingState] = {
    (FramingState.OPEN, FramingInput.CLOSE): FramingState.LOCAL_ENDED,
    (FramingState.OPEN, FramingInput.EOF): FramingState.PEER_ENDED,
    (FramingState.OPEN, FramingInput.FAULT): FramingState.FAILED,
    (FramingState.OPEN, FramingInput.SLOW): FramingState.CUT_OFF,
    (FramingState.OPEN, FramingInput.LOSS): FramingState.LOST,
    (FramingState.LOCAL_ENDED, FramingInput.EOF): FramingState.ENDED,
    (FramingState.LOCAL_ENDED, FramingInput.FAULT): FramingState.FAILED,
    (FramingState.LOCAL_ENDED, FramingInput.LOSS): FramingState.LOST,
    (FramingState.PEER_ENDED, FramingInput.CLOSE): FramingState.ENDED,
    (FramingState.PEER_ENDED, FramingInput.SLOW): FramingState.CUT_OFF,
    (FramingState.PEER_ENDED, FramingInput.LOSS): FramingState.LOST,
    (FramingState.ENDED, FramingInput.LOSS): FramingState.LOST,
}
"""Every move there is. An input without an entry for a state changes nothing in it."""

READING_STATES = (FramingState.OPEN, FramingState.LOCAL_ENDED)
"""States in which input from the peer counts."""

SENDING_STATES = (FramingState.OPEN, FramingState.PEER_ENDED)
"""States in which frames may be sent."""

CLOSING_OF_STATE: dict[FramingState, Closing] = {
    FramingState.OPEN: Closing.OPEN,
    FramingState.LOCAL_ENDED: Closing.HALF,
    FramingState.PEER_ENDED: Closing.OPEN,
    FramingState.ENDED: Closing.FULL,
    FramingState.FAILED: Closing.FULL,
    FramingState.CUT_OFF: Closing.ABORT,
    FramingState.LOST: Closing.ABORT,
}
"""How the driver is to end the link in each state. A peer that has ended its direction is not cut
off: what we owe it may still be sent, and the link ends with our own `close()`."""


class StreamFraming(StreamMachine[FramingEvent]):
    """The base of the framing machines; not used by itself.

    Input that comes after the end of the peer's stream, a failure or a loss is ignored.

    Args:
        max_frame_size: Bytes that one frame may have, either way; at least 1.
        max_frame_overhead: Bytes that the subclass adds to a frame on the wire, at most.
        max_queued_output: Bytes that may wait to be sent; at least one largest frame.
        max_undrained_input: Bytes of input behind events not taken yet that turn `wants_read`
            False; at least 1.
        peer: What error messages call the other end, its address for example.
        slow_consumer: What happens when a frame would have more than `max_queued_output` wait: it is
            refused ("block"), the oldest frames that have not been handed to the transport are dropped
            ("drop-oldest"), or the connection fails ("disconnect").

    Raises:
        ValueError: A limit is out of its range.

    Attributes:
        max_frame_size: As above, in bytes.
        max_queued_output: As above, in bytes.
        max_undrained_input: As above, in bytes.
        slow_consumer: As above.
    """

    def __init__(
        self,
        *,
        max_frame_size: int,
        max_frame_overhead: int,
        max_queued_output: int,
        max_undrained_input: int,
        peer: str,
        slow_consumer: SlowConsumerPolicy | str = BLOCK,
    ) -> None:
        if max_frame_size < 1:
            raise ValueError(f"max_frame_size is {max_frame_size} bytes; it must be 1 or more")
        if max_undrained_input < 1:
            raise ValueError(f"max_undrained_input is {max_undrained_input} bytes; it must be 1 or more")
        if max_queued_output < max_frame_size + max_frame_overhead:
            raise ValueError(
                f"max_queued_output is {max_queued_output} bytes, but one frame of max_frame_size takes "
                f"{max_frame_size + max_frame_overhead} on the wire; raise the first or lower the second"
            )
        self.max_frame_size = max_frame_size
        self.max_queued_output = max_queued_output
        self.max_undrained_input = max_undrained_input
        self.slow_consumer = slow_consumer_policy(slow_consumer)
        self._dropping = DroppingQueue() if self.slow_consumer is DROP_OLDEST else None
        self._peer = peer
        self._events: list[FramingEvent] = []
        self._undrained = 0
        self._output: list[Buffer] = []
        self._queued = 0
        self._set_state(FramingState.OPEN)

    # -- what a subclass provides -------------------------------------------------------------

    @abstractmethod
    def _parse(self, data: Buffer) -> None:
        """Turn `data`, which is not empty, and what is held from before into events."""

    @abstractmethod
    def _encode(self, frame: bytes) -> tuple[bytes, ...]:
        """The frame as it goes on the wire, in pieces; `LocalProtocolError` where it cannot."""

    @property
    @abstractmethod
    def unfinished_input(self) -> int:
        """Bytes held of a frame that is not whole yet, whatever announces it included."""

    @abstractmethod
    def _drop_unfinished(self) -> None:
        """Free the bytes that `unfinished_input` counts."""

    # -- state ----------------------------------------------------------------------------------

    @property
    def state(self) -> FramingState:
        """Where the two directions are."""
        return self._state

    @property
    def closing(self) -> Closing:
        """How the link is to end once the output is flushed; see `CLOSING_OF_STATE`."""
        return self._closing

    @property
    def wants_read(self) -> bool:
        """False once no input counts, or while events of too much input wait to be taken."""
        return self._reading and (self._undrained < self.max_undrained_input or not self._events)

    @property
    def queued_output(self) -> int:
        """Bytes that wait for `take_data()`."""
        return self._queued

    @property
    def dropped_messages(self) -> int:
        """Frames that were dropped because the peer is slow."""
        return self._dropping.dropped if self._dropping is not None else 0

    def _move(self, cause: FramingInput) -> bool:
        """Follow the transition table; False where it has no entry and nothing changes."""
        state = TRANSITIONS.get((self._state, cause))
        if state is None:
            return False
        self._set_state(state)
        return True

    def _set_state(self, state: FramingState) -> None:
        self._state = state
        self._closing = CLOSING_OF_STATE[state]
        self._reading = state in READING_STATES  # looked up here, since every input asks for it
        self._sending = state in SENDING_STATES

    # -- input ------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes from the peer; frames that they complete become events."""
        if self._reading and data:
            self._undrained += len(data)
            self._parse(data)

    def receive_eof(self, now: float) -> None:
        """Take the end of the peer's stream: `EndOfStream`, or a failure within a frame."""
        if not self._reading:
            return
        unfinished = self.unfinished_input
        if unfinished:
            self._fail(
                RemoteProtocolError(
                    f"{self._peer} ended its stream {unfinished} bytes into a frame, which is truncated; "
                    "it must end its stream between two frames"
                )
            )
        elif self._move(FramingInput.EOF):
            self._events.append(EndOfStream())

    def connection_lost(self, error: Exception | None, now: float) -> None:
        """Take the loss of the transport: `ConnectionLost`, unless the peer failed before."""
        self._drop_output()
        if self._move(FramingInput.LOSS):
            self._events.append(ConnectionLost(error, self.unfinished_input))
            self._drop_unfinished()

    def _fail(self, error: RemoteProtocolError, cause: FramingInput = FramingInput.FAULT) -> None:
        """The peer broke a rule: report it last, forget its input, have the link closed."""
        if self._move(cause):
            self._events.append(ConnectionFailed(error))
            self._drop_unfinished()

    def _fail_oversize(self, did: str) -> None:
        """The peer passed `max_frame_size`; `did` says by what."""
        limit = self.max_frame_size
        self._fail(
            LimitExceeded(
                f"{self._peer} {did}, and max_frame_size is {limit} bytes; "
                "have it send smaller frames, or raise max_frame_size here",
                limit="max_frame_size",
                maximum=limit,
            )
        )

    # -- commands -----------------------------------------------------------------------------------

    def send_frame(self, frame: Buffer) -> None:
        """Queue one frame.

        Args:
            frame: Its payload. `bytes` are queued as they are; anything else is copied, so that
                the caller may reuse it.

        Raises:
            LocalProtocolError: The framing cannot carry this frame, `max_queued_output` would be
                passed, or sending is over: after `close()`, a failure or a loss. Nothing changes, but
                that with "disconnect" the connection fails when that limit would be passed.
            TypeError: `frame` is no buffer. Nothing changes.
        """
        if not self._sending:
            self._refuse_to_send()
        # Through a memoryview, since bytes(5) and bytes([65]) are something else altogether.
        payload = frame if type(frame) is bytes else bytes(memoryview(frame))
        if len(payload) > self.max_frame_size:
            raise LocalProtocolError(
                f"cannot send a frame of {len(payload)} bytes: max_frame_size is {self.max_frame_size}; "
                "split the frame, or raise max_frame_size at both ends"
            )
        pieces = self._encode(payload)
        queued = self._queued + sum(map(len, pieces))
        if self._dropping is not None:
            self._dropping.add(pieces, queued - self._queued, self.max_queued_output)
            self._queued = self._dropping.size
            return
        if queued > self.max_queued_output:
            self._refuse_frame(len(payload))
        self._queued = queued
        self._output += pieces

    def close(self) -> None:
        """End our direction once what is queued has been sent. Frames may still come in.

        When the peer ends its direction too, `closing` turns to FULL. A second call, or one after
        a failure or a loss, does nothing.
        """
        self._move(FramingInput.CLOSE)

    def _refuse_frame(self, size: int) -> NoReturn:
        """A frame would have too much wait for the peer."""
        waiting = f"{self._queued} bytes wait to be sent, and max_queued_output is {self.max_queued_output}"
        if self.slow_consumer is not BLOCK:
            error = SlowConsumer(
                f"{self._peer} is a slow consumer: {waiting}; the connection ends",
                limit="max_queued_output",
                maximum=self.max_queued_output,
            )
            self._fail(error, FramingInput.SLOW)
            self._drop_output()
        raise LocalProtocolError(
            f"cannot queue a frame of {size} bytes: {waiting}; wait until the peer has taken some"
        )

    def _drop_output(self) -> None:
        self._output.clear()
        if self._dropping is not None:
            self._dropping.take()
        self._queued = 0

    def _refuse_to_send(self) -> NoReturn:
        reason = {
            FramingState.FAILED: f"{self._peer} broke the framing, see the ConnectionFailed event",
            FramingState.CUT_OFF: f"{self._peer} was a slow consumer, see the ConnectionFailed event",
            FramingState.LOST: "the connection is lost",
        }.get(self._state, "close() was called")
        raise LocalProtocolError(f"cannot send a frame: {reason}; open a new connection for it")

    # -- output ---------------------------------------------------------------------------------------

    def take_data(self) -> list[Buffer]:
        """Hand over what is queued; a large frame is a piece by itself, never copied."""
        self._queued = 0
        if self._dropping is not None:
            return self._dropping.take()
        output = self._output
        self._output = []
        return output

    def take_events(self) -> list[FramingEvent]:
        """Hand over the events since the last call; the list belongs to the caller."""
        events = self._events
        self._events = []
        self._undrained = 0
        return events

    def deadline(self) -> float | None:
        """None: a framing has no sense of time."""
        return None

    def handle_timeout(self, now: float) -> None:
        """Nothing: a framing has no sense of time."""

    def take_actions(self) -> list[Action]:
        """Empty: a framing wants nothing done but its bytes moved."""
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """Refuse every id.

        Raises:
            LocalProtocolError: Always; a framing gives out no actions.
        """
        raise LocalProtocolError(f"action {action_id} is unknown: a framing gives out no actions")
