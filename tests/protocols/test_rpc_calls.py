"""Conversations about calls: hello, requests, answers, errors, deadlines, cancelling."""

from __future__ import annotations

from typing import Any

import pytest
from rpc_pair import HELLO, WINDOW, Pair, Talk, byte_by_byte, pack

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Closing
from helianthus.protocols.rpc import (
    CallFailed,
    Flow,
    HelloReceived,
    NotificationReceived,
    OversizedMessage,
    PongReceived,
    RequestReceived,
    ResponseReceived,
    RpcLimits,
    SessionState,
    StatusCode,
    UnexpectedResponse,
)
from helianthus.protocols.rpc.wire import MAX_MSGID

UNARY = Flow.UNARY


def request(msgid: int, method: str = "m", params: Any = None, **rest: Any) -> RequestReceived:
    parts: dict[str, Any] = {"meta": None, "deadline": None, "flow": UNARY, **rest}
    return RequestReceived(msgid, method, [] if params is None else params, **parts)


# -- hello ------------------------------------------------------------------------------------------


def test_the_initiator_says_hello_first_and_is_answered_in_kind() -> None:
    pair = Pair(server={"limits": RpcLimits(stream_window=7)})
    assert pair.server.take_data() == []
    pair.deliver(pair.client)
    assert pair.server.take_events() == [HelloReceived(1, WINDOW)]
    assert pair.server.peer == HelloReceived(1, WINDOW)
    assert pair.client.peer is None
    pair.deliver(pair.server)
    assert pair.client.take_events() == [HelloReceived(1, 7)]
    assert not pair.deliver(pair.client), "a hello that answers one is not answered"


def test_the_other_side_may_say_hello_first() -> None:
    """A foreign initiator may be silent until it is spoken to, or both may speak at once."""
    talk = Talk(extended=False)
    talk.hear(HELLO)
    assert talk.events() == [HelloReceived(1, WINDOW)]
    assert talk.said() == [], "it had said hello already"


def test_a_second_hello_changes_nothing() -> None:
    talk = Talk(initiator=False, credit=5)
    talk.hear([2, "helianthus.hello", [{"version": 9, "credit": 1}]])
    assert talk.events() == []
    assert talk.said() == []
    assert talk.session.peer == HelloReceived(1, 5)


def test_a_hello_from_the_future_may_say_more() -> None:
    talk = Talk(initiator=False, extended=False)
    talk.hear([2, "helianthus.hello", [{"version": 3, "colour": "yellow"}, "more"]])
    assert talk.events() == [HelloReceived(3, 0)]
    assert talk.said() == [HELLO]


def test_without_extensions_nothing_is_announced_and_nothing_believed() -> None:
    talk = Talk(extended=False, extensions=False)
    talk.hear(HELLO)
    assert talk.events() == []
    assert talk.said() == []
    assert talk.session.peer is None


def test_a_plain_initiator_says_nothing_by_itself() -> None:
    pair = Pair(client={"extensions": False})
    assert pair.client.take_data() == []
    msgid = pair.call("add", [1, 2], timeout=1.0, meta={"a": 1})
    pair.deliver(pair.client)
    assert pair.server.take_events() == [request(msgid, "add", [1, 2])]
    pair.server.respond(msgid, 3)
    pair.pump()
    assert pair.client.take_events() == [ResponseReceived(msgid, 3)]


def test_a_plain_peer_is_sent_no_extension() -> None:
    """Neither meta, nor cancel, nor goaway, nor goodbye; what cannot be said without is refused."""
    talk = Talk(initiator=False, extended=False)
    session = talk.session
    msgid = talk.call("add", [1, 2], timeout=0.5, meta={"trace": "x"})
    session.notify("log", ["hi"], meta={"trace": "x"})
    assert talk.said() == [[0, msgid, "add", [1, 2]], [2, "log", ["hi"]]]
    for refused in (
        lambda: talk.call("add", {"a": 1}),
        lambda: session.notify("log", {"a": 1}),
        lambda: talk.call("add", [], flow=Flow.BOTH),
        lambda: session.ping(1),
    ):
        with pytest.raises(LocalProtocolError, match="announced"):
            refused()
    talk.wait(0.5)
    session.cancel(talk.sent_call())
    talk.sent_call()
    session.goaway("restart")
    session.close()
    assert talk.said() == []


def test_a_plain_peer_gets_no_goodbye() -> None:
    talk = Talk(initiator=False, extended=False)
    talk.hear([9])
    assert talk.said() == []
    assert talk.session.closing is Closing.FULL


# -- requests, answers, notifications ---------------------------------------------------------------


