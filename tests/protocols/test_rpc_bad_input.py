"""Peers that send nonsense: nothing raises, memory stays bounded, and the end is in good order."""

from __future__ import annotations

import datetime
import gc
import random
import struct
import tracemalloc
import weakref
from typing import Any

import msgpack
import pytest
from rpc_pair import Split, Talk, at_random, byte_by_byte, pack, whole

from helianthus.protocols.errors import RemoteProtocolError
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.rpc import (
    CallFailed,
    NotificationReceived,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    RpcLimits,
    RpcSession,
    SessionState,
)
from helianthus.protocols.rpc.wire import MAX_MSGID

MIB = 1024 * 1024

every_split = pytest.mark.parametrize("split", [whole, byte_by_byte])
extended_or_not = pytest.mark.parametrize("extended", [True, False])


def check_failed(talk: Talk, calls: int = 0) -> list[RpcEvent]:
    """The session ended as it should; gives the events before the end."""
    session = talk.session
    events = talk.events()
    assert sum(isinstance(event, ConnectionFailed) for event in events) == 1
    last = events.pop()
    assert isinstance(last, ConnectionFailed)
    assert isinstance(last.error, RemoteProtocolError)
    assert len(str(last.error)) < 500
    for _ in range(calls):
        assert isinstance(events.pop(), CallFailed)
    assert not any(isinstance(event, CallFailed) for event in events)
    goodbyes = [message for message in talk.said() if message[0] == 8]
    assert len(goodbyes) == (session.peer is not None)
    assert session.closing is Closing.FULL
    assert session.state is SessionState.ENDED
    assert (session.pending_calls, session.pending_requests) == (0, 0)
    assert session.deadline() is None
    talk.hear_bytes(pack([2, "more", []]) + b"\xc1")
    talk.end()
    talk.lose()
    session.handle_timeout(talk.now + 1e9)
    assert talk.events() == []
    assert talk.said() == []
    return events


# -- unreadable bytes --------------------------------------------------------------------------------

