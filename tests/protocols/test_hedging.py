"""Attempts side by side."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Outcome
from helianthus.protocols.policies import (
    AttemptCancelled,
    AttemptFailure,
    AttemptStarted,
    Hedging,
    HedgingEnded,
    HedgingPolicy,
    RetryThrottle,
)
from helianthus.protocols.rpc import StatusCode

UNAVAILABLE, INTERNAL = StatusCode.UNAVAILABLE, StatusCode.INTERNAL
FAILED = AttemptFailure(UNAVAILABLE)
FATAL = AttemptFailure(INTERNAL)
NEVER_RAN = AttemptFailure(UNAVAILABLE, maybe_executed=False)
NEVER_LEFT = AttemptFailure(UNAVAILABLE, maybe_executed=False, sent=False)
START, CANCEL, END = AttemptStarted, AttemptCancelled, HedgingEnded


def asks(retry_after: Any, code: StatusCode = UNAVAILABLE) -> AttemptFailure:
    return AttemptFailure(code, {"retry_after": retry_after})


def hedging(
    attempts: int = 3,
    delay: float = 1.0,
    *,
    throttle: RetryThrottle | None = None,
    deadline: float | None = None,
) -> Hedging:
    """A call whose first attempt has begun at 0."""
    machine = Hedging(HedgingPolicy(attempts, delay), throttle, 0.0, deadline)
    assert machine.take_events()[0] == START(0)
    return machine


# Each step is (time, what happens, what is to be done then).
Step = tuple[float, Any, list[Any]]
CASES: dict[str, list[Step]] = {
    "one after each delay": [
        (0.5, None, []),
        (1.0, None, [START(1)]),
        (2.1, None, [START(2)]),
        (9.0, None, []),
    ],
    "the first result counts": [
        (1.0, None, [START(1)]),
        (1.2, (1, "ok"), [CANCEL(0), END(1)]),
        (9.0, None, []),
    ],
    "a failure brings the next forward": [
        (0.3, (0, FAILED), [START(1)]),
        (1.2, None, []),
        (1.3, None, [START(2)]),
        (1.4, (1, FAILED), []),
        (1.5, (2, FAILED), [END(2)]),
    ],
    "a fatal one ends it": [
        (1.0, None, [START(1)]),
        (1.5, (0, FATAL), [CANCEL(1), END(0)]),
    ],
    "the last failure is the call's": [
        (1.0, None, [START(1)]),
        (2.0, None, [START(2)]),
        (2.1, (2, FAILED), []),
        (2.2, (0, FAILED), []),
        (2.3, (1, FAILED), [END(1)]),
    ],
    "the server wants no more": [
        (1.0, None, [START(1)]),
        (1.1, (1, asks(-1)), []),
        (5.0, None, []),
        (5.5, (0, FAILED), [END(0)]),
    ],
    "the server wants no more, and none is left": [(0.5, (0, asks("x")), [END(0)])],
    "the server names the time": [
        (0.5, (0, asks(3)), []),
        (3.4, None, []),
        (3.5, None, [START(1)]),
        (4.5, None, [START(2)]),
    ],
    "what never ran is repeated, once": [
        (0.5, (0, NEVER_RAN), [START(0)]),
        (0.6, (0, NEVER_RAN), [START(1)]),
        (0.7, (1, NEVER_RAN), [START(2)]),
        (0.8, (2, NEVER_RAN), [END(2)]),
    ],
    "what never left is repeated as often as that": [
        (0.5, (0, NEVER_LEFT), [START(0)]),
        (0.6, (0, NEVER_LEFT), [START(0)]),
        (0.7, (0, NEVER_RAN), [START(0)]),
        (0.8, (0, NEVER_LEFT), [START(0)]),
        (0.9, (0, NEVER_RAN), [START(1)]),
    ],
    "a repeated one does not move the others": [
        (1.0, None, [START(1)]),
        (1.2, (1, NEVER_RAN), [START(1)]),
        (2.0, None, [START(2)]),
        (2.1, (1, "ok"), [CANCEL(0), CANCEL(2), END(1)]),
    ],
    "no delay helps with a fatal code": [(0.5, (0, asks(1, INTERNAL)), [END(0)])],
}


def play(machine: Hedging, steps: list[Step]) -> None:
    for now, happens, expected in steps:
        if happens is None:
            machine.handle_timeout(now)
        elif happens[1] == "ok":
            machine.succeeded(happens[0], now)
        else:
            machine.failed(*happens, now)
        assert machine.take_events() == expected, now
        deadline = machine.deadline()
        assert deadline is None or deadline > now


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES.keys())
def test_what_is_done(steps: list[Step]) -> None:
    play(hedging(), steps)


def test_without_a_delay_all_begin_at_once() -> None:
    machine = Hedging(HedgingPolicy(3, 0), None, 5.0)
    assert machine.take_events() == [START(0), START(1), START(2)]
    assert machine.deadline() is None


def test_none_begins_from_the_deadline_on() -> None:
    machine = hedging(deadline=2.0)
    assert machine.deadline() == 1.0
    play(machine, [(1.0, None, [START(1)]), (2.0, (0, FAILED), []), (2.0, (1, FAILED), [END(1)])])
    play(hedging(deadline=2.0), [(0.5, (0, asks(1.5)), [END(0)])])
    play(hedging(deadline=2.0), [(2.0, (0, NEVER_RAN), [END(0)])])
    late = hedging(deadline=2.0)  # the timer is late
    play(late, [(2.5, None, []), (2.6, (0, FAILED), [END(0)])])


def test_a_throttled_client_does_not_hedge() -> None:
    throttle = RetryThrottle(max_tokens=2)
    throttle.failed()
    play(hedging(throttle=throttle), [(1.0, None, []), (1.5, (0, "ok"), [END(0)])])
    assert throttle.tokens == 1.1
    throttle.failed()
    play(hedging(throttle=throttle), [(0.1, (0, FAILED), [END(0)])])


def test_throttled_while_it_waits_as_the_server_asked() -> None:
    throttle = RetryThrottle(max_tokens=4)
    machine = hedging(throttle=throttle)
    play(machine, [(0.1, (0, asks(5)), [])])
    throttle.failed()
    play(machine, [(5.1, None, [END(0)])])


@pytest.mark.parametrize(
    ("failure", "taken"),
    [
        (FAILED, 1),
        (FATAL, 0),
        (asks(1), 1),
        (asks(-1), 1),
        (asks(-1, INTERNAL), 1),
        (asks(1, INTERNAL), 0),
        (NEVER_RAN, 0),
    ],
)
def test_what_takes_a_token(failure: AttemptFailure, taken: int) -> None:
    throttle = RetryThrottle()
    hedging(throttle=throttle).failed(0, failure, 0.0)
    assert throttle.tokens == 10 - taken


def test_wrong_use_changes_nothing() -> None:
    machine = hedging()
    for use in (lambda: machine.succeeded(1, 0.0), lambda: machine.failed(7, FAILED, 0.0)):
        with pytest.raises(LocalProtocolError, match="not under way"):
            use()
    with pytest.raises(LocalProtocolError, match="no action"):
        machine.complete(1, Outcome(), 0.0)
    assert (machine.running, machine.take_events(), machine.take_actions()) == (1, [], [])
    machine.succeeded(0, 0.5)
    with pytest.raises(LocalProtocolError, match="attempt 0 is not under way"):
        machine.succeeded(0, 0.5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_attempts": 1}, "max_attempts"),
        ({"max_attempts": 6}, "max_attempts"),
        ({"max_attempts": 2.5}, "max_attempts"),
        ({"delay": -1}, "delay"),
        ({"delay": math.inf}, "delay"),
        ({"non_fatal_codes": [StatusCode.OK]}, "OK"),
    ],
)
def test_policies_are_checked(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        HedgingPolicy(**options)
    assert HedgingPolicy(non_fatal_codes=()).non_fatal_codes == frozenset()


class HedgingRules(RuleBasedStateMachine):
    """One call after the other of one client; each ends, once, and as one of its attempts has."""

    ATTEMPTS, LIFE = 4, 8.0

    def __init__(self) -> None:
        super().__init__()
        self.throttle = RetryThrottle(max_tokens=6, token_ratio=0.5)
        self.now = 0.0
        self.call()

    def call(self) -> None:
        self.deadline = self.now + self.LIFE
        policy = HedgingPolicy(self.ATTEMPTS, 1.0)
        self.machine = Hedging(policy, self.throttle, self.now, self.deadline)
        self.running: set[int] = set()
        self.starts: list[int] = []
        self.never_left = 0
        self.outcomes: dict[int, str] = {}
        self.ended = False
        self.take()

    def take(self) -> None:
        for event in self.machine.take_events():
            assert not self.ended, "nothing follows the end"
            if isinstance(event, AttemptStarted):
                assert event.number not in self.running
                if event.number:
                    assert self.now < self.deadline
                self.starts.append(event.number)
                self.running.add(event.number)
            elif isinstance(event, AttemptCancelled):
                self.running.remove(event.number)
            else:
                self.ended = True
                assert not self.running
                assert event.number in self.outcomes
                if "ok" in self.outcomes.values():
                    assert self.outcomes[event.number] == "ok"
                elif "fatal" in self.outcomes.values():
                    assert self.outcomes[event.number] == "fatal"

    @precondition(lambda self: self.ended)
    @rule()
    def call_again(self) -> None:
        self.call()

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        failure=st.sampled_from([FAILED, FAILED, FATAL, NEVER_RAN, NEVER_LEFT, asks(0), asks(2.0), asks(-1)]),
    )
    def fail(self, data: st.DataObject, failure: AttemptFailure) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(number)
        self.outcomes[number] = "fatal" if failure is FATAL else "failed"
        allowed = self.throttle.allows
        started = len(set(self.starts))
        self.never_left += failure is NEVER_LEFT
        self.machine.failed(number, failure, self.now)
        self.take()
        if not allowed:
            assert len(set(self.starts)) == started

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(number)
        self.outcomes[number] = "ok"
        self.machine.succeeded(number, self.now)
        self.take()
        assert self.ended

    @rule()
    def somebody_else_fails(self) -> None:
        self.throttle.failed()

    @rule(seconds=st.floats(0.1, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        allowed, started = self.throttle.allows, len(self.starts)
        self.machine.handle_timeout(self.now)
        self.take()
        assert allowed or len(self.starts) == started
        deadline = self.machine.deadline()
        assert deadline is None or deadline > self.now

    @invariant()
    def bounded(self) -> None:
        assert set(self.starts) == set(range(len(set(self.starts))))
        assert len(set(self.starts)) <= self.ATTEMPTS
        assert len(self.starts) <= self.ATTEMPTS + 1 + self.never_left
        assert self.machine.running == len(self.running)

    @invariant()
    def something_is_to_come_until_it_ends(self) -> None:
        deadline = self.machine.deadline()
        assert self.ended or self.running or deadline is not None
        if self.ended:
            assert deadline is None
        assert deadline is None or deadline < self.deadline


TestHedgingRules = HedgingRules.TestCase
