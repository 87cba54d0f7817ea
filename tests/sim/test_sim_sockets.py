"""Sockets whose operations are given up: at each moment there is, and at random, among faults."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from sockets_swarm import Moment, exchange, run_world

ENOUGH = 20
"""Worlds among which everything happens that is rare in one; asked of the first ones, which every run has."""


def never() -> Moment:
    return Moment(0, 0, "task")


@pytest.mark.parametrize("way", ["task", "token"])
@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize("part", ["reading", "writing", "meeting"])
def test_giving_up_at_each_moment(part: str, turns: int, way: str) -> None:
    """Every suspension of every operation in one exchange, one world for each."""
    counted: Counter[str] = Counter()
    tried = 0
    for seed in range(3):
        for at in itertools.count(1):
            moments = {"reading": never(), "writing": never(), "meeting": never()}
            moments[part] = moment = Moment(at, turns, way)
            counted += exchange(seed, **moments)
            tried += 1
            if not moment.reached:
                break
    assert tried > (2 if part == "meeting" else 20)
    expected = {
        "reading": ("recv_exactly", "recv_until"),
        "writing": ("send_all", "sendfile", "flush"),
        "meeting": ("accept", "connect"),
    }
    for kind in expected[part]:
        assert any(name.startswith(kind) for name in counted), (kind, counted)


def test_giving_up_at_random_among_faults(sim_seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    for seed in sim_seeds:
        try:
            outcomes += run_world(seed)[1]
        except BaseException as error:
            command = f"import sockets_swarm; sockets_swarm.run_world({seed})"
            error.add_note(f"to run this world alone: python -c '{command}'")
            raise
    assert outcomes["whole"] > 2 * len(sim_seeds)
    if sim_seeds.start == 0 and len(sim_seeds) >= ENOUGH:
        for kind in ("recv", "recv_exactly", "recv_until", "send_all", "send", "sendfile", "flush"):
            assert outcomes[f"{kind} OperationTimedOut"] + outcomes[f"{kind} OperationCancelled"] > 0, kind
        assert outcomes["ConnectionReset"] > 0


def test_the_same_seed_gives_the_same_digest() -> None:
    assert run_world(3)[0] == run_world(3)[0]
