"""Options and fixtures of the whole test suite."""

from __future__ import annotations

import pytest

SEEDS_PER_TEST = 25
"""Worlds that one parametrised case runs: few enough to see which failed, many enough to be fast."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sim-seeds",
        type=int,
        default=200,
        metavar="N",
        help="how many seeded worlds each swarm test simulates (default: 200)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes `sim_seeds` ranges of seeds, which cover all of `--sim-seeds` together."""
    if "sim_seeds" in metafunc.fixturenames:
        count = max(1, metafunc.config.getoption("--sim-seeds"))
        chunks = [
            range(start, min(start + SEEDS_PER_TEST, count)) for start in range(0, count, SEEDS_PER_TEST)
        ]
        metafunc.parametrize("sim_seeds", chunks, ids=[f"{chunk[0]}-{chunk[-1]}" for chunk in chunks])
