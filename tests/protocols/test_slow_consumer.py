"""What framings do when the peer takes less than it is sent; whole frames only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helianthus.protocols.errors import LocalProtocolError, SlowConsumer
from helianthus.protocols.framing import (
    DelimiterFraming,
    FixedSizeFraming,
    FrameReceived,
    LengthPrefixFraming,
    StreamFraming,
)
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.slow_consumer import DroppingQueue, SlowConsumerPolicy


def small(policy: Any) -> LengthPrefixFraming:
    """Room for two frames of eight bytes."""
    return LengthPrefixFraming(
        max_frame_size=16, max_queued_output=24, slow_consumer=policy, peer="10.0.0.1:9"
    )


def frames(data: bytes, make: type[StreamFraming] | Any = LengthPrefixFraming) -> list[bytes]:
    reader = make()
    reader.receive_data(data, 0.0)
    events = reader.take_events()
    assert reader.unfinished_input == 0, "a frame was cut"
    assert all(isinstance(event, FrameReceived) for event in events)
    return [bytes(event.frame) for event in events]


def test_block_refuses_what_is_too_much() -> None:
    machine = small("block")
    for number in range(2):
        machine.send_frame(b"number %d" % number)
    with pytest.raises(LocalProtocolError, match="max_queued_output is 24; wait until the peer has taken"):
        machine.send_frame(b"number 2")
    assert machine.closing is Closing.OPEN
    assert frames(b"".join(machine.take_data())) == [b"number 0", b"number 1"]
    machine.send_frame(b"number 2")
    assert machine.dropped_messages == 0


def test_drop_oldest_keeps_the_newest() -> None:
    machine = small("drop-oldest")
    for number in range(10):
        machine.send_frame(b"number %d" % number)
        assert machine.queued_output <= 24
    assert machine.dropped_messages == 8
    assert frames(b"".join(machine.take_data())) == [b"number 8", b"number 9"]
    assert machine.queued_output == 0
    machine.send_frame(b"number X")
    assert frames(b"".join(machine.take_data())) == [b"number X"]


def test_one_large_frame_takes_the_place_of_several() -> None:
    machine = small(SlowConsumerPolicy.DROP_OLDEST)
    for number in range(3):
        machine.send_frame(b"%d" % number)
    machine.send_frame(bytes(16))
    assert machine.dropped_messages == 3
    assert frames(b"".join(machine.take_data())) == [bytes(16)]


def test_disconnect_names_the_limit() -> None:
    machine = small("disconnect")
    machine.send_frame(b"number 0")
    machine.send_frame(b"number 1")
    with pytest.raises(LocalProtocolError, match="max_queued_output is 24"):
        machine.send_frame(b"number 2")
    (event,) = machine.take_events()
    assert isinstance(event, ConnectionFailed)
    error = event.error
    assert isinstance(error, SlowConsumer)
    assert (error.limit, error.maximum) == ("max_queued_output", 24)
    assert "10.0.0.1:9 is a slow consumer: 24 bytes wait" in str(error)
    assert machine.closing is Closing.ABORT
    assert machine.take_data() == []
    assert machine.queued_output == 0
    with pytest.raises(LocalProtocolError, match="was a slow consumer"):
        machine.send_frame(b"number 3")


def test_a_peer_that_has_ended_its_half_is_cut_off_too() -> None:
    machine = small("disconnect")
    machine.receive_eof(0.0)
    machine.take_events()
    with pytest.raises(LocalProtocolError):
        for _ in range(3):
            machine.send_frame(b"number 0")
    (event,) = machine.take_events()
    assert isinstance(event, ConnectionFailed)


def test_what_waits_goes_with_the_connection() -> None:
    machine = small("drop-oldest")
    machine.send_frame(b"number 0")
    machine.connection_lost(None, 0.0)
    assert machine.queued_output == 0
    assert machine.take_data() == []


def test_an_unknown_policy() -> None:
    with pytest.raises(
        ValueError, match="slow_consumer must be one of block, drop-oldest, disconnect, got 'x'"
    ):
        small("x")


@pytest.mark.parametrize(
    "make",
    [
        lambda: LengthPrefixFraming(max_frame_size=8, max_queued_output=40, slow_consumer="drop-oldest"),
        lambda: DelimiterFraming(
            b"\r\n", max_frame_size=8, max_queued_output=40, slow_consumer="drop-oldest"
        ),
        lambda: FixedSizeFraming(8, max_queued_output=40, slow_consumer="drop-oldest"),
    ],
    ids=["length prefix", "delimiter", "fixed size"],
)
@given(takes=st.lists(st.booleans(), max_size=60))
def test_whole_frames_in_order(make: Any, takes: list[bool]) -> None:
    """Whatever the rhythm in which the transport takes, what arrives are whole frames, the newest last."""
    machine = make()
    wire = b""
    sent = []
    for number, taken in enumerate(takes):
        frame = b"%08d" % number
        machine.send_frame(frame)
        sent.append(frame)
        if taken:
            wire += b"".join(machine.take_data())
        assert machine.queued_output <= 40
    wire += b"".join(machine.take_data())
    arrived = frames(wire, make)
    assert arrived == sorted(arrived)
    assert len(arrived) + machine.dropped_messages == len(sent)
    assert arrived[-1:] == sent[-1:]


@given(st.lists(st.integers(0, 30), max_size=50), st.integers(1, 60))
def test_the_queue_is_bounded_and_counts(sizes: list[int], limit: int) -> None:
    queue = DroppingQueue()
    for size in sizes:
        queue.add((bytes(size),), size, limit)
        assert queue.size <= max(limit, size)
    kept = len(queue)
    assert kept + queue.dropped == len(sizes)
    assert list(map(len, queue.take())) == sizes[len(sizes) - kept :]
    assert queue.size == len(queue) == 0
