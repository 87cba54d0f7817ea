"""Options and fixtures of the whole test suite."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator

import pytest

SEEDS_PER_TEST = 25
"""Worlds that one parametrised case runs: few enough to see which failed, many enough to be fast."""


def pytest_configure() -> None:
    """Let Ctrl-C through: a shell starts what it runs in the background with SIGINT ignored.

    Children inherit that. Tests that interrupt something would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sim-seeds",
        type=int,
        default=200,
        metavar="N",
        help="how many seeded worlds each swarm test simulates (default: 200)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests with the garbage collector off.

    CPython 3.11 keeps the recursion depth of `ast` conversions in one place for all of them: when a
    collection in the middle of one runs a finalizer that formats a traceback, which parses source
    again, the first ends with "SystemError: AST constructor recursion depth mismatch".
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes `sim_seeds` ranges of seeds, which cover all of `--sim-seeds` together."""
    if "sim_seeds" in metafunc.fixturenames:
        count = max(1, metafunc.config.getoption("--sim-seeds"))
        chunks = [
            range(start, min(start + SEEDS_PER_TEST, count)) for start in range(0, count, SEEDS_PER_TEST)
        ]
        metafunc.parametrize("sim_seeds", chunks, ids=[f"{chunk[0]}-{chunk[-1]}" for chunk in chunks])
