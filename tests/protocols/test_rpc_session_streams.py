"""Conversations about streams: items each way, credit, back-pressure, the ends of streams."""

from __future__ import annotations

from typing import Any

import pytest
from rpc_pair import WINDOW, Pair, Talk, byte_by_byte, pack

from helianthus.protocols.errors import LocalProtocolError, RemoteProtocolError
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.rpc import (
    CallFailed,
    CancelReceived,
    CreditGranted,
    Flow,
    ItemReceived,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    RpcLimits,
    RpcSession,
    StatusCode,
    StreamEnded,
)

SMALL = RpcLimits(stream_window=4)


def items(events: list[RpcEvent]) -> list[Any]:
    return [event.item for event in events if isinstance(event, ItemReceived)]


def consume(session: RpcSession, events: list[RpcEvent]) -> list[Any]:
    """Take every item among the events, and give their values."""
    for event in events:
        if isinstance(event, ItemReceived):
            session.consumed(event.msgid, event.size)
    return items(events)


def fill(session: RpcSession, msgid: int, first: int = 0) -> int:
    """Send numbers until there is no credit; gives the next number."""
    while session.credit(msgid):
        session.send_item(msgid, first)
        first += 1
    return first


def begin(pair: Pair, flow: Flow) -> int:
    """Begin a stream of the client's that the server has heard of."""
    msgid = pair.call("stream", [], flow=flow)
    pair.pump()
    (event,) = pair.server.take_events()
    assert isinstance(event, RequestReceived)
    assert event.flow is flow
    return msgid


# -- the three kinds of streams ----------------------------------------------------------------------


def test_the_callee_streams() -> None:
    pair = Pair(split=byte_by_byte).greet()
    msgid = begin(pair, Flow.FROM_CALLEE)
    for item in ("a", {"b": 1}, None):
        pair.server.send_item(msgid, item)
    pair.server.respond(msgid, "the end")
    pair.pump()
    events = pair.client.take_events()
    assert items(events) == ["a", {"b": 1}, None]
    assert events[-1] == ResponseReceived(msgid, "the end")
    assert consume(pair.client, events)
    pair.pump()
    assert pair.client.wants_read


def test_the_caller_streams() -> None:
    pair = Pair(split=byte_by_byte).greet()
    msgid = begin(pair, Flow.FROM_CALLER)
    pair.client.send_item(msgid, 1)
    pair.client.send_item(msgid, 2)
    pair.client.end_stream(msgid)
    pair.pump()
    events = pair.server.take_events()
    assert items(events) == [1, 2]
    assert events[-1] == StreamEnded(msgid)
    pair.server.respond(msgid, sum(consume(pair.server, events)))
    pair.pump()
    assert pair.client.take_events() == [ResponseReceived(msgid, 3)]


def test_both_stream_at_once() -> None:
    """Each item is answered by one; the caller's half ends first."""
    pair = Pair(client={"limits": SMALL}, server={"limits": SMALL}).greet()
    msgid = begin(pair, Flow.BOTH)
    echoed: list[Any] = []
    for number in range(20):
        pair.client.send_item(msgid, number)
        pair.pump()
        for item in consume(pair.server, pair.server.take_events()):
            pair.server.send_item(msgid, -item)
        pair.pump()
        echoed += consume(pair.client, pair.client.take_events())
        pair.pump()
    assert echoed == [-number for number in range(20)]
    pair.client.end_stream(msgid)
    pair.pump()
    assert pair.server.take_events() == [StreamEnded(msgid)]
    pair.server.send_item(msgid, "after the caller's end")
    pair.server.respond(msgid, None)
    pair.pump()
    events = pair.client.take_events()
    assert items(events) == ["after the caller's end"]
    assert events[-1] == ResponseReceived(msgid, None)


def test_the_server_can_open_streams_to_the_client() -> None:
    pair = Pair().greet()
    msgid = pair.server.call("push", ["topic"], 0.0, flow=Flow.FROM_CALLER)
    ours = pair.client.call("pull", [], 0.0, flow=Flow.FROM_CALLEE)
    pair.pump()
    assert {event.msgid for event in pair.client.take_events() + pair.server.take_events()} == {msgid, ours}  # type: ignore[union-attr]
    pair.server.send_item(msgid, "pushed")
    pair.server.send_item(ours, "pulled")
    pair.pump()
    assert [(event.msgid, event.item) for event in pair.client.take_events()] == [  # type: ignore[union-attr]
        (msgid, "pushed"),
        (ours, "pulled"),
    ]


