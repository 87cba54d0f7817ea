"""Conversations about the end: goaway, draining, close, end of stream, loss."""

from __future__ import annotations

import pytest
from rpc_pair import Pair, Talk, byte_by_byte, pack

from helianthus.protocols.errors import LocalProtocolError, RemoteProtocolError
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.rpc import (
    CallFailed,
    CancelReceived,
    Flow,
    GoawayReceived,
    HelloReceived,
    NotificationReceived,
    RequestExpired,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    SessionState,
    StatusCode,
)
from helianthus.protocols.rpc.messages import MAX_REASON
from helianthus.protocols.rpc.wire import MAX_MSGID

OPEN, DRAINING, ENDED = SessionState.OPEN, SessionState.DRAINING, SessionState.ENDED


def failed(events: list[RpcEvent]) -> dict[int, tuple[StatusCode, bool]]:
    """Of the calls that failed: why, and whether they may have been run."""
    return {
        event.msgid: (event.code, event.maybe_executed) for event in events if isinstance(event, CallFailed)
    }


# -- goaway ------------------------------------------------------------------------------------------


def test_goaway_finishes_what_is_in_flight_both_ways_and_then_closes() -> None:
    pair = Pair(split=byte_by_byte).greet()
    ours = pair.client.call("m", [], 0.0)
    theirs = pair.server.call("m", [], 0.0)
    pair.pump()
    pair.server.goaway("restart")
    assert pair.server.state is DRAINING
    assert pair.server.closing is Closing.OPEN
    pair.pump()
    pair.server.take_events()
    assert pair.client.take_events()[-1] == GoawayReceived("restart")
    assert pair.client.state is DRAINING
    for session in (pair.client, pair.server):
        assert not session.accepts_calls
        assert "restart" in session.refuses_calls
        with pytest.raises(LocalProtocolError, match="restart"):
            session.call("m", [], 0.0)
        with pytest.raises(LocalProtocolError, match="restart"):
            session.notify("m", [])
    pair.server.respond(ours, 1)
    pair.client.respond(theirs, 2)
    pair.pump()
    assert pair.client.take_events() == [ResponseReceived(ours, 1)]
    assert pair.server.take_events() == [ResponseReceived(theirs, 2)]
    for session in (pair.client, pair.server):
        assert session.state is ENDED
        assert session.closing is Closing.FULL


def test_goaway_while_idle_ends_at_once() -> None:
    talk = Talk()
    talk.session.goaway("restart")
    assert talk.said() == [[8, None, "restart"]]
    assert (talk.session.state, talk.session.closing) == (ENDED, Closing.FULL)


def test_goaway_names_the_last_request_that_is_run() -> None:
    """Calls that were under way fail at once, and say that they were not run."""
    pair = Pair().greet()
    run = pair.call("run")
    pair.pump()
    crossing = [pair.call("crossing"), pair.call("crossing")]
    data = pair.client.take_data()
    unsent = pair.call("unsent")
    pair.server.goaway("restart")
    pair.deliver(pair.server)
    events = pair.client.take_events()
    assert failed(events) == dict.fromkeys([*crossing, unsent], (StatusCode.UNAVAILABLE, False))
    assert events[-1] == GoawayReceived("restart")
    assert pair.client.pending_calls == 1
    assert pair.client.take_data() == [], "what was not sent is not sent any more"
    for piece in data:
        pair.server.receive_data(piece, 0.0)
    assert [event.msgid for event in pair.server.take_events() if isinstance(event, RequestReceived)] == [run]
    assert pair.server.take_data() == [], "calls that have failed by themselves need no answer"
    pair.server.respond(run, "done")
    pair.pump()
    assert pair.client.take_events() == [ResponseReceived(run, "done")]
    assert pair.server.state is pair.client.state is ENDED


@pytest.mark.parametrize(
    ("last", "never_ran"),
    [
        (None, [MAX_MSGID - 2, MAX_MSGID, 1, 3]),
        (MAX_MSGID - 4, [MAX_MSGID - 2, MAX_MSGID, 1, 3]),
        (MAX_MSGID - 2, [MAX_MSGID, 1, 3]),
        (MAX_MSGID, [1, 3]),
        (0, [1, 3]),
        (1, [3]),
        (3, []),
    ],
)
def test_goaway_compares_ids_across_the_wrap(last: int | None, never_ran: list[int]) -> None:
    talk = Talk()
    talk.session._calls.next_msgid = MAX_MSGID - 2
    calls = [talk.sent_call() for _ in range(4)]
    assert calls == [MAX_MSGID - 2, MAX_MSGID, 1, 3]
    talk.hear([8, last, "restart"])
    events = talk.events()
    assert set(failed(events)) == set(never_ran)
    assert all(not maybe for _, maybe in failed(events).values())
    assert talk.session.pending_calls == 4 - len(never_ran)
    assert talk.session.state is (ENDED if len(never_ran) == 4 else DRAINING)


