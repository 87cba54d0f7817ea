"""What holds for all input: cut anywhere it means the same, and no garbage raises."""

from __future__ import annotations

import math
from typing import Any

import attrs
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rpc_pair import HELLO, Pair, at_random, pack, unpack, whole

from helianthus.protocols.errors import RemoteProtocolError
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.rpc import (
    NO_KEEP_ALIVE,
    CallFailed,
    Flow,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    RpcLimits,
    RpcSession,
    SessionState,
    StatusCode,
)

at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

NOW = 10.0
LIMITS = RpcLimits(max_message_size=1024, max_calls=4, max_streams=2, stream_window=3, max_request_bytes=1500)

# -- strategies --------------------------------------------------------------------------------------

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False),
        st.text(max_size=20),
        st.binary(max_size=300),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
msgids = st.one_of(st.integers(0, 12), st.sampled_from([2**31, 2**32 - 2, 2**32 - 1]))
names = st.sampled_from(["m", "add", "ü", "", "helianthus.other"])
params = st.one_of(st.lists(values, max_size=3), st.dictionaries(st.text(max_size=4), values, max_size=2))
metas = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "timeout": st.one_of(st.integers(0, 10**6), st.floats(0, 1e6)),
            "stream": st.integers(0, 3),
            "traceparent": st.text(max_size=10),
        },
    ),
)
errors = st.one_of(st.none(), values, st.tuples(st.integers(0, 17), st.text(max_size=9), values).map(list))

messages = st.one_of(
    st.builds(lambda *parts: [0, *parts], msgids, names, params),
    st.builds(lambda *parts: [0, *parts], msgids, names, params, metas),
    st.builds(lambda *parts: [1, *parts], msgids, errors, values),
    st.builds(lambda *parts: [2, *parts], names, params),
    st.builds(lambda *parts: [2, *parts], names, params, metas),
    st.builds(lambda msgid: [3, msgid], msgids),
    st.builds(lambda msgid, item: [4, msgid, item], msgids, values),
    st.builds(lambda msgid: [5, msgid], msgids),
    st.builds(lambda msgid, n: [6, msgid, n], msgids, st.integers(1, 5)),
    st.builds(lambda token, reply: [7, token, reply], st.integers(-(2**63), 2**63), st.booleans()),
    st.builds(lambda last, why: [8, last, why], st.one_of(st.none(), msgids), st.text(max_size=9)),
    st.just(HELLO),
)
"""Messages that are each in order, though their order may not be."""

conversations = st.lists(messages, max_size=12)
cuts = st.lists(st.integers(1, 60), max_size=10)
garbage = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from([bytes([byte]) for byte in range(256)]), max_size=40).map(b"".join),
    st.lists(values, max_size=5).map(lambda parts: pack(*parts)),
    st.lists(st.lists(st.one_of(st.integers(-1, 10), values), max_size=5), max_size=5).map(
        lambda parts: pack(*parts)
    ),
)