def test_a_flow_says_who_may_send() -> None:
    for flow, client_sends, server_sends in (
        (Flow.FROM_CALLEE, False, True),
        (Flow.FROM_CALLER, True, False),
        (Flow.BOTH, True, True),
    ):
        pair = Pair().greet()
        msgid = begin(pair, flow)
        for session, sends in ((pair.client, client_sends), (pair.server, server_sends)):
            assert session.credit(msgid) == (WINDOW if sends else 0)
            if sends:
                session.send_item(msgid, "ok")
            else:
                with pytest.raises(LocalProtocolError, match="sends no"):
                    session.send_item(msgid, "not ok")


def test_a_unary_call_has_no_stream() -> None:
    talk = Talk()
    msgid = talk.sent_call()
    assert talk.session.credit(msgid) == 0
    with pytest.raises(LocalProtocolError, match="no open stream"):
        talk.session.send_item(msgid, 1)
    talk.session.end_stream(msgid)
    talk.hear([4, msgid, "item"], [5, msgid], [6, msgid, 3])
    assert talk.events() == []
    assert talk.said() == []


def test_the_flow_stands_in_meta_beside_what_the_caller_says() -> None:
    talk = Talk()
    talk.call("s", [], flow=Flow.FROM_CALLEE, timeout=1.0, meta={"k": 1})
    assert talk.said() == [[0, 1, "s", [], {"k": 1, "timeout": 1000, "stream": 1}]]


# -- credit ------------------------------------------------------------------------------------------


def test_who_has_no_credit_cannot_send_until_items_are_consumed() -> None:
    pair = Pair(client={"limits": SMALL}).greet()
    msgid = begin(pair, Flow.FROM_CALLEE)
    sent = fill(pair.server, msgid)
    assert sent == 4
    with pytest.raises(LocalProtocolError, match="no credit"):
        pair.server.send_item(msgid, "too much")
    pair.pump()
    assert pair.server.take_events() == [], "nothing was consumed, so nothing is granted"
    received = [event for event in pair.client.take_events() if isinstance(event, ItemReceived)]
    assert [event.item for event in received] == [0, 1, 2, 3]
    pair.client.consumed(msgid, received[0].size)
    pair.pump()
    assert pair.server.credit(msgid) == 0, "credit comes half a window at a time"
    pair.client.consumed(msgid, received[1].size)
    pair.pump()
    assert pair.server.take_events() == [CreditGranted(msgid)]
    assert pair.server.credit(msgid) == 2
    pair.client.consumed(msgid, received[2].size)
    pair.client.consumed(msgid, received[3].size)
    pair.pump()
    assert pair.server.take_events() == [], "credit for who still has some is no news"
    assert pair.server.credit(msgid) == 4


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64])
def test_a_long_stream_never_stalls_nor_overruns(window: int) -> None:
    pair = Pair(client={"limits": RpcLimits(stream_window=window)}).greet()
    msgid = begin(pair, Flow.FROM_CALLEE)
    received: list[Any] = []
    sent = 0
    while sent < 500:
        before = sent
        sent = fill(pair.server, msgid, sent)
        assert sent > before, "the stream has stalled"
        assert sent - len(received) <= window
        pair.pump()
        received += consume(pair.client, pair.client.take_events())
        pair.pump()
    assert received == list(range(sent))


def test_a_peer_that_announces_no_credit_is_sent_nothing_until_it_grants_some() -> None:
    talk = Talk(credit=0)
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLER)
    assert talk.session.credit(msgid) == 0
    with pytest.raises(LocalProtocolError, match="no credit"):
        talk.session.send_item(msgid, 1)
    talk.hear([6, msgid, 2])
    assert talk.events() == [CreditGranted(msgid)]
    talk.session.send_item(msgid, 1)
    assert talk.said() == [[4, msgid, 1]]


def test_credit_for_streams_that_are_over_is_ignored() -> None:
    talk = Talk()
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLER)
    talk.session.end_stream(msgid)
    assert talk.session.credit(msgid) == 0
    talk.hear([6, msgid, 2], [1, msgid, None, 1], [6, msgid, 2], [6, 99, 1])
    assert talk.events() == [ResponseReceived(msgid, 1)]
    assert talk.session.credit(msgid) == 0


def test_a_peer_that_overruns_its_credit_fails_the_connection() -> None:
    talk = Talk(limits=SMALL)
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
    talk.hear(*([4, msgid, number] for number in range(5)))
    events = talk.events()
    assert items(events) == [0, 1, 2, 3], "what came before the fault is kept"
    assert isinstance(events[-2], CallFailed)
    assert isinstance(events[-1], ConnectionFailed)
    assert isinstance(events[-1].error, RemoteProtocolError)
    assert "credit (4)" in str(events[-1].error)
    assert talk.session.closing is Closing.FULL
    (goodbye,) = talk.said()
    assert goodbye[0] == 8


