"""What a recording keeps, what a replay gives, and what neither lets happen."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helianthus.drivers.buffers import BufferPool
from helianthus.drivers.errors import ConnectionReset
from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.framing import FrameReceived, LengthPrefix, LengthPrefixFraming
from helianthus.protocols.machine import ConnectionFailed
from helianthus.protocols.recording import BadRecording, Replay, Step, recorded
from helianthus.protocols.recording.format import (
    CALL,
    END,
    HEADER,
    MAGIC,
    RESULT,
    encode_record,
    read_records,
)
from helianthus.protocols.rpc import Codec, RpcLimits, RpcSession, TypeRegistry


class Tape:
    """Where a recording goes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.rests = 0

    def write(self, data: bytes) -> None:
        self.data += data

    def rest(self) -> None:
        self.rests += 1

    def record(self, cls: Any, *args: Any, **kwargs: Any) -> Any:
        return recorded("a test", self, {"driver": "none"}, cls, *args, **kwargs)

    def replay(self, *allow: str) -> Replay:
        return Replay(io.BytesIO(bytes(self.data)), allow)

    def steps(self, *allow: str) -> list[Step]:
        return list(self.replay(*allow).steps())


def drain(machine: Any) -> tuple[bytes, list[Any]]:
    machine.take_actions()
    data = b"".join(machine.take_data())
    return data, machine.take_events()


def converse(client: Any, server: Any, rounds: int = 20) -> list[Any]:
    """Carry bytes between two machines until both are silent; gives the client's events."""
    seen: list[Any] = []
    for round_ in range(rounds):
        for one, other in ((client, server), (server, client)):
            data, events = drain(one)
            if one is client:
                seen += events
            if data:
                other.receive_data(data, 1.0 + round_)
    return seen


# -- what is kept --------------------------------------------------------------------------------------


def test_the_same_comes_out() -> None:
    tape = Tape()
    client = tape.record(RpcSession, 1.0, initiator=True)
    server = RpcSession(1.0, initiator=False)
    client.call("echo", ("hello",), 1.0, timeout=3.0)
    events = converse(client, server)
    server.respond(1, {"answer": [1, 2.5, None]})
    events += converse(client, server)
    client.close("enough")
    events += converse(client, server)
    assert len(events) == 2, "hello and the response"
    replay = tape.replay()
    steps = list(replay.steps())
    assert [text for step in steps for text in step.events] == [repr(event) for event in events]
    assert not [step for step in steps if step.differs]
    assert type(replay.machine) is RpcSession
    assert replay.header.label == "a test"
    assert replay.header.notes == {"driver": "none"}
    assert [step.now for step in steps if step.method == "call"] == [1.0]


def test_a_machine_that_is_recorded_is_what_it_was() -> None:
    machine = Tape().record(LengthPrefixFraming, LengthPrefix.UINT8)
    assert isinstance(machine, LengthPrefixFraming)
    assert machine.prefix is LengthPrefix.UINT8
    assert machine.wants_read
    with pytest.raises(LocalProtocolError):
        machine.send_frame(bytes(256))


def test_what_a_machine_calls_on_itself_is_not_noted() -> None:
    tape = Tape()
    session = tape.record(RpcSession, 1.0, initiator=False, limits=RpcLimits(max_calls=0))
    session.receive_data(msgpack.packb([0, 1, "m", []]), 1.0)  # it answers by its own `respond_error`
    assert [step.method for step in tape.steps()] == ["receive_data"]
    assert session.queued > 0


def test_a_buffer_that_is_used_again_is_kept_as_it_was() -> None:
    tape = Tape()
    machine = tape.record(LengthPrefixFraming, LengthPrefix.UINT8)
    buffer = bytearray(b"\x03abc")
    machine.receive_data(memoryview(buffer), 1.0)
    buffer[:] = b"\x03xyz"
    machine.take_events()
    assert tape.steps()[-1].events == [repr(FrameReceived(b"abc"))]


