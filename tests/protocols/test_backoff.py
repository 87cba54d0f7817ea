from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helianthus.protocols.backoff import JITTER, MAX_DELAY, Backoff


def delays(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next_delay() for _ in range(count)]


def test_without_jitter_the_delays_are_grpcs_after_one_immediate_retry() -> None:
    backoff = Backoff(random.Random(1), jitter=0)

    assert delays(backoff, 7) == pytest.approx([0, 1, 1.6, 2.56, 4.096, 6.5536, 10.48576])
    assert delays(backoff, 3) == pytest.approx([16.777216, 26.8435456, 42.94967296])
    assert delays(backoff, 2) == pytest.approx([68.719476736, 109.9511627776])
    assert delays(backoff, 3) == [120, 120, 120]


def test_the_first_retry_is_at_once_even_with_jitter() -> None:
    assert Backoff(random.Random(1), jitter=1).next_delay() == 0.0


def test_reset_starts_over() -> None:
    backoff = Backoff(random.Random(1), jitter=0)
    first = delays(backoff, 5)

    backoff.reset()

    assert delays(backoff, 5) == first


def test_reset_before_any_failure_changes_nothing() -> None:
    backoff = Backoff(random.Random(1), jitter=0)
    backoff.reset()
    assert delays(backoff, 2) == [0, 1]


def test_the_same_seed_gives_the_same_delays_and_another_gives_others() -> None:
    first = delays(Backoff(random.Random(7)), 20)

    assert delays(Backoff(random.Random(7)), 20) == first
    assert delays(Backoff(random.Random(8)), 20) != first


def test_jitter_does_not_add_up() -> None:
    """The delay that grows is the one without jitter: the hundredth is still around the maximum."""
    backoff = Backoff(random.Random(3))
    late = delays(backoff, 2000)[1000:]

    assert min(late) >= MAX_DELAY * (1 - JITTER)
    assert max(late) <= MAX_DELAY * (1 + JITTER)
    assert sum(late) / len(late) == pytest.approx(MAX_DELAY, rel=0.02)


def test_clients_that_fail_together_disperse() -> None:
    """Without dispersion a server that comes back meets all its clients in the same instant."""
    seeds = random.Random(0)
    clients = [Backoff(random.Random(seeds.getrandbits(64))) for _ in range(100)]
    starts = sorted(sum(delays(client, 4)) for client in clients)

    assert starts[-1] - starts[0] > 1.0
    assert len(set(starts)) == 100


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    initial=st.floats(0.001, 100),
    multiplier=st.floats(1, 10),
    headroom=st.floats(1, 1000),
    jitter=st.floats(0, 1),
)
def test_every_delay_is_within_its_bounds(
    seed: int, initial: float, multiplier: float, headroom: float, jitter: float
) -> None:
    maximum = initial * headroom
    backoff = Backoff(
        random.Random(seed), initial=initial, multiplier=multiplier, maximum=maximum, jitter=jitter
    )
    assert backoff.next_delay() == 0.0
    base = initial
    for _ in range(30):
        delay = backoff.next_delay()
        assert base * (1 - jitter) - 1e-9 <= delay <= base * (1 + jitter) + 1e-9
        base = min(base * multiplier, maximum)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"initial": 0}, "initial"),
        ({"initial": -1.0}, "initial"),
        ({"initial": math.nan}, "initial"),
        ({"initial": 200.0}, "maximum 120"),
        ({"maximum": math.inf}, "maximum inf"),
        ({"multiplier": 0.9}, "multiplier is 0.9"),
        ({"multiplier": math.inf}, "multiplier is inf"),
        ({"jitter": -0.1}, "jitter is -0.1"),
        ({"jitter": 1.5}, "jitter is 1.5"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Backoff(random.Random(1), **arguments)
