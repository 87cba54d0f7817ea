from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.policies import Attempt, IdempotencyCache, IdempotencyLimits, Known, Rejected

RUN, WAIT = Attempt.RUN, Attempt.WAIT


def test_the_first_runs_others_wait_later_ones_are_told() -> None:
    cache: IdempotencyCache[str] = IdempotencyCache()
    assert cache.begin("k", "add", 1, 0.0) is RUN
    assert cache.begin("k", "add", 2, 0.0) is WAIT
    assert cache.begin("k", "add", 3, 0.0) is WAIT
    assert cache.awaited("k")
    cache.leave("k", 3)
    assert cache.finish("k", "five", 4, 1.0) == [2]
    assert cache.begin("k", "add", 4, 2.0) == Known("five")
    assert not cache.awaited("k")


def test_a_key_names_one_call() -> None:
    cache: IdempotencyCache[str] = IdempotencyCache()
    cache.begin("k", "add 1 2", 1, 0.0)
    for _ in range(2):
        rejected = cache.begin("k", "add 1 3", 2, 0.0)
        assert isinstance(rejected, Rejected)
        assert rejected.misused
        assert "make a new key" in rejected.reason
        if cache.running:
            cache.finish("k", "", 0, 0.0)


def test_what_was_not_run_may_run() -> None:
    cache: IdempotencyCache[str] = IdempotencyCache()
    cache.begin("k", "add", 1, 0.0)
    cache.begin("k", "add", 2, 0.0)
    assert cache.abandon("k") == [2]
    assert cache.begin("k", "add", 3, 0.0) is RUN


def test_time_bytes_and_number_are_bounded() -> None:
    limits = IdempotencyLimits(max_entries=3, max_bytes=100, time_to_live=10.0)
    cache: IdempotencyCache[str] = IdempotencyCache(limits)
    for key in "abc":
        cache.begin(key, "", 0, 0.0)
    rejected = cache.begin("d", "", 0, 0.0)
    assert isinstance(rejected, Rejected)
    assert not rejected.misused
    assert "max_entries (3)" in rejected.reason
    cache.finish("b", "B", 60, 0.0)
    cache.finish("a", "A", 60, 1.0)  # more than 100 bytes: the older one goes
    assert (len(cache), cache.bytes) == (2, 60)
    assert cache.begin("d", "", 0, 1.0) is RUN
    assert cache.begin("e", "", 0, 1.0) is RUN  # in place of the outcome of a
    assert cache.bytes == 0
    cache.finish("e", "E", 1, 2.0)
    assert cache.begin("e", "", 0, 11.9) == Known("E")
    assert cache.begin("e", "", 0, 12.0) is RUN


def test_an_outcome_too_large_to_remember_costs_no_others() -> None:
    cache: IdempotencyCache[str] = IdempotencyCache(IdempotencyLimits(max_bytes=100))
    cache.begin("a", "", 1, 0.0)
    cache.finish("a", "A", 90, 0.0)
    cache.begin("large", "", 2, 0.0)
    cache.begin("large", "", 3, 0.0)
    assert cache.finish("large", "L", 101, 0.0) == [3]
    assert (len(cache), cache.bytes) == (1, 90)
    assert cache.begin("a", "", 4, 0.0) == Known("A")
    assert cache.begin("large", "", 5, 0.0) is RUN


def test_wrong_use() -> None:
    cache: IdempotencyCache[str] = IdempotencyCache()
    for end in (lambda: cache.finish("k", "", 0, 0.0), lambda: cache.abandon("k")):
        with pytest.raises(LocalProtocolError, match="no call with the key 'k' runs"):
            end()
    cache.leave("k", 1)
    assert not cache.awaited("k")


class CacheRules(RuleBasedStateMachine):
    """Whatever comes in whichever order, no call runs twice while its outcome could be remembered."""

    KEYS = st.sampled_from("abcdef")

    def __init__(self) -> None:
        super().__init__()
        self.limits = IdempotencyLimits(max_entries=4, max_bytes=10, time_to_live=5.0)
        self.cache: IdempotencyCache[int] = IdempotencyCache(self.limits)
        self.now, self.ticket = 0.0, 0
        self.running: dict[str, list[int]] = {}
        self.ended: dict[str, tuple[int, float]] = {}

    @rule(key=KEYS)
    def attempt(self, key: str) -> None:
        self.ticket += 1
        verdict = self.cache.begin(key, key, self.ticket, self.now)
        if verdict is RUN:
            assert key not in self.running
            self.running[key] = []
        elif verdict is WAIT:
            self.running[key].append(self.ticket)
        elif isinstance(verdict, Known):
            outcome, ended = self.ended[key]
            assert verdict.outcome == outcome
            assert self.now < ended + 5.0
        else:
            assert len(self.running) == 4

    @precondition(lambda self: self.running)
    @rule(data=st.data(), size=st.integers(0, 12), ran=st.booleans())
    def end(self, data: st.DataObject, size: int, ran: bool) -> None:
        key = data.draw(st.sampled_from(list(self.running)))
        waiting = self.running.pop(key)
        if ran:
            if size <= 10:
                self.ended[key] = (self.ticket, self.now)
            assert self.cache.finish(key, self.ticket, size, self.now) == waiting
        else:
            self.ended.pop(key, None)
            assert self.cache.abandon(key) == waiting

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from([key for key, waiting in self.running.items() if waiting]))
        self.cache.leave(key, self.running[key].pop())

    @rule(seconds=st.floats(0.1, 4))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def bounded(self) -> None:
        assert len(self.cache) <= 4
        assert self.cache.bytes <= 10
        assert self.cache.running == len(self.running)


TestCacheRules = CacheRules.TestCase
