"""The session keeps the contract of `machine.py`."""

from __future__ import annotations

import copy
import math
import os
import pickle
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rpc_pair import HELLO, Talk, at_random, join, pack

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import ConnectionFailed, Outcome, StreamMachine
from helianthus.protocols.rpc import (
    NO_KEEP_ALIVE,
    Flow,
    ItemReceived,
    NotificationReceived,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    RpcLimits,
    RpcSession,
    SessionState,
    StatusCode,
    events,
)

at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

EVENT_KINDS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and attrs.has(kind) and kind is not ConnectionFailed
]


def test_a_session_is_a_stream_machine() -> None:
    session = RpcSession(0.0, initiator=True)
    wanted = {name for name in dir(StreamMachine) if not name.startswith("_")}
    assert {"receive_data", "take_data", "deadline", "complete", "wants_read"} <= wanted
    assert all(hasattr(session, name) for name in wanted)


def test_a_session_has_no_actions() -> None:
    session = RpcSession(0.0, initiator=True)
    assert session.take_actions() == []
    with pytest.raises(LocalProtocolError, match="no action 7"):
        session.complete(7, Outcome(), 0.0)


# -- outputs -----------------------------------------------------------------------------------------


def busy_talk(**options: Any) -> Talk:
    """A session with a bit of everything in flight, some of it not drained."""
    talk = Talk(
        limits=RpcLimits(max_calls=5, max_streams=2, stream_window=2, max_queued_output=5000), **options
    )
    assert talk.sent_call("m", [], timeout=50.0) == 1
    assert talk.sent_call("s", [], flow=Flow.BOTH) == 3
    assert talk.sent_call("s", [], flow=Flow.FROM_CALLER) == 5
    talk.hear([0, 2, "m", [], {"timeout": 9000}], [0, 4, "s", [], {"stream": 3}], [4, 3, "item"], [4, 4, 1])
    assert talk.call("unsent", []) == 7
    return talk


def snapshot(session: RpcSession) -> dict[str, Any]:
    """Everything that a session is, apart from the coders, which keep nothing between messages."""
    coders = ("_encode", "_encoder", "_decoder", "_codec")
    state = {name: value for name, value in vars(session).items() if name not in coders}
    return copy.deepcopy(
        {
            **state,
            "_calls": attributes(session._calls),
            "output": attributes(session.output),
            "requests": attributes(session.requests),
            "_streams": {msgid: attributes(stream) for msgid, stream in session._streams.items()},
            "_ping_sender": vars(session._ping_sender),
            "_ping_judge": vars(session._ping_judge),
            "outputs": (session.deadline(), session.closing, session.wants_read, session._decoder.incomplete),
        }
    )


def attributes(table: Any) -> dict[str, Any]:
    values = {name: getattr(table, name) for name in type(table).__slots__}
    if "deadlines" in values:
        values["deadlines"] = dict(values["deadlines"].live)
    return values


FAILED = StatusCode.INTERNAL

