from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helianthus.protocols.rpc.histogram import MAX_BITS, Histogram

DURATIONS = st.lists(st.integers(0, 2**MAX_BITS - 1), min_size=1, max_size=200)


def filled(durations: list[int], precision: int = 5) -> Histogram:
    histogram = Histogram(precision)
    for duration in durations:
        histogram.record(duration)
    return histogram


@given(DURATIONS, st.integers(0, 8), st.floats(0, 100))
def test_percentiles_are_as_exact_as_promised(durations: list[int], precision: int, percent: float) -> None:
    histogram = filled(durations, precision)
    exact = sorted(durations)[max(0, -int(-len(durations) * percent // 100) - 1)]
    assert abs(histogram.percentile(percent) - exact) <= exact / 2 ** (precision + 1) + 1


@given(DURATIONS)
def test_sums_and_the_highest_are_exact(durations: list[int]) -> None:
    histogram = filled(durations)
    assert (histogram.count, histogram.total, histogram.highest) == (
        len(durations),
        sum(durations),
        max(durations),
    )
    assert histogram.mean == sum(durations) / len(durations)


@given(DURATIONS, DURATIONS)
def test_adding_is_like_recording_both(first: list[int], second: list[int]) -> None:
    added = filled(first)
    added.add(filled(second))
    both = filled(first + second)
    assert added._buckets == both._buckets
    assert (added.count, added.total, added.highest) == (both.count, both.total, both.highest)


@given(DURATIONS, st.lists(st.integers(0, 2**MAX_BITS), min_size=1, max_size=10).map(sorted))
def test_counts_up_to_bounds(durations: list[int], bounds: list[int]) -> None:
    counts = filled(durations).counts_up_to(bounds)
    for bound, count in zip(bounds, counts, strict=True):
        surely = sum(duration <= bound * (1 - 1 / 32) - 1 for duration in durations)
        perhaps = sum(duration <= bound * (1 + 1 / 32) + 1 for duration in durations)
        assert surely <= count <= perhaps


def test_every_bucket_is_reached_and_none_beyond() -> None:
    histogram = Histogram(2)
    for bits in range(MAX_BITS + 1):
        for duration in ((1 << bits) - 1, 1 << bits, (1 << bits) + (1 << bits >> 1)):
            histogram.record(duration)
    assert histogram._buckets[-1] >= 1
    assert sum(histogram._buckets) == histogram.count


def test_out_of_range() -> None:
    histogram = filled([-5, 2**60])
    assert histogram.percentile(0) == 0
    assert histogram.highest == 2**60
    assert histogram.percentile(100) > 2 ** (MAX_BITS - 1)


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
