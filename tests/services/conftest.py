"""Fixtures of the services' tests: each scenario on each driver."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from rpc_bench import GROUNDS, ON_DOUBLES, REAL, Ground


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `run_on` the simulator and every real driver, `run_on_real` the latter only."""
    everywhere = metafunc.config.getoption("--doubles-everywhere") or metafunc.module.__name__ in ON_DOUBLES
    for fixture, grounds in (("run_on", GROUNDS), ("run_on_real", REAL)):
        if fixture in metafunc.fixturenames:
            kinds = [kind for kind in grounds if everywhere or kind.everywhere]
            metafunc.parametrize(fixture, kinds, indirect=True, ids=lambda kind: kind.name)


def _ground(kind: type[Ground]) -> Ground:
    if kind.missing():
        pytest.skip(kind.missing())
    return kind()


@pytest.fixture
def run_on(request: pytest.FixtureRequest) -> Ground:
    """Runs an `async def` scenario on a driver."""
    return _ground(request.param)


@pytest.fixture
def run_on_real(request: pytest.FixtureRequest) -> Ground:
    """Runs an `async def` scenario on a driver that has real sockets."""
    return _ground(request.param)


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left_to_the_collector() -> Iterator[None]:
    """Have coroutines and sockets that a module's tests dropped complain within that module."""
    yield
    gc.collect()
