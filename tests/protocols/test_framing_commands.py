"""Commands, the ends of the stream, and limits: what callers rely on besides the bytes."""

from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from helianthus.protocols.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from helianthus.protocols.framing import (
    CLOSING_OF_STATE,
    DEFAULT_MAX_FRAME_SIZE,
    TRANSITIONS,
    ConnectionLost,
    DelimiterFraming,
    EndOfStream,
    FixedSizeFraming,
    FrameReceived,
    FramingEvent,
    FramingInput,
    FramingState,
    LengthPrefix,
    LengthPrefixFraming,
    StreamFraming,
)
from helianthus.protocols.machine import Closing, ConnectionFailed, Outcome

Make = Callable[[], StreamFraming]

FRAMINGS: dict[str, Make] = {
    "length prefix": LengthPrefixFraming,
    "varint": lambda: LengthPrefixFraming(LengthPrefix.VARINT),
    "delimiter": lambda: DelimiterFraming(b"\r\n"),
    "fixed size": lambda: FixedSizeFraming(4),
}

every_framing = pytest.mark.parametrize("make", FRAMINGS.values(), ids=FRAMINGS.keys())


def wire_of(make: Make, *frames: bytes) -> bytes:
    writer = make()
    for frame in frames:
        writer.send_frame(frame)
    return b"".join(writer.take_data())


def snapshot(machine: StreamFraming) -> tuple[object, ...]:
    """All that a refused command must leave alone."""
    return (
        machine.state,
        machine.closing,
        machine.wants_read,
        machine.queued_output,
        machine.unfinished_input,
        machine.deadline(),
    )


def assert_refused(machine: StreamFraming, frame: bytes, words: str) -> None:
    before = snapshot(machine)
    with pytest.raises(LocalProtocolError, match=words):
        machine.send_frame(frame)
    assert snapshot(machine) == before
    assert machine.take_events() == []


# -- sending ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "frame", "words"),
    [
        (LengthPrefixFraming(max_frame_size=10), b"x" * 11, "11 bytes: max_frame_size is 10"),
        (LengthPrefixFraming(LengthPrefix.UINT8), b"x" * 256, "256 bytes: max_frame_size is 255"),
        (LengthPrefixFraming(LengthPrefix.UINT16_LE), b"x" * 65536, "max_frame_size is 65535"),
        (DelimiterFraming(max_frame_size=10), b"x" * 11, "11 bytes: max_frame_size is 10"),
        (DelimiterFraming(b"\n"), b"a\nb", r"hold the delimiter b'\\n'"),
        (DelimiterFraming(b"\r\n"), b"\r\n", "hold the delimiter"),
        (DelimiterFraming(b"aa"), b"ba", "once the delimiter follows"),
        (DelimiterFraming(b"aba"), b"ab", "once the delimiter follows"),
        (DelimiterFraming(b"abab"), b"xab", "once the delimiter follows"),
        (FixedSizeFraming(4), b"abc", "3 bytes: every frame has frame_size, 4"),
        (FixedSizeFraming(4), b"", "0 bytes: every frame has frame_size, 4"),
        (FixedSizeFraming(4), b"abcde", "5 bytes: max_frame_size is 4"),
    ],
)
def test_a_frame_that_the_framing_cannot_carry_is_refused(
    machine: StreamFraming, frame: bytes, words: str
) -> None:
    assert_refused(machine, frame, words)
    assert machine.take_data() == []


@pytest.mark.parametrize("delimiter", [b"\r\n", b"ab", b"abc"])
def test_a_frame_may_end_with_the_beginning_of_a_delimiter_without_a_border(delimiter: bytes) -> None:
    frame = b"x" + delimiter[:-1]
    wire = wire_of(lambda: DelimiterFraming(delimiter), frame, frame)
    reader = DelimiterFraming(delimiter)
    reader.receive_data(wire, 0.0)
    assert reader.take_events() == [FrameReceived(frame)] * 2


@every_framing
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_frame_is_copied_unless_it_is_bytes(make: Make, kind: Callable[[bytearray], Any]) -> None:
    machine = make()
    buffer = bytearray(b"abcd")
    machine.send_frame(kind(buffer))
    buffer[:] = b"ZZZZ"
    assert b"".join(machine.take_data()) == wire_of(make, b"abcd")


@pytest.mark.parametrize("framing", ["length prefix", "varint", "fixed size"])
def test_a_large_frame_is_handed_out_without_a_copy(framing: str) -> None:
    frame = bytes(100_000)
    machine = FixedSizeFraming(len(frame)) if framing == "fixed size" else FRAMINGS[framing]()
    machine.send_frame(frame)
    assert any(piece is frame for piece in machine.take_data())


