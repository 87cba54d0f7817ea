"""A stream of plain bytes, for those who read and write it as they would a socket.

The machine keeps what has arrived until it is asked for, and what is to be sent until the transport
takes it, both within bounds. A reader asks for some bytes, for so many, or for all up to a delimiter.
Where they are not there yet it gets nothing, nothing changes, and it may have itself told by
`await_input` when to ask again: when they have come, or never will, or when its time is up. So whoever
gives up waiting, for whatever reason, leaves every byte where it was.

A writer likewise: `queue` takes what there is room for and says how much that was. What it has taken
is sent, in order, whatever becomes of the writer.
"""

from __future__ import annotations

import enum
from typing import Any, TypeAlias

import attrs
from attrs.validators import ge

from .errors import LocalProtocolError
from .input_buffer import InputBuffer
from .machine import Action, Buffer, Closing, Outcome, StreamMachine

KIB = 1024


@attrs.frozen
class ByteStreamLimits:
    """Bounds of one stream, in bytes; a value out of range raises `ValueError`.

    Attributes:
        high_water: With so much input that nobody has taken, reading pauses; unless a reader waits
            for more, who has named its own bound. One read of a driver may come on top.
        low_water: Reading goes on when no more than this is left.
        max_queued_output: What may wait for the transport; a writer waits for room. Four times the
            64 KiB of asyncio's streams, because one system call takes all that was queued in a turn.
            As much again may be on its way into the transport.
    """

    high_water: int = attrs.field(default=256 * KIB, validator=ge(1))
    low_water: int = attrs.field(default=64 * KIB, validator=ge(0))
    max_queued_output: int = attrs.field(default=256 * KIB, validator=ge(1))

    @low_water.validator
    def _is_lower(self, _: Any, value: int) -> None:
        if value >= self.high_water:
            raise ValueError(
                f"low_water is {value} bytes; it must be less than high_water, which is {self.high_water}"
            )


class ByteStreamState(enum.Enum):
    """How far each direction has got."""

    OPEN = "open"
    """Bytes go both ways."""
    LOCAL_ENDED = "local ended"
    """`end()` was called; bytes still come in."""
    PEER_ENDED = "peer ended"
    """The peer sends nothing more; we may."""
    ENDED = "ended"
    """Both directions have ended in good order."""
    CLOSED = "closed"
    """`close()` was called: what is queued is sent, and nothing more is read."""
    LOST = "lost"
    """The transport is gone."""


class ByteStreamInput(enum.Enum):
    """What moves a stream from one state to another."""

    END = "end()"
    EOF = "end of stream"
    CLOSE = "close()"
    LOSS = "connection lost"


_State, _Input = ByteStreamState, ByteStreamInput

BYTE_STREAM_TRANSITIONS: dict[tuple[ByteStreamState, ByteStreamInput], ByteStreamState] = {
    (_State.OPEN, _Input.END): _State.LOCAL_ENDED,
    (_State.OPEN, _Input.EOF): _State.PEER_ENDED,
    (_State.OPEN, _Input.CLOSE): _State.CLOSED,
    (_State.OPEN, _Input.LOSS): _State.LOST,
    (_State.LOCAL_ENDED, _Input.EOF): _State.ENDED,
    (_State.LOCAL_ENDED, _Input.CLOSE): _State.CLOSED,
    (_State.LOCAL_ENDED, _Input.LOSS): _State.LOST,
    (_State.PEER_ENDED, _Input.END): _State.ENDED,
    (_State.PEER_ENDED, _Input.CLOSE): _State.CLOSED,
    (_State.PEER_ENDED, _Input.LOSS): _State.LOST,
    (_State.ENDED, _Input.CLOSE): _State.CLOSED,
    (_State.ENDED, _Input.LOSS): _State.LOST,
    (_State.CLOSED, _Input.LOSS): _State.LOST,
}
"""Every move there is. An input without an entry for a state changes nothing in it."""

_READING = (_State.OPEN, _State.LOCAL_ENDED)
_SENDING = (_State.OPEN, _State.PEER_ENDED)