def pieces(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut into pieces of these sizes, over and over; none means one by one."""
    cut: list[bytes] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)] if sizes else 1
        cut.append(data[at : at + size])
        at += size
        turn += 1
    return cut


@attrs.define
class Outcome:
    """All that can be seen of a session after it has heard something."""

    events: list[Any]
    sent: bytes
    closing: Closing
    state: SessionState
    deadline: float | None
    pending: tuple[int, int]
    wants_read: bool


def plain(event: RpcEvent) -> Any:
    """An event in a form that can be compared: errors have no equality, and NaN not with itself."""
    if isinstance(event, ConnectionFailed):
        return type(event.error), str(event.error)
    return repr(event)


def hear(data: list[bytes], *, extended: bool, end: bool = False) -> Outcome:
    """What comes of a session with calls in flight that hears these pieces."""
    session = RpcSession(NOW, initiator=True, limits=LIMITS, keep_alive=NO_KEEP_ALIVE)
    if extended:
        session.receive_data(pack(HELLO), NOW)
    session.call("m", [], NOW, timeout=5.0)
    if extended:
        session.call("m", [], NOW, flow=Flow.BOTH)
    session.take_data()
    session.call("unsent", [], NOW)
    session.take_events()
    for piece in data:
        session.receive_data(piece, NOW)
    if end:
        session.receive_eof(NOW)
    return Outcome(
        [plain(event) for event in session.take_events()],
        b"".join(bytes(chunk) for chunk in session.take_data()),
        session.closing,
        session.state,
        session.deadline(),
        (session.pending_calls, session.pending_requests),
        session.wants_read,
    )


def check_sane(outcome: Outcome) -> None:
    """What must hold whatever was heard."""
    faults = [place for place, event in enumerate(outcome.events) if isinstance(event, tuple)]
    assert faults in ([], [len(outcome.events) - 1])
    if faults:
        assert issubclass(outcome.events[-1][0], RemoteProtocolError)
        assert outcome.state is SessionState.ENDED
    if outcome.state is SessionState.ENDED:
        assert outcome.closing in (Closing.FULL, Closing.ABORT)
        assert outcome.pending == (0, 0)
        assert outcome.deadline is None
    else:
        assert outcome.closing is Closing.OPEN
    unpack(outcome.sent)


# -- properties --------------------------------------------------------------------------------------


@at_any_speed
@given(data=garbage, sizes=cuts, extended=st.booleans(), end=st.booleans())
@example(data=b"\x94\x01\x01" + b"\x91" * 1000 + b"\xc0\xc0", sizes=[1], extended=True, end=False)
def test_garbage_never_raises_and_means_the_same_in_pieces(
    data: bytes, sizes: list[int], extended: bool, end: bool
) -> None:
    at_once = hear([data], extended=extended, end=end)
    check_sane(at_once)
    assert hear(pieces(data, sizes), extended=extended, end=end) == at_once


@at_any_speed
@given(conversation=conversations, sizes=cuts, extended=st.booleans(), end=st.booleans())
def test_a_conversation_means_the_same_in_pieces(
    conversation: list[Any], sizes: list[int], extended: bool, end: bool
) -> None:
    data = pack(*conversation)
    at_once = hear([data], extended=extended, end=end)
    check_sane(at_once)
    assert hear(pieces(data, sizes), extended=extended, end=end) == at_once
    assert hear([pack(message) for message in conversation], extended=extended, end=end) == at_once


@at_any_speed
@given(
    conversation=conversations,
    sizes=cuts,
    place=st.floats(0, 1, exclude_max=True),
    byte=st.integers(0, 255),
    how=st.sampled_from(["replaced", "inserted", "removed", "cut"]),
)
def test_a_conversation_with_one_byte_wrong_never_raises(
    conversation: list[Any], sizes: list[int], place: float, byte: int, how: str
) -> None:
    data = bytearray(pack(*conversation))
    at = math.floor(place * len(data))
    if how == "replaced" and data:
        data[at] = byte
    elif how == "inserted":
        data.insert(at, byte)
    elif how == "removed":
        del data[at : at + 1]
    else:
        del data[at:]
    at_once = hear([bytes(data)], extended=True, end=True)
    check_sane(at_once)
    assert hear(pieces(bytes(data), sizes), extended=True, end=True) == at_once


@at_any_speed
@given(conversation=conversations, more=garbage)
def test_what_follows_a_conversation_takes_back_none_of_it(conversation: list[Any], more: bytes) -> None:
    """Events are kept whatever comes after them."""
    data = pack(*conversation)
    before = hear([data], extended=True)
    after = hear([data + more], extended=True)
    if before.state is SessionState.ENDED:
        assert after == before
    else:
        assert after.events[: len(before.events)] == before.events


@at_any_speed
@given(st.lists(values, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_values_arrive_as_they_were_sent(sent: list[Any], rng: Any) -> None:
    """As parameters, results, errors' details and items, through both sessions."""
    pair = Pair(split=at_random(rng)).greet()
    calls = {pair.call("m", [value]): value for value in sent}
    pair.pump()
    for event in pair.server.take_events():
        assert isinstance(event, RequestReceived)
        assert event.params == [calls[event.msgid]]
        if rng.random() < 0.5:
            pair.server.respond(event.msgid, event.params[0])
        else:
            pair.server.respond_error(event.msgid, StatusCode.ABORTED, "why", event.params[0])
    pair.pump()
    for event in pair.client.take_events():
        assert isinstance(event, ResponseReceived | CallFailed)
        value = event.result if isinstance(event, ResponseReceived) else event.details
        assert value == calls.pop(event.msgid)
    assert calls == {}


@at_any_speed
@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=30), st.lists(st.floats(0, 20), max_size=30))
def test_every_deadline_is_kept_however_the_time_is_told(timeouts: list[float], steps: list[float]) -> None:
    """Early, late and for nothing: a call fails at the first time told that is not before its deadline."""
    session = RpcSession(0.0, initiator=True, keep_alive=NO_KEEP_ALIVE)
    due = {session.call("m", [], 0.0, timeout=timeout): timeout for timeout in timeouts}
    session.take_data()
    now = 0.0
    for step in [*steps, 200.0]:
        now += step
        assert session.deadline() == min(due.values(), default=None)
        session.handle_timeout(now)
        failed = [event.msgid for event in session.take_events() if isinstance(event, CallFailed)]
        assert failed == sorted((msgid for msgid in due if due[msgid] <= now), key=lambda m: (due[m], m))
        for msgid in failed:
            del due[msgid]
    assert session.deadline() is None


def test_the_strategies_reach_the_end_of_a_conversation() -> None:
    """A property is worth little where each example fails at its first message."""
    lengths: list[int] = []

    @settings(at_any_speed, max_examples=200, database=None, derandomize=True)
    @given(conversation=conversations)
    def measure(conversation: list[Any]) -> None:
        outcome = hear(list(whole(pack(*conversation))), extended=True)
        lengths.append(len(outcome.events) if outcome.state is SessionState.OPEN else 0)

    measure()
    assert sum(length >= 3 for length in lengths) > 10
