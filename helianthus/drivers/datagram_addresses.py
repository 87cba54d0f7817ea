"""Addresses of datagrams: as a machine knows them, and as a socket of one family takes them.

Sockets of Python look a destination up if it is a name, which may block for seconds. So every
destination is checked before it is first used, and the answer kept.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from ..protocols.machine import DatagramAddress
from .datagram_link import text_of
from .errors import AddressNotAvailable
from .names import host_text, literal_candidate

KEPT = 4096
"""Addresses that are remembered; when there are more, all are forgotten."""

_MAPPED = "::ffff:"  # IPv4 addresses as IPv6 sockets write them (RFC 4291, section 2.5.5.2)


class DatagramAddresses:
    """Translates addresses for one socket.

    Attributes:
        plain: Whether a socket's addresses are those of the machine as they are, as with IPv4.
        known: What `to_socket` has found before; to look there first saves its frame.
    """

    def __init__(self, family: int, *, v6only: bool = True) -> None:
        self.plain = family == socket.AF_INET
        self._family = family
        self._v6only = v6only
        self.known: dict[DatagramAddress, Any] = {}
        self._from_socket: dict[Any, DatagramAddress] = {}

    def to_socket(self, address: DatagramAddress) -> Any:
        """What a socket calls an address.

        Raises:
            AddressNotAvailable: It is no IP address, or one that a socket of this family cannot reach.
        """
        found = self.known.get(address)
        if found is None:
            if len(self.known) >= KEPT:
                self.known.clear()
            found = self.known[address] = self._translate(address)
        return found

    def from_socket(self, sockaddr: Any) -> DatagramAddress:
        """What the machine calls an address of a socket."""
        if self.plain:
            return sockaddr  # type: ignore[no-any-return]  # an IPv4 address is a host and a port
        found = self._from_socket.get(sockaddr)
        if found is None:
            if len(self._from_socket) >= KEPT:
                self._from_socket.clear()
            host = host_text(sockaddr)
            if host.startswith(_MAPPED) and "." in host:
                host = host[len(_MAPPED) :]
            found = self._from_socket[sockaddr] = (host, sockaddr[1])
        return found

    def _translate(self, address: DatagramAddress) -> Any:
        host, port = address
        text = text_of(address)
        if not isinstance(port, int) or not 1 <= port <= 65_535:
            raise AddressNotAvailable(f"port {port} is not within 1 to 65,535", address=text)
        candidate = literal_candidate(host, port)
        if candidate is None:
            raise AddressNotAvailable(
                "datagrams go to IP addresses; look a name up with Driver.resolve", address=text
            )
        family, sockaddr = candidate
        if family == self._family:
            return sockaddr
        if family == socket.AF_INET and not self._v6only:
            return (_MAPPED + str(ipaddress.IPv4Address(host)), port, 0, 0)
        kind = "an IPv6" if self._family == socket.AF_INET6 else "an IPv4"
        raise AddressNotAvailable(f"cannot be reached from {kind} socket", address=text)
