"""Conversations about calls that nobody waits for any more: deadlines, cancelling, taking back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from rpc_pair import Pair, Talk

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.rpc import (
    CallFailed,
    CancelReceived,
    Flow,
    RequestExpired,
    RequestReceived,
    ResponseReceived,
    RpcLimits,
    StatusCode,
    UnexpectedResponse,
)


def request(msgid: int, method: str, meta: Any, deadline: float) -> RequestReceived:
    return RequestReceived(msgid, method, [], meta, deadline, Flow.UNARY)


# -- deadlines ---------------------------------------------------------------------------------------


def test_a_call_that_is_not_answered_in_time_fails_and_is_cancelled() -> None:
    pair = Pair().greet()
    msgid = pair.call("slow", [], timeout=2.0)
    pair.pump()
    assert pair.server.take_events() == [request(msgid, "slow", {"timeout": 2000}, 2.0)]
    assert pair.client.deadline() == 2.0
    pair.wait(1.999)
    assert pair.client.take_events() == []
    pair.wait(0.001)
    failed = CallFailed(msgid, StatusCode.DEADLINE_EXCEEDED, "no answer before the deadline")
    assert pair.client.take_events() == [failed]
    assert pair.server.take_events() == [RequestExpired(msgid), CancelReceived(msgid)]
    pair.server.respond(msgid, "too late")
    pair.pump()
    assert pair.client.take_events() == [], "a late answer is no surprise"


def test_the_peer_is_told_whole_milliseconds_and_never_too_few() -> None:
    talk = Talk()
    timeouts = [1.0, 0.0001, 0.0, -3, 2, 1e300]
    for timeout in timeouts:
        talk.call("m", [], timeout=timeout)
    told = [message[4]["timeout"] for message in talk.said()]
    assert told == [1000, 1, 0, 0, 2000, 2**53 - 1]


def test_an_endless_timeout_is_none() -> None:
    talk = Talk()
    talk.call("m", [], timeout=math.inf, meta={"k": 1})
    assert talk.said() == [[0, 1, "m", [], {"k": 1}]]
    assert talk.session.deadline() is None


@pytest.mark.parametrize("extended", [True, False])
def test_a_timeout_is_a_number(extended: bool) -> None:
    talk = Talk(extended=extended)
    with pytest.raises(LocalProtocolError, match="NaN"):
        talk.call("m", [], timeout=math.nan)
    with pytest.raises(TypeError):
        talk.call("m", [], timeout="5")
    assert talk.session.pending_calls == 0
    assert talk.said() == []


def test_deadlines_hold_for_plain_peers_too() -> None:
    talk = Talk(extended=False)
    msgid = talk.sent_call("slow", [], timeout=1.0)
    talk.wait(1.0)
    assert talk.event(CallFailed).code is StatusCode.DEADLINE_EXCEEDED
    talk.hear([1, msgid, None, "late"])
    assert talk.events() == []
    assert talk.said() == []


def test_a_deadline_that_passes_before_the_request_is_sent_takes_it_back() -> None:
    """The peer never hears of it, so that it surely was not run."""
    talk = Talk()
    kept = talk.call("kept", [])
    msgid = talk.call("m", [], timeout=1.0)
    queued = talk.session.queued
    talk.wait(1.0)
    assert talk.events() == [
        CallFailed(
            msgid,
            StatusCode.DEADLINE_EXCEEDED,
            "no answer before the deadline",
            maybe_executed=False,
            sent=False,
        )
    ]
    assert talk.session.queued < queued
    assert talk.said() == [[0, kept, "kept", []]]
    talk.hear([1, msgid, None, 1])
    assert talk.events() == [UnexpectedResponse(msgid)]


def test_calls_expire_in_the_order_of_their_deadlines() -> None:
    talk = Talk()
    ids = [talk.sent_call("m", [], timeout=timeout) for timeout in (3.0, 1.0, 2.0)]
    talk.wait(5.0)
    assert [event.msgid for event in talk.events() if isinstance(event, CallFailed)] == [
        ids[1],
        ids[2],
        ids[0],
    ]


def test_an_answered_call_has_no_deadline_any_more() -> None:
    talk = Talk()
    for _ in range(200):
        msgid = talk.sent_call("m", [], timeout=5.0)
        talk.hear([1, msgid, None, 1])
    assert talk.session.deadline() is None
    talk.wait(10.0)
    assert all(isinstance(event, ResponseReceived) for event in talk.events())


@pytest.mark.parametrize(("timeout", "deadline"), [(0, 100.0), (1500, 101.5), (0.5, 100.0005)])
def test_the_deadline_of_a_request_is_told_and_kept(timeout: float, deadline: float) -> None:
    talk = Talk()
    talk.hear([0, 2, "m", [], {"timeout": timeout}])
    assert talk.events() == [request(2, "m", {"timeout": timeout}, deadline)]
    assert talk.session.deadline() == deadline
    talk.wait(deadline - talk.now)
    assert talk.events() == [RequestExpired(2)]
    assert talk.session.deadline() is None
    talk.session.respond(2, "it still wants an answer")
    assert talk.said() == [[1, 2, None, "it still wants an answer"]]


# -- cancelling --------------------------------------------------------------------------------------


def test_cancelling_tells_the_peer_and_silences_the_call() -> None:
    pair = Pair().greet()
    msgid = pair.call()
    pair.pump()
    pair.client.cancel(msgid)
    assert pair.client.pending_calls == 0
    pair.pump()
    assert [type(event) for event in pair.server.take_events()] == [RequestReceived, CancelReceived]
    pair.server.respond_error(msgid, StatusCode.CANCELLED, "as you wish")
    pair.pump()
    assert pair.client.take_events() == []


def test_cancelling_again_or_after_the_end_does_nothing() -> None:
    talk = Talk()
    msgid = talk.sent_call()
    talk.session.cancel(msgid)
    assert talk.said() == [[3, msgid]]
    talk.session.cancel(msgid)
    talk.hear([1, msgid, None, 1])
    talk.session.cancel(msgid)
    talk.session.cancel(12345)
    assert talk.said() == []
    assert talk.events() == []


def test_cancelling_what_has_not_been_sent_takes_it_back() -> None:
    talk = Talk()
    first, second, third = (talk.call(name, []) for name in ("first", "second", "third"))
    talk.session.cancel(second)
    assert talk.said() == [[0, first, "first", []], [0, third, "third", []]]
    talk.session.cancel(third)
    assert talk.said() == [[3, third]]


def test_all_that_was_queued_may_be_taken_back() -> None:
    talk = Talk()
    for _ in range(5):
        talk.session.cancel(talk.call())
    assert talk.session.queued == 0
    assert talk.session.take_data() == []


def test_requests_taken_back_free_their_memory() -> None:
    """While the transport takes nothing, calls that come and go must not pile up."""
    talk = Talk()
    kept = [talk.call("kept", [])]
    for number in range(2000):
        msgid = talk.call("m", [number], timeout=1.0)
        if number % 7 == 0:
            kept.append(talk.call("kept", []))
        if number % 3:
            talk.session.cancel(msgid)
        talk.wait(1.0 if number % 100 == 0 else 0.0)
        for old in kept[:-20]:
            talk.session.cancel(old)
        kept = kept[-20:]
    talk.wait(1.0)
    assert len(talk.session.output.chunks) < 200
    sent = talk.said()
    assert [message[1] for message in sent] == kept
    assert {message[2] for message in sent} == {"kept"}


def test_cancels_of_requests_unknown_or_answered_are_ignored() -> None:
    talk = Talk()
    talk.hear([3, 2], [0, 4, "m", []])
    talk.session.respond(4, 1)
    talk.hear([3, 4])
    assert [type(event) for event in talk.events()] == [RequestReceived]


def test_a_cancelled_call_leaves_the_list_of_those_awaited_late() -> None:
    """The oldest are forgotten first; their late answers are then a surprise."""
    talk = Talk(limits=RpcLimits(max_cancelled=2))
    ids = [talk.sent_call() for _ in range(4)]
    for msgid in ids:
        talk.session.cancel(msgid)
    talk.hear(*([1, msgid, None, 1] for msgid in ids))
    assert talk.events() == [UnexpectedResponse(ids[0]), UnexpectedResponse(ids[1])]