def test_a_call_and_its_answer() -> None:
    pair = Pair(split=byte_by_byte).greet()
    msgid = pair.call("add", [1, 2])
    assert pair.client.pending_calls == 1
    pair.pump()
    assert pair.server.take_events() == [request(msgid, "add", [1, 2])]
    assert pair.server.pending_requests == 1
    assert pair.server.awaits_answer(msgid)
    pair.server.respond(msgid, 3)
    assert not pair.server.awaits_answer(msgid)
    pair.pump()
    assert pair.client.take_events() == [ResponseReceived(msgid, 3)]
    assert (pair.client.pending_calls, pair.server.pending_requests) == (0, 0)


def test_both_ends_call_with_ids_that_never_meet() -> None:
    pair = Pair().greet()
    ours = [pair.client.call("m", [], 0.0) for _ in range(3)]
    theirs = [pair.server.call("m", [], 0.0) for _ in range(3)]
    assert (ours, theirs) == ([1, 3, 5], [2, 4, 6])
    pair.pump()
    for session, ids in ((pair.server, ours), (pair.client, theirs)):
        assert session.take_events() == [request(msgid) for msgid in ids]
        for msgid in reversed(ids):
            session.respond(msgid, msgid * 10)
    pair.pump()
    assert pair.client.take_events() == [ResponseReceived(msgid, msgid * 10) for msgid in reversed(ours)]
    assert pair.server.take_events() == [ResponseReceived(msgid, msgid * 10) for msgid in reversed(theirs)]


def test_plain_peers_may_use_any_ids() -> None:
    """The same id in both directions names two calls, as MessagePack-RPC has it."""
    talk = Talk(extended=False)
    assert talk.sent_call("ours") == 1
    talk.hear([0, 1, "theirs", []], [1, 1, None, "answer"])
    assert talk.events() == [request(1, "theirs"), ResponseReceived(1, "answer")]
    talk.session.respond(1, "reply")
    assert talk.said() == [[1, 1, None, "reply"]]


@pytest.mark.parametrize("msgid", [0, 1, 2**31, MAX_MSGID])
def test_ids_have_32_bits(msgid: int) -> None:
    talk = Talk(extended=False)
    talk.hear([0, msgid, "m", []])
    assert talk.events() == [request(msgid)]


def test_an_id_may_be_used_again_once_answered() -> None:
    talk = Talk(extended=False)
    for _ in range(3):
        talk.hear([0, 7, "m", []])
        assert talk.events() == [request(7)]
        talk.session.respond(7, None)


def test_keywords_and_meta_travel_after_hello() -> None:
    pair = Pair().greet()
    msgid = pair.call("add", {"a": 1, "b": 2}, meta={"traceparent": "00-x", "n": [1]})
    pair.client.notify("log", {"text": "hi"}, meta={"k": "v"})
    pair.client.notify("log", ["plain"])
    pair.pump()
    assert pair.server.take_events() == [
        request(msgid, "add", {"a": 1, "b": 2}, meta={"traceparent": "00-x", "n": [1]}),
        NotificationReceived("log", {"text": "hi"}, {"k": "v"}),
        NotificationReceived("log", ["plain"], None),
    ]


def test_empty_meta_is_no_meta() -> None:
    talk = Talk()
    talk.call("m", [], meta={})
    assert talk.said() == [[0, 1, "m", []]]
    talk.hear([0, 2, "m", [], {}], [0, 4, "m", [], None], [2, "n", [], None])
    assert talk.events() == [request(2, meta={}), request(4), NotificationReceived("n", [], None)]


def test_results_of_every_kind_arrive_as_sent() -> None:
    results: list[Any] = [None, True, 0, -1, 2**64 - 1, -(2**63), 1.5, "ü", b"\xff", [], {}, {1: [2]}]
    pair = Pair(split=byte_by_byte).greet()
    ids = [pair.call() for _ in results]
    pair.pump()
    for msgid, result in zip(ids, results, strict=True):
        pair.server.respond(msgid, result)
    pair.pump()
    assert pair.client.take_events() == [
        ResponseReceived(msgid, result) for msgid, result in zip(ids, results, strict=True)
    ]


def test_a_request_is_answered_once() -> None:
    talk = Talk()
    talk.hear([0, 2, "m", []])
    talk.session.respond(2, "first")
    for again in (
        lambda: talk.session.respond(2, "second"),
        lambda: talk.session.respond_error(2, StatusCode.INTERNAL, "third"),
        lambda: talk.session.respond(99, "never asked"),
    ):
        with pytest.raises(LocalProtocolError, match="awaits an answer"):
            again()
    assert talk.said() == [[1, 2, None, "first"]]