@every_framing
@pytest.mark.parametrize("wrong", [None, 5, "abcd", [65] * 4])
def test_what_is_no_buffer_is_a_type_error_and_changes_nothing(make: Make, wrong: Any) -> None:
    machine = make()
    with pytest.raises(TypeError):
        machine.send_frame(wrong)
    assert machine.queued_output == 0


@every_framing
def test_output_is_bounded_until_it_is_taken(make: Make) -> None:
    one = len(wire_of(make, b"abcd"))
    machine = make()
    machine.max_queued_output = 3 * one  # the constructors want room for a frame of the largest size
    for _ in range(3):
        machine.send_frame(b"abcd")

    assert_refused(machine, b"abcd", rf"{3 * one} bytes wait to be sent, and max_queued_output is {3 * one}")

    assert b"".join(machine.take_data()) == wire_of(make, *[b"abcd"] * 3)
    machine.send_frame(b"abcd")
    assert machine.queued_output == one


@every_framing
@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda machine: machine.close(), r"close\(\) was called"),
        (lambda machine: (machine.receive_eof(0.0), machine.close()), r"close\(\) was called"),
        (lambda machine: machine.connection_lost(None, 0.0), "the connection is lost"),
        (lambda machine: (machine.close(), machine.connection_lost(None, 0.0)), "the connection is lost"),
        (lambda machine: (machine.receive_data(b"\1", 0.0), machine.receive_eof(0.0)), "the peer broke"),
    ],
)
def test_nothing_is_sent_after_the_end(
    make: Make, end: Callable[[StreamFraming], object], words: str
) -> None:
    machine = make()
    end(machine)
    machine.take_events()
    assert_refused(machine, b"abcd", words)


# -- the ends of the stream ------------------------------------------------------------------------


@every_framing
def test_close_sends_what_is_queued_and_goes_on_reading(make: Make) -> None:
    machine = make()
    machine.send_frame(b"abcd")
    machine.close()

    assert machine.closing is Closing.HALF
    assert b"".join(machine.take_data()) == wire_of(make, b"abcd")
    machine.receive_data(wire_of(make, b"efgh"), 0.0)
    assert machine.take_events() == [FrameReceived(b"efgh")]
    assert machine.wants_read

    machine.receive_eof(0.0)
    assert machine.take_events() == [EndOfStream()]
    assert machine.closing is Closing.FULL


@every_framing
def test_a_peer_that_has_ended_may_still_be_answered(make: Make) -> None:
    machine = make()
    machine.receive_eof(0.0)
    assert machine.take_events() == [EndOfStream()]
    assert machine.closing is Closing.OPEN
    assert not machine.wants_read

    machine.send_frame(b"abcd")
    machine.close()
    assert machine.closing is Closing.FULL
    assert b"".join(machine.take_data()) == wire_of(make, b"abcd")


@every_framing
def test_loss_drops_the_output_and_counts_what_was_cut_off(make: Make) -> None:
    machine = make()
    machine.send_frame(b"abcd")
    machine.receive_data(wire_of(make, b"efgh", b"ijkl")[:-3], 0.0)
    reset = ConnectionResetError("reset")
    held = machine.unfinished_input
    assert held > 0

    machine.connection_lost(reset, 0.0)

    assert machine.take_events() == [FrameReceived(b"efgh"), ConnectionLost(reset, unfinished=held)]
    assert machine.take_data() == []
    assert machine.queued_output == machine.unfinished_input == 0
    assert machine.closing is Closing.ABORT


@every_framing
def test_a_failure_keeps_the_output_until_the_transport_goes(make: Make) -> None:
    """FULL means that what is queued is sent before the link is closed."""
    machine = make()
    machine.send_frame(b"abcd")
    machine.receive_data(b"\1", 0.0)
    machine.receive_eof(0.0)
    assert machine.closing is Closing.FULL
    assert b"".join(machine.take_data()) == wire_of(make, b"abcd")

    machine = make()
    machine.send_frame(b"abcd")
    machine.receive_data(b"\1", 0.0)
    machine.receive_eof(0.0)
    machine.connection_lost(None, 0.0)
    assert machine.take_data() == []


def send_too_much(machine: StreamFraming) -> None:
    """More than may wait; refused where sending is over."""
    with pytest.raises(LocalProtocolError):
        for _ in range(3):
            machine.send_frame(bytes(16))