_CLOSING = {
    _State.OPEN: Closing.OPEN,
    _State.LOCAL_ENDED: Closing.HALF,
    _State.PEER_ENDED: Closing.OPEN,
    _State.ENDED: Closing.FULL,
    _State.CLOSED: Closing.FULL,
    _State.LOST: Closing.ABORT,
}


class Shortfall(enum.Enum):
    """Why a reader did not get what it asked for."""

    NOT_YET = "not yet"
    """More may come."""
    TOO_LONG = "too long"
    """As much as the reader allows is there, without the delimiter."""
    ENDED = "ended"
    """The peer has ended its stream."""
    LOST = "lost"
    """The connection broke before the peer had ended its stream."""


@attrs.define
class InputReady:
    """What the reader waits for is there, or never will be: it is to ask again."""


@attrs.define
class InputExpired:
    """The reader's time is up."""


@attrs.define
class OutputTaken:
    """The transport has been given everything that was queued: there is room for the writer."""


@attrs.define
class OutputExpired:
    """The writer's time is up."""


ByteStreamEvent: TypeAlias = InputReady | InputExpired | OutputTaken | OutputExpired
"""Whatever `take_events()` of a byte stream may hold."""

_INPUT_READY = InputReady()  # they say nothing but that they are, so one of each will do
_INPUT_EXPIRED = InputExpired()
_OUTPUT_TAKEN = OutputTaken()
_OUTPUT_EXPIRED = OutputExpired()
_FOR_READER = (_INPUT_READY, _INPUT_EXPIRED)
_FOR_WRITER = (_OUTPUT_TAKEN, _OUTPUT_EXPIRED)