def test_a_second_goaway_may_name_an_earlier_request() -> None:
    """As in HTTP/2: the first one announces, the second one says where the end was."""
    talk = Talk()
    first, second = talk.sent_call(), talk.sent_call()
    talk.hear([8, second, "soon"])
    assert failed(talk.events()) == {}
    talk.hear([8, first, "now"])
    events = talk.events()
    assert failed(events) == {second: (StatusCode.UNAVAILABLE, False)}
    assert events[-1] == GoawayReceived("now")


def test_goaway_is_said_once() -> None:
    talk = Talk()
    talk.sent_call()
    talk.session.goaway("first")
    talk.session.goaway("second")
    assert talk.said() == [[8, None, "first"]]
    assert "first" in talk.session.refuses_calls


def test_a_goaway_that_cannot_be_encoded_changes_nothing() -> None:
    talk = Talk()
    with pytest.raises(LocalProtocolError):
        talk.session.goaway("\ud800")
    assert talk.session.state is OPEN
    assert talk.session.accepts_calls
    talk.session.goaway("restart")
    assert talk.said() == [[8, None, "restart"]]


def test_goaway_before_the_peers_hello_is_said_after_it() -> None:
    """Only then is it known that the peer understands it."""
    talk = Talk(initiator=False, extended=False)
    talk.hear([0, 1, "m", []])
    talk.session.goaway("restart")
    assert talk.said() == []
    talk.hear([2, "helianthus.hello", [{"version": 1}]])
    assert [message[:2] for message in talk.said()] == [[2, "helianthus.hello"], [8, 1]]
    assert [type(event) for event in talk.events()] == [RequestReceived, HelloReceived]


def test_while_draining_plain_peers_are_told_that_their_requests_are_not_run() -> None:
    talk = Talk(initiator=False, extended=False)
    talk.hear([0, 1, "run", []])
    talk.session.goaway("restart")
    talk.hear([0, 2, "late", []], [2, "late", []])
    assert [type(event) for event in talk.events()] == [RequestReceived]
    ((_, msgid, error, _),) = talk.said()
    assert (msgid, error[0]) == (2, StatusCode.UNAVAILABLE)
    assert "restart" in error[1]
    talk.session.respond(1, "done")
    assert talk.said() == [[1, 1, None, "done"]]
    assert talk.session.state is ENDED


def test_a_peer_that_went_away_and_calls_all_the_same_is_answered() -> None:
    talk = Talk()
    msgid = talk.sent_call()
    talk.hear([8, msgid, "restart"], [0, 2, "m", []])
    ((kind, answered, error, _),) = talk.said()
    assert (kind, answered, error[0]) == (1, 2, StatusCode.UNAVAILABLE)


def test_an_id_before_the_last_is_answered_while_draining() -> None:
    """A foreign caller may count otherwise than up; it does not know that its call is not run."""
    talk = Talk()
    talk.hear([0, 10, "run", []])
    talk.session.goaway("restart")
    talk.said()
    talk.hear([0, 12, "after", []], [0, 4, "before", []])
    assert [(message[0], message[1]) for message in talk.said()] == [(1, 4)]
    assert talk.session.pending_requests == 1


def test_notifications_before_the_peers_goaway_are_told_and_none_after_our_own() -> None:
    talk = Talk()
    msgid = talk.sent_call()
    talk.hear([2, "before", []], [8, msgid, "restart"])
    assert talk.events()[0] == NotificationReceived("before", [], None)
    talk.hear([2, "after", []])
    assert talk.events() == []


def test_a_call_that_is_cancelled_or_expires_ends_the_draining() -> None:
    for how in ("cancel", "expire"):
        talk = Talk()
        msgid = talk.sent_call("m", [], timeout=5.0)
        talk.session.goaway("restart")
        if how == "cancel":
            talk.session.cancel(msgid)
        else:
            talk.wait(5.0)
        assert talk.said() == [[8, None, "restart"], [3, msgid]]
        assert talk.session.state is ENDED


def test_what_follows_the_last_answer_while_draining_is_ignored() -> None:
    talk = Talk()
    msgid = talk.sent_call()
    talk.session.goaway("restart")
    talk.hear([1, msgid, None, 1], [9, "broken"], [2, "n", []])
    assert talk.events() == [ResponseReceived(msgid, 1)]
    assert talk.session.closing is Closing.FULL


