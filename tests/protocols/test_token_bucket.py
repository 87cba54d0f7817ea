from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helianthus.protocols.policies import Rate, TokenBuckets


def test_a_burst_and_then_the_rate() -> None:
    buckets = TokenBuckets(Rate(per_second=2.0, burst=3))
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0] * 3
    assert buckets.take("a", 0.0) == pytest.approx(0.5)
    assert buckets.take("a", 0.25) == pytest.approx(0.25)
    assert buckets.take("a", 0.5) == 0.0
    assert buckets.take("b", 0.5) == 0.0
    assert [buckets.take("a", 100.0) for _ in range(4)][:3] == [0.0] * 3


@given(
    st.floats(0.1, 1000),
    st.integers(1, 20),
    st.lists(st.floats(0, 2), min_size=1, max_size=100),
)
def test_never_more_than_burst_and_rate_allow(per_second: float, burst: int, pauses: list[float]) -> None:
    buckets = TokenBuckets(Rate(per_second, burst))
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        wait = buckets.take("key", now)
        if wait == 0:
            taken += 1
        else:
            assert 0 < wait <= 1 / per_second * (1 + 1e-6)
        assert taken <= burst + now * per_second + 1e-6


@given(st.floats(0.1, 1000), st.integers(1, 20))
def test_waiting_as_long_as_told_is_enough(per_second: float, burst: int) -> None:
    buckets = TokenBuckets(Rate(per_second, burst))
    now = 5.0
    for _ in range(3 * burst):
        wait = buckets.take("key", now)
        if wait:
            now += wait
            assert buckets.take("key", now) == 0


def test_the_number_of_keys_is_bounded() -> None:
    buckets = TokenBuckets(Rate(1.0), max_keys=3)
    for key in range(10):
        assert buckets.take(key, 0.0) == 0
    assert len(buckets) == 3
    assert buckets.take(9, 0.0) > 0
    with pytest.raises(ValueError, match="max_keys"):
        TokenBuckets(Rate(1.0), max_keys=0)
    with pytest.raises(ValueError, match="per_second"):
        Rate(0)


class BucketRules(RuleBasedStateMachine):
    """Keys come in any order, at times; checked against buckets that are filled step by step.

    All numbers are powers of two, so that both reckon without rounding.
    """

    PER_SECOND, BURST, MAX_KEYS = 4.0, 3, 3

    def __init__(self) -> None:
        super().__init__()
        self.buckets = TokenBuckets(Rate(self.PER_SECOND, self.BURST), max_keys=self.MAX_KEYS)
        self.now = 1024.0
        self.model: dict[str, tuple[float, float]] = {}  # tokens at a time, in the order of use

    @rule(key=st.sampled_from("abcde"))
    def take(self, key: str) -> None:
        tokens, since = self.model.get(key, (float(self.BURST), self.now))
        tokens = min(self.BURST, tokens + (self.now - since) * self.PER_SECOND)
        wait = self.buckets.take(key, self.now)
        if tokens < 1:
            assert wait == (1 - tokens) / self.PER_SECOND
            return
        assert wait == 0
        self.model.pop(key, None)
        self.model[key] = (tokens - 1, self.now)
        if len(self.model) > self.MAX_KEYS:
            del self.model[next(iter(self.model))]

    @rule(eighths=st.integers(1, 12))
    def pass_time(self, eighths: int) -> None:
        self.now += eighths / 8

    @invariant()
    def bounded(self) -> None:
        assert len(self.buckets) == len(self.model) <= self.MAX_KEYS


TestBucketRules = BucketRules.TestCase