@pytest.mark.parametrize("flow", [Flow.FROM_CALLER, Flow.FROM_CALLEE])
def test_a_peer_that_sends_items_on_the_others_half_fails_the_connection(flow: Flow) -> None:
    talk = Talk()
    if flow is Flow.FROM_CALLER:
        talk.hear([4, talk.sent_call("s", [], flow=flow), "item"])
    else:
        talk.hear([0, 2, "s", [], {"stream": int(flow)}], [4, 2, "item"])
    assert isinstance(talk.events()[-1], ConnectionFailed)


def test_a_peer_that_sends_items_after_its_end_fails_the_connection() -> None:
    talk = Talk()
    talk.hear([0, 2, "s", [], {"stream": 2}], [4, 2, 1], [5, 2], [5, 2])
    assert [type(event) for event in talk.events()] == [RequestReceived, ItemReceived, StreamEnded]
    talk.hear([4, 2, 2])
    assert isinstance(talk.event(ConnectionFailed).error, RemoteProtocolError)


def test_more_than_came_cannot_be_consumed() -> None:
    talk = Talk(limits=SMALL)
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
    talk.hear([4, msgid, "a"], [4, msgid, "b"])
    sizes = [event.size for event in talk.events() if isinstance(event, ItemReceived)]
    assert sizes == [len(pack([4, msgid, "a"]))] * 2
    for size in (sum(sizes) + 1, 0, -1):
        with pytest.raises(LocalProtocolError, match="left to consume"):
            talk.session.consumed(msgid, size)
    for size in sizes:
        talk.session.consumed(msgid, size)
    assert talk.said() == [[6, msgid, 2]]
    with pytest.raises(LocalProtocolError, match="left to consume"):
        talk.session.consumed(msgid, 1)


def test_items_can_be_consumed_together() -> None:
    talk = Talk(limits=SMALL)
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
    talk.hear([4, msgid, "a"], [4, msgid, "bc"], [4, msgid, "d"])
    sizes = [event.size for event in talk.events() if isinstance(event, ItemReceived)]
    for size, items in ((sum(sizes), 4), (sum(sizes), 0), (sum(sizes), -1), (sum(sizes) + 1, 3)):
        with pytest.raises(LocalProtocolError, match="consume"):
            talk.session.consumed(msgid, size, items)
    talk.session.consumed(msgid, sum(sizes), 3)
    assert talk.said() == [[6, msgid, 3]]


def test_items_of_one_stream_are_not_consumed_on_another() -> None:
    talk = Talk(limits=SMALL)
    one, other = (talk.sent_call("s", [], flow=Flow.FROM_CALLEE) for _ in range(2))
    talk.hear([4, one, "x"])
    size = talk.event(ItemReceived).size
    with pytest.raises(LocalProtocolError, match="consumed already"):
        talk.session.consumed(other, size)
    talk.session.consumed(one, size)
    assert talk.said() == []


def test_consuming_after_the_end_of_a_call_grants_nothing() -> None:
    talk = Talk(limits=SMALL)
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
    talk.hear(*([4, msgid, number] for number in range(4)), [1, msgid, None, "end"])
    consume(talk.session, talk.events())
    assert talk.said() == []


def test_consuming_after_the_callers_end_grants_nothing() -> None:
    talk = Talk(limits=SMALL)
    talk.hear([0, 2, "s", [], {"stream": 2}], *([4, 2, number] for number in range(4)), [5, 2])
    consume(talk.session, talk.events())
    assert talk.said() == []


def test_consuming_after_the_end_of_the_session_is_no_mistake() -> None:
    talk = Talk()
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
    talk.hear([4, msgid, "x"])
    events = talk.events()
    talk.lose()
    consume(talk.session, events)
    assert talk.said() == []


# -- the ends of streams -----------------------------------------------------------------------------


def test_the_half_end_is_said_once_and_by_the_caller_only() -> None:
    pair = Pair().greet()
    msgid = begin(pair, Flow.BOTH)
    pair.client.end_stream(msgid)
    pair.client.end_stream(msgid)
    pair.server.end_stream(msgid)
    with pytest.raises(LocalProtocolError, match="sends no"):
        pair.client.send_item(msgid, 1)
    pair.pump()
    assert pair.server.take_events() == [StreamEnded(msgid)]
    assert pair.client.take_events() == []