def bring_to(state: FramingState) -> StreamFraming:
    machine = LengthPrefixFraming(max_frame_size=16, max_queued_output=40, slow_consumer="disconnect")
    match state:
        case FramingState.CUT_OFF:
            send_too_much(machine)
        case FramingState.LOCAL_ENDED:
            machine.close()
        case FramingState.PEER_ENDED:
            machine.receive_eof(0.0)
        case FramingState.ENDED:
            machine.close()
            machine.receive_eof(0.0)
        case FramingState.FAILED:
            machine.receive_data(b"\xff" * 4, 0.0)
        case FramingState.LOST:
            machine.connection_lost(None, 0.0)
        case _:
            pass
    machine.take_events()
    assert machine.state is state
    return machine


INPUTS: dict[FramingInput, Callable[[StreamFraming], None]] = {
    FramingInput.CLOSE: lambda machine: machine.close(),
    FramingInput.EOF: lambda machine: machine.receive_eof(0.0),
    FramingInput.FAULT: lambda machine: machine.receive_data(b"\xff" * 4, 0.0),
    FramingInput.SLOW: send_too_much,
    FramingInput.LOSS: lambda machine: machine.connection_lost(None, 0.0),
}

EVENT_OF_INPUT: dict[FramingInput, type[FramingEvent] | None] = {
    FramingInput.CLOSE: None,
    FramingInput.EOF: EndOfStream,
    FramingInput.FAULT: ConnectionFailed,
    FramingInput.SLOW: ConnectionFailed,
    FramingInput.LOSS: ConnectionLost,
}


@pytest.mark.parametrize(
    ("state", "given"),
    list(itertools.product(FramingState, FramingInput)),
    ids=lambda value: value.name,
)
def test_every_state_with_every_input_follows_the_table(state: FramingState, given: FramingInput) -> None:
    machine = bring_to(state)
    INPUTS[given](machine)

    moved = TRANSITIONS.get((state, given))
    expected = EVENT_OF_INPUT[given]
    assert machine.state is (moved or state)
    assert machine.closing is CLOSING_OF_STATE[machine.state]
    assert [type(event) for event in machine.take_events()] == ([expected] if moved and expected else [])

    INPUTS[given](machine)  # once more: each of them is heard once
    assert machine.state is (moved or state)
    assert machine.take_events() == []


def test_the_table_lets_every_state_be_reached_and_lost() -> None:
    assert set(TRANSITIONS.values()) == set(FramingState) - {FramingState.OPEN}
    assert set(CLOSING_OF_STATE) == set(FramingState)
    final = {FramingState.FAILED, FramingState.CUT_OFF, FramingState.LOST}
    assert {state for state, given in TRANSITIONS if given is FramingInput.LOSS} == set(FramingState) - final


# -- the rest of the contract ----------------------------------------------------------------------


@every_framing
def test_a_framing_has_no_time_and_no_actions(make: Make) -> None:
    machine = make()
    before = snapshot(machine)
    for now in (-1.0, 0.0, 1e9, math.inf):
        machine.handle_timeout(now)
        assert machine.deadline() is None
    assert machine.take_actions() == []
    with pytest.raises(LocalProtocolError, match="action 7"):
        machine.complete(7, Outcome(), 0.0)
    assert snapshot(machine) == before


@every_framing
def test_empty_input_is_nothing(make: Make) -> None:
    machine = make()
    machine.receive_data(b"", 0.0)
    machine.receive_data(memoryview(b""), 0.0)
    assert machine.take_events() == []
    assert machine.state is FramingState.OPEN


@every_framing
def test_undrained_events_stop_the_reading(make: Make) -> None:
    machine = make()
    wire = wire_of(make, b"abcd")
    machine.max_undrained_input = 10 * len(wire)
    for _ in range(10):
        assert machine.wants_read
        machine.receive_data(wire, 0.0)
    assert not machine.wants_read

    assert machine.take_events() == [FrameReceived(b"abcd")] * 10
    assert machine.wants_read
    machine.receive_data(wire, 0.0)  # counted from the drain on
    assert machine.wants_read


