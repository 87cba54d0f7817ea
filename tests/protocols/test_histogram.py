from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helianthus.protocols.rpc.histogram import Histogram

DURATION = st.just(0.0) | st.floats(1e-9, 1e6)
DURATIONS = st.lists(DURATION, min_size=1, max_size=200)


def filled(durations: list[float], precision: int = 5) -> Histogram:
    histogram = Histogram(precision)
    for duration in durations:
        histogram.record(duration)
    return histogram


@given(DURATIONS, st.integers(0, 8), st.floats(0, 100))
def test_percentiles_are_as_exact_as_promised(durations: list[float], precision: int, percent: float) -> None:
    histogram = filled(durations, precision)
    exact = sorted(durations)[max(0, -int(-len(durations) * percent // 100) - 1)]
    assert abs(histogram.percentile(percent) - exact) <= exact / 2 ** (precision + 1)


@given(DURATIONS)
def test_sums_and_the_highest_are_exact(durations: list[float]) -> None:
    histogram = filled(durations)
    assert (histogram.count, histogram.highest) == (len(durations), max(durations))
    assert histogram.total == pytest.approx(sum(durations))
    assert histogram.mean == pytest.approx(sum(durations) / len(durations))


@given(DURATIONS, DURATIONS)
def test_adding_is_like_recording_both(first: list[float], second: list[float]) -> None:
    added = filled(first)
    added.add(filled(second))
    both = filled(first + second)
    assert (added.count, added.highest) == (both.count, both.highest)
    assert added.total == pytest.approx(both.total)
    assert all(added.percentile(percent) == both.percentile(percent) for percent in range(101))


@given(DURATIONS, st.lists(DURATION, min_size=1, max_size=10).map(sorted))
def test_counts_up_to_bounds(durations: list[float], bounds: list[float]) -> None:
    counts = filled(durations).counts_up_to(bounds)
    for bound, count in zip(bounds, counts, strict=True):
        surely = sum(duration <= bound * (1 - 1 / 32) for duration in durations)
        perhaps = sum(duration <= bound * (1 + 1 / 32) for duration in durations)
        assert surely <= count <= perhaps


def test_any_number_of_durations_takes_little_memory() -> None:
    histogram = Histogram(2)
    for n in range(100_000):
        histogram.record(n / 1000)
    assert histogram.count == 100_000
    assert len(histogram.collected) < 1100
    assert len(histogram._buckets) < 4 * 20


def test_an_empty_one() -> None:
    assert Histogram().percentile(50) == 0
    assert Histogram().mean == 0


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="precision of a histogram"):
        Histogram(11)
    with pytest.raises(ValueError, match="between 0 and 100"):
        Histogram().percentile(101)
    with pytest.raises(ValueError, match="cannot be added"):
        Histogram(2).add(Histogram(3))
