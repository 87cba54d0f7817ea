"""Names: what they stand for, told later and once, by every driver."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from platforms import Platform

from helianthus.drivers.address import Address
from helianthus.drivers.errors import AddressNotAvailable, TransportError

Outcome = tuple[list[Address] | None, Exception | None]


def resolve(platform: Platform, host: str, port: int = 4242) -> Outcome:
    """Ask, and check that the answer does not come from within."""
    told: list[Outcome] = []
    platform.driver.resolve(Address(host, port), lambda found, error: told.append((found, error)))
    assert not told, "the outcome was told before resolve() had returned"
    platform.turn_until(lambda: told)
    platform.turn(0.0)
    assert len(told) == 1
    return told[0]


def answer(platform: Platform, monkeypatch: pytest.MonkeyPatch, found: list[tuple[Any, Any]]) -> None:
    """Have the system answer every question like this."""
    rows = [(family, socket.SOCK_STREAM, 6, "", sockaddr) for family, sockaddr in found]

    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        return rows

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: rows)
    loop = getattr(platform.driver, "loop", None)
    if loop is not None:
        monkeypatch.setattr(type(loop), "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_ip_address_is_what_it_is(platform: Platform, host: str) -> None:
    assert resolve(platform, host) == ([Address(host, 4242)], None)


def test_localhost(platform: Platform) -> None:
    found, error = resolve(platform, "localhost")
    assert error is None
    assert found
    assert {address.host for address in found} <= {"127.0.0.1", "::1", "localhost"}
    assert {address.port for address in found} == {4242}


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a name with spaces.invalid"])
def test_a_name_that_cannot_be_resolved(platform: Platform, host: str) -> None:
    found, error = resolve(platform, host)
    assert found is None
    assert isinstance(error, AddressNotAvailable)
    assert host in str(error)


def test_a_name_with_several_addresses(socket_platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the system's order, each once; an address of one link only keeps its zone."""
    first, second = (socket.AF_INET, ("192.0.2.1", 4242)), (socket.AF_INET6, ("fe80::1", 4242, 0, 3))
    answer(socket_platform, monkeypatch, [first, second, first])
    found, error = resolve(socket_platform, "two.example")
    assert error is None
    assert found == [Address("192.0.2.1", 4242), Address("fe80::1%3", 4242)]


def test_a_name_with_no_address(socket_platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(socket_platform, monkeypatch, [])
    found, error = resolve(socket_platform, "none.example")
    assert found is None
    assert isinstance(error, TransportError)


def test_a_lookup_that_outlives_the_driver(platform: Platform) -> None:
    """Nobody is told any more, and nothing is reported."""
    told: list[Outcome] = []
    platform.driver.resolve(Address("localhost", 1), lambda found, error: told.append((found, error)))
    platform.close()
    assert told == []


def test_a_fault_of_whoever_asked_is_reported(platform: Platform) -> None:
    def fail(found: list[Address] | None, error: Exception | None) -> None:
        raise ValueError("not today")

    platform.driver.resolve(Address("127.0.0.1", 1), fail)
    platform.turn_until(lambda: platform.errors)
    assert [str(error) for error in platform.take_errors()] == ["not today"]
