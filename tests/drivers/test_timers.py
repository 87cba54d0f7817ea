"""The heap of timers, without any driver."""

from __future__ import annotations

import itertools
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from helianthus.drivers.timers import TimerHeap


def raise_it(error: Exception) -> None:
    raise error


def test_due_timers_run_in_order_of_time_then_of_making() -> None:
    heap = TimerHeap()
    rung: list[str] = []
    for when, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (3.0, "d")):
        heap.call_at(when, lambda name=name: rung.append(name))
    heap.run_due(2.0, raise_it)
    assert rung == ["a", "b", "c"]
    assert heap.next_time() == 3.0
    assert len(heap) == 1


def test_a_timer_is_due_at_its_time_and_not_before() -> None:
    heap = TimerHeap()
    rung: list[int] = []
    heap.call_at(1.0, lambda: rung.append(1))
    heap.run_due(0.999999, raise_it)
    assert rung == []
    heap.run_due(1.0, raise_it)
    assert rung == [1]
    assert heap.next_time() is None


def test_cancelling_may_be_repeated_and_may_come_too_late() -> None:
    heap = TimerHeap()
    rung: list[int] = []
    timer = heap.call_at(1.0, lambda: rung.append(1))
    other = heap.call_at(1.0, lambda: rung.append(2))
    timer.cancel()
    timer.cancel()
    assert len(heap) == 1
    heap.run_due(1.0, raise_it)
    other.cancel()
    assert rung == [2]
    assert len(heap) == 0


def test_a_callback_that_cancels_its_own_timer() -> None:
    heap = TimerHeap()
    timers = [heap.call_at(1.0, lambda: timers[0].cancel())]
    heap.run_due(1.0, raise_it)
    assert len(heap) == 0
    assert heap.next_time() is None


def test_a_callback_that_cancels_the_next_one() -> None:
    heap = TimerHeap()
    rung: list[str] = []
    heap.call_at(1.0, lambda: victim.cancel())
    victim = heap.call_at(1.0, lambda: rung.append("victim"))
    heap.run_due(1.0, raise_it)
    assert rung == []
    assert len(heap) == 0


def test_timers_that_are_added_meanwhile_wait_for_the_next_run() -> None:
    heap = TimerHeap()
    rung: list[int] = []

    def again() -> None:
        rung.append(len(rung))
        heap.call_at(0.0, again)

    heap.call_at(0.0, again)
    for run in range(1, 4):
        heap.run_due(10.0, raise_it)
        assert len(rung) == run
        assert len(heap) == 1


def test_a_timer_that_sets_itself_for_the_past_does_not_hide_the_others() -> None:
    heap = TimerHeap()
    rung: list[str] = []
    heap.call_at(1.0, lambda: (rung.append("greedy"), heap.call_at(-1.0, lambda: rung.append("greedy"))))
    heap.call_at(2.0, lambda: rung.append("patient"))
    heap.run_due(5.0, raise_it)
    assert rung == ["greedy", "patient"]


def test_a_timer_set_aside_can_be_cancelled() -> None:
    heap = TimerHeap()
    rung: list[str] = []
    added: list[Any] = []
    heap.call_at(1.0, lambda: added.append(heap.call_at(0.0, lambda: rung.append("added"))))
    heap.call_at(2.0, lambda: added[0].cancel())
    heap.run_due(5.0, raise_it)
    assert len(heap) == 0
    heap.run_due(5.0, raise_it)
    assert rung == []
    assert heap.next_time() is None


def test_a_callback_that_raises_is_reported_and_the_others_run() -> None:
    heap = TimerHeap()
    rung: list[int] = []
    reported: list[Exception] = []
    heap.call_at(1.0, lambda: 1 / 0)
    heap.call_at(1.0, lambda: rung.append(1))
    heap.run_due(1.0, reported.append)
    assert rung == [1]
    assert [type(error) for error in reported] == [ZeroDivisionError]


def test_an_interrupt_leaves_the_rest_in_the_heap() -> None:
    heap = TimerHeap()
    rung: list[int] = []

    def interrupt() -> None:
        heap.call_at(0.5, lambda: rung.append(0))
        raise KeyboardInterrupt

    heap.call_at(1.0, interrupt)
    heap.call_at(2.0, lambda: rung.append(1))
    try:
        heap.run_due(3.0, raise_it)
    except KeyboardInterrupt:
        heap.run_due(3.0, raise_it)
    assert rung == [0, 1]


def test_cancelled_timers_do_not_pile_up() -> None:
    heap = TimerHeap()
    kept = [heap.call_at(float(number), lambda: None) for number in range(10)]
    for number in range(10_000):
        heap.call_at(1000.0 + number, lambda: None).cancel()
    assert len(heap) == 10
    assert len(heap._heap) < 200
    assert heap.next_time() == kept[0].when


@given(st.lists(st.tuples(st.sampled_from(["add", "cancel", "run"]), st.integers(0, 20)), max_size=200))
def test_it_behaves_like_a_sorted_list(steps: list[tuple[str, int]]) -> None:
    """Against the simplest thing that could be right; with compaction forced to happen often."""
    heap = TimerHeap()
    heap._COMPACT_ABOVE = 2  # type: ignore[misc]
    numbers = itertools.count()
    model: list[tuple[float, int]] = []
    timers: dict[int, Any] = {}
    rung: list[int] = []
    for what, value in steps:
        if what == "add":
            number = next(numbers)
            timers[number] = heap.call_at(float(value), lambda number=number: rung.append(number))
            model.append((float(value), number))
        elif what == "cancel" and timers:
            number = sorted(timers)[value % len(timers)]
            timers[number].cancel()
            model = [entry for entry in model if entry[1] != number]
        elif what == "run":
            rung.clear()
            heap.run_due(float(value), raise_it)
            due = sorted(entry for entry in model if entry[0] <= value)
            assert rung == [number for _, number in due]
            model = [entry for entry in model if entry[0] > value]
        assert len(heap) == len(model)
        assert heap.next_time() == (min(model)[0] if model else None)


def test_many_timers_in_random_order() -> None:
    heap = TimerHeap()
    rung: list[float] = []
    times = list(range(5000))
    random.Random(3).shuffle(times)
    for when in times:
        heap.call_at(when, lambda when=when: rung.append(when))
    heap.run_due(5000.0, raise_it)
    assert rung == sorted(rung)
    assert len(rung) == 5000
