"""Extension values that cannot be read cost the message that holds them, and nothing else."""

from __future__ import annotations

import struct
import uuid
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_codecs import Point, Positive, codec_pair, registry
from rpc_pair import Split, Talk, byte_by_byte, pack, whole

from helianthus.protocols.rpc import (
    CallFailed,
    Codec,
    Flow,
    ItemReceived,
    ItemUnreadable,
    NotificationReceived,
    NotificationUnreadable,
    RequestReceived,
    ResponseReceived,
    SessionState,
    StatusCode,
)

every_split = pytest.mark.parametrize("split", [whole, byte_by_byte])


def ext(code: int, data: bytes) -> msgpack.ExtType:
    return msgpack.ExtType(code, data)


def thing(name: Any, value: Any) -> msgpack.ExtType:
    return ext(72, msgpack.packb([name, value]))


def nested(depth: int) -> msgpack.ExtType:
    value: Any = {"x": 1}
    for _ in range(depth):
        value = thing("Point", {"x": value})
    return value  # type: ignore[no-any-return]


BAD: dict[str, tuple[Any, str]] = {
    "a short UUID": (ext(64, b"short"), "16-char"),
    "a Decimal that is none": (ext(65, b"1_000"), "as Python writes it"),
    "a Decimal in other digits": (ext(65, "\u0661".encode()), "ascii"),
    "a Decimal that is long": (ext(65, b"1" * 4097), "more than 4096 characters"),
    "a Decimal that is huge": (ext(65, b"1E+999999999"), "beyond 6144"),
    "a signalling NaN": (ext(65, b"sNaN"), "as Python writes it"),
    "a date that is none": (ext(66, b"2024-02-30"), "out of range"),
    "a date that is long": (ext(66, b"2" * 65), "more than 64 characters"),
    "a time that is none": (ext(67, b"25:00"), "hour"),
    "a timedelta of four bytes": (ext(68, b"four"), "12 bytes"),
    "a timedelta that is too long": (ext(68, struct.pack(">iii", 2**31 - 1, 0, 0)), "days"),
    "an object of no class": (thing("os.system", "ls"), "no class is registered as 'os.system'"),
    "an object without a field": (thing("Point", {}), "no Point can be made of it"),
    "an object of another form": (thing("Point", [1]), "needs a map of its fields, got list"),
    "an object that is not valid": (thing("Positive", {"value": -1}), "no Positive can be made of it"),
    "an object without a name": (thing(5, {}), "an array of a name and a value"),
    "an object in three parts": (ext(72, msgpack.packb(["Point", 1, 2])), "an array of a name and a value"),
    "an object of no bytes": (ext(72, b""), ""),
    "an object with something behind": (ext(72, msgpack.packb(["Point", {"x": 1}]) + b"\0"), "extra data"),
    "an object of lists in each other": (ext(72, b"\x91" * 5000), ""),
    "an object with a huge array": (ext(72, b"\x92\xa5Point\xdd\x7f\xff\xff\xff"), "max_array_len"),
    "an object with bad text": (ext(72, b"\x92\xa2\xff\xff\x80"), "utf-8"),
    "an object with a bad object": (thing("Point", {"x": ext(64, b"")}), "16-char"),
    "objects in each other": (nested(17), "nested more than 16 deep"),
    "JSON that was not announced": (ext(80, b"[1]"), "has not announced"),
    "compression that was not announced": (ext(81, b"\x28\xb5\x2f\xfd"), "has not announced"),
    "a message of no known type": (ext(73, msgpack.packb(["no.Such", b""])), "no.Such"),
    "a message without bytes": (ext(73, msgpack.packb(["no.Such", 1])), "its full name and its bytes"),
}
bad = pytest.mark.parametrize(("value", "reason"), BAD.values(), ids=BAD.keys())


def talk_with_types(split: Split = whole, **options: Any) -> Talk:
    return Talk(split=split, codec=Codec(types=registry()), **options)


@bad
@every_split
def test_each_message_fails_by_itself(value: Any, reason: str, split: Split) -> None:
    talk = talk_with_types(split)
    first, second = talk.sent_call(), talk.sent_call()
    stream = talk.sent_call(flow=Flow.BOTH)
    talk.hear(
        [0, 2, "before", []],
        [0, 4, "bad", [1, {"deep": [value]}]],
        [1, first, None, {"key": value}],
        [2, "told", [value]],
        [4, stream, value],
        [1, second, None, "good"],
        [0, 6, "after", [], {"timeout": 100, "more": value}],
        [0, 8, "after", []],
        [4, stream, "good"],
    )
    events = talk.events()
    kinds = [type(event) for event in events]
    assert kinds == [
        RequestReceived,
        CallFailed,
        NotificationUnreadable,
        ItemUnreadable,
        ResponseReceived,
        RequestReceived,
        ItemReceived,
    ]
    failed, told, item = events[1], events[2], events[3]
    assert isinstance(failed, CallFailed)
    assert (failed.msgid, failed.code, failed.maybe_executed) == (first, StatusCode.INTERNAL, True)
    assert failed.message.startswith("the result cannot be read: ")
    assert reason in failed.message
    assert isinstance(told, NotificationUnreadable)
    assert reason in told.reason
    assert isinstance(item, ItemUnreadable)
    assert item.msgid == stream
    assert item.size > 0
    answers = talk.said()
    assert [(answer[:2], answer[2][0], answer[2][3]) for answer in answers] == [
        ([1, 4], StatusCode.INVALID_ARGUMENT, False),
        ([1, 6], StatusCode.INVALID_ARGUMENT, False),
    ]
    assert "the parameters of bad cannot be read: " in answers[0][2][1]
    assert reason in answers[0][2][1]
    assert talk.session.state is SessionState.OPEN
    assert talk.session.pending_requests == 2
    assert talk.session._codec.unreadable == []


