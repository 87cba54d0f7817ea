"""The machine behind a datagram socket."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from helianthus.protocols.datagram_queue import (
    KEPT_ERRORS,
    DatagramQueue,
    DatagramQueueLimits,
    DatagramReady,
    DatagramsTaken,
)
from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Outcome

HERE, THERE = ("here", 1), ("there", 2)


def test_datagrams_keep_their_order_and_their_source() -> None:
    queue = DatagramQueue()
    memory = bytearray(b"first")
    queue.receive_datagrams([(memory, HERE), (b"", THERE)], 0.0)
    memory[:] = b"xxxxx"
    assert queue.available == 2
    assert [queue.take(), queue.take(), queue.take()] == [(b"first", HERE), (b"", THERE), None]


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    by_number = DatagramQueue(DatagramQueueLimits(max_received=2))
    by_number.receive_datagrams([(b"a", HERE), (b"b", HERE), (b"c", HERE)], 0.0)
    assert (by_number.available, by_number.dropped) == (2, 1)
    by_bytes = DatagramQueue(DatagramQueueLimits(max_received_bytes=3))
    by_bytes.receive_datagrams([(b"aa", HERE), (b"bb", HERE), (b"c", HERE)], 0.0)
    assert (by_bytes.available, by_bytes.dropped) == (2, 1)
    by_bytes.take()
    by_bytes.receive_datagrams([(b"dd", HERE)], 0.0)
    assert (by_bytes.available, by_bytes.dropped) == (2, 1)


def test_what_cannot_be_queued_is_refused() -> None:
    queue = DatagramQueue(DatagramQueueLimits(max_queued=2, max_queued_bytes=10))
    assert queue.send(bytearray(b"12345"), HERE)
    assert queue.send(b"67890123", THERE)
    assert not queue.send(b"x", HERE)
    queue.await_output()
    assert queue.take_datagrams(1) == [(b"12345", HERE)]
    assert queue.take_events() == []
    assert queue.send(b"x", HERE)
    assert queue.take_datagrams() == [(b"67890123", THERE), (b"x", HERE)]
    assert queue.take_events() == [DatagramsTaken()]
    with pytest.raises(TypeError):
        queue.send(5, HERE)  # type: ignore[arg-type]


def test_errors_are_kept_for_whoever_asks() -> None:
    queue = DatagramQueue()
    queue.await_input()
    for number in range(KEPT_ERRORS + 3):
        queue.receive_error(OSError(number, "refused"), HERE, 0.0)
    assert queue.take_events() == []
    queue.await_input(or_error=True)
    assert queue.take_events() == [DatagramReady()]
    errors = queue.take_errors()
    assert [error.errno for error, _ in errors] == list(range(3, KEPT_ERRORS + 3))
    assert queue.error_count == KEPT_ERRORS + 3
    assert queue.take_errors() == []
    queue.await_input(or_error=True)
    queue.receive_error(OSError("refused"), None, 0.0)
    assert queue.take_events() == [DatagramReady()]


def test_who_has_given_up_is_told_nothing() -> None:
    queue = DatagramQueue()
    queue.await_input()
    queue.receive_datagrams([(b"a", HERE)], 0.0)
    queue.stop_awaiting_input()
    queue.await_output()
    queue.stop_awaiting_output()
    assert queue.take_events() == []
    queue.await_input()
    assert queue.take_events() == [DatagramReady()]


def test_there_is_nothing_else() -> None:
    queue = DatagramQueue()
    queue.handle_timeout(1.0)
    assert (queue.deadline(), queue.take_actions()) == (None, [])
    with pytest.raises(LocalProtocolError, match="action 1"):
        queue.complete(1, Outcome(), 0.0)
    with pytest.raises(ValueError, match="max_queued"):
        DatagramQueueLimits(max_queued=0)


class Rules(RuleBasedStateMachine):
    """One reader and one writer in any order, against two lists."""

    @initialize(received=st.integers(1, 4), queued=st.integers(1, 4), size=st.integers(1, 12))
    def begin(self, received: int, queued: int, size: int) -> None:
        self.queue = DatagramQueue(DatagramQueueLimits(received, size, queued, size))
        self.arrived: list[bytes] = []
        self.leaving: list[bytes] = []
        self.dropped = 0
        self.reader_waits = self.writer_waits = False

    @rule(batch=st.lists(st.binary(max_size=6), max_size=4))
    def receive(self, batch: list[bytes]) -> None:
        self.queue.receive_datagrams([(data, HERE) for data in batch], 0.0)
        limits = self.queue.limits
        for data in batch:
            full = sum(map(len, self.arrived)) >= limits.max_received_bytes
            if len(self.arrived) >= limits.max_received or full:
                self.dropped += 1
            else:
                self.arrived.append(data)

    @rule()
    def take(self) -> None:
        taken = self.queue.take()
        assert taken == ((self.arrived.pop(0), HERE) if self.arrived else None)

    @rule(data=st.binary(max_size=6))
    def send(self, data: bytes) -> None:
        limits = self.queue.limits
        full = sum(map(len, self.leaving)) >= limits.max_queued_bytes
        fits = len(self.leaving) < limits.max_queued and not full
        assert self.queue.send(data, THERE) == fits
        if fits:
            self.leaving.append(data)

    @rule(limit=st.integers(1, 3))
    def transport_takes(self, limit: int) -> None:
        batch = self.queue.take_datagrams(limit)
        assert [data for data, _ in batch] == self.leaving[:limit]
        del self.leaving[:limit]

    @rule()
    def await_input(self) -> None:
        self.queue.stop_awaiting_input()
        self.queue.await_input()
        self.reader_waits = True

    @rule()
    def await_output(self) -> None:
        self.queue.stop_awaiting_output()
        self.queue.await_output()
        self.writer_waits = True

    @rule()
    def take_events(self) -> None:
        for event in self.queue.take_events():
            if isinstance(event, DatagramReady):
                assert self.reader_waits
                self.reader_waits = False
            else:
                assert self.writer_waits
                self.writer_waits = False

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        told = self.queue._events
        if self.reader_waits and DatagramReady() not in told:
            assert not self.arrived
        if self.writer_waits and DatagramsTaken() not in told:
            assert self.leaving

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.queue.available == len(self.arrived)
        assert self.queue.queued == len(self.leaving)
        assert self.queue.dropped == self.dropped


TestRules = Rules.TestCase
TestRules.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