UNREADABLE = {
    "the byte that is never used": b"\xc1",
    "text that is no UTF-8": b"\x93\x02\xa2\xff\xfe\x90",
    "text cut within a character": b"\x93\x02\xa1\xc3\x90",
    "a surrogate": b"\x93\x02\xa3\xed\xa0\x80\x90",
    "a list as a key": b"\x93\x02\xa1n\x81\x90\x01",
    "a map as a key": b"\x93\x02\xa1n\x81\x80\x01",
    "10,000 lists in each other": b"\x91" * 10_000,
    "10,000 maps in each other": b"\x81\xa1k" * 10_000,
    "10,000 keys in each other": b"\x81" * 10_000,
    "a timestamp beyond the year 9999": b"\x93\x02\xa1n\x91\xc7\x0c\xff" + bytes(4) + b"\x7f" + bytes(7),
    "a timestamp of five bytes": b"\x93\x02\xa1n\x91\xc7\x05\xff" + bytes(5),
    "a timestamp with too many nanoseconds": b"\x93\x02\xa1n\x91\xd7\xff" + b"\xff" * 8,
    "a long timestamp with too many nanoseconds": b"\x93\x02\xa1n\x91\xc7\x0c\xff" + b"\xff" * 12,
    "an array of 4 GiB": b"\xdd\xff\xff\xff\xff",
    "a map of 4 GiB": b"\xdf\xff\xff\xff\xff",
    "an array of more than a million": b"\xdd\x00\x10\x00\x01",
    "a map of more than a million": b"\xdf\x00\x10\x00\x01",
    "an array of more elements than a message has bytes": b"\xdd\x00\x40\x00\x01",
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
@every_split
@extended_or_not
def test_what_is_no_messagepack_fails_the_connection(data: bytes, split: Split, extended: bool) -> None:
    talk = Talk(extended=extended, split=split)
    talk.sent_call()
    talk.hear([0, 2, "m", []], [2, "before", []])
    talk.hear_bytes(data)
    assert check_failed(talk, calls=1) == [
        RequestReceived(2, "m", [], None, None, RequestReceived(2, "m", [], None, None, 0).flow),  # type: ignore[arg-type]
        NotificationReceived("before", [], None),
    ]


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_the_good_messages_of_the_same_read_are_kept(data: bytes) -> None:
    talk = Talk()
    msgid = talk.sent_call()
    talk.hear_bytes(pack([1, msgid, None, "answer"], [2, "n", []]) + data + pack([2, "never", []]))
    assert check_failed(talk) == [ResponseReceived(msgid, "answer"), NotificationReceived("n", [], None)]


READABLE = {
    "a timestamp": (
        datetime.datetime(1970, 1, 1, 0, 0, 1, 2, tzinfo=datetime.UTC),
        b"\xd7\xff" + struct.pack(">Q", (2999 << 34) | 1),
    ),
    "a foreign extension": (msgpack.ExtType(42, b"x"), b"\xd4\x2ax"),
    "a number as a key": ({1: 2}, b"\x81\x01\x02"),
    "NaN as a key, twice": (
        None,
        b"\x82" + b"\xcb\x7f\xf8" + bytes(6) + b"\x01" + b"\xcb\x7f\xf8" + bytes(6) + b"\x02",
    ),
    "a key, twice": ({"k": 2}, b"\x82\xa1k\x01\xa1k\x02"),
    "900 lists in each other": (None, b"\x91" * 900 + b"\x90"),
}


@pytest.mark.parametrize(("value", "data"), READABLE.values(), ids=READABLE.keys())
def test_odd_but_readable_values_arrive(value: Any, data: bytes) -> None:
    talk = Talk()
    talk.hear_bytes(b"\x93\x02\xa1n\x91" + data)
    event = talk.event(NotificationReceived)
    assert isinstance(event.params, list)
    assert value is None or event.params == [value]
    assert talk.session.state is SessionState.OPEN


# -- messages of the wrong form ----------------------------------------------------------------------

NO_ID = [-1, 2**32, True, 1.0, "1", b"1", None, [1], {}]
NO_TEXT = [b"\xff", 5, None, True, ["m"], {}]  # bytes are, where they are UTF-8
NO_PARAMS = ["text", b"bytes", 5, None, True, 1.5, {1: 2}]
NO_META = [[], "text", 5, True, {5: 6}]

MALFORMED: dict[str, list[Any]] = {
    "not an array": [5, "text", b"bytes", None, True, 1.5, {}, {0: 1}, msgpack.ExtType(1, b"")],
    "an empty array": [[]],
    "no type": [[True, 1], [None, 1], ["0", 1, "m", []], [0.0, 1, "m", []], [[0], 1, "m", []]],
    "an unknown type": [[9], [-1], [2**63, 1], [-(2**63), 1], [255, 1, None, None]],
    "request of the wrong length": [[0], [0, 2], [0, 2, "m"], [0, 2, "m", [], {}, 1]],
    "request without an id": [[0, wrong, "m", []] for wrong in NO_ID],
    "request without a method": [[0, 2, wrong, []] for wrong in NO_TEXT],
    "request without parameters": [[0, 2, "m", wrong] for wrong in NO_PARAMS],
    "request with broken meta": [[0, 2, "m", [], wrong] for wrong in NO_META],
    "request with a broken timeout": [
        [0, 2, "m", [], {"timeout": wrong}]
        for wrong in (-1, -0.5, float("nan"), float("inf"), -float("inf"), 2**53, True, "5", [], {})
    ],
    "request with a broken flow": [
        [0, 2, "m", [], {"stream": wrong}] for wrong in (-1, 4, 1.0, True, None, "1", [])
    ],
    "response of the wrong length": [[1], [1, 1], [1, 1, None], [1, 1, None, 1, 1]],
    "response without an id": [[1, wrong, None, 1] for wrong in NO_ID[2:]],
    "notification of the wrong length": [[2], [2, "m"], [2, "m", [], {}, 1]],
    "notification without a method": [[2, wrong, []] for wrong in NO_TEXT],
    "notification without parameters": [[2, "m", wrong] for wrong in NO_PARAMS],
    "notification with broken meta": [[2, "m", [], wrong] for wrong in NO_META],
    "cancel": [[3], [3, 1, 1], *([3, wrong] for wrong in NO_ID)],
    "item": [[4], [4, 1], [4, 1, 1, 1], *([4, wrong, 1] for wrong in NO_ID)],
    "end": [[5], [5, 1, 1], *([5, wrong] for wrong in NO_ID)],
    "credit": [
        [6],
        [6, 1],
        [6, 1, 1, 1],
        *([6, wrong, 1] for wrong in NO_ID),
        *([6, 1, wrong] for wrong in (0, *NO_ID)),
    ],
    "ping": [
        [7],
        [7, 1],
        [7, 1, False, 1],
        *([7, wrong, False] for wrong in (True, 1.0, "1", None, [1])),
        *([7, 1, wrong] for wrong in (0, 1, None, "False", [])),
    ],
    "goaway": [
        [8],
        [8, 1],
        [8, 1, "bye", 1],
        *([8, wrong, "bye"] for wrong in NO_ID if wrong is not None),
        *([8, 1, wrong] for wrong in [*NO_TEXT, b"m"]),
    ],
}
"""Each position of each message with each wrong type and each number out of range."""


@pytest.mark.parametrize("messages", MALFORMED.values(), ids=MALFORMED.keys())
@extended_or_not
def test_messages_of_the_wrong_form_fail_the_connection(messages: list[Any], extended: bool) -> None:
    for message in messages:
        talk = Talk(extended=extended)
        msgid = talk.sent_call()
        talk.hear([1, msgid, None, 1], message, [2, "never", []])
        assert check_failed(talk) == [ResponseReceived(msgid, 1)], message


HELLOS: list[Any] = [
    [],
    {},
    {"version": 1},
    [5],
    [[]],
    [None],
    [{}],
    [{"version": 0}],
    [{"version": -1}],
    [{"version": True}],
    [{"version": 1.0}],
    [{"version": "1"}],
    [{"version": 1, "credit": -1}],
    [{"version": 1, "credit": True}],
    [{"version": 1, "credit": "64"}],
    [{"version": 1, "credit": None}],
]


@pytest.mark.parametrize("params", HELLOS, ids=str)
def test_a_broken_hello_fails_the_connection(params: Any) -> None:
    talk = Talk(extended=False)
    talk.hear([2, "helianthus.hello", params])
    assert check_failed(talk) == []


@pytest.mark.parametrize(
    "message", [[3, 1], [4, 1, 1], [5, 1], [6, 1, 1], [7, 1, False], [8, 1, "bye"]], ids=str
)
def test_a_side_without_extensions_knows_none(message: Any) -> None:
    talk = Talk(extended=False, extensions=False)
    talk.hear(message)
    error = talk.event(ConnectionFailed).error
    assert str(error) == f"unknown message type {message[0]}; this side knows 0 to 2"


def test_errors_tell_the_form_of_a_message_and_not_its_content() -> None:
    """It may be a password, or a megabyte."""
    for message in ([0, 2, "secret" * 1000, "secret" * 1000], ["secret" * 1000, 1], "secret" * 1000):
        talk = Talk()
        talk.hear(message)
        text = str(talk.event(ConnectionFailed).error)
        assert "secret" not in text
        assert len(text) < 200


# -- nonsense at random ------------------------------------------------------------------------------


def nonsense(rng: random.Random) -> bytes:
    """Bytes that look like messages to varying degrees."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randint(1, 200))
    if kind == 1:  # headers of containers and strings
        return bytes(
            rng.choice(
                b"\x80\x81\x8f\x90\x91\x93\x94\x9f\xa0\xa1\xbf\xc0\xc2\xc3\xc4\xc5\xc7\xca\xcb\xd4\xd9\xdc"
            )
            for _ in range(rng.randint(1, 60))
        )
    if kind == 2:  # arrays of anything
        parts = [
            rng.choice([0, 1, -1, 2**32, "m", b"m", None, True, [], {}, [[]], 1.5])
            for _ in range(rng.randint(0, 6))
        ]
        return pack([rng.randint(-1, 10), *parts])
    message = bytearray(pack([rng.randint(0, 8), rng.randint(0, 5), rng.choice(["m", None, 1]), [1, "x"]]))
    message[rng.randrange(len(message))] = rng.randrange(256)
    return bytes(message)


@pytest.mark.parametrize("seed", range(20))
def test_random_nonsense_never_raises(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        talk = Talk(extended=rng.random() < 0.5, initiator=rng.random() < 0.5, split=at_random(rng))
        for _ in range(3):
            talk.sent_call("m", [], timeout=rng.choice([None, 1.0]))
        for _ in range(20):
            talk.hear_bytes(nonsense(rng))
            if rng.random() < 0.1:
                talk.wait(rng.random() * 2)
        talk.end()
        events = talk.events()
        faults = [place for place, event in enumerate(events) if isinstance(event, ConnectionFailed)]
        assert faults in ([], [len(events) - 1])
        assert talk.session.pending_calls == 0
        assert talk.session.state is not SessionState.OPEN


# -- memory ------------------------------------------------------------------------------------------

HUGE = {
    "an array of 4 GiB": b"\xdd\xff\xff\xff\xff",
    "a map of 4 GiB": b"\xdf\xff\xff\xff\xff",
    "a string of 4 GiB": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 GiB": b"\xc6\xff\xff\xff\xff",
    "an extension of 4 GiB": b"\xc9\xff\xff\xff\xff\x01",
    "a string of a message's size": b"\xdb\x00\x3f\xff\xf0",
    "an array of a million": b"\xdd\x00\x10\x00\x00",
    "a map of a million": b"\xdf\x00\x10\x00\x00",
}


@pytest.mark.parametrize("header", HUGE.values(), ids=HUGE.keys())
def test_a_header_alone_takes_no_memory(header: bytes) -> None:
    """What a peer claims to send is not what it has sent."""
    talk = Talk()
    tracemalloc.start()
    try:
        talk.hear_bytes(b"\x94\x00\x02\xa1m" + header + b"\x00" * 1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB // 2


def test_arrays_in_each_other_take_bounded_memory() -> None:
    """The decoder makes room for 10,000 elements of each array that is open, of which there may be
    1024: 80 MiB from a few kilobytes, but never more."""
    talk = Talk()
    tracemalloc.start()
    try:
        talk.hear_bytes(b"\xdd\x00\x10\x00\x00" * 5000)
        peak = tracemalloc.get_traced_memory()[1]
        assert peak < 96 * MIB
        check_failed(talk)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("piece", [1000, 65536, 300_000])
def test_a_message_without_end_takes_no_more_memory_than_the_limit_allows(piece: int) -> None:
    talk = Talk(limits=RpcLimits(max_message_size=256 * 1024))
    data = b"x" * piece
    tracemalloc.start()
    try:
        talk.hear_bytes(b"\xc6\x00\x03\xff\x00")
        talk.hear_bytes(data * (MIB // piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert talk.session.state is SessionState.ENDED
    assert peak < 4 * MIB


def test_the_memory_of_a_large_message_is_given_back() -> None:
    """A server holds thousands of connections; each may once have carried something large."""
    talk = Talk()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for msgid in (2, 4):
            talk.hear([0, msgid, "m", [b"x" * (3 * MIB)]])
            talk.events()
            talk.session.respond(msgid, b"x" * (3 * MIB))
            talk.session.take_data()
        talk.hear([2, "small", []])
        talk.events()
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < MIB


def test_an_idle_session_is_small() -> None:
    """Apart from the buffer of the packer, which the system gives no pages until they are used."""
    tracemalloc.start()
    try:
        sessions = []
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            session = RpcSession(0.0, initiator=False)
            session.receive_data(pack([2, "helianthus.hello", [{"version": 1}]]), 0.0)
            session.take_data()
            session.take_events()
            sessions.append(session)
        each = (tracemalloc.get_traced_memory()[0] - before) / len(sessions)
    finally:
        tracemalloc.stop()
    assert each < 400 * 1024


# -- who holds what afterwards -----------------------------------------------------------------------


@pytest.mark.parametrize("bad", [b"\xc1", pack([9]), pack([0, 1]), pack([0, -1, "m", []])], ids=repr)
def test_a_fault_keeps_neither_the_callers_buffer_nor_the_session_alive(bad: bytes) -> None:
    session = RpcSession(0.0, initiator=False)
    buffer = bytearray(pack([2, "n", [b"x" * 100]]) + bad)
    session.receive_data(memoryview(buffer), 0.0)
    events = session.take_events()
    buffer.clear()  # raises BufferError while anybody looks at it
    assert isinstance(events[-1], ConnectionFailed)
    gone = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_any_buffer_may_be_reused_at_once(kind: Any) -> None:
    talk = Talk(limits=RpcLimits(max_message_size=1024))
    data = pack(*([2, "n", [number, b"x" * 500]] for number in range(10)))
    buffer = kind(data)
    talk.session.receive_data(buffer, talk.now)
    if isinstance(buffer, bytearray) or (isinstance(buffer, memoryview) and not buffer.readonly):
        buffer[:] = b"\xc1" * len(data)
    params = [event.params for event in talk.events() if isinstance(event, NotificationReceived)]
    assert params == [[number, b"x" * 500] for number in range(10)]


def test_an_empty_read_is_nothing() -> None:
    talk = Talk()
    talk.session.receive_data(b"", talk.now)
    talk.session.receive_data(memoryview(b""), talk.now)
    assert talk.events() == []
    assert talk.session.state is SessionState.OPEN


def test_no_id_is_too_large_to_answer() -> None:
    talk = Talk(extended=False)
    talk.hear([0, MAX_MSGID, "m", []])
    talk.session.respond(MAX_MSGID, "ok")
    assert talk.said() == [[1, MAX_MSGID, None, "ok"]]
