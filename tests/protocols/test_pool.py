"""A client's connections: how many, which, for how long. On a virtual clock."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Outcome
from helianthus.protocols.pool import (
    AGE_JITTER,
    CloseConnection,
    OpenConnection,
    Pool,
    PoolOptions,
    RetireConnection,
)


def pool_of(**options: Any) -> Pool:
    pool = Pool(PoolOptions(**options), Random(1))
    pool.start(0.0)
    return pool


def ready_pool(**options: Any) -> Pool:
    """A pool whose first connections are ready, with no event left."""
    pool = pool_of(**options)
    for event in pool.take_events():
        pool.connection_ready(event.id, 0.0)
    assert pool.take_events() == []
    return pool


# -- options ------------------------------------------------------------------------------------------


def test_the_default_is_one_connection_for_ever() -> None:
    assert PoolOptions().keeps_one
    pool = ready_pool()
    pool.set_calls(1, 10_000, 0.0)
    assert pool.choose(0.0) == 1
    assert pool.take_events() == []
    assert pool.deadline() is None
    for options in ({"size": 2}, {"min_size": 0}, {"max_age": 1.0}):
        assert not PoolOptions(**options).keeps_one  # type: ignore[arg-type]  # each has its own type


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"size": 0}, "'size' must be >= 1"),
        ({"min_size": 2}, "min_size is 2; it must not exceed size, which is 1"),
        ({"min_size": -1}, "'min_size' must be >= 0"),
        ({"open_above": -1}, "'open_above' must be >= 0"),
        ({"idle_time": 0.0}, "'idle_time' must be > 0"),
        ({"max_age": 0.0}, "'max_age' must be > 0"),
        ({"grace": -1.0}, "'grace' must be >= 0"),
    ],
)
def test_options_out_of_range(options: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PoolOptions(**options)


# -- how many, and which ---------------------------------------------------------------------------------


def test_as_many_as_are_kept_are_opened_at_once() -> None:
    assert pool_of(size=5, min_size=3).take_events() == [OpenConnection(number) for number in (1, 2, 3)]
    assert pool_of(min_size=0).take_events() == []


def test_the_first_call_opens_a_connection_where_none_is_kept() -> None:
    pool = pool_of(size=2, min_size=0)
    assert pool.choose(0.0) is None
    assert pool.choose(0.0) is None
    assert pool.take_events() == [OpenConnection(1)]
    pool.connection_ready(1, 0.0)
    assert pool.choose(0.0) == 1


def test_the_least_loaded_is_chosen() -> None:
    pool = ready_pool(size=3, min_size=3)
    for number, calls in ((1, 5), (2, 2), (3, 2)):
        pool.set_calls(number, calls, 0.0)
    assert pool.choose(0.0) == 2
    pool.set_calls(2, 9, 0.0)
    assert pool.choose(0.0) == 3
    pool.connection_lost(3, 0.0)
    assert pool.choose(0.0) == 1


def test_another_is_opened_when_all_are_busy_one_at_a_time() -> None:
    pool = ready_pool(size=3, open_above=10)
    for calls, opened in ((10, []), (11, [OpenConnection(2)]), (500, [])):
        pool.set_calls(1, calls, 0.0)
        assert pool.choose(0.0) == 1
        assert pool.take_events() == opened, calls
    pool.connection_ready(2, 1.0)
    assert pool.choose(1.0) == 2
    assert pool.take_events() == []
    pool.set_calls(2, 11, 1.0)
    pool.choose(1.0)
    assert pool.take_events() == [OpenConnection(3)]
    pool.connection_ready(3, 1.0)
    pool.set_calls(3, 11, 1.0)
    pool.choose(1.0)
    assert pool.take_events() == []
    assert pool.active == 3


def test_a_connection_without_room_is_busy_however_few_its_calls_are() -> None:
    pool = ready_pool(size=2, open_above=100)
    pool.set_calls(1, 3, 0.0, full=True)
    assert pool.choose(0.0) == 1
    assert pool.take_events() == [OpenConnection(2)]
    pool.connection_ready(2, 1.0)
    pool.set_calls(2, 50, 1.0)
    assert pool.choose(1.0) == 2
    pool.set_calls(1, 3, 2.0)
    assert pool.choose(2.0) == 1


def test_who_takes_calls_without_being_chosen() -> None:
    pool = ready_pool(size=2, open_above=10, max_age=100.0)
    assert (pool.takers, pool.enough) == ([1], 10)
    pool.set_calls(1, 11, 0.0)
    pool.choose(0.0)
    assert (pool.takers, pool.enough) == ([1], math.inf)  # the second one is the last one
    pool.connection_ready(2, 0.0)
    assert pool.takers == [1, 2]
    pool.handle_timeout(110.0)
    assert pool.takers == [1, 2]  # both old, and no other is ready
    pool.connection_ready(3, 110.0)
    assert pool.takers == [3]
    pool.connection_lost(3, 110.0)
    assert pool.takers == []


def test_a_lost_connection_is_made_again_by_itself() -> None:
    pool = ready_pool()
    pool.connection_lost(1, 1.0)
    assert pool.choose(1.0) is None
    assert pool.take_events() == []
    pool.connection_ready(1, 2.0)
    assert pool.choose(2.0) == 1


def test_a_connection_that_ended_is_replaced_where_it_is_kept() -> None:
    pool = ready_pool(size=2)
    pool.connection_ended(1, 1.0)
    assert pool.take_events() == [OpenConnection(2)]


# -- idle connections -----------------------------------------------------------------------------------


def test_what_is_not_used_is_closed_down_to_the_minimum() -> None:
    pool = ready_pool(size=3, min_size=3, idle_time=60.0)
    assert pool.deadline() is None
    pool = ready_pool(size=3, min_size=1, idle_time=60.0, open_above=0)
    for number in (1, 2):
        pool.set_calls(number, 1, 0.0)
        pool.choose(0.0)
        pool.connection_ready(number + 1, 0.0)
    assert pool.take_events() == [OpenConnection(2), OpenConnection(3)]
    for number, ended in ((1, 5.0), (2, 10.0), (3, 20.0)):
        pool.set_calls(number, 1, 0.0)
        pool.set_calls(number, 0, ended)
    assert pool.deadline() == 65.0
    pool.handle_timeout(64.9)
    assert pool.take_events() == []
    pool.handle_timeout(65.0)
    assert pool.take_events() == [RetireConnection(1, "idle")]
    assert pool.deadline() == 70.0
    pool.connection_ended(1, 65.0)
    pool.handle_timeout(1000.0)
    assert pool.take_events() == [RetireConnection(2, "idle")]
    assert pool.deadline() is None
    assert pool.choose(1000.0) == 3


def test_a_call_that_takes_long_is_use() -> None:
    pool = Pool(PoolOptions(min_size=0, idle_time=60.0), Random(1))
    pool.choose(0.0)
    pool.connection_ready(1, 0.0)
    pool.take_events()
    for minute in range(1, 10):
        pool.set_calls(1, 1, 60.0 * minute)
        pool.handle_timeout(60.0 * minute)
        assert pool.take_events() == []
        assert pool.deadline() == 60.0 * (minute + 1)
    pool.set_calls(1, 0, 600.0)
    pool.handle_timeout(660.0)
    assert pool.take_events() == [RetireConnection(1, "idle")]


def test_to_be_replaced_or_made_again_is_no_use() -> None:
    """Otherwise what becomes old, or is lost, sooner than idle would be kept for ever."""
    pool = Pool(PoolOptions(min_size=0, idle_time=60.0, max_age=20.0), Random(1))
    pool.choose(0.0)
    pool.connection_ready(1, 0.0)
    pool.handle_timeout(22.0)
    pool.connection_ready(2, 22.0)
    pool.connection_ended(1, 22.0)
    pool.connection_lost(2, 30.0)
    pool.connection_ready(2, 30.0)
    pool.handle_timeout(52.0)
    pool.connection_ready(3, 52.0)
    pool.connection_ended(2, 52.0)
    pool.take_events()
    pool.handle_timeout(60.0)
    assert pool.take_events() == [RetireConnection(3, "idle")]


def test_choosing_is_use() -> None:
    pool = Pool(PoolOptions(min_size=0, idle_time=60.0), Random(1))
    pool.choose(0.0)
    pool.connection_ready(1, 0.0)
    assert pool.choose(50.0) == 1
    assert pool.deadline() == 110.0


def test_a_call_that_ended_between_two_looks_is_use() -> None:
    pool = Pool(PoolOptions(min_size=0, idle_time=60.0), Random(1))
    pool.choose(0.0)
    pool.connection_ready(1, 0.0)
    pool.set_calls(1, 0, 60.0, used=True)
    assert pool.deadline() == 120.0
    pool.set_calls(1, 0, 120.0)
    assert pool.deadline() == 120.0


# -- old connections --------------------------------------------------------------------------------------


def test_the_age_varies_by_a_tenth_once_per_connection() -> None:
    pool = ready_pool(size=50, min_size=50, max_age=100.0)
    ages = sorted(connection.retire_at for connection in pool._connections.values())
    assert 100 * (1 - AGE_JITTER) <= ages[0] < 93
    assert 107 < ages[-1] <= 100 * (1 + AGE_JITTER)
    assert pool.deadline() == pool.deadline() == ages[0]


def test_an_old_connection_serves_until_its_successor_is_ready() -> None:
    pool = ready_pool(max_age=100.0)
    old = pool.deadline()
    assert old is not None
    pool.set_calls(1, 3, old)
    pool.handle_timeout(old)
    assert pool.take_events() == [OpenConnection(2)]
    assert pool.choose(old) == 1
    pool.connection_lost(2, old + 1)  # the successor tries again, and nothing is lost by that
    assert pool.choose(old + 1) == 1
    pool.connection_ready(2, old + 2)
    assert pool.take_events() == [RetireConnection(1, "max_age")]
    assert pool.choose(old + 2) == 2
    assert (pool.active, pool.leaving) == (1, 1)
    pool.connection_ended(1, old + 9)
    assert pool.take_events() == []
    assert pool.deadline() == pytest.approx(old + 2 + 100, abs=10)


def test_an_old_connection_takes_no_more_calls_where_there_are_others() -> None:
    pool = ready_pool(size=2, min_size=2, max_age=100.0)
    old = pool.deadline()
    assert old is not None
    pool.handle_timeout(old)
    opened, retired = pool.take_events()
    assert opened == OpenConnection(3)
    assert isinstance(retired, RetireConnection)
    assert pool.choose(old) == {1: 2, 2: 1}[retired.id]


def test_an_old_connection_that_is_lost_is_not_made_again() -> None:
    pool = ready_pool(max_age=100.0)
    pool.handle_timeout(110.0)
    pool.connection_lost(1, 110.0)
    assert pool.take_events() == [OpenConnection(2), RetireConnection(1, "max_age")]
    assert pool.choose(110.0) is None


def test_a_connection_that_is_made_again_is_young() -> None:
    pool = ready_pool(max_age=100.0)
    pool.connection_lost(1, 80.0)
    assert pool.deadline() is None
    pool.connection_ready(1, 85.0)
    assert pool.deadline() == pytest.approx(185.0, abs=10)


def test_no_more_leave_at_once_than_the_pool_is_large() -> None:
    """A stream that never ends keeps an old connection; the next one then stays a while longer."""
    pool = ready_pool(max_age=100.0)
    pool.handle_timeout(110.0)
    pool.connection_ready(2, 110.0)
    pool.take_events()
    assert pool.deadline() is None
    pool.handle_timeout(1000.0)
    assert pool.take_events() == []
    pool.connection_ended(1, 1000.0)
    assert pool.take_events() == [OpenConnection(3)]


def test_the_time_of_grace_ends() -> None:
    pool = ready_pool(max_age=100.0, grace=5.0)
    pool.handle_timeout(110.0)
    pool.connection_ready(2, 110.0)
    assert pool.take_events() == [OpenConnection(2), RetireConnection(1, "max_age")]
    assert pool.deadline() == 115.0
    pool.handle_timeout(114.9)
    assert pool.take_events() == []
    pool.handle_timeout(115.0)
    (closed,) = pool.take_events()
    assert isinstance(closed, CloseConnection)
    assert (closed.id, closed.reason) == (1, "it was on its way out, and its grace of 5 s is over")
    pool.handle_timeout(116.0)
    assert pool.take_events() == []
    assert pool.leaving == 1  # until it is told that it has ended
    pool.connection_ended(1, 116.0)
    assert pool.leaving == 0


def test_no_grace_at_all() -> None:
    pool = ready_pool(size=2, min_size=2, max_age=100.0, grace=0.0)
    when = pool.deadline()
    assert when is not None
    pool.handle_timeout(when)
    assert [type(event) for event in pool.take_events()] == [
        OpenConnection,
        RetireConnection,
        CloseConnection,
    ]
    deadline = pool.deadline()
    assert deadline is None or deadline > when


def test_mistakes_of_the_caller_change_nothing() -> None:
    pool = ready_pool(idle_time=5.0)
    for mistake in (
        lambda: pool.connection_ready(2, 0.0),
        lambda: pool.connection_lost(2, 0.0),
        lambda: pool.connection_ended(2, 0.0),
        lambda: pool.set_calls(2, 1, 0.0),
        lambda: pool.complete(1, Outcome(), 0.0),
    ):
        with pytest.raises(LocalProtocolError, match="there is no"):
            mistake()
    assert pool.take_events() == pool.take_actions() == []
    assert pool.choose(0.0) == 1


# -- whatever happens ----------------------------------------------------------------------------------------


class Pooling(RuleBasedStateMachine):
    """Never more than `size`; what was opened ends or is there; a call finds what is ready."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(
            PoolOptions(size=3, min_size=1, open_above=2, idle_time=10.0, max_age=50.0, grace=20.0), Random(0)
        )
        self.now = 0.0
        self.opened: set[int] = set()
        self.retired: dict[int, float] = {}  # with when that was
        self.closed: set[int] = set()
        self.ready: dict[int, int] = {}  # with calls in flight
        self.pool.start(0.0)
        self.drain()

    def drain(self) -> None:
        for event in self.pool.take_events():
            if isinstance(event, OpenConnection):
                assert event.id not in self.opened
                self.opened.add(event.id)
            elif isinstance(event, RetireConnection):
                assert event.id in self.opened - self.retired.keys()
                self.retired[event.id] = self.now
                if event.id not in self.ready:
                    self.end(event.id)
            else:
                assert event.id not in self.closed
                assert self.now >= self.retired[event.id] + 20.0
                self.closed.add(event.id)

    def end(self, number: int) -> None:
        self.opened.remove(number)
        self.retired.pop(number, None)
        self.closed.discard(number)
        self.ready.pop(number, None)
        self.pool.connection_ended(number, self.now)
        self.drain()

    def tell(self) -> None:
        for number, calls in self.ready.items():
            self.pool.set_calls(number, calls, self.now)

    @precondition(lambda self: self.opened - self.ready.keys() - self.retired.keys())
    @rule(data=st.data())
    def becomes_ready(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.opened - self.ready.keys() - self.retired.keys())))
        self.ready[number] = 0
        self.pool.connection_ready(number, self.now)
        self.drain()

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def is_lost(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.ready)))
        del self.ready[number]
        if number in self.retired:
            self.end(number)
        else:
            self.pool.connection_lost(number, self.now)
            self.drain()

    @rule()
    def call_begins(self) -> None:
        self.tell()
        chosen = self.pool.choose(self.now)
        self.drain()
        takes_calls = self.ready.keys() - self.retired.keys()
        assert set(self.pool.takers) <= takes_calls
        assert bool(self.pool.takers) == bool(takes_calls)
        assert (chosen is not None) == bool(takes_calls)
        if chosen is None:
            assert self.opened - self.retired.keys(), "nothing is on its way"
        else:
            assert chosen in self.pool.takers
            assert self.ready[chosen] == min(self.ready[number] for number in self.pool.takers)
            self.ready[chosen] += 1

    @precondition(lambda self: any(self.ready.values()))
    @rule(data=st.data())
    def call_ends(self, data: st.DataObject) -> None:
        busy = sorted(number for number, calls in self.ready.items() if calls)
        number = data.draw(st.sampled_from(busy))
        self.ready[number] -= 1
        if number in self.retired and not self.ready[number]:
            self.end(number)

    @precondition(lambda self: any(not self.ready.get(number) for number in self.retired))
    @rule()
    def has_drained(self) -> None:
        self.end(next(number for number in sorted(self.retired) if not self.ready.get(number)))

    @rule(seconds=st.floats(0.0, 30.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell()
        self.pool.handle_timeout(self.now)
        deadline = self.pool.deadline()
        assert deadline is None or deadline > self.now
        self.drain()

    @invariant()
    def it_is_bounded(self) -> None:
        assert 1 <= self.pool.active <= 3
        assert self.pool.leaving <= 3
        assert self.pool.active + self.pool.leaving == len(self.opened)
        assert len(self.retired) <= self.pool.leaving
        for number, since in self.retired.items():
            due = self.pool.deadline()
            assert number in self.closed or (due is not None and due <= since + 20.0)

    def teardown(self) -> None:
        """With time and no calls, one connection is left."""
        self.ready = dict.fromkeys(self.ready, 0)
        for _ in range(20):
            for number in sorted(self.retired):
                self.end(number)
            for number in sorted(self.opened - self.ready.keys() - self.retired.keys()):
                self.ready[number] = 0
                self.pool.connection_ready(number, self.now)
                self.drain()
            self.tell()
            self.now = max(self.now, min(self.pool.deadline() or 0.0, self.now + 10.0))
            self.pool.handle_timeout(self.now)
            self.drain()
        for number in sorted(self.retired):
            self.end(number)
        assert self.pool.active == 1
        assert self.pool.leaving <= 1


TestPooling = Pooling.TestCase


def test_never_means_never() -> None:
    assert ready_pool(size=2, min_size=2, idle_time=math.inf).deadline() is None
