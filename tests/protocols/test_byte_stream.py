"""The machine behind a stream socket: cases by hand. (Random orders: `test_byte_stream_rules.py`.)"""

from __future__ import annotations

import pytest

from helianthus.protocols.byte_stream import (
    BYTE_STREAM_TRANSITIONS,
    ByteStream,
    ByteStreamInput,
    ByteStreamLimits,
    ByteStreamState,
    InputExpired,
    InputReady,
    OutputExpired,
    OutputTaken,
    Shortfall,
)
from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Closing, Outcome

SMALL = ByteStreamLimits(high_water=10, low_water=4, max_queued_output=8)


def with_input(*pieces: bytes, limits: ByteStreamLimits | None = None) -> ByteStream:
    stream = ByteStream(limits)
    for piece in pieces:
        stream.receive_data(piece, 0.0)
    return stream


# -- reading -----------------------------------------------------------------------------------------------


def test_taking_what_is_there() -> None:
    stream = with_input(b"hello world")
    assert stream.take_some(5) == b"hello"
    assert stream.take_exactly(1) == b" "
    assert stream.take_exactly(6) is None
    assert stream.available == 5
    assert stream.take_exactly(5) == b"world"
    assert (stream.take_some(5), stream.shortfall) == (b"", Shortfall.NOT_YET)
    assert stream.taken == 11


def test_taking_up_to_a_delimiter() -> None:
    stream = with_input(b"one\ntwo\nthr")
    assert stream.take_until(b"\n", 100) == b"one\n"
    assert stream.take_until(b"\n", 4) == b"two\n"
    assert (stream.take_until(b"\n", 100), stream.shortfall) == (None, Shortfall.NOT_YET)
    assert (stream.take_until(b"\n", 3), stream.shortfall) == (None, Shortfall.TOO_LONG)
    stream.receive_data(b"ee\n", 0.0)
    assert (stream.take_until(b"\n", 5), stream.shortfall) == (None, Shortfall.TOO_LONG)
    assert stream.take_until(b"\n", 6) == b"three\n"


def test_a_reader_is_told_once_when_it_can_go_on() -> None:
    stream = ByteStream()
    for pieces, take in (
        ([b"x"], lambda: stream.take_some(9)),
        ([b"a", b"b", b"c"], lambda: stream.take_exactly(3)),
        ([b"line", b"\r", b"\n"], lambda: stream.take_until(b"\r\n", 99)),
        ([b"12345", b"678"], lambda: stream.take_until(b"\n", 8)),
    ):
        assert not take()
        stream.await_input()
        for piece in pieces[:-1]:
            stream.receive_data(piece, 0.0)
            assert stream.take_events() == []
        stream.receive_data(pieces[-1], 0.0)
        assert stream.take_events() == [InputReady()]
        stream.receive_data(b"", 0.0)
        assert stream.take_events() == []
        assert take() or stream.take_exactly(8) == b"12345678"


def test_a_reader_is_told_at_once_of_what_is_there() -> None:
    stream = with_input(b"abc")
    assert stream.take_exactly(4) is None
    stream.receive_data(b"d", 0.0)
    stream.await_input()
    assert stream.take_events() == [InputReady()]


def test_the_end_of_the_stream_comes_behind_its_bytes() -> None:
    stream = with_input(b"last")
    assert stream.take_exactly(5) is None
    stream.await_input()
    stream.receive_eof(0.0)
    assert stream.take_events() == [InputReady()]
    assert (stream.take_exactly(5), stream.shortfall) == (None, Shortfall.ENDED)
    assert (stream.take_until(b"\n", 9), stream.shortfall) == (None, Shortfall.ENDED)
    assert stream.take_some(9) == b"last"
    assert (stream.take_some(9), stream.shortfall) == (b"", Shortfall.ENDED)
    stream.connection_lost(ConnectionError(), 0.0)
    assert (stream.take_some(9), stream.shortfall) == (b"", Shortfall.ENDED)