class ByteStream(StreamMachine[ByteStreamEvent]):
    """One end of a stream, with one reader and one writer.

    Args:
        limits: How much may wait.

    Attributes:
        limits: As above.
        state: Where the two directions are.
        full: Whether reading has paused because too much input waits to be taken.
        ended: Whether the peer has ended its stream in good order.
        loss: Why the transport has gone; None while it has not, or after a clean close.
        shortfall: Why the last of the `take_` methods did not give what it was asked for.
        queued: Bytes that wait for `take_data()`.
        accepted: Bytes that `queue` has taken so far.
    """

    def __init__(self, limits: ByteStreamLimits | None = None) -> None:
        self.limits = limits or ByteStreamLimits()
        self.full = False
        self.ended = False
        self.loss: Exception | None = None
        self.shortfall = Shortfall.NOT_YET
        self.queued = 0
        self.accepted = 0
        self._input = InputBuffer()
        self._needed = 1  # bytes that the reader asked for last; or else up to a delimiter
        self._delimiter = b""
        self._output: list[Buffer] = []
        self._events: list[ByteStreamEvent] = []
        self._reader_waits = False
        self._writer_waits = False
        self._read_by: float | None = None
        self._write_by: float | None = None
        self._set_state(ByteStreamState.OPEN)

    # -- state -----------------------------------------------------------------------------------

    @property
    def wants_read(self) -> bool:
        """False while enough input waits to be taken, and once there is no more."""
        return self._reading and (self._reader_waits or not self.full)

    @property
    def closing(self) -> Closing:
        """How the link is to end once the output is flushed."""
        return self._closing

    @property
    def available(self) -> int:
        """Bytes of input that wait to be taken."""
        return self._input.size

    @property
    def taken(self) -> int:
        """Bytes of input that the reader has taken so far."""
        return self._input.taken

    @property
    def sends(self) -> bool:
        """Whether `queue` takes anything: not after `end()`, `close()` or a loss."""
        return self._sending

    @property
    def lost(self) -> bool:
        """Whether the transport is gone."""
        return self.state is ByteStreamState.LOST

    @property
    def ended_here(self) -> bool:
        """Whether `end()` was called and nothing else has happened that ends our direction."""
        return self.state in (ByteStreamState.LOCAL_ENDED, ByteStreamState.ENDED)

    @property
    def room(self) -> int:
        """Bytes that `queue` would take now."""
        return self.limits.max_queued_output - self.queued

    def _move(self, cause: ByteStreamInput) -> bool:
        """Follow the transition table; False where it has no entry and nothing changes."""
        state = BYTE_STREAM_TRANSITIONS.get((self.state, cause))
        if state is None:
            return False
        self._set_state(state)
        return True

    def _set_state(self, state: ByteStreamState) -> None:
        self.state = state
        self._closing = _CLOSING[state]
        self._reading = state in _READING  # looked up here, since every input asks for it
        self._sending = state in _SENDING

    # -- input -------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer, now: float) -> None:
        """Keep bytes from the peer until they are taken."""
        if not self._reading:
            return
        self._input.append(data)
        if self._input.size >= self.limits.high_water:
            self.full = True
        if self._reader_waits and self._is_there():
            self._tell_reader(_INPUT_READY)

    def receive_eof(self, now: float) -> None:
        """The peer sends nothing more; what it has sent can still be taken."""
        if self._move(ByteStreamInput.EOF):
            self.ended = True
            if self._reader_waits:
                self._tell_reader(_INPUT_READY)

    def connection_lost(self, error: Exception | None, now: float) -> None:
        """The transport is gone; what it has brought can still be taken."""
        if not self._move(ByteStreamInput.LOSS):
            return
        self.loss = error
        self._output.clear()
        self.queued = 0
        if self._reader_waits:
            self._tell_reader(_INPUT_READY)
        if self._writer_waits:
            self._tell_writer(_OUTPUT_TAKEN)

    def deadline(self) -> float | None:
        """When the reader's or the writer's time is up, or None."""
        if self._read_by is None or self._write_by is None:
            return self._write_by if self._read_by is None else self._read_by
        return min(self._read_by, self._write_by)

    def handle_timeout(self, now: float) -> None:
        """End the waiting of those whose time is up."""
        if self._read_by is not None and self._read_by <= now:
            self._tell_reader(_INPUT_EXPIRED)
        if self._write_by is not None and self._write_by <= now:
            self._tell_writer(_OUTPUT_EXPIRED)

    # -- reading -------------------------------------------------------------------------------------

    def take_some(self, limit: int) -> bytes:
        """Take what came first, at most `limit` bytes, which is 1 or more.

        Returns:
            At least one byte; none where there is none, and then `shortfall` says why.
        """
        data = self._input.take_some(limit)
        if not data:
            self._needed, self._delimiter = 1, b""
            self.shortfall = self._why()
        elif self.full:
            self._look_whether_full()
        return data

    def take_exactly(self, size: int) -> bytes | None:
        """Take so many bytes, or none at all.

        Returns:
            The bytes; None where there are fewer, and then `shortfall` says why.
        """
        if size > self._input.size:
            self._needed, self._delimiter = size, b""
            self.shortfall = self._why()
            return None
        return self._take(size)

    def take_until(self, delimiter: bytes, limit: int) -> bytes | None:
        """Take all bytes up to the first delimiter, and the delimiter, or none at all.

        Args:
            delimiter: One byte or more.
            limit: How many bytes that may be; at least as many as the delimiter has.

        Returns:
            The bytes; None where there is no delimiter, and then `shortfall` says why.
        """
        size = self._input.find(delimiter)
        if size is not None and size <= limit:
            return self._take(size)
        self._needed, self._delimiter = limit, delimiter
        too_long = size is not None or self._input.size >= limit
        self.shortfall = Shortfall.TOO_LONG if too_long else self._why()
        return None

    def await_input(self, deadline: float | None = None) -> None:
        """Have an event tell when what a `take_` method did not give may be asked for again.

        Args:
            deadline: When the reader stops waiting and is told so; None for never.

        Raises:
            LocalProtocolError: A reader waits already.
        """
        if self._reader_waits:
            raise LocalProtocolError("a reader waits already; a stream has one at a time")
        self._reader_waits = True
        self._read_by = deadline
        if not self._reading or self._is_there():
            self._tell_reader(_INPUT_READY)

    def stop_awaiting_input(self) -> None:
        """Nobody waits for input any more, and nobody is told; may be repeated."""
        self._reader_waits = False
        self._read_by = None
        if self._events:
            self._events = [event for event in self._events if event not in _FOR_READER]

    def _take(self, size: int) -> bytes:
        data = self._input.take(size)
        if self.full:
            self._look_whether_full()
        return data

    def _look_whether_full(self) -> None:
        if self._input.size <= self.limits.low_water:
            self.full = False

    def _is_there(self) -> bool:
        """Whether the reader's request can be decided."""
        if self._input.size >= self._needed:
            return True
        return bool(self._delimiter) and self._input.find(self._delimiter) is not None

    def _why(self) -> Shortfall:
        if self.ended:
            return Shortfall.ENDED
        return Shortfall.LOST if self.state is ByteStreamState.LOST else Shortfall.NOT_YET

    def _tell_reader(self, event: ByteStreamEvent) -> None:
        self._events.append(event)
        self._reader_waits = False
        self._read_by = None

    # -- writing -------------------------------------------------------------------------------------

    def queue(self, data: Buffer) -> int:
        """Queue as much as there is room for.

        Args:
            data: Kept as it is where it is `bytes`, or a view of such; of anything else what is
                queued is copied, so that the caller may reuse it.

        Returns:
            How many bytes, from the first on, are queued; 0 where there is no room.

        Raises:
            LocalProtocolError: Sending is over: after `end()`, `close()` or a loss.
        """
        if not self._sending:
            raise LocalProtocolError(f"cannot send: {self._why_not_sending()}")
        room = self.limits.max_queued_output - self.queued
        if type(data) is bytes:
            piece: Buffer = data if len(data) <= room else memoryview(data)[:room]
        else:
            view = memoryview(data).cast("B")[:room]
            piece = view if type(view.obj) is bytes else bytes(view)
        size = len(piece)
        if size:
            self._output.append(piece)
            self.queued += size
            self.accepted += size
        return size

    def await_output(self, deadline: float | None = None) -> None:
        """Have an event tell when everything that is queued has been given to the transport.

        Asked again while somebody waits, it sets another deadline.

        Args:
            deadline: When the writer stops waiting and is told so; None for never.
        """
        self._writer_waits = True
        self._write_by = deadline
        if not self.queued:
            self._tell_writer(_OUTPUT_TAKEN)

    def stop_awaiting_output(self) -> None:
        """Nobody waits for output any more, and nobody is told; may be repeated."""
        self._writer_waits = False
        self._write_by = None
        if self._events:
            self._events = [event for event in self._events if event not in _FOR_WRITER]

    def end(self) -> None:
        """End our direction behind what is queued; bytes still come in. Repeated calls do nothing."""
        self._move(ByteStreamInput.END)

    def close(self) -> None:
        """Send what is queued, then end both directions; input that nobody has taken is dropped.

        Repeated calls do nothing.
        """
        if self._move(ByteStreamInput.CLOSE):
            self._input.clear()
            if self._reader_waits:
                self._tell_reader(_INPUT_READY)

    def take_data(self) -> list[Buffer]:
        """Hand over what is queued."""
        output, self._output = self._output, []
        self.queued = 0
        if self._writer_waits:
            self._tell_writer(_OUTPUT_TAKEN)
        return output

    def _tell_writer(self, event: ByteStreamEvent) -> None:
        self._events.append(event)
        self._writer_waits = False
        self._write_by = None

    def _why_not_sending(self) -> str:
        if self.state is ByteStreamState.LOST:
            return "the connection is lost"
        return "close() was called" if self.state is ByteStreamState.CLOSED else "end() was called"

    # -- the rest of the contract ----------------------------------------------------------------------

    def take_events(self) -> list[ByteStreamEvent]:
        """Hand over the events since the last call; the list belongs to the caller."""
        events, self._events = self._events, []
        return events

    def take_actions(self) -> list[Action]:
        """Empty: a byte stream wants nothing done but its bytes moved."""
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """Refuse every id.

        Raises:
            LocalProtocolError: Always; a byte stream gives out no actions.
        """
        raise LocalProtocolError(f"action {action_id} is unknown: a byte stream gives out no actions")