MISTAKES: dict[str, Callable[[Talk], Any]] = {
    "call without a name": lambda talk: talk.call(5),  # type: ignore[arg-type]
    "call with text for parameters": lambda talk: talk.call("m", "text"),
    "call with what cannot be encoded": lambda talk: talk.call("m", [object()], timeout=5),
    "call with broken meta": lambda talk: talk.call("m", [], meta={"timeout": 5}),
    "call until NaN": lambda talk: talk.call("m", [], timeout=math.nan),
    "call that is too large": lambda talk: talk.call("m", [b"x" * 5000]),
    "call with a third stream": lambda talk: talk.call("s", [], flow=Flow.BOTH),
    "notification without a name": lambda talk: talk.session.notify(None, []),  # type: ignore[arg-type]
    "notification that is too large": lambda talk: talk.session.notify("n", [b"x" * 5000]),
    "notification that cannot be encoded": lambda talk: talk.session.notify("n", [object()]),
    "answer to nothing": lambda talk: talk.session.respond(99, None),
    "error to nothing": lambda talk: talk.session.respond_error(99, StatusCode.INTERNAL, "why"),
    "answer that cannot be encoded": lambda talk: talk.session.respond(2, object()),
    "error that cannot be encoded": lambda talk: talk.session.respond_error(
        2, StatusCode.INTERNAL, "", object()
    ),
    "error that is none": lambda talk: talk.session.respond_error(2, StatusCode.OK, "fine"),
    "item on no stream": lambda talk: talk.session.send_item(1, "item"),
    "item on no call": lambda talk: talk.session.send_item(99, "item"),
    "item that cannot be encoded": lambda talk: talk.session.send_item(3, object()),
    "item that is too large": lambda talk: talk.session.send_item(3, b"x" * 5000),
    "consumed more than came": lambda talk: talk.session.consumed(3, 1000),
    "consumed nothing": lambda talk: talk.session.consumed(3, 0),
    "ping without a number": lambda talk: talk.session.ping("x"),  # type: ignore[arg-type]
    "goaway that cannot be encoded": lambda talk: talk.session.goaway("\ud800"),
    "outcome of no action": lambda talk: talk.session.complete(1, Outcome(), talk.now),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_callers_mistake_raises_and_changes_nothing(mistake: Callable[[Talk], Any]) -> None:
    talk = busy_talk()
    before = snapshot(talk.session)
    with pytest.raises(LocalProtocolError):
        mistake(talk)
    assert snapshot(talk.session) == before
    assert talk.session.state is SessionState.OPEN


def test_the_snapshot_sees_every_change() -> None:
    """Otherwise the test above would prove nothing."""
    changes: list[Callable[[Talk], Any]] = [
        lambda talk: talk.call(),
        lambda talk: talk.session.notify("n", []),
        lambda talk: talk.session.respond(2, None),
        lambda talk: talk.session.send_item(3, 1),
        lambda talk: talk.session.end_stream(3),
        lambda talk: talk.session.consumed(3, 1),
        lambda talk: talk.session.cancel(1),
        lambda talk: talk.session.ping(1),
        lambda talk: talk.session.goaway("x"),
        lambda talk: talk.session.close(),
        lambda talk: talk.hear([2, "n", []]),
        lambda talk: talk.hear([7, 1, False]),
        lambda talk: talk.end(),
        lambda talk: talk.lose(),
        lambda talk: talk.wait(20.0),
        lambda talk: talk.said(),
        lambda talk: talk.events(),
    ]
    for change in changes:
        talk = busy_talk()
        before = snapshot(talk.session)
        change(talk)
        assert snapshot(talk.session) != before


def test_asking_changes_nothing() -> None:
    talk = busy_talk()
    session = talk.session
    before = snapshot(session)
    for _ in range(3):
        session.deadline(), session.closing, session.wants_read, session.queued
        session.pending_calls, session.pending_requests, session.accepts_calls, session.refuses_calls  # noqa: B018
        session.credit(3), session.awaits_answer(2), session.take_actions()
    assert snapshot(session) == before


def test_time_that_is_told_early_changes_nothing() -> None:
    talk = busy_talk(keep_alive=None)
    before = snapshot(talk.session)
    deadline = talk.session.deadline()
    assert deadline is not None
    for now in (0.0, talk.now, math.nextafter(deadline, 0.0), talk.now):
        talk.session.handle_timeout(now)
    assert snapshot(talk.session) == before


def test_what_was_taken_is_the_takers() -> None:
    """A list that was given out is never added to, and an empty one is nobody else's."""
    talk = Talk()
    session = talk.session
    first, second = session.take_events(), session.take_events()
    data, more = session.take_data(), session.take_data()
    assert first is not second
    assert data is not more
    talk.hear([2, "n", []])
    session.notify("n", [])
    assert first == second == []
    assert data == more == []
    taken, bytes_taken = session.take_events(), session.take_data()
    talk.hear([2, "n", []])
    session.notify("n", [])
    assert (len(taken), len(bytes_taken)) == (1, 1)
    taken.clear()
    bytes_taken.clear()
    assert (len(session.take_events()), len(session.take_data())) == (1, 1)


def test_what_stands_in_an_event_is_the_takers() -> None:
    talk = Talk()
    talk.hear([0, 2, "m", [[1]], {"k": [1], "timeout": 5000}])
    event = talk.event(RequestReceived)
    assert isinstance(event.params, list)
    assert event.meta is not None
    event.params.clear()
    event.meta.clear()
    talk.session.respond(2, event.params)
    assert talk.said() == [[1, 2, None, []]]


@pytest.mark.parametrize("kind", EVENT_KINDS, ids=lambda kind: kind.__name__)
def test_events_are_plain(kind: Any) -> None:
    """Slots, values that compare, and no more than the fields they show."""
    fields = [field.name for field in attrs.fields(kind)]
    event = kind(*range(len(fields)))
    assert event == kind(*range(len(fields)))
    assert not hasattr(event, "__dict__")
    assert pickle.loads(pickle.dumps(event)) == event
    assert repr(event).startswith(kind.__name__)
    setattr(event, fields[0], "changed")
    assert getattr(event, fields[0]) == "changed"


# -- any number of inputs and commands before the outputs are drained --------------------------------

Step = tuple[str, Any]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.sampled_from([Flow.UNARY, Flow.FROM_CALLER])),
        st.tuples(st.just("notify"), st.integers(0, 5)),
        st.tuples(st.just("request"), st.none()),
        st.tuples(st.just("respond"), st.integers(1, 6)),
        st.tuples(st.just("response"), st.integers(0, 6)),
        st.tuples(st.just("item"), st.integers(1, 6)),
        st.tuples(st.just("credit"), st.integers(0, 6)),
        st.tuples(st.just("hello"), st.none()),
        st.tuples(st.just("pong"), st.integers(0, 9)),
    ),
    max_size=30,
)


