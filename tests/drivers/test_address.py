"""Addresses as users write them."""

from __future__ import annotations

import pytest

from helianthus.drivers.address import Address


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("tcp://localhost:4242", "localhost", 4242),
        ("tcp://127.0.0.1:0", "127.0.0.1", 0),
        ("tcp://[::1]:65535", "::1", 65535),
        ("tcp://[2001:db8::7]:1/", "2001:db8::7", 1),
        ("tcp://node-3.example:80", "node-3.example", 80),
    ],
)
def test_parse_and_write(url: str, host: str, port: int) -> None:
    address = Address.parse(url)
    assert address == Address(host, port, "tcp")
    assert str(address) == url.rstrip("/")
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("localhost:4242", "no known scheme"),
        ("http://localhost:4242", "no known scheme"),
        ("tcp:localhost:4242", "no known scheme"),
        ("", "no known scheme"),
        ("tcp://localhost", "no port"),
        ("tcp://:4242", "no host"),
        ("tcp://localhost:many", "bad port"),
        ("tcp://localhost:65536", "bad port"),
        ("tcp://localhost:-1", "bad port"),
        ("tcp://localhost:1/path", "more than a host and a port"),
        ("tcp://localhost:1?tls=yes", "more than a host and a port"),
        ("tcp://me@localhost:1", "more than a host and a port"),
        ("tcp://localhost:1#part", "more than a host and a port"),
    ],
)
def test_what_is_no_address_says_why(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        Address.parse(url)
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("url", ["tcp://[::1", "tcp://::1]:1", "tcp://[nonsense]:1"])
def test_bad_brackets_are_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Address.parse(url)


def test_addresses_are_values() -> None:
    assert Address("a", 1) == Address("a", 1)
    assert len({Address("a", 1), Address("a", 1), Address("b", 1)}) == 2
