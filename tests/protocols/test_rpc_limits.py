"""Every limit: reached but not passed, passed, and what the peer and the owner are told of it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from rpc_pair import Talk, byte_by_byte, pack, whole

from helianthus.protocols.errors import LimitExceeded, LocalProtocolError
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.rpc import (
    CallFailed,
    Flow,
    ItemReceived,
    NotificationReceived,
    OversizedMessage,
    RequestReceived,
    ResponseReceived,
    RpcLimits,
    SessionState,
    StatusCode,
    UnexpectedResponse,
)

MIB = 1024 * 1024

MANY_SMALL_ARRAYS = b"\xdc\x07\xd0" + b"\x93\x01\x02\x03" * 40_000
"""The beginning of an array of 2000 arrays; longer than any test reads."""


def refusals(talk: Talk) -> dict[int, str]:
    """Requests that the session refused for want of room, and the reason it gave."""
    refused = {}
    for message in talk.said():
        assert message[0] == 1
        assert message[2][0] == StatusCode.RESOURCE_EXHAUSTED
        refused[message[1]] = message[2][1]
    return refused


def notification(size: int) -> bytes:
    """A notification of so many bytes."""
    data = pack([2, "n", [b"x" * (size - (7 if size < 263 else 8 if size < 65_544 else 10))]])
    assert len(data) == size
    return data


@pytest.mark.parametrize(
    "field",
    [field.name for field in attrs.fields(RpcLimits)],
)
def test_limits_out_of_range_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        RpcLimits(**{field: -1})


@pytest.mark.parametrize(
    ("field", "value"), [("max_message_size", 1023), ("stream_window", 0), ("stream_window", 2**32)]
)
def test_limits_that_would_break_the_session_are_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        RpcLimits(**{field: value})


# -- max_message_size --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [whole, byte_by_byte])
@pytest.mark.parametrize("before", [0, 1, 500, 5000])
def test_the_largest_message_arrives_and_one_byte_more_fails(split: Any, before: int) -> None:
    """Whatever came before it, in however many pieces."""
    for size, arrives in ((2048, True), (2049, False)):
        talk = Talk(extended=False, split=split, limits=RpcLimits(max_message_size=2048))
        earlier = pack(*([1, 7, None, None] for _ in range(before // 5)))
        talk.hear_bytes(earlier + notification(size) + notification(10))
        events = [event for event in talk.events() if not isinstance(event, UnexpectedResponse)]
        if arrives:
            assert [type(event) for event in events] == [NotificationReceived] * 2
        else:
            (event,) = events
            assert isinstance(event, ConnectionFailed)
            assert isinstance(event.error, LimitExceeded)
            assert (event.error.limit, event.error.maximum) == ("max_message_size", 2048)


def test_a_large_message_of_many_small_parts_is_measured_too() -> None:
    """The decoder takes an array apart as it comes, so that no buffer ever holds all of it."""
    talk = Talk(limits=RpcLimits(max_message_size=2048))
    talk.hear_bytes(b"\x93\x02\xa1n" + MANY_SMALL_ARRAYS[: 2048 - 4])
    assert talk.events() == []
    talk.hear_bytes(b"\x90")
    assert isinstance(talk.event(ConnectionFailed).error, LimitExceeded)


def test_an_array_that_claims_more_elements_than_a_message_has_bytes_fails_at_once() -> None:
    talk = Talk(limits=RpcLimits(max_message_size=2048))
    talk.hear_bytes(b"\xdc\x08\x01")
    assert "2049" in str(talk.event(ConnectionFailed).error)


@pytest.mark.parametrize("piece", [1, 7, 1024, 2048, 4096, 100_000])
def test_a_message_that_never_ends_is_cut_off_at_the_limit(piece: int) -> None:
    talk = Talk(limits=RpcLimits(max_message_size=2048))
    heard = 0
    while talk.session.state is SessionState.OPEN:
        talk.hear_bytes(MANY_SMALL_ARRAYS[heard : heard + piece])
        heard += piece
    assert 2048 < heard <= 2048 + piece
    assert isinstance(talk.event(ConnectionFailed).error, LimitExceeded)


def test_one_read_may_hold_any_number_of_messages() -> None:
    talk = Talk(extended=False, limits=RpcLimits(max_message_size=1024))
    talk.hear_bytes(notification(1024) * 100 + notification(600) * 100 + notification(10) * 1000)
    assert len(talk.events()) == 1200


def test_what_a_peer_may_not_send_cannot_be_sent_to_it() -> None:
    talk = Talk(limits=RpcLimits(max_message_size=1024))
    talk.session.notify("n", [b"x" * 1016])
    for refused in (
        lambda: talk.session.notify("n", [b"x" * 1017]),
        lambda: talk.call("m", [b"x" * 1020]),
        lambda: talk.session.goaway("x" * 1024),
    ):
        with pytest.raises(LocalProtocolError, match=r"max_message_size \(1024\)"):
            refused()
    assert len(talk.said()) == 1
    assert talk.session.state is SessionState.OPEN


# -- max_calls ---------------------------------------------------------------------------------------


def test_no_more_calls_than_max_calls_are_in_flight() -> None:
    talk = Talk(limits=RpcLimits(max_calls=2))
    first, _ = talk.sent_call(), talk.sent_call()
    assert not talk.session.accepts_calls
    with pytest.raises(LocalProtocolError, match=r"max_calls \(2\)"):
        talk.call()
    talk.session.notify("n", [])
    talk.hear([1, first, None, 1])
    assert talk.session.accepts_calls
    talk.call()


def test_no_more_requests_than_max_calls_are_taken() -> None:
    talk = Talk(limits=RpcLimits(max_calls=2))
    talk.hear(*([0, msgid, "m", []] for msgid in (2, 4, 6, 8)))
    assert [event.msgid for event in talk.events() if isinstance(event, RequestReceived)] == [2, 4]
    refused = refusals(talk)
    assert list(refused) == [6, 8]
    assert all("max_calls (2)" in reason and "not run" in reason for reason in refused.values())
    talk.session.respond(2, None)
    talk.hear([0, 6, "m", []])
    assert talk.event(RequestReceived).msgid == 6


def test_a_cancelled_request_counts_until_it_is_answered() -> None:
    """Otherwise a peer could have any number run at once (HTTP/2's rapid reset, CVE-2023-44487)."""
    talk = Talk(limits=RpcLimits(max_calls=2))
    for msgid in range(2, 200, 2):
        talk.hear([0, msgid, "m", []], [3, msgid])
    assert talk.session.pending_requests == 2
    assert sum(isinstance(event, RequestReceived) for event in talk.events()) == 2


def test_an_expired_request_counts_until_it_is_answered() -> None:
    talk = Talk(limits=RpcLimits(max_calls=1))
    talk.hear([0, 2, "m", [], {"timeout": 0}])
    talk.wait(1.0)
    talk.hear([0, 4, "m", []])
    assert list(refusals(talk)) == [4]


# -- max_elements ------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [[[0] * 17], [dict.fromkeys(range(17), 0)], [0] * 17])
def test_no_more_elements_of_the_peers_than_max_elements(params: list[Any]) -> None:
    talk = Talk(limits=RpcLimits(max_elements=16))
    talk.hear([0, 2, "m", [[0] * 16]])
    talk.hear([0, 4, "m", params])
    request, last = talk.events()
    assert isinstance(request, RequestReceived)
    assert isinstance(last, ConnectionFailed)
    assert isinstance(last.error, LimitExceeded)
    assert (last.error.limit, last.error.maximum) == ("max_elements", 16)


@pytest.mark.parametrize("params", [[[0] * 17], [dict.fromkeys(range(17), 0)], [0] * 17])
def test_no_more_elements_of_ours_than_max_elements(params: list[Any]) -> None:
    """The peer would take it for a fault, and end the connection."""
    talk = Talk(limits=RpcLimits(max_elements=16))
    with pytest.raises(OversizedMessage, match=r"max_elements \(16\)"):
        talk.call("m", params)
    talk.call("m", [bytes(1000), [0] * 16])
    talk.hear([0, 2, "m", []])
    with pytest.raises(OversizedMessage, match=r"max_elements \(16\)"):
        talk.session.respond(2, params)
    talk.session.respond(2, "short")


# -- max_streams -------------------------------------------------------------------------------------


def test_no_more_streams_of_ours_than_max_streams() -> None:
    talk = Talk(limits=RpcLimits(max_streams=2))
    talk.hear([0, 2, "s", [], {"stream": 1}])
    ids = [talk.sent_call("s", [], flow=Flow.FROM_CALLEE) for _ in range(2)]
    with pytest.raises(LocalProtocolError, match=r"max_streams \(2\)"):
        talk.call("s", [], flow=Flow.FROM_CALLER)
    talk.call()
    talk.hear([1, ids[0], None, 1])
    talk.call("s", [], flow=Flow.FROM_CALLER)


def test_no_more_streams_of_the_peers_than_max_streams() -> None:
    talk = Talk(limits=RpcLimits(max_streams=2))
    talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
    talk.hear(*([0, msgid, "s", [], {"stream": 3, "timeout": 1000}] for msgid in (2, 4, 6)))
    talk.hear([0, 8, "m", []])
    assert [event.msgid for event in talk.events() if isinstance(event, RequestReceived)] == [2, 4, 8]
    refused = refusals(talk)
    assert list(refused) == [6]
    assert "max_streams (2)" in refused[6]
    talk.session.respond(2, None)
    talk.hear([0, 10, "s", [], {"stream": 1}])
    assert talk.event(RequestReceived).msgid == 10


# -- max_request_bytes -------------------------------------------------------------------------------


def large_request(msgid: int, size: int) -> bytes:
    data = pack([0, msgid, "m", [b"x" * (size - 12)]])
    assert len(data) <= size
    return data


@pytest.mark.parametrize("split", [whole, byte_by_byte])
def test_no_more_bytes_of_requests_than_max_request_bytes(split: Any) -> None:
    talk = Talk(split=split, limits=RpcLimits(max_request_bytes=10_000))
    for msgid in (2, 4, 6, 8):
        talk.hear_bytes(large_request(msgid, 4000))
    assert [event.msgid for event in talk.events() if isinstance(event, RequestReceived)] == [2, 4]
    refused = refusals(talk)
    assert list(refused) == [6, 8]
    assert "max_request_bytes (10000)" in refused[6]
    talk.session.respond(2, None)
    talk.hear_bytes(large_request(6, 4000))
    assert talk.event(RequestReceived).msgid == 6


def test_requests_of_exactly_max_request_bytes_are_taken() -> None:
    talk = Talk(limits=RpcLimits(max_request_bytes=8000))
    sizes = [len(large_request(msgid, 4000)) for msgid in (2, 4)]
    talk.hear_bytes(large_request(2, 4000 + 4000 - sizes[0]) + large_request(4, 4000 + 4000 - sizes[1]))
    assert [type(event) for event in talk.events()] == [RequestReceived] * 2
    talk.hear([0, 6, "m", []])
    assert list(refusals(talk)) == [6]


def test_small_messages_in_the_same_read_do_not_make_a_large_one_look_small() -> None:
    talk = Talk(limits=RpcLimits(max_request_bytes=10_000))
    for msgid in (2, 4, 6):
        talk.hear_bytes(large_request(msgid, 4000) + pack(*[[3, 99]] * 2000))
    assert list(refusals(talk)) == [6]


def test_a_request_alone_may_not_exceed_max_request_bytes() -> None:
    talk = Talk(limits=RpcLimits(max_request_bytes=1000))
    talk.hear_bytes(large_request(2, 4000))
    assert list(refusals(talk)) == [2]
    assert talk.session.pending_requests == 0
    talk.hear([0, 4, "m", []])
    assert talk.event(RequestReceived).msgid == 4


# -- what pauses reading -----------------------------------------------------------------------------


def test_items_that_nobody_consumes_pause_reading() -> None:
    talk = Talk(limits=RpcLimits(max_buffered_items=100, stream_window=10))
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
    events: list[ItemReceived] = []
    while talk.session.wants_read:
        talk.hear([4, msgid, b"x" * 20])
        events.append(talk.event(ItemReceived))
    assert sum(event.size for event in events) > 100
    assert sum(event.size for event in events[1:]) <= 100
    talk.session.consumed(msgid, events[0].size)
    assert talk.session.wants_read


def test_items_of_a_call_that_has_ended_still_count() -> None:
    """They are in somebody's memory until they are consumed."""
    talk = Talk(limits=RpcLimits(max_buffered_items=10))
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
    talk.hear([4, msgid, b"x" * 20], [1, msgid, None, "end"])
    item, end = talk.events()
    assert isinstance(item, ItemReceived)
    assert isinstance(end, ResponseReceived)
    assert not talk.session.wants_read
    talk.session.consumed(msgid, item.size)
    assert talk.session.wants_read


def test_after_the_end_nothing_pauses_reading() -> None:
    """A driver reads on until the peer has closed its side, too."""
    talk = Talk(limits=RpcLimits(max_buffered_items=10))
    msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
    talk.hear([4, msgid, b"x" * 20])
    assert not talk.session.wants_read
    talk.session.close()
    assert talk.session.wants_read


def test_replies_that_the_peer_does_not_take_pause_reading() -> None:
    talk = Talk(limits=RpcLimits(pause_reading_at=100))
    talk.hear([0, 2, "m", []], [0, 4, "m", []])
    talk.session.respond(2, b"x" * 94)
    assert talk.session.queued == 100
    assert talk.session.wants_read
    talk.session.respond(4, None)
    assert not talk.session.wants_read
    talk.said()
    assert talk.session.wants_read


def test_replies_pause_nothing_while_we_wait_for_some_ourselves() -> None:
    """Two ends whose replies are stuck would wait for each other to read."""
    talk = Talk(limits=RpcLimits(pause_reading_at=100))
    msgid = talk.sent_call("m", [])
    talk.hear([0, 2, "m", []])
    talk.session.respond(2, b"x" * 1000)
    assert talk.session.wants_read
    talk.hear([1, msgid, None, None])
    assert not talk.session.wants_read


def test_items_pause_nothing() -> None:
    """They wait for credit and for room by themselves, and may go both ways at once."""
    talk = Talk(limits=RpcLimits(pause_reading_at=100))
    talk.hear([0, 4, "s", [], {"stream": 1}])
    for _ in range(10):
        talk.session.send_item(4, b"x" * 20)
    assert talk.session.queued > 100
    assert talk.session.wants_read


def test_calls_that_the_peer_does_not_take_do_not_pause_reading() -> None:
    """Whoever only calls must go on reading the answers."""
    talk = Talk(limits=RpcLimits(pause_reading_at=100))
    stream = talk.call("s", [], flow=Flow.FROM_CALLER)
    talk.session.send_item(stream, b"x" * 1000)
    talk.call("m", [b"x" * 1000])
    assert talk.session.wants_read


# -- max_queued_output -------------------------------------------------------------------------------


def test_our_own_commands_are_refused_where_too_much_is_queued() -> None:
    talk = Talk(limits=RpcLimits(max_queued_output=200))
    stream = talk.sent_call("s", [], flow=Flow.FROM_CALLER)
    talk.session.notify("n", [b"x" * 150])
    for refused in (
        lambda: talk.call("m", [b"x" * 50]),
        lambda: talk.session.notify("n", [b"x" * 50]),
        lambda: talk.session.send_item(stream, b"x" * 50),
    ):
        with pytest.raises(LocalProtocolError, match=r"max_queued_output \(200\)"):
            refused()
    for _ in range((200 - talk.session.queued) // len(pack([7, 1, False]))):
        talk.session.ping(1)
    with pytest.raises(LocalProtocolError, match="max_queued_output"):
        talk.session.ping(1)
    assert talk.session.queued <= 200
    assert talk.session.pending_calls == 1
    assert talk.session.credit(stream) == RpcLimits().stream_window
    talk.said()
    talk.call("m", [b"x" * 50])
    assert talk.session.state is SessionState.OPEN


def test_replies_that_a_peer_does_not_take_end_the_connection() -> None:
    talk = Talk(limits=RpcLimits(max_queued_output=200))
    call = talk.call()
    talk.hear([0, 2, "m", []], [0, 4, "m", []])
    talk.events()
    talk.session.respond(2, b"x" * 150)
    talk.session.respond(4, b"x" * 150)
    failed, last = talk.events()
    assert isinstance(failed, CallFailed)
    assert (failed.msgid, failed.maybe_executed) == (call, False)
    assert isinstance(last, ConnectionFailed)
    assert isinstance(last.error, LimitExceeded)
    assert (last.error.limit, last.error.maximum) == ("max_queued_output", 200)
    assert talk.session.closing is Closing.ABORT
    assert (talk.said(), talk.session.queued) == ([], 0)


def test_refusals_that_a_peer_does_not_take_end_the_connection_too() -> None:
    """Even with its reading paused: a driver may hand over a whole read of requests at once."""
    talk = Talk(limits=RpcLimits(max_calls=0, max_queued_output=MIB, pause_reading_at=1000))
    talk.hear(*([0, msgid, "m", []] for msgid in range(2, 40_000, 2)))
    assert not talk.session.pending_requests
    assert isinstance(talk.event(ConnectionFailed).error, LimitExceeded)
    assert talk.session.queued == 0