def test_parameters_that_are_unreadable_as_a_whole() -> None:
    talk = talk_with_types()
    talk.hear([0, 2, "m", ext(64, b"")], [2, "n", ext(64, b"")])
    (dropped,) = talk.events()
    assert isinstance(dropped, NotificationUnreadable)
    ((_, _, error, _),) = talk.said()
    assert error[0] == StatusCode.INVALID_ARGUMENT


def test_details_of_an_error_that_are_unreadable() -> None:
    talk = talk_with_types()
    msgid = talk.sent_call()
    talk.hear([1, msgid, [5, "no such user", ext(64, b"")], None])
    failed = talk.event(CallFailed)
    assert (failed.code, failed.details) == (StatusCode.NOT_FOUND, None)
    assert failed.message.startswith("no such user (its details cannot be read: ")


def test_a_type_that_messagepack_reserves() -> None:
    talk = Talk()
    talk.hear_bytes(b"\x94\x00\x02\xa1m\x91\xc7\x01\xfe\x00")
    ((_, _, error, _),) = talk.said()
    assert "has not said yet what extension type -2 is" in error[1]


def test_a_foreign_type_arrives_as_it_is() -> None:
    talk = Talk()
    talk.hear([2, "n", [ext(1, b"\x05"), ext(127, b"")]])
    assert talk.events() == [NotificationReceived("n", [ext(1, b"\x05"), ext(127, b"")], None)]


def test_what_is_unreadable_in_one_connection_is_no_matter_of_another() -> None:
    codec = Codec(types=registry())
    one, other = Talk(codec=codec), Talk(codec=codec)
    broken = pack([0, 2, "bad", [thing("Point", {}), "and more"]])
    one.hear_bytes(broken[:-4])  # the value has come, the message has not
    other.hear([0, 2, "m", []])
    assert isinstance(other.event(RequestReceived), RequestReceived)
    other.hear_bytes(pack([0, 4, "m", ["abc"]])[:-2])
    one.hear_bytes(broken[-4:])
    assert one.events() == []
    assert one.said()[0][2][0] == StatusCode.INVALID_ARGUMENT
    other.hear_bytes(pack([0, 4, "m", ["abc"]])[-2:])
    assert other.event(RequestReceived).params == ["abc"]
    assert other.said() == []


def test_a_fault_behind_it_does_not_hide_it() -> None:
    talk = talk_with_types()
    talk.hear_bytes(pack([0, 2, "bad", [ext(64, b"")]]) + b"\xc1")
    assert [type(event).__name__ for event in talk.events()] == ["ConnectionFailed"]
    assert talk.said()[0][2][0] == StatusCode.INVALID_ARGUMENT
    talk = talk_with_types()
    talk.hear([2, "n", [ext(64, b"")]], [99])
    assert [type(event).__name__ for event in talk.events()] == ["NotificationUnreadable", "ConnectionFailed"]


def test_millions_of_bad_values_take_no_memory_each() -> None:
    codec = Codec(types=registry())
    talk = Talk(codec=codec)
    talk.hear([0, 2, "m", [[ext(64, b"x")] * 100_000]])
    assert talk.said()[0][2][0] == StatusCode.INVALID_ARGUMENT
    assert codec.unreadable == []


class Hostile:
    """A class whose objects cannot be hashed, in a way of its own."""

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


def test_a_registered_class_that_misbehaves_fails_the_connection_at_most() -> None:
    types = registry()
    types.register(Hostile, to_value=lambda one: 1, from_value=lambda value: Hostile())
    talk = Talk(codec=Codec(types=types))
    talk.hear_bytes(pack([0, 2, "m", []]) + b"\x93\x02\xa1n\x91\x81" + pack(thing("Hostile", 1)) + b"\x01")
    assert [type(event).__name__ for event in talk.events()] == ["RequestReceived", "ConnectionFailed"]


@settings(max_examples=200)
@given(st.integers(-128, 127), st.binary(max_size=60), st.booleans())
def test_no_extension_value_ever_crashes_a_session(code: int, data: bytes, compressed: bool) -> None:
    options = {"types": registry(), "accepts": ["json"], "compression": "zstd" if compressed else None}
    talk = Talk(codec=Codec(**options), credit=64)
    header = b"\xc7" + bytes([len(data)]) + struct.pack("b", code)  # the package packs no negative types
    talk.hear_bytes(b"\x94\x00\x02\xa1m\x91" + (b"\xc0" if code == -1 else header + data))
    talk.hear([0, 4, "m", []])
    events = talk.events()
    assert events[-1] == RequestReceived(4, "m", [], None, None, Flow.UNARY)
    assert talk.session.state is SessionState.OPEN


def test_objects_survive_their_codec_being_shared() -> None:
    types = registry()
    pair = codec_pair({"types": types}, {"types": types})
    for number in range(3):
        pair.call("m", (Point(number), Positive(1), uuid.UUID(int=number)))
        pair.pump()
    events = pair.server.take_events()
    assert [event.params[0] for event in events] == [Point(0), Point(1), Point(2)]  # type: ignore[union-attr]
