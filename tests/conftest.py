"""Options and fixtures of the whole test suite."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from certificates import Authority

hypothesis.settings.register_profile("quick", max_examples=10, deadline=None)  # --hypothesis-profile=quick

SEEDS_PER_TEST = 25
"""Worlds that one parametrised case runs: few enough to see which failed, many enough to be fast."""


def pytest_configure(config: pytest.Config) -> None:
    """See to the table of drivers and cases, and to Ctrl-C."""
    if config.getoption("--conformance-table"):
        config.pluginmanager.register(_case_table(config))
    _let_ctrl_c_through()


def _case_table(config: pytest.Config) -> object:
    from parallel_case_table import GatheredTable, WorkersTable

    from helianthus.cli.case_table import CaseTable

    if hasattr(config, "workerinput"):  # this process is one of pytest-xdist's
        return WorkersTable()
    return GatheredTable() if config.getoption("dist", "no") != "no" else CaseTable(printing=True)


def _let_ctrl_c_through() -> None:
    """A shell starts what it runs in the background with SIGINT ignored.

    Children inherit that. Tests that interrupt something would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sim-seeds",
        type=int,
        default=100,
        metavar="N",
        help="how many seeded worlds each swarm test simulates (default: 100)",
    )
    parser.addoption(
        "--doubles-everywhere",
        action="store_true",
        help="run all tests of tests/services on the double of kqueue, and not those of some files only",
    )
    parser.addoption(
        "--conformance-table",
        action="store_true",
        help="print what became of each case of tests/conformance on each driver",
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


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs a module's certificates; where cryptography is not installed, what asks for it is skipped."""
    from certificates import Authority

    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that nobody trusts."""
    from certificates import Authority

    return Authority(tmp_path_factory.mktemp("strangers"), "somebody else")