def test_an_answer_that_nobody_awaits_is_told_and_dropped() -> None:
    talk = Talk()
    msgid = talk.sent_call()
    talk.hear([1, 77, None, 1], [1, msgid, None, 2], [1, msgid, None, 3], [1, -1, None, 4])
    assert talk.events() == [
        UnexpectedResponse(77),
        ResponseReceived(msgid, 2),
        UnexpectedResponse(msgid),
        UnexpectedResponse(-1),
    ]
    assert talk.session.state is SessionState.OPEN


def test_the_other_types_of_ids_that_are_equal_match_no_call() -> None:
    """1.0 and True equal 1 in Python; on the wire they are broken ids."""
    for msgid in (1.0, True):
        talk = Talk()
        assert talk.sent_call() == 1
        talk.hear([1, msgid, None, "wrong"])
        assert isinstance(talk.events()[0], CallFailed)


# -- errors ------------------------------------------------------------------------------------------


def test_an_error_arrives_with_code_message_and_details() -> None:
    pair = Pair().greet()
    msgid = pair.call()
    pair.pump()
    pair.server.respond_error(msgid, StatusCode.NOT_FOUND, "no such thing", {"id": 5})
    pair.pump()
    assert pair.client.take_events() == [CallFailed(msgid, StatusCode.NOT_FOUND, "no such thing", {"id": 5})]


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK])
def test_every_status_code_arrives_by_its_number(code: StatusCode) -> None:
    talk = Talk()
    talk.hear([0, 2, "m", []])
    assert talk.event(RequestReceived).msgid == 2
    talk.session.respond_error(2, code, "why")
    assert talk.said() == [[1, 2, [code.value, "why", None], None]]
    msgid = talk.sent_call()
    talk.hear([1, msgid, [code.value, "why", None], None])
    assert talk.events() == [CallFailed(msgid, code, "why")]


@pytest.mark.parametrize("code", [0, 17, -1])
def test_a_failure_has_the_code_of_one(code: int) -> None:
    talk = Talk()
    talk.hear([0, 2, "m", []])
    with pytest.raises(LocalProtocolError, match="status code"):
        talk.session.respond_error(2, code, "why")  # type: ignore[arg-type]  # the caller's mistake
    assert talk.session.awaits_answer(2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("method not found", "method not found"),
        (5, "5"),
        (False, "False"),
        (b"\xff", "b'\\xff'"),
        ([], "[]"),
        (["Error", "text"], "['Error', 'text']"),
        ([5], "[5]"),
        ([0, "OK is no error", None], "[0, 'OK is no error', None]"),
        ([17, "no such code", None], "[17, 'no such code', None]"),
        ([True, "no code", None], "[True, 'no code', None]"),
        ([5, 6, 7], "[5, 6, 7]"),
        ({"code": 5}, "{'code': 5}"),
    ],
)
def test_errors_of_foreign_peers_are_unknown(error: Any, message: str) -> None:
    talk = Talk(extended=False)
    msgid = talk.sent_call()
    talk.hear([1, msgid, error, None])
    assert talk.events() == [CallFailed(msgid, StatusCode.UNKNOWN, message, error)]


def test_an_error_of_two_elements_has_no_details() -> None:
    talk = Talk(extended=False)
    msgid = talk.sent_call()
    talk.hear([1, msgid, [3, "bad"], "ignored"])
    assert talk.events() == [CallFailed(msgid, StatusCode.INVALID_ARGUMENT, "bad", None)]


@pytest.mark.parametrize("error", [[[]] * 100_000, "x" * 100_000, b"x" * 100_000, {"k": ["v" * 100_000]}])
def test_a_large_foreign_error_is_not_repeated(error: Any) -> None:
    talk = Talk(extended=False)
    msgid = talk.sent_call()
    talk.hear([1, msgid, error, None])
    failed = talk.event(CallFailed)
    assert failed.details == error
    assert failed.message == error or len(failed.message) < 1000


def test_a_deeply_nested_foreign_error_is_shown_in_part() -> None:
    """`repr` of a list in 900 lists exceeds Python's recursion limit."""
    talk = Talk(extended=False)
    msgid = talk.sent_call()
    talk.hear_bytes(b"\x94\x01" + pack(msgid) + b"\x91" * 900 + b"\x01" + b"\xc0")
    failed = talk.event(CallFailed)
    assert (failed.msgid, failed.code) == (msgid, StatusCode.UNKNOWN)
    assert "..." in failed.message


# -- what cannot be encoded --------------------------------------------------------------------------

RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)

UNENCODABLE = [object(), {"a": {1, 2}}, 2**64, "\ud800", range(3), RECURSIVE]


