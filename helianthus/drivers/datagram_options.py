"""How a datagram socket is set up: whom it hears, whom it may reach, and how much it takes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

import attrs

from .address import DATAGRAM_SCHEMES, Address

LARGEST_PAYLOAD = 65_535
"""Bytes that the length field of UDP could announce (RFC 768); over IPv4 65,507 really fit, over
IPv6 65,527."""


def _within(lowest: int, highest: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
        if value is None and attribute.default is None:
            return
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ValueError(
                f"{attribute.name} must be a whole number from {lowest} to {highest}, not {value!r}"
            )

    return check


def _yes_or_no(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not (isinstance(value, bool) or (value is None and attribute.default is None)):
        raise ValueError(f"{attribute.name} must be True or False, not {value!r}")


_buffer_size = _within(1, 2**31 - 1)


def _group(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    try:
        is_group = ipaddress.ip_address(value).is_multicast
    except ValueError:
        is_group = False
    if not is_group:
        raise ValueError(
            f"{attribute.name} must be a multicast address, of 224.0.0.0/4 or ff00::/8, not {value!r}"
        )


@attrs.frozen
class MulticastGroup:
    """A multicast group to join.

    Attributes:
        address: Of 224.0.0.0/4 or ff00::/8, without a zone.
        interface: Where to join it: an interface's name or number, or, for an IPv4 group, its IPv4
            address. Empty: where the system's routes lead.
    """

    address: str = attrs.field(validator=_group)
    interface: str = ""


def _groups(value: Iterable[str | MulticastGroup]) -> tuple[MulticastGroup, ...]:
    if isinstance(value, str):
        raise ValueError(f"groups must be a list of groups, not the text {value!r}")
    return tuple(group if isinstance(group, MulticastGroup) else MulticastGroup(group) for group in value)


def _peer(value: Address | str | None) -> Address | None:
    return Address.parse(value, DATAGRAM_SCHEMES) if isinstance(value, str) else value


def _check_peer(_: object, attribute: attrs.Attribute[Address | None], value: Address | None) -> None:
    if value is None:
        return
    if value.local:
        raise ValueError(f"{attribute.name} must have a host and a port, not {value}")
    if not value.host or not 1 <= value.port <= 65_535:
        raise ValueError(f"{attribute.name} must have a host, and a port from 1 to 65535, not {value}")


@attrs.frozen(kw_only=True)
class DatagramOptions:
    """What a datagram socket is like; the defaults are the system's.

    Attributes:
        peer: Connects the socket: only this peer's datagrams are received, nothing can be sent to
            others, and the system reports that nobody is bound there. An `Address` or its text; a
            host name is looked up at once and may block.
        broadcast: Whether broadcast addresses may be sent to; else the system refuses
            (`PermissionDenied`).
        reuse_address: Whether others that also say so may be bound to the same address; each of them
            gets what is sent to a group or broadcast, and one of them what is sent to the address.
        reuse_port: Whether others of the same user that also say so may be bound to the same
            address, among which the system spreads the senders. Not on Windows.
        groups: Multicast groups to join, each a `MulticastGroup` or its address.
        multicast_ttl: Routers that a datagram to a group may pass, 0 to 255; the system's own is 1.
        multicast_loop: Whether datagrams to a group reach this machine too; the system's own is yes.
        multicast_interface: Where datagrams to groups leave: as `MulticastGroup.interface`.
        receive_buffer: Bytes that the kernel is asked to keep for us; it may give less.
        send_buffer: Bytes that the kernel is asked to take from us; it may give less.
        v6only: Whether an IPv6 socket leaves IPv4 alone. If not, one bound to `::` also has IPv4
            peers; they appear under their IPv4 addresses.
        max_datagram_size: Bytes of the largest datagram that is taken, 1 to 65,535. A larger one is
            not delivered, but reported (`MessageTooLarge`).
    """

    peer: Address | None = attrs.field(default=None, converter=_peer, validator=_check_peer)
    broadcast: bool = attrs.field(default=False, validator=_yes_or_no)
    reuse_address: bool = attrs.field(default=False, validator=_yes_or_no)
    reuse_port: bool = attrs.field(default=False, validator=_yes_or_no)
    groups: tuple[MulticastGroup, ...] = attrs.field(default=(), converter=_groups)
    multicast_ttl: int | None = attrs.field(default=None, validator=_within(0, 255))
    multicast_loop: bool | None = attrs.field(default=None, validator=_yes_or_no)
    multicast_interface: str = ""
    receive_buffer: int | None = attrs.field(default=None, validator=_buffer_size)
    send_buffer: int | None = attrs.field(default=None, validator=_buffer_size)
    v6only: bool = attrs.field(default=True, validator=_yes_or_no)
    max_datagram_size: int = attrs.field(default=LARGEST_PAYLOAD, validator=_within(1, LARGEST_PAYLOAD))


DEFAULT_OPTIONS = DatagramOptions()
"""Those of a socket for which none are given."""