def test_the_callee_cannot_end_the_callers_half() -> None:
    talk = Talk()
    msgid = talk.sent_call("s", [], flow=Flow.BOTH)
    talk.hear([5, msgid])
    assert talk.events() == []
    talk.session.send_item(msgid, "still")
    assert talk.said() == [[4, msgid, "still"]]


@pytest.mark.parametrize("how", ["answered", "failed", "cancelled", "expired"])
def test_nothing_is_sent_on_a_call_that_has_ended(how: str) -> None:
    talk = Talk()
    msgid = talk.sent_call("s", [], flow=Flow.BOTH, timeout=5.0)
    if how == "answered":
        talk.hear([1, msgid, None, 1])
    elif how == "failed":
        talk.hear([1, msgid, "no", None])
    elif how == "cancelled":
        talk.session.cancel(msgid)
    else:
        talk.wait(5.0)
    talk.said()
    talk.events()
    assert talk.session.credit(msgid) == 0
    with pytest.raises(LocalProtocolError, match="no open stream"):
        talk.session.send_item(msgid, 1)
    talk.session.end_stream(msgid)
    talk.hear([4, msgid, "under way"], [6, msgid, 1])
    assert talk.said() == []
    assert talk.events() == []


def test_after_its_answer_the_callee_sends_and_hears_nothing_on_the_stream() -> None:
    talk = Talk()
    talk.hear([0, 2, "s", [], {"stream": 3}])
    talk.session.respond(2, None)
    talk.events()
    with pytest.raises(LocalProtocolError, match="no open stream"):
        talk.session.send_item(2, 1)
    talk.hear([4, 2, "under way"], [5, 2], [6, 2, 1])
    assert talk.events() == []


def test_cancelling_takes_back_what_was_told_of_the_call_and_not_yet_heard() -> None:
    talk = Talk(limits=RpcLimits(max_buffered_items=20, stream_window=4))
    msgid = talk.sent_call("s", [], flow=Flow.BOTH)
    other = talk.sent_call("s", [], flow=Flow.BOTH)
    talk.session._streams[msgid].credit = 0
    talk.hear([4, msgid, "x" * 30], [4, other, "kept"], [6, msgid, 1])
    assert not talk.session.wants_read
    talk.session.cancel(msgid)
    assert items(talk.events()) == ["kept"]
    assert talk.session.wants_read, "nobody will consume what was taken back"


def test_a_cancelled_stream_reaches_the_callee() -> None:
    pair = Pair().greet()
    msgid = begin(pair, Flow.FROM_CALLEE)
    pair.server.send_item(msgid, 1)
    pair.client.cancel(msgid)
    pair.pump()
    assert pair.server.take_events() == [CancelReceived(msgid)]
    assert pair.client.take_events() == []
    pair.server.send_item(msgid, 2)
    pair.server.respond_error(msgid, StatusCode.CANCELLED, "as you wish")
    pair.pump()
    assert pair.client.take_events() == []


def test_items_of_a_request_that_was_taken_back_do_no_harm() -> None:
    pair = Pair().greet()
    msgid = pair.call("s", [], flow=Flow.FROM_CALLER)
    pair.client.send_item(msgid, 1)
    pair.client.end_stream(msgid)
    pair.client.cancel(msgid)
    pair.pump()
    assert pair.server.take_events() == []
    assert pair.server.closing is Closing.OPEN


# -- ids and who may use them ------------------------------------------------------------------------


@pytest.mark.parametrize(("initiator", "msgid"), [(True, 3), (False, 4)])
def test_a_stream_with_an_id_of_the_wrong_side_fails_the_connection(initiator: bool, msgid: int) -> None:
    """Items travel both ways under one id, so that ids of both sides must never meet."""
    talk = Talk(initiator=initiator)
    talk.hear([0, msgid, "s", [], {"stream": 1}])
    assert "odd ids" in str(talk.event(ConnectionFailed).error)


def test_a_stream_before_hello_fails_the_connection() -> None:
    talk = Talk(initiator=False, extended=False)
    talk.hear([0, 1, "s", [], {"stream": 1}])
    assert "announced" in str(talk.event(ConnectionFailed).error)


def test_a_unary_request_with_the_id_of_our_stream_leaves_the_stream_alone() -> None:
    talk = Talk()
    msgid = talk.sent_call("s", [], flow=Flow.BOTH)
    talk.hear([0, msgid, "unary", []])
    assert talk.event(RequestReceived).flow is Flow.UNARY
    talk.session.respond(msgid, None)
    assert talk.said() == [[1, msgid, None, None]]
    talk.session.send_item(msgid, "still open")
    assert talk.said() == [[4, msgid, "still open"]]
