"""What each message means, as a table: read whole, byte by byte, and with junk behind it.

The session under test opened the connection. Call 1 of its is in flight, 3 is a stream both ways,
5 was cancelled; request 2 of the peer's waits for its answer, 4 is a stream both ways.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from rpc_pair import Split, Talk, byte_by_byte, pack, whole

from helianthus.protocols.errors import RemoteProtocolError
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.rpc import (
    CallFailed,
    CancelReceived,
    Flow,
    GoawayReceived,
    ItemReceived,
    NotificationReceived,
    PongReceived,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    RpcLimits,
    SessionState,
    StatusCode,
    StreamEnded,
    UnexpectedResponse,
)
from helianthus.protocols.rpc.wire import MAX_MSGID

JUNK = b"\xc1\x00junk"
"""The one byte that MessagePack never uses, and more."""


@attrs.define
class Case:
    name: str
    messages: list[Any]
    """What the peer sends: messages, or bytes where it cannot be put otherwise."""
    events: list[RpcEvent] = attrs.Factory(list)
    sent: list[Any] = attrs.Factory(list)
    fault: str = ""
    """A part of the error, where the peer broke a rule behind the events."""
    unanswered: list[int] = attrs.Factory(lambda: [1, 3])
    """Calls in flight behind the events."""

    @property
    def data(self) -> bytes:
        return b"".join(part if isinstance(part, bytes) else pack(part) for part in self.messages)


def request(msgid: int, params: Any, meta: Any = None, deadline: Any = None, flow: int = 0) -> RpcEvent:
    return RequestReceived(msgid, "m", params, meta, deadline, Flow(flow))


def away(*never_ran: int) -> list[RpcEvent]:
    why = "the peer is going away: bye"
    failed: list[RpcEvent] = [
        CallFailed(msgid, StatusCode.UNAVAILABLE, why, maybe_executed=False) for msgid in never_ran
    ]
    return [*failed, GoawayReceived("bye")]


CASES = [
    # -- requests
    Case("request", [[0, 6, "m", [1, "x"]]], [request(6, [1, "x"])]),
    Case("request with keywords", [[0, 6, "m", {"a": 1}]], [request(6, {"a": 1})]),
    Case("request with id 0", [[0, 0, "m", []]], [request(0, [])]),
    Case("request with the largest id", [[0, MAX_MSGID, "m", []]], [request(MAX_MSGID, [])]),
    Case("request with meta", [[0, 6, "m", [], {"k": [1]}]], [request(6, [], {"k": [1]})]),
    Case("request with nil for meta", [[0, 6, "m", [], None]], [request(6, [])]),
    Case(
        "request with timeout",
        [[0, 6, "m", [], {"timeout": 250}]],
        [request(6, [], {"timeout": 250}, deadline=100.25)],
    ),
    Case("request with a stream", [[0, 6, "m", [], {"stream": 2}]], [request(6, [], {"stream": 2}, flow=2)]),
    Case("request that streams nothing", [[0, 6, "m", [], {"stream": 0}]], [request(6, [], {"stream": 0})]),
    Case(
        "request with every integer as wide as can be",
        [
            b"\x94\xd3"
            + bytes(8)
            + b"\xcf"
            + bytes(7)
            + b"\x06"
            + b"\xdb\x00\x00\x00\x01m\xdd\x00\x00\x00\x00"
        ],
        [request(6, [])],
    ),
    Case("request whose method is bytes", [[0, 6, b"m", []]], [request(6, [])]),
    Case("two requests", [[0, 6, "m", []], [0, 8, "m", []]], [request(6, []), request(8, [])]),
    Case("request with an id in use", [[0, 2, "m", []]], fault="message id 2 again"),
    Case("request for a stream with an id of ours", [[0, 7, "m", [], {"stream": 1}]], fault="odd ids"),
    Case("request with a broken timeout", [[0, 6, "m", [], {"timeout": "1"}]], fault="timeout"),
    Case("request that has been under way for too long", [[0, 6, "m", [], {"timeout": -1}]], fault="timeout"),
    Case("request with a timeout of NaN", [[0, 6, "m", [], {"timeout": float("nan")}]], fault="timeout"),
    Case("request without end", [[0, 6, "m", [], {"timeout": float("inf")}]], fault="timeout"),
    Case("request with a true timeout", [[0, 6, "m", [], {"timeout": True}]], fault="timeout"),
    Case("request with a fifth flow", [[0, 6, "m", [], {"stream": 4}]], fault="stream flags"),
    Case("request with a true flow", [[0, 6, "m", [], {"stream": True}]], fault="stream flags"),
    Case("request whose keywords are numbers", [[0, 6, "m", {1: 2}]], fault="malformed"),
    Case("request whose meta has numbers for keys", [[0, 6, "m", [], {1: 2}]], fault="meta"),
    # -- responses
    Case("response", [[1, 1, None, 5]], [ResponseReceived(1, 5)], unanswered=[3]),
    Case("response without a result", [[1, 1, None, None]], [ResponseReceived(1, None)], unanswered=[3]),
    Case(
        "error",
        [[1, 1, [5, "gone", {"k": 1}], None]],
        [CallFailed(1, StatusCode.NOT_FOUND, "gone", {"k": 1})],
        unanswered=[3],
    ),
    Case(
        "foreign error",
        [[1, 1, "gone", None]],
        [CallFailed(1, StatusCode.UNKNOWN, "gone", "gone")],
        unanswered=[3],
    ),
    Case(
        "error and result: the error counts",
        [[1, 1, "gone", 5]],
        [CallFailed(1, StatusCode.UNKNOWN, "gone", "gone")],
        unanswered=[3],
    ),
    Case(
        "false is an error",
        [[1, 1, False, 5]],
        [CallFailed(1, StatusCode.UNKNOWN, "False", False)],
        [],
        "",
        [3],
    ),
    Case(
        "response, twice",
        [[1, 1, None, 5], [1, 1, None, 6]],
        [ResponseReceived(1, 5), UnexpectedResponse(1)],
        unanswered=[3],
    ),
    Case("response to nothing", [[1, 99, None, 5]], [UnexpectedResponse(99)]),
    Case("response to a request of the peer's own", [[1, 2, None, 5]], [UnexpectedResponse(2)]),
    Case("response to a cancelled call", [[1, 5, None, 5]]),
    Case("response to a cancelled call, twice", [[1, 5, None, 5], [1, 5, None, 5]], [UnexpectedResponse(5)]),
    Case("response to an id beyond 32 bits", [[1, 2**40, None, 5]], [UnexpectedResponse(2**40)]),
    # -- notifications
    Case("notification", [[2, "m", [1]]], [NotificationReceived("m", [1], None)]),
    Case(
        "notification with meta",
        [[2, "m", {"a": 1}, {"k": 2}]],
        [NotificationReceived("m", {"a": 1}, {"k": 2})],
    ),
    Case("notification whose method is bytes", [[2, b"m", []]], [NotificationReceived("m", [], None)]),
    Case("hello again", [[2, "helianthus.hello", [{"version": 5}]]]),
    # -- streams
    Case("cancel", [[3, 2], [3, 4]], [CancelReceived(2), CancelReceived(4)]),
    Case("cancel of nothing", [[3, 1], [3, 6], [3, 0]]),
    Case("item", [[4, 3, "x"]], [ItemReceived(3, "x", 5)]),
    Case("items both ways", [[4, 4, 1], [4, 3, None]], [ItemReceived(4, 1, 4), ItemReceived(3, None, 4)]),
    Case("item of no stream", [[4, 1, 1], [4, 2, 1], [4, 99, 1]]),
    Case("end", [[5, 4]], [StreamEnded(4)]),
    Case("end, twice", [[5, 4], [5, 4]], [StreamEnded(4)]),
    Case("end of no stream of the peer's", [[5, 3], [5, 1], [5, 99]]),
    Case("item after the end", [[5, 4], [4, 4, 1]], [StreamEnded(4)], fault="whose stream it does not have"),
    Case("items beyond credit", [[4, 3, 0]] * 3, [ItemReceived(3, 0, 4)] * 2, fault="credit"),
    Case("item behind the answer", [[1, 3, None, 0], [4, 3, 1]], [ResponseReceived(3, 0)], unanswered=[1]),
    Case("credit", [[6, 3, 1], [6, 4, MAX_MSGID], [6, 99, 1]]),
    Case("credit of none", [[6, 3, 0]], fault="malformed"),
    Case("credit of less than none", [[6, 3, -1]], fault="malformed"),
    Case("credit beyond 32 bits", [[6, 3, 2**32]], fault="malformed"),
    # -- the connection
    Case("ping", [[7, 9, False]], sent=[[7, 9, True]]),
    Case("ping of less than nothing", [[7, -(2**63), False]], sent=[[7, -(2**63), True]]),
    Case("pong", [[7, 9, True]], [PongReceived(9)]),
    Case("pong of a keep-alive", [[7, -1, True]]),
    Case("four pings", [[7, 9, False]] * 4, sent=[[7, 9, True]] * 3, fault="too_many_pings"),
    Case("goaway that has run all", [[8, 5, "bye"]], away()),
    Case("goaway that has run some", [[8, 1, "bye"]], away(3), unanswered=[1]),
    Case("goaway that has run nothing", [[8, None, "bye"]], away(1, 3), unanswered=[]),
    # -- no messages at all
    Case("nothing", []),
    Case("unknown type", [[9, 1]], fault="unknown message type 9; this side knows 0 to 8"),
    Case("type below zero", [[-1, 1]], fault="unknown message type -1"),
    Case("fault after good messages", [[1, 1, None, 5], [9]], [ResponseReceived(1, 5)], [], "type 9", [3]),
    Case(
        "fault between good messages",
        [[2, "m", []], 7, [2, "m", []]],
        [NotificationReceived("m", [], None)],
        fault="int",
    ),
    Case(
        "unreadable after good messages",
        [[2, "m", []], b"\xc1"],
        [NotificationReceived("m", [], None)],
        fault="MessagePack",
    ),
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_split = pytest.mark.parametrize("split", [whole, byte_by_byte])


def ready(split: Split) -> Talk:
    """A session as the top of this page describes it."""
    talk = Talk(split=split, limits=RpcLimits(stream_window=2), credit=2)
    assert talk.call("m", []) == 1
    assert talk.call("m", [], flow=Flow.BOTH) == 3
    assert talk.sent_call("m", []) == 5
    talk.session.cancel(5)
    talk.hear([0, 2, "m", []], [0, 4, "m", [], {"stream": 3}])
    talk.said()
    talk.events()
    return talk


def check_fault(talk: Talk, events: list[RpcEvent], sent: list[Any], case: Case, fault: str) -> None:
    """The events of the case, then its calls fail, then the connection."""
    *before, last = events
    assert before[: len(case.events)] == case.events
    rest = before[len(case.events) :]
    assert [type(event) for event in rest] == [CallFailed] * len(case.unanswered)
    assert [event.msgid for event in rest if isinstance(event, CallFailed)] == case.unanswered
    assert isinstance(last, ConnectionFailed)
    assert isinstance(last.error, RemoteProtocolError)
    assert fault in str(last.error)
    assert sent[:-1] == case.sent
    assert sent[-1][0] == 8
    assert sent[-1][2] == str(last.error)
    assert talk.session.closing is Closing.FULL
    assert talk.session.state is SessionState.ENDED


@every_case
@every_split
def test_what_a_message_means(case: Case, split: Split) -> None:
    talk = ready(split)
    talk.hear_bytes(case.data)
    events, sent = talk.events(), talk.said()
    if case.fault:
        check_fault(talk, events, sent, case, case.fault)
    else:
        assert events == case.events
        assert sent == case.sent
        assert talk.session.closing is Closing.OPEN


@every_case
@every_split
def test_junk_behind_a_message_spoils_nothing_before_it(case: Case, split: Split) -> None:
    talk = ready(split)
    talk.hear_bytes(case.data + JUNK)
    check_fault(talk, talk.events(), talk.said(), case, case.fault or "MessagePack")


@every_case
def test_a_message_cut_short_is_not_read(case: Case) -> None:
    """Without its last byte, all but the last message count, and the end of the stream is a fault."""
    if not case.messages or case.fault:
        return
    talk = ready(whole)
    talk.hear_bytes(case.data[:-1])
    events = talk.events()
    assert events == case.events[: len(events)]
    talk.end()
    assert isinstance(talk.events()[-1], ConnectionFailed)


def test_the_cases_use_every_type_of_message() -> None:
    types = {message[0] for case in CASES for message in case.messages if isinstance(message, list)}
    assert set(range(9)) <= types


def test_no_two_cases_have_one_name() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