@pytest.mark.parametrize("value", UNENCODABLE, ids=lambda value: type(value).__name__)
def test_what_cannot_be_encoded_leaves_no_trace(value: Any) -> None:
    talk = Talk()
    session = talk.session
    talk.hear([0, 2, "m", []])
    stream = talk.call("s", [], flow=Flow.FROM_CALLER)
    talk.said()
    talk.events()
    for refused in (
        lambda: talk.call("m", [value], timeout=5),
        lambda: session.notify("m", [value]),
        lambda: talk.call("m", [], meta={"k": value}),
        lambda: session.respond(2, value),
        lambda: session.respond_error(2, StatusCode.INTERNAL, "why", value),
        lambda: session.send_item(stream, value),
    ):
        with pytest.raises(LocalProtocolError, match="MessagePack"):
            refused()
    assert session.take_data() == []
    assert session.take_events() == []
    assert session.deadline() is None
    assert (session.pending_calls, session.pending_requests) == (1, 1)
    assert session.credit(stream) == WINDOW
    assert talk.call("m", []) == stream + 2, "no id was used up"
    session.respond(2, "an answer after all")
    assert talk.said() == [[0, 3, "m", []], [1, 2, None, "an answer after all"]]


def test_what_is_too_large_leaves_no_trace() -> None:
    talk = Talk(limits=RpcLimits(max_message_size=1024))
    session = talk.session
    talk.hear([0, 2, "m", []])
    talk.events()
    large = "x" * 1024
    for refused in (lambda: talk.call("m", [large]), lambda: session.respond(2, large)):
        with pytest.raises(OversizedMessage, match=r"max_message_size \(1024\)"):
            refused()
    assert session.take_data() == []
    session.respond(2, "x" * 1000)
    assert len(talk.said()) == 1


@pytest.mark.parametrize("params", ["text", b"bytes", 5, None, {1, 2}, {1: 2}, iter([])])
def test_parameters_that_are_none_are_refused_here_rather_than_by_the_peer(params: Any) -> None:
    talk = Talk()
    with pytest.raises(LocalProtocolError, match="parameters of m"):
        talk.call("m", params)
    with pytest.raises(LocalProtocolError, match="parameters of m"):
        talk.session.notify("m", params)
    assert talk.said() == []


@pytest.mark.parametrize("method", [b"m", None, 5, ("m",)])
def test_a_method_has_a_name(method: Any) -> None:
    talk = Talk()
    with pytest.raises(LocalProtocolError, match="must be a str"):
        talk.call(method)
    with pytest.raises(LocalProtocolError, match="must be a str"):
        talk.session.notify(method, ())
    assert talk.said() == []


@pytest.mark.parametrize("meta", [{"timeout": 5}, {"stream": 3}, {1: 2}])
def test_the_keys_of_meta_that_the_library_sets_are_not_for_callers(meta: Any) -> None:
    talk = Talk()
    with pytest.raises(LocalProtocolError, match="meta"):
        talk.call("m", [], meta=meta)
    assert talk.said() == []


# -- message ids at the end of their range -----------------------------------------------------------


@pytest.mark.parametrize(("initiator", "first", "last"), [(True, 1, MAX_MSGID), (False, 2, MAX_MSGID - 1)])
def test_ids_begin_anew_after_32_bits(initiator: bool, first: int, last: int) -> None:
    talk = Talk(initiator=initiator)
    assert talk.sent_call() == first, "this one stays in flight"
    talk.session._calls.next_msgid = last - 2
    cancelled = [talk.sent_call() for _ in range(2)]
    assert cancelled == [last - 2, last]
    assert talk.sent_call() == first + 2, "the first id is still taken"
    talk.session.cancel(cancelled[0])
    talk.session._calls.next_msgid = last - 2
    assert talk.sent_call() == first + 4, "the answer of the cancelled call may still come"


# -- pings of the owner's ----------------------------------------------------------------------------


def test_a_ping_is_answered() -> None:
    pair = Pair().greet()
    pair.client.ping(7)
    pair.client.ping(2**63 - 1)
    pair.pump()
    assert pair.server.take_events() == []
    assert pair.client.take_events() == [PongReceived(7), PongReceived(2**63 - 1)]


@pytest.mark.parametrize("token", [-1, 2**63, True, "x", None, 1.0])
def test_the_token_of_a_ping_is_a_number(token: Any) -> None:
    talk = Talk()
    with pytest.raises(LocalProtocolError, match="token"):
        talk.session.ping(token)
    assert talk.said() == []


def test_a_pong_that_nobody_asked_for_is_told() -> None:
    talk = Talk()
    talk.hear([7, 5, True])
    assert talk.events() == [PongReceived(5)]
