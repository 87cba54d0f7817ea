"""Pools of connections under faults, over many seeds; `pytest --sim-seeds N` runs more of them."""

from __future__ import annotations

from collections import Counter

from rpc_pool_swarm import CLIENTS, run_world

ENOUGH = 20
"""Worlds among which everything happens that is rare in one."""


def test_pools_are_bounded_and_nothing_leaks(sim_seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    for seed in sim_seeds:
        try:
            outcomes += run_world(seed)[1]
        except BaseException as error:
            command = f"import rpc_pool_swarm; rpc_pool_swarm.run_world({seed})"
            error.add_note(f"to run this world alone: python -c '{command}'")
            raise
    assert outcomes["recovered"] == len(CLIENTS) * len(sim_seeds)
    assert outcomes["OK"] > 20 * len(sim_seeds)
    if len(sim_seeds) >= ENOUGH:
        for rare in ("DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED", "cancelled"):
            assert outcomes[rare] > 0, rare


def test_the_same_seed_gives_the_same_digest() -> None:
    assert run_world(5)[0] == run_world(5)[0]
