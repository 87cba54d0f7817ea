"""Load tests on a virtual clock: when calls are to begin, and what is made of the times they took."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helianthus.protocols.rpc import StatusCode
from helianthus.protocols.rpc.load import Load

OK = StatusCode.OK


def run(load: Load, callers: int, takes: Callable[[float], float]) -> list[tuple[float, float, float]]:
    """Have callers make the calls of a plan.

    Args:
        load: The plan.
        callers: Their number.
        takes: How long a call takes that begins at a time.

    Returns:
        When each call was to begin, when it began and when it ended.
    """
    free = [(load.start, number) for number in range(callers)]
    made = []
    while free:
        now, caller = heapq.heappop(free)
        intended = load.claim(now)
        if intended is None:
            continue
        begins = max(now, intended)
        ends = begins + takes(begins)
        load.began(intended, begins)
        load.ended(intended, ends, OK)
        made.append((intended, begins, ends))
        heapq.heappush(free, (ends, caller))
    return made


def test_a_closed_loop_begins_when_the_last_call_has_ended() -> None:
    load = Load(100.0, 10.0)
    made = run(load, 2, lambda now: 0.5)
    assert len(made) == 40
    assert all(intended == begins for intended, begins, _ in made)
    found = load.summary()
    assert (found["calls"], found["not_started"], found["unfinished"]) == (40, 0, 0)
    assert (found["elapsed"], found["calls_per_second"]) == (10.0, 4.0)
    assert found["latency"]["max"] == 0.5
    assert found["start_delay"] is None


def test_an_open_loop_begins_at_even_intervals() -> None:
    load = Load(100.0, 10.0, rate=4.0)
    made = run(load, 3, lambda now: 0.5)
    assert [begins for _, begins, _ in made] == [100 + number / 4 for number in range(40)]
    found = load.summary()
    assert (found["calls"], found["not_started"]) == (40, 0)
    assert found["latency"]["max"] == found["latency"]["p50"] == 0.5
    assert found["start_delay"]["max"] == 0


def test_a_stall_is_met_by_all_whose_time_comes_during_it() -> None:
    """The server stalls for a second, once in ten: of a thousand calls a hundred are slow, not one."""

    def takes(now: float) -> float:
        return 5.0 - now if 4.0 <= now < 5.0 else 0.0

    closed, open_loop = Load(0.0, 10.0), Load(0.0, 10.0, rate=128.0)
    run(closed, 1, lambda now: takes(now) or 1 / 128)
    made = run(open_loop, 1, takes)
    assert len(made) == 1280
    late = [ends - intended for intended, _, ends in made if ends > intended]
    assert late == [number / 128 for number in range(128, 0, -1)]
    assert open_loop.latency.percentile(95) == pytest.approx(0.5, rel=1 / 32)
    assert open_loop.latency.percentile(99) == pytest.approx(0.9, rel=1 / 32)
    assert open_loop.latency.highest == 1.0
    assert closed.latency.percentile(99) < 0.01  # what coordinated omission hides


def test_what_could_not_begin_is_counted() -> None:
    load = Load(0.0, 10.0, rate=10.0)
    made = run(load, 1, lambda now: 1.0)  # ten times too slow
    found = load.summary()
    assert (found["calls"], found["not_started"]) == (10, 90)
    assert [ends - intended for intended, _, ends in made] == [
        number + 1 - number / 10 for number in range(10)
    ]
    assert found["latency"]["max"] == 10 - 0.9
    assert found["start_delay"]["max"] == 9 - 0.9
    assert found["elapsed"] == 10.0


def test_a_call_that_outlasts_the_plan_counts() -> None:
    load = Load(0.0, 1.0)
    run(load, 1, lambda now: 4.0)
    assert load.summary()["elapsed"] == 4.0
    assert load.summary()["calls_per_second"] == 0.25


def test_stopping_early() -> None:
    load = Load(0.0, 10.0, rate=10.0)
    first, second = load.claim(0.0), load.claim(0.0)
    assert (first, second) == (0.0, 0.1)
    load.began(0.0, 0.0)
    load.stop(0.45)
    assert load.claim(0.46) is None
    found = load.summary()
    assert (found["not_started"], found["unfinished"], found["elapsed"]) == (4, 1, 0.45)  # 0.1 ... 0.4
    load.stop(5.0)  # later than it has ended
    assert load.end == 0.45


def test_errors_are_counted_by_code_and_have_no_latency() -> None:
    load = Load(0.0, 10.0)
    for code in (StatusCode.UNAVAILABLE, StatusCode.INTERNAL, StatusCode.UNAVAILABLE, OK):
        load.began(1.0, 1.0)
        load.ended(1.0, 3.0, code)
    found = load.summary()
    assert found["errors"] == {"INTERNAL": 1, "UNAVAILABLE": 2}
    assert (found["calls"], found["succeeded"], load.latency.count) == (4, 1, 1)


@given(
    st.floats(0.001, 100.0),
    st.floats(0.01, 1000.0),
    st.integers(1, 5),
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=10),
    st.floats(0, 1e6),
)
def test_every_call_of_the_plan_has_begun_or_is_told(
    duration: float, rate: float, callers: int, times: list[float], start: float
) -> None:
    load = Load(start, min(duration, 1000 / rate), rate)
    made = run(load, callers, lambda now: times[int(now * 7) % len(times)])
    intended = [one for one, _, _ in made]
    assert intended == [start + number / rate for number in range(len(made))]
    assert all(start <= one < load.end for one in intended)
    planned = len(made) + load.not_started
    assert planned == 0 or start + (planned - 1) / rate < load.end
    assert start + planned / rate >= load.end
    assert load.summary()["unfinished"] == 0


@pytest.mark.parametrize("duration", [0, -1.0, float("inf"), float("nan")])
def test_a_duration_that_is_none(duration: float) -> None:
    with pytest.raises(ValueError, match="must have a duration"):
        Load(0.0, duration)


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan")])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ValueError, match="more than 0 calls a second"):
        Load(0.0, 1.0, rate)