def test_a_reason_as_long_as_a_message_is_told_whole_and_repeated_in_part() -> None:
    """The refusal of a later request repeats the reason, and must fit into a message."""
    talk = Talk(extended=False)
    talk.hear([0, 2, "run", []])
    reason = "ü" * 1_000_000
    talk.hear([8, None, reason])
    assert talk.events()[-1] == GoawayReceived(reason)
    assert len(talk.session.refuses_calls) < MAX_REASON + 100
    talk.hear([0, 4, "m", []])
    assert talk.events() == []
    assert [message[:2] for message in talk.said()] == [[1, 4]]


def test_a_reason_of_ours_as_long_as_a_message_is_repeated_in_part_too() -> None:
    talk = Talk(initiator=False, extended=False)
    talk.hear([0, 1, "run", []])
    talk.session.goaway("ü" * 3_000_000)
    talk.hear([0, 3, "m", []])
    (refusal,) = talk.said()
    assert refusal[:2] == [1, 3]
    assert len(refusal[2][1]) < MAX_REASON + 100
    assert talk.session.state is DRAINING


# -- close -------------------------------------------------------------------------------------------


def test_close_ends_at_once_and_cancels_what_was_sent() -> None:
    talk = Talk()
    sent = [talk.sent_call(), talk.sent_call("s", [], flow=Flow.BOTH)]
    talk.hear([0, 2, "m", []])
    talk.events()
    unsent = talk.call()
    talk.session.close("enough")
    events = talk.events()
    assert failed(events) == {
        sent[0]: (StatusCode.CANCELLED, True),
        sent[1]: (StatusCode.CANCELLED, True),
        unsent: (StatusCode.CANCELLED, False),
    }
    assert all(event.message == "enough" for event in events if isinstance(event, CallFailed))
    assert talk.said() == [[3, msgid] for msgid in sent]
    assert (talk.session.state, talk.session.closing) == (ENDED, Closing.FULL)
    talk.session.close("again")
    assert talk.events() == []
    assert talk.session.refuses_calls == "enough"


def test_what_was_queued_before_close_is_sent() -> None:
    talk = Talk()
    talk.hear([0, 2, "m", []])
    talk.session.respond(2, "answer")
    talk.session.notify("n", [])
    talk.session.close()
    assert talk.said() == [[1, 2, None, "answer"], [2, "n", []]]


# -- end of the peer's stream ------------------------------------------------------------------------


def test_after_the_peers_end_its_requests_are_still_answered() -> None:
    talk = Talk()
    calls = [talk.sent_call(), talk.call()]
    talk.hear([0, 2, "m", [], {"timeout": 5000}], [0, 4, "m", []])
    talk.events()
    talk.end()
    events = talk.events()
    assert failed(events) == {
        calls[0]: (StatusCode.UNAVAILABLE, True),
        calls[1]: (StatusCode.UNAVAILABLE, False),
    }
    assert events[2:] == [CancelReceived(2), CancelReceived(4)], "whoever called has gone"
    assert (talk.session.state, talk.session.closing) == (DRAINING, Closing.OPEN)
    assert talk.said() == [], "a call that has failed is not sent"
    talk.wait(5.0)
    assert talk.events() == [RequestExpired(2)]
    talk.session.respond(2, "two")
    assert talk.session.state is DRAINING
    talk.session.respond(4, "four")
    assert talk.said() == [[1, 2, None, "two"], [1, 4, None, "four"]]
    assert (talk.session.state, talk.session.closing) == (ENDED, Closing.FULL)


def test_a_plain_peer_may_end_its_direction_and_wait_for_answers() -> None:
    talk = Talk(initiator=False, extended=False)
    talk.hear([0, 1, "m", []])
    talk.end()
    assert [type(event) for event in talk.events()] == [RequestReceived]
    talk.session.respond(1, "one")
    assert talk.said() == [[1, 1, None, "one"]]


def test_the_peers_end_while_idle_ends_the_session() -> None:
    talk = Talk(extended=False)
    talk.end()
    assert talk.events() == []
    assert (talk.session.state, talk.session.closing) == (ENDED, Closing.FULL)
    talk.end()
    assert talk.session.state is ENDED


def test_after_the_peers_end_nothing_new_begins() -> None:
    talk = Talk()
    talk.hear([0, 2, "m", []])
    stream = talk.sent_call("s", [], flow=Flow.BOTH)
    talk.end()
    talk.events()
    for refused in (
        lambda: talk.call(),
        lambda: talk.session.notify("n", []),
        lambda: talk.session.ping(1),
        lambda: talk.session.send_item(stream, 1),
    ):
        with pytest.raises(LocalProtocolError):
            refused()
    talk.hear([0, 4, "m", []], [9])
    talk.end()
    assert talk.events() == []
    assert talk.said() == []


