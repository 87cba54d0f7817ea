"""DTLS in simulated worlds that are anything but kind to datagrams."""

from __future__ import annotations

from collections import Counter

from dtls_swarm import run_world

SHARE = 5
"""One of so many worlds of the other swarms: each has dozens of handshakes, and they are real."""

ENOUGH = 5
"""Worlds among which everything happens that is rare in one."""


def test_everybody_is_served_once_the_faults_end(sim_seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    seeds = [seed for seed in sim_seeds if not seed % SHARE]
    for seed in seeds:
        try:
            outcomes += run_world(seed)
        except BaseException as error:
            error.add_note(
                f"to run this world alone: python -c 'import dtls_swarm; dtls_swarm.run_world({seed})'"
            )
            raise
    assert outcomes["recovered"] == len(seeds)
    assert outcomes["connected"] > 3 * len(seeds)
    if len(seeds) >= ENOUGH:
        for rare in ("partition", "restart", "gave up", "TlsHandshakeFailed"):
            assert outcomes[rare] > 0, rare
