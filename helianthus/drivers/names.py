"""Host names and what they stand for, as the operating system knows it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import attrs

from .address import Address
from .errors import AddressNotAvailable, from_os_error

Candidate = tuple[socket.AddressFamily, Any]
"""An address family and the address to give to a socket of it."""


def literal_candidate(host: str, port: int) -> Candidate | None:
    """The candidate that an IP address is by itself; None for a name, which has to be looked up."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if "%" not in host:
        return (socket.AF_INET6, (host, port, 0, 0)) if version == 6 else (socket.AF_INET, (host, port))
    try:  # the system knows the number of a zone such as that of fe80::1%eth0, and has nobody to ask
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return None
    return found[0][0], found[0][4]


def resolve(host: str, port: int) -> list[Candidate]:
    """Look a name up; blocks.

    Raises:
        OSError: The name is unknown, or its server does not answer.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def look_up(address: Address) -> list[Address]:
    """The addresses that a name stands for, by IP; blocks.

    Raises:
        TransportError: As `resolved`, and what the system says.
    """
    try:
        return resolved(address, resolve(address.host, address.port))
    except OSError as error:
        raise from_os_error(error, str(address)) from error


def resolved(address: Address, found: Iterable[Candidate]) -> list[Address]:
    """What was found for an address, each once, in the order of finding.

    Raises:
        AddressNotAvailable: Nothing was found.
    """
    each = [attrs.evolve(address, host=host_text(sockaddr), port=sockaddr[1]) for _, sockaddr in found]
    if not each:
        raise AddressNotAvailable("the name has no address", address=str(address))
    return list(dict.fromkeys(each))


def host_text(sockaddr: Any) -> str:
    """The host of a socket's address, with its zone where it has one."""
    host, _, *more = sockaddr
    zone = more[1] if len(more) > 1 else 0
    return f"{host}%{zone}" if zone and "%" not in host else str(host)
