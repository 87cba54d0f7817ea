"""Multicast: joining groups, and how datagrams to groups leave; IPv4 and IPv6 do it differently."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys

from .datagram_options import DatagramOptions, MulticastGroup
from .errors import AddressNotSupported, TransportError, from_os_error

# Not in Python's socket module; from linux/in.h and linux/in6.h.
_IP_MULTICAST_ALL, _IPV6_MULTICAST_ALL = 49, 29


def set_up_multicast(sock: socket.socket, options: DatagramOptions) -> None:
    """Say how datagrams to groups leave, and that only the socket's own groups are to arrive.

    Raises:
        OSError: The system refused, or has no such interface.
    """
    six = sock.family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
    if sys.platform == "linux":  # else what other sockets have joined comes to this one, too
        with contextlib.suppress(OSError):
            sock.setsockopt(level, _IPV6_MULTICAST_ALL if six else _IP_MULTICAST_ALL, 0)
    if options.multicast_ttl is not None:
        name = socket.IPV6_MULTICAST_HOPS if six else socket.IP_MULTICAST_TTL
        sock.setsockopt(level, name, options.multicast_ttl)
    if options.multicast_loop is not None:
        name = socket.IPV6_MULTICAST_LOOP if six else socket.IP_MULTICAST_LOOP
        sock.setsockopt(level, name, int(options.multicast_loop))
    interface = options.multicast_interface
    if interface and six:
        sock.setsockopt(level, socket.IPV6_MULTICAST_IF, interface_number(interface))
    elif interface:
        sock.setsockopt(level, socket.IP_MULTICAST_IF, _request_v4(interface))


def join(sock: socket.socket, group: MulticastGroup) -> None:
    """Join a group.

    Raises:
        TransportError: The system refused; the message names the group and the interface.
    """
    interface = group.interface
    six = ":" in group.address
    if six and sock.family != socket.AF_INET6:
        raise AddressNotSupported(f"multicast group {group.address}: an IPv6 group needs an IPv6 socket")
    try:
        if six:
            number = interface_number(interface) if interface else 0
            request = socket.inet_pton(socket.AF_INET6, group.address) + struct.pack("@I", number)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        else:
            request = _request_v4(interface, socket.inet_aton(group.address))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    except OSError as error:
        where = f" on {interface}" if interface else ""
        raise from_os_error(error, f"multicast group {group.address}{where}") from error


def interface_number(name: str) -> int:
    """The number of an interface that is given by its name or number.

    Raises:
        TransportError: There is none of that name.
    """
    if name.isdecimal():
        return int(name)
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise TransportError(f"there is no network interface {name!r}", code=error.errno) from error


def _request_v4(interface: str, group: bytes = b"") -> bytes:
    """What the socket options of IPv4 take: an interface, behind a group to join.

    By its address it is `in_addr` or `ip_mreq`; by its number `ip_mreqn` (ip(7)), but on Windows the
    number stands in place of the address, as 0.x.x.x ("IPPROTO_IP Socket Options").
    """
    try:
        return group + ipaddress.IPv4Address(interface or "0.0.0.0").packed
    except ValueError:
        number = interface_number(interface)
    if sys.platform == "win32":
        return group + struct.pack("!I", number)
    return struct.pack("@4s4si", group, bytes(4), number)
