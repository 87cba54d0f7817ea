"""A byte stream in any order of inputs and commands, against a model that is two strings of bytes."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from helianthus.protocols.byte_stream import (
    ByteStream,
    ByteStreamLimits,
    InputExpired,
    InputReady,
    OutputExpired,
    OutputTaken,
    Shortfall,
)
from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Closing

FOR_READER = (InputReady, InputExpired)
DATA = st.binary(max_size=12).map(lambda data: bytes(byte % 4 + 97 for byte in data))
DELIMITERS = st.sampled_from([b"a", b"ab", b"bba"])


class Rules(RuleBasedStateMachine):
    """One reader and one writer of one stream, and the peer and the transport at its other side."""

    @initialize(
        high=st.integers(2, 30),
        low=st.integers(0, 20),
        room=st.integers(1, 20),
    )
    def begin(self, high: int, low: int, room: int) -> None:
        self.stream = ByteStream(ByteStreamLimits(high, min(low, high - 1), room))
        self.unread = b""  # what the reader has still to get
        self.unsent = b""  # what the transport has still to get
        self.now = 0.0
        self.reader_waits = self.writer_waits = False
        self.read_by: float | None = None
        self.write_by: float | None = None
        self.peer_ended = self.ended = self.closed = self.lost = False

    def reading(self) -> bool:
        return not (self.peer_ended or self.closed or self.lost)

    # -- the other side ------------------------------------------------------------------------------

    @rule(data=DATA)
    def receive(self, data: bytes) -> None:
        memory = bytearray(data)
        self.stream.receive_data(memory, self.now)
        memory[:] = bytes(len(memory))
        if self.reading():
            self.unread += data

    @rule()
    def receive_eof(self) -> None:
        self.stream.receive_eof(self.now)
        self.peer_ended = self.peer_ended or self.reading()

    @precondition(lambda self: not self.lost)
    @rule(error=st.sampled_from([None, ConnectionError()]))
    def lose(self, error: Exception | None) -> None:
        self.stream.connection_lost(error, self.now)
        self.lost = True
        self.unsent = b""
        assert self.stream.loss is error

    @rule()
    def transport_takes(self) -> None:
        taken = b"".join(self.stream.take_data())
        assert taken == self.unsent
        self.unsent = b""

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.stream.handle_timeout(self.now)
        deadline = self.stream.deadline()
        assert deadline is None or deadline > self.now

    # -- the reader ------------------------------------------------------------------------------------

    def check_shortfall(self, *, too_long: bool = False) -> None:
        expected = Shortfall.NOT_YET
        if too_long:
            expected = Shortfall.TOO_LONG
        elif self.peer_ended:
            expected = Shortfall.ENDED
        elif self.lost:
            expected = Shortfall.LOST
        assert self.stream.shortfall is expected

    @precondition(lambda self: not self.reader_waits)
    @rule(limit=st.integers(1, 20))
    def take_some(self, limit: int) -> None:
        data = self.stream.take_some(limit)
        assert self.unread.startswith(data)
        assert bool(data) == bool(self.unread)
        assert len(data) <= limit
        self.unread = self.unread[len(data) :]
        if not data:
            self.check_shortfall()

    @precondition(lambda self: not self.reader_waits)
    @rule(size=st.integers(0, 40))
    def take_exactly(self, size: int) -> None:
        data = self.stream.take_exactly(size)
        if size <= len(self.unread):
            assert data == self.unread[:size]
            self.unread = self.unread[size:]
        else:
            assert data is None
            self.check_shortfall()

    @precondition(lambda self: not self.reader_waits)
    @rule(delimiter=DELIMITERS, limit=st.integers(3, 40))
    def take_until(self, delimiter: bytes, limit: int) -> None:
        data = self.stream.take_until(delimiter, limit)
        at = self.unread.find(delimiter)
        size = at + len(delimiter)
        if at >= 0 and size <= limit:
            assert data == self.unread[:size]
            self.unread = self.unread[size:]
        else:
            assert data is None
            self.check_shortfall(too_long=at >= 0 or len(self.unread) >= limit)

    @precondition(lambda self: not self.reader_waits and self.stream.shortfall is Shortfall.NOT_YET)
    @rule(patience=st.sampled_from([None, 0.5, 2.0]))
    def await_input(self, patience: float | None) -> None:
        self.read_by = None if patience is None else self.now + patience
        self.stream.await_input(self.read_by)
        self.reader_waits = True
        with pytest.raises(LocalProtocolError):
            if self.stream._reader_waits:
                self.stream.await_input()
            else:
                raise LocalProtocolError("it has been told already")

    @precondition(lambda self: self.reader_waits)
    @rule()
    def reader_gives_up(self) -> None:
        self.stream.stop_awaiting_input()
        self.reader_waits = False
        self.read_by = None

    # -- the writer ------------------------------------------------------------------------------------

    @rule(data=DATA, kind=st.sampled_from([bytes, bytearray, memoryview]))
    def queue(self, data: bytes, kind: type) -> None:
        if self.ended or self.closed or self.lost:
            assert not self.stream.sends
            with pytest.raises(LocalProtocolError, match="cannot send"):
                self.stream.queue(data)
            return
        given = kind(data)
        room = self.stream.room
        size = self.stream.queue(given)
        assert size == min(len(data), room)
        if kind is bytearray:
            given[:] = bytes(len(data))
        self.unsent += data[:size]

    @precondition(lambda self: not self.writer_waits)
    @rule(patience=st.sampled_from([None, 0.5, 2.0]))
    def await_output(self, patience: float | None) -> None:
        self.write_by = None if patience is None else self.now + patience
        self.stream.await_output(self.write_by)
        self.writer_waits = True

    @precondition(lambda self: self.writer_waits)
    @rule()
    def writer_gives_up(self) -> None:
        self.stream.stop_awaiting_output()
        self.writer_waits = False
        self.write_by = None

    @rule()
    def end(self) -> None:
        self.stream.end()
        self.ended = self.ended or not (self.closed or self.lost)

    @rule()
    def close(self) -> None:
        self.stream.close()
        if not self.lost and not self.closed:
            self.closed = True
            self.unread = b""

    # -- what is told, and what always holds -------------------------------------------------------------

    @rule()
    def take_events(self) -> None:
        for event in self.stream.take_events():
            if isinstance(event, FOR_READER):
                assert self.reader_waits
                if isinstance(event, InputExpired):
                    assert self.read_by is not None
                    assert self.read_by <= self.now
                self.reader_waits = False
                self.read_by = None
            else:
                assert self.writer_waits
                if isinstance(event, OutputExpired):
                    assert self.write_by is not None
                    assert self.write_by <= self.now
                else:
                    assert isinstance(event, OutputTaken)
                self.writer_waits = False
                self.write_by = None

    @invariant()
    def nothing_is_lost(self) -> None:
        stream = self.stream
        assert stream.available == len(self.unread)
        assert stream.queued == len(self.unsent)
        assert 0 <= stream.room <= stream.limits.max_queued_output

    @invariant()
    def reading_pauses_only_where_something_can_be_taken(self) -> None:
        if self.reading() and not self.stream.wants_read:
            assert len(self.unread) > self.stream.limits.low_water
        if not self.reading():
            assert not self.stream.wants_read

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Who waits has been told, or what would be told has not happened."""
        stream = self.stream
        told = stream._events
        if self.reader_waits and not any(isinstance(event, FOR_READER) for event in told):
            assert self.reading()
            assert len(self.unread) < stream._needed
            assert not stream._delimiter or stream._delimiter not in self.unread
        if self.writer_waits and not any(not isinstance(event, FOR_READER) for event in told):
            assert self.unsent

    @invariant()
    def the_link_ends_as_the_directions_have(self) -> None:
        closing = self.stream.closing
        if self.lost:
            assert closing is Closing.ABORT
        elif self.closed or (self.ended and self.peer_ended):
            assert closing is Closing.FULL
        else:
            assert closing is (Closing.HALF if self.ended else Closing.OPEN)


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
