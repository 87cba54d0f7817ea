"""Attempts one after the other, and the throttle that all calls of a client share."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.policies import (
    DO_NOT_RETRY,
    MAX_RETRY_AFTER,
    AttemptFailure,
    Retry,
    RetryPolicy,
    RetryState,
    RetryThrottle,
)
from helianthus.protocols.rpc import StatusCode

UNAVAILABLE, ABORTED, INTERNAL = StatusCode.UNAVAILABLE, StatusCode.ABORTED, StatusCode.INTERNAL
FAILED = AttemptFailure(UNAVAILABLE)
NEVER_RAN = AttemptFailure(UNAVAILABLE, maybe_executed=False)
NEVER_LEFT = AttemptFailure(UNAVAILABLE, maybe_executed=False, sent=False)
POLICY = RetryPolicy(max_attempts=5, initial=0.1, maximum=0.5, multiplier=2.0)


class Midway(Random):
    """Jitters by nothing."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def begun(
    policy: RetryPolicy | None = POLICY, throttle: RetryThrottle | None = None, deadline: float | None = None
) -> Retry:
    retry = Retry(policy, throttle, Midway(1), deadline)
    retry.begin()
    return retry


def asks(retry_after: Any, code: StatusCode = UNAVAILABLE) -> AttemptFailure:
    return AttemptFailure(code, {"retry_after": retry_after})


def asks_unrun(retry_after: Any) -> AttemptFailure:
    return AttemptFailure(UNAVAILABLE, {"retry_after": retry_after}, maybe_executed=False)


def delays(retry: Retry, *failures: AttemptFailure) -> list[float | None]:
    """What follows each failure; the next attempt begins where there is one."""
    given = []
    for failure in failures:
        given.append(retry.failed(failure, 0.0))
        if given[-1] is not None:
            retry.begin()
    return given


CASES: list[tuple[str, list[AttemptFailure], list[float | None]]] = [
    ("grows, then stays", [FAILED] * 5, [0.1, 0.2, 0.4, 0.5, None]),
    ("another code", [AttemptFailure(INTERNAL)], [None]),
    ("at once, once, uncounted", [NEVER_RAN, *[FAILED] * 5], [0.0, 0.1, 0.2, 0.4, 0.5, None]),
    ("at once only once", [NEVER_RAN] * 6, [0.0, 0.1, 0.2, 0.4, 0.5, None]),
    ("at once as long as it never left", [NEVER_LEFT] * 20, [0.0] * 20),
    ("what never left counts as nothing", [NEVER_LEFT, NEVER_RAN, NEVER_LEFT, NEVER_RAN], [0, 0, 0, 0.1]),
    ("what left the client is repeated once", [NEVER_LEFT, NEVER_RAN, NEVER_RAN, FAILED], [0, 0, 0.1, 0.2]),
    ("a server that names a time was reached", [asks_unrun(3), asks_unrun(-1)], [3.0, None]),
    ("the server's delay, then from the start", [FAILED, asks(7), FAILED, FAILED], [0.1, 7.0, 0.1, 0.2]),
    ("the server's delay may be 0", [asks(0), asks(0.0)], [0.0, 0.0]),
    ("the server wants no more", [FAILED, asks(-1)], [0.1, None]),
    ("what the server wants is no number", [asks("soon")], [None]),
    ("for another code no delay helps", [asks(1, INTERNAL)], [None]),
    ("details of another kind", [AttemptFailure(UNAVAILABLE, ["retry_after", 3])], [0.1]),
    ("details without it", [AttemptFailure(UNAVAILABLE, {"retry": 3})], [0.1]),
]