def play(script: list[Step], rng: random.Random | None) -> tuple[list[RpcEvent], bytes]:
    """All that comes of a script, drained in between where `rng` says so."""
    session = RpcSession(0.0, initiator=True, keep_alive=NO_KEEP_ALIVE)
    told: list[RpcEvent] = []
    sent = b""
    requests = 0
    for what, detail in script:
        try:
            if what == "call":
                session.call("m", [detail], 0.0, flow=detail)
            elif what == "notify":
                session.notify("n", [detail])
            elif what == "respond":
                session.respond(2 * detail, detail)
            elif what == "item":
                session.send_item(2 * detail - 1, detail)
            elif what == "request":
                requests += 1
                session.receive_data(pack([0, 2 * requests, "m", []]), 0.0)
            else:
                session.receive_data(pack(message_of(what, detail)), 0.0)
        except LocalProtocolError:
            pass
        if rng is not None and rng.random() < 0.5:
            sent += join(session.take_data())
        if rng is not None and rng.random() < 0.5:
            told += session.take_events()
    return [*told, *session.take_events()], sent + join(session.take_data())


def message_of(what: str, detail: Any) -> list[Any]:
    if what == "response":
        return [1, 2 * detail + 1, None, detail]
    if what == "credit":
        return [6, 2 * detail + 1, 2]
    return HELLO if what == "hello" else [7, detail, True]


@at_any_speed
@given(script=steps, rng=st.randoms(use_true_random=False))
def test_it_does_not_matter_when_outputs_are_drained(script: list[Step], rng: random.Random) -> None:
    """Except that what was not sent can be taken back; these scripts take nothing back."""
    assert play(script, rng) == play(script, None)


def test_a_thousand_inputs_before_a_drain_lose_nothing() -> None:
    talk = Talk()
    ids = [talk.sent_call("m", [number]) for number in range(500)]
    for number, msgid in enumerate(ids):
        talk.hear([1, msgid, None, number], [2, "n", [number]])
    told = talk.events()
    assert [event.result for event in told if isinstance(event, ResponseReceived)] == list(range(500))
    assert [event.params for event in told if isinstance(event, NotificationReceived)] == [
        [n] for n in range(500)
    ]


# -- determinism -------------------------------------------------------------------------------------

SCENE = """
    import hashlib, random, sys
    sys.path[:0] = {paths!r}
    from rpc_pair import Pair, at_random
    from helianthus.protocols.rpc import *

    rng = random.Random(7)
    trace = hashlib.sha256()
    pair = Pair(split=at_random(rng)).greet()
    for turn in range(300):
        for session in (pair.client, pair.server):
            for _ in range(rng.randrange(4)):
                flow = rng.choice([Flow.UNARY, Flow.FROM_CALLER])
                timeout = rng.choice([None, 3.0])
                meta = {{name: turn for name in ("a", "b", "c")}}
                try:
                    session.call("m", [turn], pair.now, timeout=timeout, flow=flow, meta=meta)
                except Exception as error:
                    trace.update(repr(error).encode())
        if turn == 290:
            pair.server.goaway("restart")
        for session in (pair.client, pair.server):
            data = b"".join(session.take_data())
            trace.update(data)
            pair.other(session).receive_data(data, pair.now)
        for session in (pair.client, pair.server):
            for event in session.take_events():
                trace.update(repr(event).encode())
                if isinstance(event, RequestReceived) and rng.random() < 0.8:
                    if session.awaits_answer(event.msgid):
                        session.respond(event.msgid, {{"turn": turn}})
        pair.now += 0.5
        pair.client.handle_timeout(pair.now)
        pair.server.handle_timeout(pair.now)
    for session in (pair.client, pair.server):
        session.connection_lost(None, pair.now)
        trace.update(repr(session.take_events()).encode())
    print(trace.hexdigest())
"""


def test_the_same_inputs_give_the_same_outputs_whatever_hashes_are() -> None:
    """Sets and dicts are never walked in an order that depends on the hash seed or on addresses."""
    here = Path(__file__).parent
    code = textwrap.dedent(SCENE).format(paths=[str(here), str(here.parents[1])])
    traces = set()
    for seed in ("0", "1", "4242"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        traces.add(done.stdout.strip())
    assert len(traces) == 1
    assert len(traces.pop()) == 64


def test_random_pieces_and_whole_ones_come_to_the_same() -> None:
    messages = [[0, msgid, "m", ["x" * msgid]] for msgid in range(2, 200, 2)]
    at_once, in_pieces = Talk(), Talk(split=at_random(random.Random(3)))
    for talk in (at_once, in_pieces):
        talk.hear(*messages, [4, 2, 1])
    assert at_once.events() == in_pieces.events()


def test_sizes_of_items_do_not_depend_on_how_they_arrive() -> None:
    sizes = []
    for split in (None, at_random(random.Random(5))):
        talk = Talk() if split is None else Talk(split=split)
        msgid = talk.sent_call("s", [], flow=Flow.FROM_CALLEE)
        talk.hear(*([4, msgid, "x" * length] for length in range(40)), [2, "n", []])
        sizes.append([event.size for event in talk.events() if isinstance(event, ItemReceived)])
    assert sizes[0] == sizes[1] == [len(pack([4, 1, "x" * length])) for length in range(40)]
