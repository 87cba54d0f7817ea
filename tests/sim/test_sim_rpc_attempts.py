"""What servers see of clients with policies, over many seeds; `pytest --sim-seeds N` runs more of them."""

from __future__ import annotations

from collections import Counter

from rpc_attempts_swarm import CLIENTS, SERVERS, run_world

ENOUGH = 20
"""Worlds among which everything happens that is rare in one."""


def test_no_call_runs_more_often_than_its_policy_and_the_throttle_allow(sim_seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    for seed in sim_seeds:
        try:
            outcomes += run_world(seed)[1]
        except BaseException as error:
            command = f"import rpc_attempts_swarm; rpc_attempts_swarm.run_world({seed})"
            error.add_note(f"to run this world alone: python -c '{command}'")
            raise
    assert outcomes["recovered"] == len(CLIENTS) * len(SERVERS) * len(sim_seeds)
    assert outcomes["OK"] > 20 * len(sim_seeds)
    if len(sim_seeds) >= ENOUGH:
        for rare in ("DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED", "cancelled", "retried", "hedged"):
            assert outcomes[rare] > 0, rare
