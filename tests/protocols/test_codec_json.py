"""Payloads as JSON: what is on the wire, and bad text."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_codecs import JSON, JSON_CLIENT, JSON_SERVER, JSON_VALUES, ZIPPED, codec_pair, echoed, registry
from rpc_pair import Talk, at_random, byte_by_byte, join, unpack

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.rpc import (
    Codec,
    ExtensionsMissing,
    Flow,
    HelloReceived,
    ItemReceived,
    NotificationReceived,
    RequestReceived,
    ResponseReceived,
    RpcLimits,
    SessionState,
    StatusCode,
)


@given(JSON_VALUES)
def test_json_brings_back_what_it_can_carry(value: Any) -> None:
    assert echoed(codec_pair(JSON_CLIENT, JSON_SERVER), value) == (value, value)


@settings(max_examples=25)
@given(JSON_VALUES, st.randoms(use_true_random=False))
def test_json_in_pieces(value: Any, rng: Any) -> None:
    assert echoed(codec_pair(JSON_CLIENT, JSON_SERVER, split=byte_by_byte), value) == (value, value)
    assert echoed(codec_pair(JSON_CLIENT, JSON_SERVER, split=at_random(rng)), value) == (value, value)


def test_json_on_the_wire() -> None:
    talk = Talk(extended=False, codec=Codec(codec="json"))
    talk.hear([2, "helianthus.hello", [{"version": 1, "credit": 9, "codecs": ["json"]}]])
    talk.events()
    first = talk.call("m", (1, "ü", None, (2.5,)), timeout=1.0)
    stream = talk.call("s", {"key": [True]}, flow=Flow.BOTH)
    talk.session.notify("n", [1])
    talk.session.send_item(stream, {"item": 1})
    talk.session.end_stream(stream)
    talk.hear([0, 2, "asked", []], [0, 4, "asked", []])
    talk.session.respond(2, [])
    talk.session.respond_error(4, StatusCode.ABORTED, "no", {"left": "alone"})
    assert talk.said() == [
        [0, first, "m", msgpack.ExtType(JSON, '[1,"ü",null,[2.5]]'.encode()), {"timeout": 1000}],
        [0, stream, "s", msgpack.ExtType(JSON, b'{"key":[true]}'), {"stream": 3}],
        [2, "n", msgpack.ExtType(JSON, b"[1]")],
        [4, stream, msgpack.ExtType(JSON, b'{"item":1}')],
        [5, stream],
        [1, 2, None, msgpack.ExtType(JSON, b"[]")],
        [1, 4, [10, "no", {"left": "alone"}], None],
    ]


def test_json_from_a_foreign_peer_is_read_wherever_a_payload_stands() -> None:
    talk = Talk(codec=Codec(codec="json"))
    msgid = talk.session._calls.first_msgid
    with pytest.raises(ExtensionsMissing, match="takes MessagePack and nothing else"):
        talk.call("m", ())
    assert talk.session.pending_calls == 0
    talk.hear(
        [0, 2, "m", msgpack.ExtType(JSON, b' [1, {"a": []}] ')],
        [0, 4, "m", msgpack.ExtType(JSON, b'{"by": "name"}')],
        [2, "n", msgpack.ExtType(JSON, b"[]")],
    )
    assert talk.events() == [
        RequestReceived(2, "m", [1, {"a": []}], None, None, Flow.UNARY),
        RequestReceived(4, "m", {"by": "name"}, None, None, Flow.UNARY),
        NotificationReceived("n", [], None),
    ]
    assert msgid == 1


def test_the_server_answers_and_calls_a_json_client_in_json() -> None:
    pair = codec_pair(JSON_CLIENT, JSON_SERVER)
    pair.call("m", (1,), flow=Flow.FROM_CALLEE)
    pair.pump()
    (request,) = pair.server.take_events()
    pair.server.send_item(request.msgid, [1])  # type: ignore[union-attr]
    pair.server.respond(request.msgid, {"done": 1})  # type: ignore[union-attr]
    pair.server.call("back", (2,), 0.0)
    raw = join(pair.server.take_data())
    assert [
        msgpack.ExtType(JSON, data) in message
        for data, message in zip([b"[1]", b'{"done":1}', b"[2]"], unpack(raw), strict=True)
    ] == [True] * 3
    pair.client.receive_data(raw, 0.0)
    item, response, asked = pair.client.take_events()
    assert isinstance(item, ItemReceived)
    assert item.item == [1]
    assert isinstance(response, ResponseReceived)
    assert response.result == {"done": 1}
    assert isinstance(asked, RequestReceived)
    assert asked.params == [2]


@pytest.mark.parametrize("server", [{}, {"accepts": ["msgpack"]}, ZIPPED])
def test_a_server_that_does_not_take_json_is_not_sent_any(server: dict[str, Any]) -> None:
    pair = codec_pair(JSON_CLIENT, server)
    for refused in (lambda: pair.call("m", (1,)), lambda: pair.client.notify("n", (1,))):
        with pytest.raises(ExtensionsMissing, match=r"does not take payloads in JSON.*codec='msgpack'"):
            refused()
    assert pair.client.take_data() == []
    pair.server.call("m", (1,), 0.0)
    pair.pump()
    (request,) = pair.client.take_events()
    pair.client.respond(request.msgid, "in MessagePack")  # type: ignore[union-attr]
    pair.pump()
    assert pair.server.take_events() == [ResponseReceived(2, "in MessagePack")]


def test_a_plain_peer_is_not_sent_any_json() -> None:
    talk = Talk(extended=False, codec=Codec(codec="json"))
    with pytest.raises(ExtensionsMissing, match="has not announced anything"):
        talk.call("m", (1,))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"bytes", "JSON has no form for bytes"),
        (float("nan"), "not JSON compliant"),
        (2**64, "beyond 64 bits"),
        ({1: 2}, "the keys of a map must be str in JSON, got int"),
        ("\ud800", "surrogates not allowed"),
        (registry(), "JSON has no form for TypeRegistry"),
    ],
)
def test_what_json_has_no_form_for(value: Any, text: str) -> None:
    pair = codec_pair(JSON_CLIENT, JSON_SERVER)
    with pytest.raises(LocalProtocolError, match="cannot be encoded as JSON") as caught:
        pair.call("m", (value,))
    assert text in str(caught.value)
    assert pair.client.pending_calls == 0


def deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def test_json_that_is_deep() -> None:
    pair = codec_pair(JSON_CLIENT, JSON_SERVER)
    assert echoed(pair, deep(400)) == (deep(400), deep(400))
    for depth in (600, 100_000):
        with pytest.raises(LocalProtocolError, match="nested more than 500 deep"):
            pair.call("m", (deep(depth),))


BAD_JSON = {
    "nothing": (b"", "Expecting value"),
    "half": (b"[1,", "Expecting value"),
    "two": (b"[] []", "Extra data"),
    "NaN": (b"[NaN]", "NaN is no number"),
    "infinity": (b"[-Infinity]", "-Infinity is no number"),
    "a number that becomes infinite": (b"[1e999]", "beyond what a float can hold"),
    "a huge number": (b"[18446744073709551616]", "beyond 64 bits"),
    "a number of 10,000 digits": (b"[" + b"9" * 10_000 + b"]", ""),
    "the same key twice": (b'[{"a":1,"b":2,"a":3}]', "the same key twice"),
    "half a character": (rb'["\ud800"]', "surrogates"),
    "no UTF-8": (b'["\xff"]', "utf-8"),
    "UTF-16": ("[]".encode("utf-16"), "utf-8"),
    "a byte order mark": (b"\xef\xbb\xbf[]", "BOM"),
    "lists in each other": (b"[" * 501 + b"]" * 501, "nested more than 500 deep"),
    "lists in each other without end": (b"[" * 1_000_000, "nested more than 500 deep"),
    "maps in each other": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 500 deep"),
    "too many elements": (b"[" + b"0," * 2000 + b"0]", "more than max_elements (1000)"),
}


@pytest.mark.parametrize(("text", "reason"), BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_fails_its_own_call(text: bytes, reason: str) -> None:
    limits = RpcLimits(max_elements=1000)
    talk = Talk(initiator=False, limits=limits, codec=Codec(limits, accepts=["json"]))
    talk.hear([0, 1, "m", msgpack.ExtType(JSON, text)], [0, 3, "m", []])
    (good,) = talk.events()
    assert isinstance(good, RequestReceived)
    ((_, msgid, error, _),) = talk.said()
    assert (msgid, error[0], error[3]) == (1, StatusCode.INVALID_ARGUMENT, False)
    assert reason in error[1]
    assert len(error[1]) < 400


def test_json_parameters_that_are_none_end_the_connection_as_others_do() -> None:
    talk = Talk(initiator=False, codec=Codec(accepts=["json"]))
    talk.hear([0, 1, "m", msgpack.ExtType(JSON, b"5")])
    assert talk.session.state is SessionState.ENDED


def test_json_text_is_what_other_languages_read() -> None:
    text = Codec(codec="json").encoder(HelloReceived(1, 1, ("json",))).encode((4, 1, {"ü": [1.5, "\u2028"]}))
    assert json.loads(msgpack.unpackb(text)[2].data) == {"ü": [1.5, "\u2028"]}
