"""Keep-alive after gRPC's proposal A8: when to ping, when to give up, which pings to bear."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from rpc_pair import Pair, Talk, pack

from helianthus.protocols.errors import RemoteProtocolError
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.rpc import (
    CLIENT_KEEP_ALIVE,
    NO_KEEP_ALIVE,
    SERVER_KEEP_ALIVE,
    CallFailed,
    GoawayReceived,
    KeepAlive,
    PongReceived,
    RequestReceived,
    SessionState,
    StatusCode,
)

PING = [7, -1, False]
EVERY_TEN = KeepAlive(time=10.0, timeout=3.0)


def test_the_numbers_are_those_of_a8() -> None:
    assert (CLIENT_KEEP_ALIVE.timeout, SERVER_KEEP_ALIVE.timeout) == (20.0, 20.0)
    assert SERVER_KEEP_ALIVE.time == 2 * 60 * 60
    for settings in (CLIENT_KEEP_ALIVE, SERVER_KEEP_ALIVE, NO_KEEP_ALIVE):
        assert (settings.min_interval, settings.min_interval_idle) == (5 * 60, 2 * 60 * 60)
        assert settings.max_strikes == 2
    assert CLIENT_KEEP_ALIVE.time >= SERVER_KEEP_ALIVE.min_interval, "a client must not annoy a server"


@pytest.mark.parametrize(
    "wrong",
    [
        {"time": 0},
        {"time": -1},
        {"time": math.nan},
        {"timeout": 0},
        {"timeout": math.nan},
        {"min_interval": -1},
        {"min_interval_idle": -1},
        {"max_strikes": -1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        KeepAlive(**{"time": 1.0, **wrong})


# -- pinging -----------------------------------------------------------------------------------------


def test_a_silent_peer_is_pinged_while_a_call_is_in_flight() -> None:
    talk = Talk(keep_alive=EVERY_TEN)
    assert talk.session.deadline() is None, "there is no call"
    talk.wait(1000)
    assert talk.said() == []
    talk.sent_call()
    assert talk.session.deadline() == talk.now + 10, "the silence before the call does not count"
    talk.wait(9.9)
    assert talk.said() == []
    talk.wait(0.1)
    assert talk.said() == [PING]
    assert talk.session.deadline() == talk.now + 3


def test_the_answer_is_no_event() -> None:
    """Only who pings is told of the answer."""
    talk = Talk(keep_alive=EVERY_TEN)
    talk.sent_call()
    talk.wait(10)
    talk.session.ping(0)
    assert talk.said() == [PING, [7, 0, False]]
    talk.hear([7, -1, True], [7, 0, True])
    assert talk.events() == [PongReceived(0)]
    assert talk.session.deadline() == talk.now + 10


def test_anything_the_peer_sends_is_a_sign_of_life() -> None:
    talk = Talk(keep_alive=EVERY_TEN)
    talk.sent_call()
    part = pack([2, "notification", []])
    for place in range(len(part)):
        talk.wait(9)
        talk.hear_bytes(part[place : place + 1])
    talk.wait(10)
    assert talk.said() == [PING]
    talk.wait(2.9)
    talk.hear_bytes(part[:1])
    talk.wait(9.9)
    assert talk.said() == []
    assert talk.session.state is SessionState.OPEN


def test_a_peer_that_does_not_answer_a_ping_is_given_up() -> None:
    talk = Talk(keep_alive=EVERY_TEN)
    msgid = talk.sent_call()
    talk.hear([0, 2, "m", []])
    talk.wait(10)
    talk.wait(2.9)
    assert [type(event) for event in talk.events()] == [RequestReceived]
    talk.wait(0.1)
    failed, last = talk.events()
    assert isinstance(failed, CallFailed)
    assert (failed.msgid, failed.code, failed.maybe_executed) == (msgid, StatusCode.UNAVAILABLE, True)
    assert isinstance(last, ConnectionFailed)
    assert "keep-alive" in str(last.error)
    assert talk.session.closing is Closing.ABORT, "a goodbye would not arrive"
    assert talk.said() == []
    assert talk.session.deadline() is None


def test_a_ping_is_due_once() -> None:
    """However often and however late the time is told."""
    talk = Talk(keep_alive=EVERY_TEN)
    talk.sent_call()
    talk.wait(500)
    talk.wait(0)
    talk.wait(1)
    assert talk.said() == [PING]
    assert talk.session.state is SessionState.OPEN, "the peer has had no time to answer"
    talk.wait(2)
    assert talk.session.state is SessionState.ENDED


def test_requests_of_the_peer_count_as_calls() -> None:
    talk = Talk(keep_alive=EVERY_TEN)
    talk.hear([0, 2, "m", []])
    talk.wait(10)
    assert talk.said() == [PING]
    talk.hear([7, -1, True])
    talk.session.respond(2, None)
    assert talk.session.deadline() is None


def test_an_idle_connection_is_pinged_where_that_is_asked_for() -> None:
    talk = Talk(keep_alive=KeepAlive(time=10.0, without_calls=True))
    talk.wait(4)
    talk.sent_call()
    assert talk.session.deadline() == 110.0, "the silence before the call counts"
    talk.wait(6)
    assert talk.said() == [PING]


def test_plain_peers_are_not_pinged() -> None:
    talk = Talk(extended=False, keep_alive=EVERY_TEN)
    talk.sent_call()
    assert talk.session.deadline() is None
    talk.wait(1000)
    assert talk.said() == []


def test_after_the_peers_end_it_is_not_pinged() -> None:
    """It could not answer, and its last requests must not be lost for that."""
    talk = Talk(initiator=False, keep_alive=EVERY_TEN)
    talk.hear([0, 1, "slow", []])
    talk.wait(10)
    talk.said()
    talk.end()
    assert talk.session.deadline() is None
    talk.wait(1000)
    talk.session.respond(1, "at last")
    assert talk.said() == [[1, 1, None, "at last"]]


def test_no_keep_alive_never_pings() -> None:
    talk = Talk(keep_alive=NO_KEEP_ALIVE)
    talk.sent_call()
    assert talk.session.deadline() is None


def test_by_default_each_side_has_its_own() -> None:
    client, server = Talk(keep_alive=None), Talk(initiator=False, keep_alive=None)
    assert client.session.deadline() is None
    assert server.session.deadline() == server.now + 7200


# -- being pinged ------------------------------------------------------------------------------------


def pinged(talk: Talk, intervals: Iterator[float] | list[float]) -> int:
    """Ping until the session has enough of it; gives how many pings were answered."""
    answered = 0
    for seconds in intervals:
        talk.now += seconds
        talk.hear([7, 1, False])
        if talk.session.state is SessionState.ENDED:
            break
        assert talk.said() == [[7, 1, True]]
        answered += 1
    return answered


def test_two_pings_too_early_are_forgiven_and_the_third_ends_the_connection() -> None:
    talk = Talk(initiator=False)
    msgid = talk.sent_call()
    assert pinged(talk, [0.0] * 10) == 3
    failed, last = talk.events()
    assert isinstance(failed, CallFailed)
    assert failed.msgid == msgid
    assert isinstance(last, ConnectionFailed)
    assert isinstance(last.error, RemoteProtocolError)
    assert talk.said() == [[8, None, "too_many_pings"]]
    assert talk.session.closing is Closing.FULL


def test_strikes_add_up_however_far_apart() -> None:
    talk = Talk(initiator=False)
    talk.sent_call()
    assert pinged(talk, [0, 1, 10_000, 1, 10_000, 1]) == 5


@pytest.mark.parametrize(("busy", "interval"), [(True, 300.0), (False, 7200.0)])
def test_pings_at_the_interval_are_borne_for_ever(busy: bool, interval: float) -> None:
    talk = Talk(initiator=False)
    if busy:
        talk.sent_call()
    assert pinged(talk, [interval] * 100) == 100


def test_a_clock_that_is_a_little_fast_is_no_reason_to_hang_up() -> None:
    """Both sides measure the same five minutes, each with its own crystal."""
    talk = Talk(initiator=False)
    talk.sent_call()
    assert pinged(talk, [300.0 * (1 - 500e-6)] * 100) == 100


@pytest.mark.parametrize(("busy", "interval"), [(True, 295.0), (False, 7000.0)])
def test_pings_more_often_than_the_interval_are_not(busy: bool, interval: float) -> None:
    talk = Talk(initiator=False)
    if busy:
        talk.sent_call()
    assert pinged(talk, [interval] * 10) == 3


def test_who_pings_without_calls_lets_others_do_so() -> None:
    """As gRPC's GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, which is both."""
    talk = Talk(initiator=False, keep_alive=KeepAlive(time=math.inf, without_calls=True))
    assert pinged(talk, [300.0] * 100) == 100


