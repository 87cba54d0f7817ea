"""Fixtures: each driver in turn, and whatever a test opens besides it."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from peers import Peers
from platforms import PLATFORMS, Platform, new_descriptors, open_descriptors
from self_signed import SelfSigned

from helianthus.drivers.asyncio import new_event_loop


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `platform` every driver, `socket_platform` those that pump sockets.

    What takes long runs on `thorough_platform`: each driver once, turned in one way.
    """
    for fixture, kinds in (
        ("platform", PLATFORMS),
        ("socket_platform", [kind for kind in PLATFORMS if kind.sockets]),
        ("thorough_platform", [kind for kind in PLATFORMS if kind.thorough]),
    ):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, kinds, indirect=True, ids=lambda kind: kind.name)


def _in_use(kind: type[Platform]) -> Iterator[Platform]:
    if kind.missing():
        pytest.skip(kind.missing())
    before = open_descriptors()
    platform = kind()
    try:
        yield platform
    finally:
        platform.close()
    assert platform.errors == [], "something reached on_error that the test did not expect"
    assert new_descriptors(before) == set(), "the driver has left descriptors open"


@pytest.fixture
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    yield from _in_use(request.param)


@pytest.fixture
def socket_platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    yield from _in_use(request.param)


@pytest.fixture
def thorough_platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    yield from _in_use(request.param)


@pytest.fixture
def peers(socket_platform: Platform) -> Iterator[Peers]:
    """Raw sockets that play the other end; they are closed before the driver is."""
    with Peers(socket_platform.driver) as opened:
        yield opened


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> SelfSigned:
    """For TLS and DTLS; where it cannot be made, what asks for it is skipped."""
    return SelfSigned(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session", autouse=True)
def _warm_up() -> None:
    """Have what opens descriptors once and for all do so before any test counts them."""
    socket.getaddrinfo("localhost", 0)
    new_event_loop().close()  # libuv keeps a pipe for signals
