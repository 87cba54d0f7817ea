"""RPC over TLS under loss, splitting, resets and crashes, over many seeds."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed: no certificates")

from tls_swarm import run_world

SHARE = 4
"""One of so many seeds is run: a handshake takes a hundred times as long as a call."""


def test_no_call_hangs_or_gets_anothers_answer_and_all_recovers(sim_seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    seeds = sim_seeds[::SHARE]
    for seed in seeds:
        try:
            outcomes += run_world(seed)[1]
        except BaseException as error:
            error.add_note(f"in the world of seed {seed}")
            raise
    assert outcomes["OK"] > 10 * len(seeds)


def test_the_same_seed_does_the_same_whatever_the_keys_are() -> None:
    assert run_world(3) == run_world(3)
    assert run_world(3)[0] != run_world(4)[0]