@pytest.mark.parametrize(("failures", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_what_follows_a_failure(failures: list[AttemptFailure], expected: list[float | None]) -> None:
    assert delays(begun(), *failures) == pytest.approx(expected)


def test_the_jitter_is_a_fifth_either_way() -> None:
    rng = Random(7)
    drawn = [POLICY.delay(1, rng) for _ in range(1000)]
    assert 0.08 <= min(drawn) < 0.085
    assert 0.115 < max(drawn) <= 0.12
    assert POLICY.delay(10_000, Midway(1)) == 0.5  # the power would overflow


def test_previous_attempts_are_counted() -> None:
    retry = begun()
    counts = [retry.previous_attempts]
    for failure in (NEVER_RAN, FAILED, FAILED):
        delays(retry, failure)
        counts.append(retry.previous_attempts)
    assert counts == [0, 0, 1, 2]


def test_nothing_follows_once_the_response_has_begun() -> None:
    throttle = RetryThrottle()
    for failure in (FAILED, NEVER_RAN):
        retry = begun(throttle=throttle)
        retry.commit()
        assert retry.failed(failure, 0.0) is None
    assert throttle.tokens == 8


def test_without_a_policy_only_what_never_ran_is_repeated() -> None:
    throttle = RetryThrottle()
    assert delays(begun(None, throttle), NEVER_RAN, NEVER_RAN) == [0.0, None]
    assert delays(begun(None, throttle), FAILED) == [None]
    assert throttle.tokens == 10


def test_what_never_left_is_repeated_until_the_deadline() -> None:
    retry = begun(None, deadline=5.0)
    for now in (0.0, 1.0, 4.9):
        assert retry.failed(NEVER_LEFT, now) == 0.0
        retry.begin()
    assert retry.failed(NEVER_LEFT, 5.0) is None
    committed = begun()
    committed.commit()
    assert committed.failed(NEVER_LEFT, 0.0) is None


def test_no_delay_beyond_the_deadline_is_waited_for() -> None:
    assert begun(deadline=0.1).failed(FAILED, 0.0) is None
    assert begun(deadline=0.1001).failed(FAILED, 0.0) == pytest.approx(0.1)
    assert begun(deadline=5.0).failed(asks(5), 0.0) is None
    assert begun(deadline=5.0).failed(NEVER_RAN, 5.0) is None


def test_wrong_use_changes_nothing() -> None:
    retry = Retry(POLICY, None, Random(1))
    for use in (retry.succeeded, lambda: retry.failed(FAILED, 0.0)):
        with pytest.raises(LocalProtocolError, match="idle"):
            use()
    retry.begin()
    with pytest.raises(LocalProtocolError, match="running"):
        retry.begin()
    assert retry.state is RetryState.RUNNING
    retry.succeeded()
    with pytest.raises(LocalProtocolError, match="over"):
        retry.begin()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_attempts": 1}, "max_attempts"),
        ({"max_attempts": 6}, "max_attempts"),
        ({"max_attempts": 2.5}, "max_attempts"),
        ({"initial": -1}, "initial"),
        ({"initial": math.nan}, "initial"),
        ({"maximum": math.inf}, "maximum"),
        ({"multiplier": 0}, "multiplier"),
        ({"codes": ()}, "codes"),
        ({"codes": [StatusCode.OK]}, "OK"),
        ({"codes": [99]}, "99"),
    ],
)
def test_policies_are_checked(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        RetryPolicy(**options)


# -- push-back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (None, None),
        ({}, None),
        ([1], None),
        ({"retry_after": 1}, 1.0),
        ({"retry_after": 0.25}, 0.25),
        ({"retry_after": MAX_RETRY_AFTER}, MAX_RETRY_AFTER),
        ({"retry_after": MAX_RETRY_AFTER + 1}, DO_NOT_RETRY),
        ({"retry_after": 10**400}, DO_NOT_RETRY),
        ({"retry_after": -0.1}, DO_NOT_RETRY),
        ({"retry_after": math.nan}, DO_NOT_RETRY),
        ({"retry_after": math.inf}, DO_NOT_RETRY),
        ({"retry_after": True}, DO_NOT_RETRY),
        ({"retry_after": None}, DO_NOT_RETRY),
        ({"retry_after": "1"}, DO_NOT_RETRY),
        ({"retry_after": [1]}, DO_NOT_RETRY),
    ],
)
def test_what_a_server_asks_for(details: Any, expected: float | None) -> None:
    assert AttemptFailure(UNAVAILABLE, details).push_back == expected


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("retry_after"), inner),
)


@given(ANYTHING | st.dictionaries(st.just("retry_after"), ANYTHING))
def test_details_of_any_kind_can_be_read(details: Any) -> None:
    push_back = AttemptFailure(UNAVAILABLE, details).push_back
    assert push_back is None or push_back == DO_NOT_RETRY or 0 <= push_back <= MAX_RETRY_AFTER


# -- the throttle ------------------------------------------------------------------------------------------


def test_half_of_the_tokens_is_too_few() -> None:
    throttle = RetryThrottle(max_tokens=4, token_ratio=0.5)
    throttle.failed()
    assert (throttle.tokens, throttle.allows) == (3, True)
    throttle.failed()
    assert (throttle.tokens, throttle.allows) == (2, False)
    throttle.succeeded()
    assert (throttle.tokens, throttle.allows) == (2.5, True)


def test_tokens_stay_within_their_bounds() -> None:
    throttle = RetryThrottle(max_tokens=1, token_ratio=0.1)
    throttle.succeeded()
    assert throttle.tokens == 1
    for _ in range(3):
        throttle.failed()
    assert throttle.tokens == 0
    for count in range(1, 6):
        throttle.succeeded()
        assert throttle.tokens == count / 10  # exactly
        assert not throttle.allows
    throttle.succeeded()
    assert throttle.allows