def test_a_frame_larger_than_the_undrained_limit_comes_in() -> None:
    """Nothing can be drained before it is whole, so it must not stop the reading."""
    machine = LengthPrefixFraming(max_undrained_input=10)
    wire = wire_of(LengthPrefixFraming, bytes(1000))
    for at in range(0, len(wire), 100):
        assert machine.wants_read
        machine.receive_data(wire[at : at + 100], 0.0)
    assert not machine.wants_read
    assert machine.take_events() == [FrameReceived(bytes(1000))]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DelimiterFraming(b""), "delimiter is empty"),
        (lambda: DelimiterFraming(max_frame_size=0), "max_frame_size is 0 bytes"),
        (lambda: LengthPrefixFraming(max_frame_size=0), "max_frame_size is 0 bytes"),
        (lambda: LengthPrefixFraming(LengthPrefix.VARINT, max_frame_size=-5), "max_frame_size is -5 bytes"),
        (lambda: LengthPrefixFraming(max_undrained_input=0), "max_undrained_input is 0 bytes"),
        (lambda: FixedSizeFraming(0), "frame_size is 0 bytes"),
        (lambda: FixedSizeFraming(11, max_frame_size=10), "frame_size is 11 bytes.* max_frame_size, 10"),
        (lambda: LengthPrefixFraming(max_frame_size=100, max_queued_output=103), "takes 104 on the wire"),
        (lambda: DelimiterFraming(b"\r\n", max_frame_size=100, max_queued_output=101), "takes 102 on"),
        (lambda: FixedSizeFraming(100, max_queued_output=99), "takes 100 on the wire"),
    ],
)
def test_limits_out_of_range_are_named(make: Make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_a_queue_of_one_largest_frame_is_enough_to_send_it() -> None:
    machine = LengthPrefixFraming(max_frame_size=100, max_queued_output=104)
    machine.send_frame(bytes(100))
    assert machine.queued_output == 104


def test_errors_name_the_peer_they_were_given() -> None:
    machine = LengthPrefixFraming(peer="192.0.2.1:7000")
    machine.receive_data(b"\xff" * 4, 0.0)
    (event,) = machine.take_events()
    assert isinstance(event, ConnectionFailed)
    assert str(event.error).startswith("192.0.2.1:7000 announced a frame of 4294967295 bytes")


# -- memory and time ---------------------------------------------------------------------------------


def growth(action: Callable[[], None]) -> int:
    """Bytes that Python's own allocator holds at most during `action`, more than before it."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        action()
        _, peak = tracemalloc.get_traced_memory()
        return peak - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "make",
    [
        lambda: LengthPrefixFraming(LengthPrefix.UINT64_BE),
        lambda: LengthPrefixFraming(LengthPrefix.UINT32_LE),
        lambda: LengthPrefixFraming(LengthPrefix.VARINT),
    ],
)
def test_an_announced_frame_takes_no_memory_before_it_comes(make: Make) -> None:
    machine = make()
    wire = wire_of(make, bytes(DEFAULT_MAX_FRAME_SIZE))[:100]
    assert growth(lambda: machine.receive_data(wire, 0.0)) < 10_000
    assert machine.unfinished_input == 100


@every_framing
def test_input_after_a_failure_takes_no_memory(make: Make) -> None:
    machine = make()
    machine.receive_data(b"\1", 0.0)
    machine.receive_eof(0.0)
    junk = bytes(1_000_000)

    def flood() -> None:
        for _ in range(100):
            machine.receive_data(junk, 0.0)

    assert growth(flood) < 10_000
    (event,) = machine.take_events()
    assert isinstance(event, ConnectionFailed)
    assert type(event.error) is RemoteProtocolError


def test_a_line_without_end_is_refused_at_the_limit() -> None:
    machine = DelimiterFraming(b"\r\n", max_frame_size=10_000)

    def flood() -> None:
        for _ in range(1000):
            machine.receive_data(b"x" * 1000, 0.0)

    assert growth(flood) < 50_000
    (event,) = machine.take_events()
    assert isinstance(event, ConnectionFailed)
    assert isinstance(event.error, LimitExceeded)


LARGE = 2 * 1024 * 1024
PIECE = 64


def seconds(make: Make, wire: bytes) -> float:
    """Processor time to take `wire` in small pieces, the best of three."""

    def once() -> float:
        machine = make()
        start = time.process_time()
        for at in range(0, len(wire), PIECE):
            machine.receive_data(wire[at : at + PIECE], 0.0)
        spent = time.process_time() - start
        assert sum(len(event.frame) for event in machine.take_events() if type(event) is FrameReceived) > 0
        return spent

    return min(once() for _ in range(3))


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (LengthPrefixFraming, LengthPrefixFraming),
        (lambda: LengthPrefixFraming(LengthPrefix.VARINT), lambda: LengthPrefixFraming(LengthPrefix.VARINT)),
        (lambda: DelimiterFraming(b"\r\n"), lambda: DelimiterFraming(b"\r\n", max_frame_size=LARGE)),
        (lambda: FixedSizeFraming(PIECE), lambda: FixedSizeFraming(LARGE)),
    ],
    ids=FRAMINGS.keys(),
)
def test_a_large_frame_in_small_pieces_takes_linear_time(small: Make, large: Make) -> None:
    """The same bytes in as many pieces, as one frame and as many: about as dear. Were what is held
    copied or searched again with each piece, the one frame would cost hundreds of times as much."""
    one = wire_of(large, b"x" * LARGE)
    one_small = wire_of(small, b"x" * PIECE)
    many = one_small * (LARGE // len(one_small))

    assert seconds(large, one) < 20 * seconds(small, many)
