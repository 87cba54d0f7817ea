"""Case tables: each runs through the writer, and through the reader whole, byte by byte, cut in
two at every place, and with more behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
import pytest

from helianthus.protocols.errors import LimitExceeded, RemoteProtocolError
from helianthus.protocols.framing import (
    DelimiterFraming,
    EndOfStream,
    FixedSizeFraming,
    FrameReceived,
    FramingState,
    LengthPrefix,
    LengthPrefixFraming,
    StreamFraming,
    encode_varint,
)
from helianthus.protocols.machine import Buffer, Closing, ConnectionFailed

Make = Callable[[], StreamFraming]

UINT8, UINT16_BE, UINT16_LE, UINT32_BE, UINT32_LE, UINT64_BE, UINT64_LE, VARINT = LengthPrefix

TOO_LARGE = LimitExceeded
NOT_ALLOWED = RemoteProtocolError


def length(prefix: LengthPrefix, limit: int = 1000) -> Make:
    return lambda: LengthPrefixFraming(prefix, max_frame_size=limit)


def delimiter(end: bytes, limit: int = 1000) -> Make:
    return lambda: DelimiterFraming(end, max_frame_size=limit)


def fixed(size: int) -> Make:
    return lambda: FixedSizeFraming(size)


@attrs.define
class Case:
    """Frames, the bytes they are on the wire, and the beginning of one more frame."""

    name: str
    make: Make
    frames: list[bytes]
    wire: bytes
    begun: bytes


CASES = [
    Case("uint8", length(UINT8), [b"ab", b"", b"c"], b"\x02ab\x00\x01c", b"\x05x"),
    Case("uint8 full", length(UINT8), [b"z" * 255], b"\xff" + b"z" * 255, b"\x01"),
    Case("uint16 BE", length(UINT16_BE), [b"ab", b"y" * 258], b"\0\2ab\1\2" + b"y" * 258, b"\0"),
    Case("uint16 LE", length(UINT16_LE), [b"ab", b"y" * 258], b"\2\0ab\2\1" + b"y" * 258, b"\7\0"),
    Case(
        "uint32 BE", length(UINT32_BE), [b"ab", b"", b"c"], b"\0\0\0\2ab" + bytes(4) + b"\0\0\0\1c", b"\0\0\0"
    ),
    Case("uint32 LE", length(UINT32_LE), [b"ab", b"c"], b"\2\0\0\0ab\1\0\0\0c", b"\1\0\0\0"),
    Case("uint64 BE", length(UINT64_BE), [b"ab", b""], bytes(7) + b"\2ab" + bytes(8), bytes(7) + b"\3ab"),
    Case("uint64 LE", length(UINT64_LE), [b"ab"], b"\2" + bytes(7) + b"ab", b"\2" + bytes(6)),
    Case("varint", length(VARINT), [b"ab", b"", b"y" * 127], b"\2ab\0\x7f" + b"y" * 127, b"\3a"),
    Case(
        "varint, two bytes",
        length(VARINT),
        [b"y" * 128, b"z" * 300],
        b"\x80\1" + b"y" * 128 + b"\xac\2" + b"z" * 300,
        b"\x80",
    ),
    Case(
        "varint, three bytes",
        length(VARINT, 20000),
        [b"y" * 16384, b"z"],
        b"\x80\x80\1" + b"y" * 16384 + b"\1z",
        b"\x80\x80",
    ),
    Case("lines", delimiter(b"\n"), [b"GET", b"", b"x\r"], b"GET\n\nx\r\n", b"un"),
    Case("CRLF", delimiter(b"\r\n"), [b"a\rb\nc", b"", b"d\r"], b"a\rb\nc\r\n\r\nd\r\r\n", b"e\r"),
    Case(
        "delimiter with a border",
        delimiter(b"aba"),
        [b"c", b"", b"xa", b"bb"],
        b"caba" + b"aba" + b"xaaba" + b"bbaba",
        b"ab",
    ),
    Case(
        "delimiter longer than frames",
        delimiter(b"0123456789"),
        [b"", b"a", b"0123"],
        b"0123456789a01234567890123" + b"0123456789",
        b"012345678",
    ),
    Case("line at the limit", delimiter(b"\n", 10), [b"x" * 10], b"x" * 10 + b"\n", b"y" * 10),
    Case(
        "long delimiter at the limit",
        delimiter(b"\r\n\r\n", 10),
        [b"x" * 10],
        b"x" * 10 + b"\r\n\r\n",
        b"y" * 10 + b"\r\n\r",
    ),
    Case("varint at the limit", length(VARINT, 200), [b"x" * 200], b"\xc8\1" + b"x" * 200, b"\xc8\1"),
    Case("NUL", delimiter(b"\0"), [bytes([200]) * 3], b"\xc8\xc8\xc8\0", b"\xc8"),
    Case("fixed 1", fixed(1), [b"a", b"b"], b"ab", b""),
    Case("fixed 3", fixed(3), [b"abc", b"def"], b"abcdef", b"gh"),
]

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@attrs.define
class Fault:
    """Good frames, then bytes that the framing refuses, and words of the error."""

    name: str
    make: Make
    frames: list[bytes]
    wire: bytes
    error: type[RemoteProtocolError]
    words: str


FAULTS = [
    Fault("uint8 over the limit", length(UINT8, 10), [b"ok"], b"\2ok\x0b", TOO_LARGE, "frame of 11 bytes"),
    Fault("uint16 BE over the limit", length(UINT16_BE, 10), [], b"\1\0", TOO_LARGE, "frame of 256 bytes"),
    Fault(
        "uint32 LE over the limit",
        length(UINT32_LE, 10),
        [b""],
        bytes(4) + b"\x0b\0\0\0",
        TOO_LARGE,
        "frame of 11 bytes",
    ),
    Fault(
        "uint64 BE, all ones",
        length(UINT64_BE, 10),
        [],
        b"\xff" * 8,
        TOO_LARGE,
        "frame of 18446744073709551615 bytes",
    ),
    Fault("varint over the limit", length(VARINT, 10), [b"a"], b"\1a\x0b", TOO_LARGE, "frame of 11 bytes"),
    Fault(
        "varint over the limit, two bytes",
        length(VARINT, 200),
        [],
        b"\xc9\1",
        TOO_LARGE,
        "frame of 201 bytes",
    ),
    Fault(
        "varint over the limit, three bytes",
        length(VARINT, 20000),
        [],
        b"\xa1\x9c\1",
        TOO_LARGE,
        "frame of 20001 bytes",
    ),
    Fault(
        "endless varint", length(VARINT, 20000), [b""], b"\0\xff\xff\xff", TOO_LARGE, "longer than 3 bytes"
    ),
    Fault(
        "varint of more bytes than the limit needs",
        length(VARINT, 10),
        [],
        b"\x80",
        TOO_LARGE,
        "longer than 1 bytes",
    ),
    Fault("zero in two bytes", length(VARINT, 200), [b"a"], b"\1a\x80\0", NOT_ALLOWED, "80 00"),
    Fault("five in three bytes", length(VARINT, 20000), [], b"\x85\x80\0", NOT_ALLOWED, "85 80 00"),
    Fault(
        "a line over the limit",
        delimiter(b"\n", 10),
        [b"a"],
        b"a\n" + b"b" * 11 + b"\n",
        TOO_LARGE,
        "11 bytes",
    ),
    Fault("no end of line", delimiter(b"\n", 10), [], b"b" * 11, TOO_LARGE, "11 bytes without the delimiter"),
    Fault(
        "long delimiter that does not come",
        delimiter(b"\r\n\r\n", 10),
        [b""],
        b"\r\n\r\n" + b"b" * 14,
        TOO_LARGE,
        "without the delimiter",
    ),
    Fault(
        "frame over the limit, long delimiter",
        delimiter(b"\r\n\r\n", 10),
        [],
        b"b" * 11 + b"\r\n\r\n",
        TOO_LARGE,
        "11 bytes",
    ),
]

faults = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


def feed(machine: StreamFraming, pieces: Iterable[Buffer]) -> StreamFraming:
    for piece in pieces:
        machine.receive_data(piece, 0.0)
    return machine


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def received(frames: Iterable[bytes]) -> list[FrameReceived]:
    return [FrameReceived(frame) for frame in frames]


@cases
def test_writer(case: Case) -> None:
    machine = case.make()
    for frame in case.frames:
        machine.send_frame(frame)

    assert machine.queued_output == len(case.wire)
    assert b"".join(machine.take_data()) == case.wire
    assert machine.queued_output == 0
    assert machine.take_data() == []


@cases
def test_reader_whole(case: Case) -> None:
    machine = feed(case.make(), [case.wire])
    assert machine.take_events() == received(case.frames)
    assert machine.take_events() == []


@cases
def test_reader_byte_by_byte(case: Case) -> None:
    assert feed(case.make(), one_by_one(case.wire)).take_events() == received(case.frames)


@cases
def test_reader_cut_in_two_anywhere(case: Case) -> None:
    for cut in range(0, len(case.wire) + 1, max(1, len(case.wire) // 500)):
        machine = feed(case.make(), [case.wire[:cut], case.wire[cut:]])
        assert machine.take_events() == received(case.frames), f"cut at {cut}"


@cases
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_the_caller_may_reuse_its_buffer(case: Case, kind: Callable[[bytes], Buffer], size: int) -> None:
    machine = case.make()
    for at in range(0, len(case.wire), size):
        buffer = bytearray(case.wire[at : at + size])
        if kind is memoryview:
            machine.receive_data(memoryview(buffer), 0.0)
        else:
            machine.receive_data(kind(buffer) if kind is bytes else buffer, 0.0)
        buffer[:] = b"\xee" * len(buffer)
        buffer.clear()  # a BufferError here would mean that a view of it was kept
    events = machine.take_events()
    assert events == received(case.frames)
    assert all(type(event.frame) is bytes for event in events if isinstance(event, FrameReceived))


@cases
def test_a_frame_begun_behind_waits_for_its_rest(case: Case) -> None:
    machine = feed(case.make(), [case.wire + case.begun])
    assert machine.take_events() == received(case.frames)
    assert machine.unfinished_input == len(case.begun)
    assert machine.wants_read


@cases
@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
def test_end_of_stream_between_frames_and_within_one(case: Case, split: bool) -> None:
    data = case.wire + case.begun
    machine = feed(case.make(), one_by_one(data) if split else [data])
    machine.receive_eof(0.0)

    *before, last = machine.take_events()
    assert before == received(case.frames)
    if not case.begun:
        assert last == EndOfStream()
        return
    assert isinstance(last, ConnectionFailed)
    assert type(last.error) is RemoteProtocolError
    assert f"{len(case.begun)} bytes into a frame, which is truncated" in str(last.error)
    assert machine.closing is Closing.FULL


@cases
def test_end_of_stream_after_whole_frames(case: Case) -> None:
    machine = feed(case.make(), one_by_one(case.wire))
    machine.receive_eof(0.0)
    assert machine.take_events() == [*received(case.frames), EndOfStream()]
    assert machine.state is FramingState.PEER_ENDED


@faults
@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("junk", [b"", b"\0junk\n" * 50], ids=["alone", "junk behind"])
def test_a_peers_fault_is_the_last_event(fault: Fault, split: bool, junk: bytes) -> None:
    data = fault.wire + junk
    machine = feed(fault.make(), one_by_one(data) if split else [data])

    *before, last = machine.take_events()
    assert before == received(fault.frames)
    assert isinstance(last, ConnectionFailed)
    assert type(last.error) is fault.error
    if not split and not junk:  # other cuts see the same fault at another byte
        assert fault.words in str(last.error)
    assert machine.state is FramingState.FAILED
    assert machine.closing is Closing.FULL
    assert not machine.wants_read
    assert machine.unfinished_input == 0


@faults
def test_after_a_fault_all_input_is_ignored(fault: Fault) -> None:
    machine = feed(fault.make(), [fault.wire])
    machine.take_events()

    feed(machine, [b"\1a\n" * 1000, b"\0"])
    machine.receive_eof(1.0)
    machine.connection_lost(None, 2.0)

    assert machine.take_events() == []
    assert machine.state is FramingState.FAILED
    assert machine.unfinished_input == 0


@faults
def test_a_fault_is_not_reported_one_byte_early(fault: Fault) -> None:
    """The limit itself is allowed: what makes the wire wrong is its last byte (or the delimiter
    that the frame then ends with)."""
    machine = feed(fault.make(), [fault.wire[:-1]])
    events = machine.take_events()
    if not any(isinstance(event, ConnectionFailed) for event in events):
        assert events == received(fault.frames)
        machine.receive_data(fault.wire[-1:], 0.0)
        events = machine.take_events()
    else:  # a delimiter behind a frame that was too large already
        assert isinstance(machine, DelimiterFraming)
    assert isinstance(events[-1], ConnectionFailed)


@faults
def test_limit_errors_name_the_limit_its_value_and_the_peer(fault: Fault) -> None:
    machine = feed(fault.make(), [fault.wire])
    last = machine.take_events()[-1]
    assert isinstance(last, ConnectionFailed)
    assert str(last.error).startswith("the peer ")
    if isinstance(last.error, LimitExceeded):
        assert last.error.limit == "max_frame_size"
        assert last.error.maximum == machine.max_frame_size
        assert f"max_frame_size is {machine.max_frame_size} bytes" in str(last.error)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (16384, "808001"), (2**64 - 1, "ff" * 9 + "01")],
)
def test_varints_are_written_in_their_shortest_form(value: int, encoded: str) -> None:
    assert encode_varint(value).hex() == encoded


def test_a_negative_varint_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        encode_varint(-1)
