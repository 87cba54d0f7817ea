"""Any bytes in any pieces: what comes out is what a parser of the whole stream would say, nothing
raises, and what is held stays within the limit. The parsers compared with are as plain as can be."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helianthus.protocols.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from helianthus.protocols.framing import (
    ConnectionLost,
    DelimiterFraming,
    EndOfStream,
    FixedSizeFraming,
    FrameReceived,
    FramingEvent,
    LengthPrefix,
    LengthPrefixFraming,
    StreamFraming,
    encode_varint,
)
from helianthus.protocols.machine import Buffer, ConnectionFailed

MAX_FRAME = 300
"""Small enough to be passed often, large enough for a varint of two bytes."""

Verdict = tuple[list[bytes], type[Exception] | None, int]
"""Frames, the error that follows them, and how many bytes of a further frame there are."""


# -- plain parsers --------------------------------------------------------------------------------


def parse_integers(data: bytes, width: int, order: str) -> Verdict:
    frames: list[bytes] = []
    while len(data) >= width:
        size = int.from_bytes(data[:width], order)  # type: ignore[arg-type]
        if size > MAX_FRAME:
            return frames, LimitExceeded, 0
        if len(data) < width + size:
            break
        frames.append(data[width : width + size])
        data = data[width + size :]
    return frames, None, len(data)


def parse_varints(data: bytes) -> Verdict:
    frames: list[bytes] = []
    while data:
        prefix = data[:2]  # 300 needs two bytes
        ends = [index for index, byte in enumerate(prefix) if byte < 0x80]
        if not ends:
            return (frames, LimitExceeded, 0) if len(prefix) == 2 else (frames, None, 1)
        prefix = prefix[: ends[0] + 1]
        size = sum((byte & 0x7F) * 128**place for place, byte in enumerate(prefix))
        if encode_varint(size) != prefix:
            return frames, RemoteProtocolError, 0
        if size > MAX_FRAME:
            return frames, LimitExceeded, 0
        if len(data) < len(prefix) + size:
            break
        frames.append(data[len(prefix) : len(prefix) + size])
        data = data[len(prefix) + size :]
    return frames, None, len(data)


def parse_delimited(data: bytes, delimiter: bytes) -> Verdict:
    *frames, rest = data.split(delimiter)
    for index, frame in enumerate(frames):
        if len(frame) > MAX_FRAME:
            return frames[:index], LimitExceeded, 0
    if len(rest) > MAX_FRAME + len(delimiter) - 1:
        return frames, LimitExceeded, 0
    return frames, None, len(rest)


def parse_fixed(data: bytes, size: int) -> Verdict:
    count = len(data) // size
    return [data[at * size : (at + 1) * size] for at in range(count)], None, len(data) % size


@attrs.define
class Kind:
    """A framing, its plain parser, and what a frame adds to what may be held."""

    name: str
    make: Callable[[], StreamFraming]
    parse: Callable[[bytes], Verdict]
    overhead: int


def of_integers(prefix: LengthPrefix, width: int, order: str) -> Kind:
    return Kind(
        prefix.name,
        lambda: LengthPrefixFraming(prefix, max_frame_size=MAX_FRAME),
        lambda data: parse_integers(data, width, order),
        width,
    )


def of_delimiter(delimiter: bytes) -> Kind:
    return Kind(
        repr(delimiter),
        lambda: DelimiterFraming(delimiter, max_frame_size=MAX_FRAME),
        lambda data: parse_delimited(data, delimiter),
        len(delimiter) - 1,
    )


def of_size(size: int) -> Kind:
    return Kind(f"fixed {size}", lambda: FixedSizeFraming(size), lambda data: parse_fixed(data, size), 0)


KINDS = [
    of_integers(LengthPrefix.UINT8, 1, "big"),
    of_integers(LengthPrefix.UINT16_BE, 2, "big"),
    of_integers(LengthPrefix.UINT16_LE, 2, "little"),
    of_integers(LengthPrefix.UINT32_BE, 4, "big"),
    of_integers(LengthPrefix.UINT32_LE, 4, "little"),
    of_integers(LengthPrefix.UINT64_BE, 8, "big"),
    of_integers(LengthPrefix.UINT64_LE, 8, "little"),
    Kind(
        "varint",
        lambda: LengthPrefixFraming(LengthPrefix.VARINT, max_frame_size=MAX_FRAME),
        parse_varints,
        2,
    ),
    of_delimiter(b"\n"),
    of_delimiter(b"\r\n"),
    of_delimiter(b"\0\0"),
    of_delimiter(b"aba"),
    of_delimiter(b"\1\0\1\0\2"),
    of_size(1),
    of_size(2),
    of_size(MAX_FRAME),
]

unhurried = settings(deadline=None)  # a busy machine is no failure

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)

# Bytes that mean something to one framing or another, so that streams get beyond their first frame.
telling = st.sampled_from([b"\0", b"\1", b"\2", b"\3", b"\x80", b"\x81", b"\xff", b"\r", b"\n", b"a", b"b"])
runs = st.builds(lambda byte, count: byte * count, telling, st.integers(1, 320))
garbage = st.one_of(
    st.binary(max_size=700),
    st.lists(telling, max_size=60).map(b"".join),
    st.lists(st.one_of(telling, runs, st.binary(max_size=20)), max_size=8).map(b"".join),
)
cuts = st.lists(st.integers(1, 400), max_size=12)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut `data` into pieces of these sizes, over and over; none means one by one."""
    cut: list[bytes] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)] if sizes else 1
        cut.append(data[at : at + size])
        at += size
        turn += 1
    return cut