def test_a_loss_comes_behind_the_bytes_before_it() -> None:
    stream = with_input(b"last")
    error = ConnectionError("gone")
    stream.connection_lost(error, 0.0)
    assert stream.take_some(9) == b"last"
    assert (stream.take_some(9), stream.shortfall, stream.loss) == (b"", Shortfall.LOST, error)
    assert stream.closing is Closing.ABORT
    stream.receive_data(b"from nowhere", 0.0)
    stream.receive_eof(0.0)
    stream.connection_lost(None, 0.0)
    assert (stream.take_some(9), stream.loss) == (b"", error)


def test_reading_pauses_between_the_watermarks() -> None:
    stream = with_input(b"123456789", limits=SMALL)
    assert stream.wants_read
    stream.receive_data(b"0", 0.0)
    assert not stream.wants_read
    assert stream.take_some(5) == b"12345"
    assert not stream.wants_read
    assert stream.take_some(1) == b"6"
    assert stream.wants_read


def test_a_waiting_reader_reads_on_above_the_high_watermark() -> None:
    stream = with_input(b"1234567890", limits=SMALL)
    assert stream.take_exactly(25) is None
    assert not stream.wants_read
    stream.await_input()
    assert stream.wants_read
    stream.receive_data(b"1234567890", 0.0)
    assert stream.wants_read
    stream.receive_data(b"12345", 0.0)
    assert not stream.wants_read
    assert stream.take_events() == [InputReady()]
    assert stream.take_exactly(25) is not None
    assert stream.wants_read


def test_a_reader_that_gives_up_leaves_everything() -> None:
    stream = with_input(b"abc", limits=SMALL)
    assert stream.take_exactly(5) is None
    stream.await_input(deadline=3.0)
    assert stream.deadline() == 3.0
    stream.receive_data(b"def", 0.0)
    stream.stop_awaiting_input()
    assert stream.take_events() == []  # the event was for one who has gone
    assert stream.deadline() is None
    assert stream.take_exactly(6) == b"abcdef"


def test_times_of_reader_and_writer() -> None:
    stream = ByteStream()
    assert stream.take_some(1) == b""
    stream.queue(b"x")
    stream.await_input(5.0)
    stream.await_output(3.0)
    assert stream.deadline() == 3.0
    stream.handle_timeout(2.9)
    assert stream.take_events() == []
    stream.handle_timeout(3.0)
    assert stream.take_events() == [OutputExpired()]
    assert stream.deadline() == 5.0
    stream.handle_timeout(9.0)
    assert stream.take_events() == [InputExpired()]
    assert stream.deadline() is None
    stream.receive_data(b"late", 9.0)
    assert stream.take_events() == []
    assert stream.take_data() == [b"x"]
    stream.await_output(12.0)
    assert stream.take_events() == [OutputTaken()]
    assert stream.deadline() is None


def test_a_second_reader_is_a_mistake() -> None:
    stream = ByteStream()
    stream.await_input()
    with pytest.raises(LocalProtocolError, match="one at a time"):
        stream.await_input()


# -- writing -------------------------------------------------------------------------------------------------


def test_queueing_takes_what_there_is_room_for() -> None:
    stream = ByteStream(SMALL)
    assert stream.queue(b"12345") == 5
    assert stream.queue(b"67890") == 3
    assert stream.queue(b"x") == 0
    assert (stream.room, stream.queued, stream.accepted) == (0, 8, 8)
    assert b"".join(stream.take_data()) == b"12345678"
    assert (stream.room, stream.queued, stream.accepted) == (8, 0, 8)
    assert stream.take_data() == []