def test_a_command_that_is_refused_is_refused_again() -> None:
    tape = Tape()
    machine = tape.record(LengthPrefixFraming, LengthPrefix.UINT8)
    with pytest.raises(LocalProtocolError):
        machine.send_frame(bytes(256))
    (step,) = tape.steps()
    assert step.output.startswith("LocalProtocolError: ")
    assert not step.differs


def test_errors_of_the_transport_are_inputs_like_others() -> None:
    tape = Tape()
    machine = tape.record(LengthPrefixFraming)
    machine.connection_lost(ConnectionReset("gone", code=104, address="tcp://a:1"), 2.0)
    machine.take_events()
    lost, events = tape.steps()
    error = lost.args[0]
    assert (type(error), str(error), error.errno) == (ConnectionReset, "tcp://a:1: gone", 104)
    assert "ConnectionReset" in events.events[0]
    assert not events.differs


def test_every_kind_of_value_may_be_a_parameter() -> None:
    tape = Tape()
    session = tape.record(RpcSession, 1.0, initiator=True)
    values = (uuid.UUID(int=7), Decimal("1.5"), datetime(2026, 1, 2, tzinfo=UTC), b"x", {"a": (1, None)})
    session.call("m", values, 1.0)
    drain(session)
    steps = tape.steps()
    assert steps[0].args[1] == values
    assert not [step for step in steps if step.differs]


@attrs.define
class Order:
    number: int


def test_classes_of_the_users_are_made_only_where_their_module_is_allowed() -> None:
    types = TypeRegistry()
    types.register(Order)
    tape = Tape()
    session = tape.record(RpcSession, 1.0, initiator=True, codec=Codec(types=types, compression="zstd"))
    session.call("m", (Order(7),), 1.0)
    drain(session)
    with pytest.raises(BadRecording, match=r"\.Order; if you trust the recording, allow that module"):
        tape.replay()
    steps = tape.steps(__name__)
    assert steps[0].args[1] == (Order(7),)
    assert not [step for step in steps if step.differs]


def test_functions_of_a_registry_are_kept_by_name() -> None:
    types = TypeRegistry()
    types.register(complex_number := complex, to_value=pair_of, from_value=of_pair)
    tape = Tape()
    session = tape.record(RpcSession, 1.0, initiator=True, codec=Codec(types=types))
    session.call("m", (complex_number(1, 2),), 1.0)
    drain(session)
    assert not [step for step in tape.steps(__name__) if step.differs]


def pair_of(value: complex) -> list[float]:
    return [value.real, value.imag]


def of_pair(value: list[float]) -> complex:
    return complex(*value)


