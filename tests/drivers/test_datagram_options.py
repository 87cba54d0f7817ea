"""Options of datagram sockets: what is refused, and how it is said."""

from __future__ import annotations

from typing import Any

import pytest

from helianthus.drivers.address import Address
from helianthus.drivers.datagram_options import DatagramOptions, MulticastGroup


def test_defaults_leave_everything_to_the_system() -> None:
    options = DatagramOptions()
    assert options.peer is None
    assert options.groups == ()
    assert options.max_datagram_size == 65_535
    assert options.v6only


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_datagram_size": 0}, ["max_datagram_size", "1 to 65535", "not 0"]),
        ({"max_datagram_size": 65_536}, ["max_datagram_size", "1 to 65535", "not 65536"]),
        ({"max_datagram_size": None}, ["max_datagram_size", "not None"]),
        ({"max_datagram_size": 1.5}, ["max_datagram_size", "whole number", "not 1.5"]),
        ({"multicast_ttl": 256}, ["multicast_ttl", "0 to 255", "not 256"]),
        ({"multicast_ttl": -1}, ["multicast_ttl", "0 to 255", "not -1"]),
        ({"multicast_ttl": True}, ["multicast_ttl", "not True"]),
        ({"receive_buffer": 0}, ["receive_buffer", "1 to 2147483647", "not 0"]),
        ({"send_buffer": 2**31}, ["send_buffer", "1 to 2147483647", "not 2147483648"]),
        ({"groups": "239.1.2.3"}, ["groups", "list", "'239.1.2.3'"]),
        ({"groups": ["10.0.0.1"]}, ["address", "224.0.0.0/4 or ff00::/8", "'10.0.0.1'"]),
        ({"groups": ["somewhere"]}, ["address", "multicast", "'somewhere'"]),
        ({"peer": "tcp://host:1"}, ["tcp://host:1", "udp://host:port"]),
        ({"peer": "udp://host"}, ["has no port"]),
        ({"peer": Address("host", 0, "udp")}, ["peer", "1 to 65535", "udp://host:0"]),
        ({"peer": Address("", 7, "udp")}, ["peer must have a host"]),
        ({"peer": Address.parse("unix:///a/b")}, ["peer", "host and a port", "unix:///a/b"]),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: list[str]) -> None:
    """The message names the option, the bound and the value."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked at
        DatagramOptions(**options)
    for word in words:
        assert word in str(caught.value)


def test_texts_are_taken_for_what_they_mean() -> None:
    options = DatagramOptions(peer="udp://[::1]:53", groups=["ff02::1", MulticastGroup("224.0.0.1", "lo")])
    assert options.peer == Address("::1", 53, "udp")
    assert options.groups == (MulticastGroup("ff02::1"), MulticastGroup("224.0.0.1", "lo"))


@pytest.mark.parametrize("value", [0, 1, 255])
def test_bounds_are_within(value: int) -> None:
    assert DatagramOptions(multicast_ttl=value).multicast_ttl == value


@pytest.mark.parametrize("name", ["broadcast", "reuse_address", "reuse_port", "v6only", "multicast_loop"])
def test_yes_or_no_is_nothing_else(name: str) -> None:
    for wrong in ("yes", 1, *([] if name == "multicast_loop" else [None])):
        with pytest.raises(ValueError, match=f"{name} must be True or False, not {wrong!r}"):
            DatagramOptions(**{name: wrong})
    for right in (True, False):
        assert getattr(DatagramOptions(**{name: right}), name) is right