def test_pings_between_replies_are_no_nuisance() -> None:
    talk = Talk(initiator=False)
    for number in range(50):
        talk.hear([0, 2 * number + 1, "m", []])
        assert pinged(talk, [0.1] * 3) == 3, "all are forgiven, and the first is none too early"
        talk.session.respond(2 * number + 1, None)
        talk.said()


def test_replies_that_were_not_taken_forgive_nothing() -> None:
    """Otherwise a peer that does not read could have any number of pongs queued."""
    talk = Talk(initiator=False)
    for number in range(3):
        talk.hear([0, 2 * number + 1, "m", []])
        talk.session.respond(2 * number + 1, None)
        talk.hear([7, 1, False])
    assert talk.session.state is SessionState.OPEN
    talk.hear([7, 1, False])
    assert talk.session.state is SessionState.ENDED


def test_unasked_pongs_are_no_pings() -> None:
    talk = Talk(initiator=False)
    talk.hear(*([7, number, True] for number in range(100)))
    assert len(talk.events()) == 100


# -- two sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, 100])
def test_sessions_with_default_settings_get_along(hours: int) -> None:
    """A call that takes days, and a connection that is idle for days: neither is cut off."""
    for busy in (True, False):
        pair = Pair(client={"keep_alive": None}, server={"keep_alive": None}).greet()
        if busy:
            pair.call("slow")
            pair.pump()
        pair.wait(hours * 3600.0)
        assert pair.client.state is pair.server.state is SessionState.OPEN


def test_a_client_in_a_hurry_is_told_to_go_away() -> None:
    pair = Pair(client={"keep_alive": KeepAlive(time=10.0)}).greet()
    msgid = pair.call("slow")
    pair.pump()
    pair.wait(100.0)
    goaway, failed = pair.client.take_events()
    assert goaway == GoawayReceived("too_many_pings")
    assert isinstance(failed, CallFailed)
    assert (failed.msgid, failed.maybe_executed) == (msgid, True)
    assert pair.client.state is SessionState.ENDED