@pytest.mark.parametrize("cut", range(1, len(pack([0, 2, "method", [1, [2, "x"], {"k": None}]]))))
def test_an_end_within_a_message_is_the_peers_fault(cut: int) -> None:
    """Wherever it is: within an array, a map, a string, or right behind a header."""
    data = pack([0, 2, "method", [1, [2, "x"], {"k": None}]])
    talk = Talk()
    msgid = talk.sent_call()
    talk.hear_bytes(data[:cut])
    talk.end()
    events = talk.events()
    assert failed(events) == {msgid: (StatusCode.UNAVAILABLE, True)}
    assert isinstance(events[-1], ConnectionFailed)
    assert f"{cut} bytes into a message" in str(events[-1].error)
    assert talk.session.closing is Closing.FULL
    (goodbye,) = talk.said()
    assert goodbye[0] == 8


def test_an_end_within_a_message_after_others() -> None:
    talk = Talk(extended=False)
    data = pack([0, 1, "m", []], [0, 2, "m", []])
    talk.hear_bytes(data[:-1])
    talk.end()
    events = talk.events()
    assert [type(event) for event in events] == [RequestReceived, ConnectionFailed]
    assert str(len(data) // 2 - 1) in str(events[1].error)  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["goaway", "lost"])
def test_calls_fail_in_the_order_of_their_ids(how: str) -> None:
    """Whatever order the table happens to keep them in."""
    talk = Talk()
    ids = [33, 1, 17, 9, 25]
    for msgid in ids:
        talk.session._calls.next_msgid = msgid
        assert talk.sent_call() == msgid
    if how == "goaway":
        talk.hear([8, None, "restart"])
    else:
        talk.lose()
    assert list(failed(talk.events())) == sorted(ids)


# -- loss --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, OSError("cable pulled")])
def test_every_call_ends_when_the_connection_is_lost(error: Exception | None) -> None:
    talk = Talk()
    sent = [talk.sent_call(), talk.sent_call("s", [], flow=Flow.BOTH, timeout=5.0)]
    answered = talk.sent_call()
    cancelled = talk.sent_call()
    talk.hear([1, answered, None, 1], [0, 2, "m", [], {"timeout": 1000}])
    talk.session.cancel(cancelled)
    unsent = talk.call("m", [], timeout=5.0)
    talk.lose(error)
    events = talk.events()
    assert failed(events) == {
        sent[0]: (StatusCode.UNAVAILABLE, True),
        sent[1]: (StatusCode.UNAVAILABLE, True),
        unsent: (StatusCode.UNAVAILABLE, False),
    }
    assert (error is None) == ("was closed" in events[-1].message)  # type: ignore[union-attr]
    session = talk.session
    assert (session.state, session.closing) == (ENDED, Closing.ABORT)
    assert (session.pending_calls, session.pending_requests, session.queued) == (0, 0, 0)
    assert session.take_data() == []
    assert session.deadline() is None
    talk.lose()
    talk.end()
    talk.hear([0, 4, "m", []], [9])
    session.handle_timeout(talk.now + 1e6)
    assert talk.events() == []


@pytest.mark.parametrize("how", ["lost", "closed", "failed", "drained"])
def test_commands_after_the_end(how: str) -> None:
    """What would begin something is refused; what would end something has nothing left to do."""
    talk = Talk(keep_alive=None)
    talk.hear([0, 2, "m", []])
    if how == "lost":
        talk.lose()
    elif how == "closed":
        talk.session.close()
    elif how == "failed":
        talk.hear([9])
    else:
        talk.session.respond(2, None)
        talk.session.goaway("restart")
    talk.said()
    talk.events()
    session = talk.session
    assert session.state is ENDED
    for refused in (
        lambda: talk.call(),
        lambda: session.notify("n", []),
        lambda: session.ping(1),
        lambda: session.respond(2, 1),
        lambda: session.send_item(2, 1),
    ):
        with pytest.raises(LocalProtocolError):
            refused()
    session.cancel(1)
    session.end_stream(1)
    session.consumed(1, 1)
    session.goaway("again")
    session.close()
    assert not session.awaits_answer(2)
    assert session.deadline() is None
    assert talk.said() == []
    assert talk.events() == []


def test_a_fault_after_our_close_is_not_heard() -> None:
    talk = Talk()
    talk.session.close()
    talk.hear_bytes(b"\xc1\xc1")
    talk.end()
    assert talk.events() == []
    assert talk.session.closing is Closing.FULL


def test_a_failed_call_does_not_linger_in_what_is_sent() -> None:
    """A fault closes in good order, so that what is queued still goes out; failed calls must not."""
    talk = Talk()
    msgid = talk.call("never sent", [])
    talk.hear([9])
    events = talk.events()
    assert failed(events) == {msgid: (StatusCode.UNAVAILABLE, False)}
    assert isinstance(events[-1], ConnectionFailed)
    assert isinstance(events[-1].error, RemoteProtocolError)
    assert [message[0] for message in talk.said()] == [8]
