"""RPC under faults, over many seeds; `pytest --sim-seeds N` runs more of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from rpc_swarm import run_world

ENOUGH = 20
"""Worlds among which everything happens that is rare in one."""

HERE = Path(__file__).parent


def test_no_call_hangs_or_gets_anothers_answer_and_all_recovers(sim_seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    for seed in sim_seeds:
        try:
            outcomes += run_world(seed)[1]
        except BaseException as error:
            error.add_note(
                f"to run this world alone: python -c 'import rpc_swarm; rpc_swarm.run_world({seed})'"
            )
            raise
    assert outcomes["OK"] > 20 * len(sim_seeds)
    if len(sim_seeds) >= ENOUGH:
        assert outcomes["DEADLINE_EXCEEDED"] > 0
        assert outcomes["UNAVAILABLE"] > 0


def digest_in_a_process(seed: int, hash_seed: str) -> str:
    path = os.pathsep.join([str(HERE.parent.parent), str(HERE)])
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import rpc_swarm; print(rpc_swarm.run_world({seed})[0])"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_the_same_seed_gives_the_same_digest_in_another_process() -> None:
    for seed in (3, 11):
        digests = {digest_in_a_process(seed, hash_seed) for hash_seed in ("0", "1", "4242")}
        assert len(digests) == 1
    assert run_world(3)[0] != run_world(4)[0]