def test_what_is_queued_is_not_copied_unless_it_may_change() -> None:
    stream = ByteStream()
    data, changing = b"x" * 100, bytearray(b"abcdef")
    stream.queue(data)
    stream.queue(memoryview(data)[50:])
    stream.queue(changing)
    stream.queue(memoryview(changing)[2:])
    changing[:] = b"......"
    first, second, *rest = stream.take_data()
    assert first is data
    assert isinstance(second, memoryview)
    assert second.obj is data
    assert rest == [b"abcdef", b"cdef"]


def test_a_view_of_wider_items_is_counted_in_bytes() -> None:
    stream = ByteStream(SMALL)
    assert stream.queue(memoryview(bytes(12)).cast("i")) == 8


def test_a_writer_is_told_when_all_is_taken() -> None:
    stream = ByteStream(SMALL)
    stream.queue(b"12345678")
    stream.await_output()
    stream.await_output(4.0)
    assert stream.take_events() == []
    stream.take_data()
    assert stream.take_events() == [OutputTaken()]
    stream.queue(b"1")
    stream.await_output()
    stream.stop_awaiting_output()
    stream.take_data()
    assert stream.take_events() == []


def test_a_writer_is_told_of_a_loss() -> None:
    stream = ByteStream(SMALL)
    stream.queue(b"12345678")
    stream.await_output()
    stream.connection_lost(None, 0.0)
    assert stream.take_events() == [OutputTaken()]
    assert (stream.sends, stream.queued, stream.take_data()) == (False, 0, [])


def test_ending_our_direction() -> None:
    stream = with_input(b"abc")
    stream.queue(b"bye")
    stream.end()
    stream.end()
    assert stream.closing is Closing.HALF
    with pytest.raises(LocalProtocolError, match=r"end\(\) was called"):
        stream.queue(b"more")
    assert stream.take_data() == [b"bye"]
    stream.receive_data(b"def", 0.0)
    stream.receive_eof(0.0)
    assert stream.closing is Closing.FULL
    assert stream.take_exactly(6) == b"abcdef"


def test_closing_drops_what_was_not_taken() -> None:
    stream = with_input(b"abc")
    assert stream.take_exactly(9) is None
    stream.await_input()
    stream.queue(b"bye")
    stream.close()
    stream.close()
    assert stream.take_events() == [InputReady()]
    assert (stream.closing, stream.available, stream.wants_read) == (Closing.FULL, 0, False)
    assert stream.take_data() == [b"bye"]
    stream.receive_data(b"def", 0.0)
    assert stream.available == 0
    with pytest.raises(LocalProtocolError, match=r"close\(\) was called"):
        stream.queue(b"more")


# -- the contract ---------------------------------------------------------------------------------------


def test_every_state_against_the_table() -> None:
    def act(stream: ByteStream, cause: ByteStreamInput) -> None:
        if cause is ByteStreamInput.END:
            stream.end()
        elif cause is ByteStreamInput.EOF:
            stream.receive_eof(0.0)
        elif cause is ByteStreamInput.CLOSE:
            stream.close()
        else:
            stream.connection_lost(None, 0.0)

    paths: dict[ByteStreamState, list[ByteStreamInput]] = {ByteStreamState.OPEN: []}
    for (start, cause), end in BYTE_STREAM_TRANSITIONS.items():
        paths.setdefault(end, [*paths[start], cause])
    for state, path in paths.items():
        for cause in ByteStreamInput:
            stream = ByteStream()
            for step in path:
                act(stream, step)
            assert stream.state is state
            act(stream, cause)
            assert stream.state is BYTE_STREAM_TRANSITIONS.get((state, cause), state)


@pytest.mark.parametrize(
    ("name", "value"),
    [("high_water", 0), ("low_water", -1), ("max_queued_output", 0), ("low_water", 256 * 1024)],
)
def test_limits_out_of_range(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        ByteStreamLimits(**{name: value})


def test_there_are_no_actions() -> None:
    stream = ByteStream()
    assert stream.take_actions() == []
    with pytest.raises(LocalProtocolError, match="action 3"):
        stream.complete(3, Outcome(), 0.0)