def check_events(events: list[FramingEvent], verdict: Verdict) -> None:
    frames, error, _ = verdict
    assert events[: len(frames)] == [FrameReceived(frame) for frame in frames]
    rest = events[len(frames) :]
    assert [type(event) for event in rest] == ([ConnectionFailed] if error else [])
    for event in rest:
        assert isinstance(event, ConnectionFailed)
        assert type(event.error) is error


@every_kind
@unhurried
@given(data=garbage, sizes=cuts, as_view=st.booleans())
def test_any_bytes_in_any_pieces_are_read_as_if_whole(
    kind: Kind, data: bytes, sizes: list[int], as_view: bool
) -> None:
    machine = kind.make()
    most = max(machine.max_frame_size, 1) + kind.overhead
    for piece in pieces(data, sizes):
        taken: Buffer = memoryview(bytearray(piece)) if as_view else piece
        machine.receive_data(taken, 0.0)
        assert machine.unfinished_input <= most

    verdict = kind.parse(data)
    assert machine.unfinished_input == verdict[2]
    check_events(machine.take_events(), verdict)


@every_kind
@unhurried
@given(data=garbage, sizes=cuts, more=garbage, lost=st.booleans())
def test_a_stream_ends_with_one_last_event_whatever_was_in_it(
    kind: Kind, data: bytes, sizes: list[int], more: bytes, lost: bool
) -> None:
    """Failed, truncated, ended or lost: then nothing comes any more, and nothing is held."""
    frames, error, unfinished = kind.parse(data)
    machine = kind.make()
    for piece in pieces(data, sizes):
        machine.receive_data(piece, 0.0)
    if not lost:
        machine.receive_eof(0.0)
    machine.receive_data(more, 0.0)
    if not lost:
        machine.receive_eof(0.0)
    if lost and not error:
        frames, error, unfinished = kind.parse(data + more)
    machine.connection_lost(None, 0.0)
    machine.receive_data(more, 0.0)
    machine.receive_eof(0.0)
    machine.connection_lost(None, 0.0)

    events = machine.take_events()
    expected: list[type[FramingEvent]]
    if error or (unfinished and not lost):
        expected = [ConnectionFailed]
    else:
        expected = [ConnectionLost] if lost else [EndOfStream, ConnectionLost]
    assert [type(event) for event in events] == [FrameReceived] * len(frames) + expected
    if isinstance(events[-1], ConnectionLost):
        assert events[-1].unfinished == unfinished
    assert machine.unfinished_input == 0
    assert machine.take_events() == []


@every_kind
@unhurried
@given(frames=st.lists(st.one_of(st.lists(telling, max_size=6).map(b"".join), runs), max_size=8), sizes=cuts)
def test_what_can_be_sent_arrives_unchanged_in_any_pieces(
    kind: Kind, frames: list[bytes], sizes: list[int]
) -> None:
    """Each frame is either refused or arrives: a delimiter must not come about by accident."""
    writer = kind.make()
    sent: list[bytes] = []
    for frame in frames:
        queued = writer.queued_output
        try:
            writer.send_frame(frame)
        except LocalProtocolError:
            assert writer.queued_output == queued
        else:
            sent.append(frame)
    reader = kind.make()
    for piece in pieces(b"".join(writer.take_data()), sizes):
        reader.receive_data(piece, 0.0)
    reader.receive_eof(0.0)

    assert reader.take_events() == [*map(FrameReceived, sent), EndOfStream()]


@unhurried
@given(
    delimiter=st.lists(st.sampled_from([b"a", b"b"]), min_size=1, max_size=5).map(b"".join), data=st.data()
)
def test_a_frame_is_refused_exactly_if_the_peer_would_cut_it_elsewhere(
    delimiter: bytes, data: st.DataObject
) -> None:
    frame = data.draw(st.lists(st.sampled_from([b"a", b"b"]), max_size=8).map(b"".join))
    arrives = (frame + delimiter).split(delimiter) == [frame, b""]
    machine = DelimiterFraming(delimiter)
    try:
        machine.send_frame(frame)
    except LocalProtocolError:
        assert not arrives
    else:
        assert arrives


@unhurried
@given(value=st.integers(0, 2**70))
@example(value=0)
@example(value=127)
@example(value=128)
def test_a_varint_has_no_more_bytes_than_its_value_needs(value: int) -> None:
    encoded = encode_varint(value)
    assert len(encoded) == max(1, -(-value.bit_length() // 7))
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == value
    assert [byte >= 0x80 for byte in encoded] == [True] * (len(encoded) - 1) + [False]
