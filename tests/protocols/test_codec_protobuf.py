"""Protocol Buffers messages as values."""

from __future__ import annotations

import sys
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rpc_codecs import codec_pair, echoed
from rpc_pair import Talk

pytest.importorskip("google.protobuf", reason="the package protobuf is not installed")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.rpc import CallFailed, Codec, RequestReceived, StatusCode, TypeRegistry

PROTOBUF = 73


def message_class(name: str, pool: descriptor_pool.DescriptorPool) -> Any:
    """A message type `demo.<name>` with a required number `x` and a map of numbers."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="demo", syntax="proto2")
    message = file.message_type.add(name=name)
    message.field.add(name="x", number=1, type=5, label=2)
    entry = message.nested_type.add(name="CountsEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=1)
    entry.field.add(name="value", number=2, type=5, label=1)
    message.field.add(name="counts", number=2, type=11, label=3, type_name=f".demo.{name}.CountsEntry")
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"demo.{name}"))


Pixel = message_class("Pixel", descriptor_pool.DescriptorPool())
Voxel = message_class("Voxel", descriptor_pool.Default())


@given(st.integers(-(2**31), 2**31 - 1), st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=3))
def test_messages_come_back(x: int, counts: dict[str, int]) -> None:
    message = Voxel(x=x, counts=counts)
    there, back = echoed(codec_pair(), [message])
    assert there == back == [message]
    assert type(back[0]) is Voxel


def test_well_known_types_and_what_is_on_the_wire() -> None:
    moment = timestamp_pb2.Timestamp(seconds=5)
    form = struct_pb2.Struct()
    form.update({"a": [1, {"b": None}]})
    assert echoed(codec_pair(), {"at": moment, "form": form}) == ({"at": moment, "form": form},) * 2
    talk = Talk()
    talk.call("m", (moment,))
    name_and_bytes = msgpack.packb(["google.protobuf.Timestamp", b"\x08\x05"])
    assert talk.said()[0][3] == [msgpack.ExtType(PROTOBUF, name_and_bytes)]


def test_the_same_message_gives_the_same_bytes() -> None:
    one = Voxel(x=1, counts={"a": 1, "b": 2, "c": 3})
    other = Voxel(x=1, counts={"c": 3, "b": 2, "a": 1})
    encode = Codec().encoder(None).encode
    assert encode((4, 1, one)) == encode((4, 1, other))


def test_a_message_of_a_pool_of_its_own_has_to_be_registered() -> None:
    pair = codec_pair()
    pair.call("m", (Pixel(x=1),))
    pair.pump()
    assert pair.server.take_events() == []
    (failed,) = pair.client.take_events()
    assert isinstance(failed, CallFailed)
    assert failed.code is StatusCode.INVALID_ARGUMENT
    assert "no message type demo.Pixel is loaded: import its generated module" in failed.message
    types = TypeRegistry()
    types.register(Pixel)
    pair = codec_pair({"types": types}, {"types": types})
    assert echoed(pair, Pixel(x=1)) == (Pixel(x=1), Pixel(x=1))
    assert types.names == ["demo.Pixel"]
    with pytest.raises(TypeError, match=r"demo\.Voxel has a name and a form of its own"):
        types.register(Voxel, name="other")


def test_a_required_field_that_is_missing() -> None:
    with pytest.raises(LocalProtocolError, match=r"the message demo\.Voxel cannot be written: .*x"):
        Talk().call("m", (Voxel(),))
    talk = Talk()
    talk.hear([0, 2, "m", [msgpack.ExtType(PROTOBUF, msgpack.packb(["demo.Voxel", b""]))]], [0, 4, "m", []])
    assert [event.msgid for event in talk.events()] == [4]  # type: ignore[union-attr]
    assert "demo.Voxel" in talk.said()[0][2][1]


@given(st.binary(max_size=30))
def test_bytes_that_are_no_message(data: bytes) -> None:
    talk = Talk()
    for name in ("demo.Voxel", "google.protobuf.Struct", "google.protobuf.FileDescriptorProto"):
        value = msgpack.ExtType(PROTOBUF, msgpack.packb([name, data]))
        talk.hear([0, 2, "m", [value]])
        for event in talk.events():
            assert isinstance(event, RequestReceived)
            talk.session.respond(2, None)
    assert {answer[:2] == [1, 2] for answer in talk.said()} == {True}


def test_without_the_package_the_call_fails_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    value = msgpack.ExtType(PROTOBUF, msgpack.packb(["demo.Voxel", b"\x08\x01"]))
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    talk = Talk()
    msgid = talk.sent_call()
    talk.hear([1, msgid, None, value])
    failed = talk.event(CallFailed)
    assert failed.code is StatusCode.INTERNAL
    assert "demo.Voxel needs the package protobuf: pip install 'helianthus[protobuf]'" in failed.message


def test_an_object_cannot_pass_for_a_message() -> None:
    types = TypeRegistry()
    types.register(Pixel)
    talk = Talk(codec=Codec(types=types))
    talk.hear([0, 2, "m", [msgpack.ExtType(72, msgpack.packb(["demo.Pixel", {}]))]])
    assert "no class is registered as 'demo.Pixel' here" in talk.said()[0][2][1]