class Keeping:
    """A machine that keeps what it receives, and gives it out in two parts."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def receive_lease(self, lease: Any, now: float) -> None:
        self.events += [lease.slice(0, 2), lease.slice(2, len(lease))]
        lease.release()

    def take_events(self) -> list[Any]:
        taken, self.events = self.events, []
        return taken


@pytest.mark.parametrize("debug", [False, True])
def test_memory_that_a_driver_lends(debug: bool) -> None:
    pool = BufferPool(debug=debug)
    tape = Tape()
    machine = tape.record(Keeping)
    lease = pool.adopt(b"abcdef")
    machine.receive_lease(lease, 1.0)
    first, second = machine.take_events()
    assert bytes(first) + bytes(second) == b"abcdef"
    first.release()
    second.release()
    _, events = tape.steps(__name__)
    assert events.events == ["<Lease of 2 bytes>", "<Lease of 4 bytes>"]
    assert not events.differs


# -- what cannot be kept -------------------------------------------------------------------------------


class Gullible:
    """A machine that takes anything."""

    def take_events(self) -> list[Any]:
        return []

    def swallow(self, what: Any) -> None:
        pass


def test_what_cannot_be_kept_ends_the_recording_and_nothing_else() -> None:
    tape = Tape()
    machine = tape.record(Gullible)
    machine.swallow(1)
    machine.swallow(lambda: None)
    machine.swallow(2)
    replay = tape.replay(__name__)
    assert [step.args for step in replay.steps()] == [(1,)]
    assert replay.ended.startswith("cannot be recorded: ")


def test_a_machine_that_cannot_be_made_again_is_not_recorded() -> None:
    with pytest.raises(BadRecording, match="cannot be recorded"):
        Tape().record(RpcSession, 1.0, initiator=True, limits=lambda: None)


class FullTape(Tape):
    """Has room for a header and one record."""

    def write(self, data: bytes) -> None:
        if self.data.count(b"send_frame"):
            raise OSError("no space")
        super().write(data)


def test_a_tape_that_fails_ends_the_recording_and_nothing_else() -> None:
    tape = FullTape()
    machine = tape.record(LengthPrefixFraming, LengthPrefix.UINT8)
    machine.send_frame(b"abc")
    machine.send_frame(b"def")
    assert b"".join(machine.take_data()) == b"\x03abc\x03def"
    (step,) = tape.steps()
    assert (step.args, step.expected) == ((b"abc",), None)


def test_a_tape_rests_when_a_link_has_ended() -> None:
    tape = Tape()
    machine = tape.record(LengthPrefixFraming)
    machine.take_events()
    machine.connection_lost(None, 1.0)
    assert tape.rests == 0
    machine.take_events()
    assert tape.rests == 1


# -- differences ----------------------------------------------------------------------------------------


def test_a_machine_that_does_something_else_is_found() -> None:
    tape = Tape()
    machine = tape.record(LengthPrefixFraming, LengthPrefix.UINT8)
    machine.receive_data(b"\x03abc", 1.0)
    machine.take_events()
    records = list(read_records(io.BytesIO(bytes(tape.data))))
    records[-1] = (RESULT, [repr(FrameReceived(b"abd"))])
    changed = MAGIC + b"".join(encode_record(kind, value) for kind, value in records)
    steps = list(Replay(io.BytesIO(changed)).steps())
    assert [step.differs for step in steps] == [False, True]
    assert steps[-1].expected != steps[-1].output


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6), st.binary(max_size=40))
def test_whatever_comes_in_the_same_comes_out(data: bytes, cuts: list[int], frame: bytes) -> None:
    tape = Tape()
    machine = tape.record(LengthPrefixFraming, LengthPrefix.VARINT, max_frame_size=64)
    seen: list[Any] = []
    start = 0
    for cut in [*sorted(cuts), len(data)]:
        machine.receive_data(data[start:cut], 1.0)
        start = max(start, cut)
        seen += machine.take_events()
    with contextlib.suppress(LocalProtocolError):  # what came may have ended it
        machine.send_frame(frame)
    drain(machine)
    machine.receive_eof(2.0)
    seen += machine.take_events()
    steps = tape.steps()
    assert [text for step in steps for text in step.events] == [repr(event) for event in seen]
    assert not [step for step in steps if step.differs]
    assert sum(isinstance(event, ConnectionFailed) for event in seen) <= 1


# -- files that are damaged, and files that are hostile --------------------------------------------------


def a_recording() -> bytes:
    tape = Tape()
    machine = tape.record(LengthPrefixFraming, LengthPrefix.UINT8)
    machine.receive_data(b"\x03abc", 1.0)
    machine.take_events()
    return bytes(tape.data)


def test_a_recording_that_was_cut_off_is_replayed_up_to_there() -> None:
    whole = a_recording()
    counts = set()
    for end in range(len(whole)):
        try:
            replay = Replay(io.BytesIO(whole[:end]))
        except BadRecording:
            continue
        counts.add(len(list(replay.steps())))
        borders = [len(MAGIC) + at for at in borders_of(whole[len(MAGIC) :])]
        assert bool(replay.ended) == (end not in borders[::2]), (end, replay.ended)
    assert counts == {0, 1, 2}


def borders_of(records: bytes) -> list[int]:
    """Where the records end: the header, and then each call and each result."""
    ends, at = [], 0
    while at < len(records):
        at += 5 + struct.unpack_from("<cI", records, at)[1]
        ends.append(at)
    return ends


def test_a_call_without_a_result_is_the_last() -> None:
    records = list(read_records(io.BytesIO(a_recording())))[:-1]
    cut = MAGIC + b"".join(encode_record(kind, value) for kind, value in records)
    replay = Replay(io.BytesIO(cut))
    *_, last = replay.steps()
    assert last.expected is None
    assert replay.ended == "it was cut off in take_events(): its process may have ended there"
    assert not last.differs


@given(st.data())
def test_damage_is_a_bad_recording(data: st.DataObject) -> None:
    damaged = bytearray(a_recording())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        list(Replay(io.BytesIO(bytes(damaged))).steps())
    except BadRecording as error:
        assert str(error)


class Hostile:
    def __init__(self, function: Any, *args: Any) -> None:
        self.function = function
        self.args = args

    def __reduce__(self) -> Any:
        return self.function, self.args


def hostile_file(payload: bytes) -> io.BytesIO:
    return io.BytesIO(MAGIC + struct.pack("<cI", HEADER, len(payload)) + payload)


@pytest.mark.parametrize(
    "function",
    [os.system, eval, exec, getattr, __import__, open, pickle.loads, type],
    ids=lambda function: function.__name__,
)
def test_nothing_is_run_that_a_recording_asks_for(function: Any) -> None:
    with pytest.raises(BadRecording, match="it holds"):
        Replay(hostile_file(pickle.dumps(Hostile(function, "1"))))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("helianthus.protocols.recording.format", "io.open"),
        ("helianthus.protocols.recording.format", "pickle.loads"),
        ("helianthus.protocols.rpc.session", "RpcSession.call"),
        ("helianthus.protocols.recording.format", "encode_record"),
        ("helianthus.drivers.errors", "from_os_error"),
        ("helianthus.drivers.errors", "socket.socket"),
        ("builtins", "ValueError.__class__"),
        ("builtins", "object"),
    ],
)
def test_no_way_leads_around(module: str, name: str) -> None:
    payload = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
    payload += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(BadRecording, match="it holds"):
        Replay(hostile_file(payload))


def test_an_allowed_module_lends_only_what_is_its_own() -> None:
    payload = b"\x80\x04\x8c" + bytes([len(__name__)]) + __name__.encode() + b"\x8c\x09os.system\x93."
    with pytest.raises(BadRecording, match="no class of values"):
        Replay(hostile_file(payload), [__name__])


def test_private_methods_cannot_be_called() -> None:
    records = [*read_records(io.BytesIO(a_recording()))][:1]
    records += [(CALL, ("_fail", (ValueError("x"),), {})), (RESULT, "None")]
    data = MAGIC + b"".join(encode_record(kind, value) for kind, value in records)
    with pytest.raises(BadRecording, match="no method '_fail'"):
        list(Replay(io.BytesIO(data)).steps())


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no recording"),
        (b"GIF89a", "no recording"),
        (MAGIC, "no header"),
        (MAGIC + encode_record(END, "x"), "no header"),
        (MAGIC + encode_record(HEADER, "x"), "no header"),
        (MAGIC + encode_record(HEADER, ("x", bytearray, (10**15,), {}, {})), "no machine"),
        (MAGIC + struct.pack("<cI", HEADER, 2**32 - 1), "longer than any"),
    ],
)
def test_what_is_no_recording_says_so(data: bytes, complaint: str) -> None:
    with pytest.raises(BadRecording, match=complaint):
        Replay(io.BytesIO(data))