@pytest.mark.parametrize(("tokens", "ratio"), [(0, 0.1), (1001, 0.1), (10, 0), (10, math.inf), (10, -1)])
def test_throttles_are_checked(tokens: float, ratio: float) -> None:
    with pytest.raises(ValueError, match=r"max_tokens|token_ratio"):
        RetryThrottle(tokens, ratio)


@pytest.mark.parametrize(
    ("failure", "taken"),
    [
        (FAILED, 1),
        (asks(1), 1),
        (asks(-1), 1),
        (asks(-1, INTERNAL), 1),
        (AttemptFailure(INTERNAL), 0),
        (asks(1, INTERNAL), 0),
        (NEVER_RAN, 0),
    ],
)
def test_what_takes_a_token(failure: AttemptFailure, taken: int) -> None:
    throttle = RetryThrottle()
    begun(throttle=throttle).failed(failure, 0.0)
    assert throttle.tokens == 10 - taken


def test_a_throttled_client_does_not_retry() -> None:
    throttle = RetryThrottle(max_tokens=4)
    assert delays(begun(throttle=throttle), FAILED, FAILED) == [pytest.approx(0.1), None]
    first = begun(throttle=throttle)
    assert first.failed(NEVER_RAN, 0.0) == 0.0  # that is no retry of a server in trouble
    first.begin()
    first.succeeded()
    assert throttle.tokens == 2.1


# -- rules --------------------------------------------------------------------------------------------------


class RetryRules(RuleBasedStateMachine):
    """Several calls of a client; what holds for each of them and for their throttle."""

    DEADLINE = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.throttle = RetryThrottle(max_tokens=4, token_ratio=0.5)
        self.policy = RetryPolicy(max_attempts=3, codes=[UNAVAILABLE, ABORTED])
        self.now = 0.0
        self.calls: dict[int, Retry] = {}
        self.begun: dict[int, list[str]] = {}
        self.committed: set[int] = set()
        self.next = 0
        self.tokens = 4.0

    @rule()
    def call(self) -> None:
        self.next += 1
        retry = self.calls[self.next] = Retry(self.policy, self.throttle, Random(self.next), self.DEADLINE)
        retry.begin()
        self.begun[self.next] = ["first"]

    def draw(self, data: st.DataObject, state: RetryState) -> int:
        return data.draw(st.sampled_from([n for n, retry in self.calls.items() if retry.state is state]))

    def any(self, state: RetryState) -> bool:
        return any(retry.state is state for retry in self.calls.values())

    @precondition(lambda self: self.any(RetryState.RUNNING))
    @rule(
        data=st.data(),
        code=st.sampled_from([UNAVAILABLE, ABORTED, INTERNAL]),
        ran=st.booleans(),
        sent=st.booleans(),
        after=st.sampled_from(["nothing", 0, 2.5, -1, "x"]),
    )
    def fail(self, data: st.DataObject, code: StatusCode, ran: bool, sent: bool, after: Any) -> None:
        number = self.draw(data, RetryState.RUNNING)
        retry = self.calls[number]
        failure = AttemptFailure(code, None if after == "nothing" else {"retry_after": after}, ran, sent)
        again = "repeat" not in self.begun[number] or not sent
        repeated = (code, ran, after) == (UNAVAILABLE, False, "nothing") and again
        repeated = repeated and number not in self.committed
        delay = retry.failed(failure, self.now)
        listed, refused = code is not INTERNAL, after in (-1, "x")
        if not repeated and (listed or refused):
            self.tokens = max(0.0, self.tokens - 1)
        if delay is None:
            assert retry.state is RetryState.OVER
            return
        assert number not in self.committed
        assert self.now + delay < self.DEADLINE
        self.begun[number].append("retry" if not repeated else "repeat" if sent else "never left")
        if repeated:
            assert delay == 0
            return
        assert listed
        assert not refused
        assert self.tokens > 2
        assert delay == after if after != "nothing" else 0.08 <= delay <= 1.2

    @precondition(lambda self: self.any(RetryState.WAITING))
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        self.calls[self.draw(data, RetryState.WAITING)].begin()

    @precondition(lambda self: self.any(RetryState.RUNNING))
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        self.calls[self.draw(data, RetryState.RUNNING)].succeeded()
        self.tokens = min(4.0, self.tokens + 0.5)

    @precondition(lambda self: self.any(RetryState.RUNNING))
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        number = self.draw(data, RetryState.RUNNING)
        self.calls[number].commit()
        self.committed.add(number)

    @rule(seconds=st.floats(0.1, 5))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def bounded(self) -> None:
        assert self.throttle.tokens == self.tokens
        for number, begun in self.begun.items():
            assert begun.count("repeat") <= 1
            assert begun.count("first") + begun.count("retry") <= 3
            assert self.calls[number].previous_attempts <= 3


TestRetryRules = RetryRules.TestCase
