"""Opening a datagram socket the way that `DatagramOptions` say."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Any

import attrs

from ..protocols.machine import DatagramAddress
from .address import Address
from .datagram_addresses import DatagramAddresses
from .datagram_link import bound_address, check_bindable
from .datagram_options import DatagramOptions
from .errors import DriverUnavailable, from_os_error
from .multicast import join, set_up_multicast
from .names import Candidate, host_text, resolve

# Not in Python's socket module; from linux/in.h and linux/in6.h.
_IP_RECVERR, _IPV6_RECVERR = 11, 25

_STRANGERS = 1024  # datagrams that may have come between binding and connecting


@attrs.define
class OpenSocket:
    """A datagram socket that is bound, and connected where it has a peer.

    Attributes:
        sock: Not blocking.
        local_address: Where it is bound.
        peer_address: Whom it is connected to.
        addresses: Translates for it.
    """

    sock: socket.socket
    local_address: Address
    peer_address: DatagramAddress | None
    addresses: DatagramAddresses


def open_datagram_socket(address: Address, options: DatagramOptions) -> OpenSocket:
    """Bind at the first of a name's addresses that this machine has; may block on a name.

    Raises:
        ValueError: The address is a path.
        DriverUnavailable: The system lacks what an option asks.
        TransportError: One of `drivers.errors`, such as `AddressInUse`.
    """
    check_bindable(address)
    peers = [] if options.peer is None else _look_up(options.peer)
    host = address.host or ("0.0.0.0" if options.v6only else "::")
    failure: OSError | None = None
    for family, sockaddr in _pairs(address, host, peers):
        try:
            return _open(family, sockaddr, address, options, peers)
        except OSError as error:
            failure = failure or error
    raise from_os_error(failure or OSError("the name has no address"), str(address)) from failure


def _look_up(address: Address, host: str = "") -> list[Candidate]:
    try:
        return resolve(host or address.host, address.port)
    except OSError as error:
        raise from_os_error(error, str(address)) from error


def _pairs(address: Address, host: str, peers: list[Candidate]) -> list[Candidate]:
    """Where to try to bind, in order: in the family of the peer where there is one."""
    if not peers:
        return _look_up(address, host)
    families = dict.fromkeys(family for family, _ in peers)
    if not address.host:
        anywhere = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
        return [(family, (anywhere[family], address.port)) for family in families]
    mine = _look_up(address, host)
    matching = [candidate for family in families for candidate in mine if candidate[0] == family]
    return matching or mine  # and the system says why they cannot be connected


def _open(
    family: socket.AddressFamily,
    sockaddr: Any,
    address: Address,
    options: DatagramOptions,
    peers: list[Candidate],
) -> OpenSocket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        addresses = DatagramAddresses(family, v6only=options.v6only)
        _set_up(sock, options)
        sock.bind(sockaddr)
        for group in options.groups:
            join(sock, group)
        peer_address = _connect(sock, peers, addresses) if peers else None
        name = sock.getsockname()
    except BaseException:
        sock.close()
        raise
    return OpenSocket(sock, bound_address(host_text(name), name[1], address), peer_address, addresses)


def _connect(sock: socket.socket, peers: list[Candidate], addresses: DatagramAddresses) -> DatagramAddress:
    """Connect, in the socket's own family where the peer has an address of that.

    What strangers have sent since the socket was bound is thrown away: the system filters only what
    comes later.
    """
    peer = next((peer for family, peer in peers if family == sock.family), peers[0][1])
    sock.connect(addresses.to_socket((host_text(peer), peer[1])))
    with contextlib.suppress(OSError):  # nothing has come, as usual
        for _ in range(_STRANGERS):
            sock.recv(1)
    return addresses.from_socket(sock.getpeername())


def _set_up(sock: socket.socket, options: DatagramOptions) -> None:
    """Everything that is to be set before the socket is bound."""
    if options.reuse_address:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise DriverUnavailable("DatagramOptions.reuse_port: this system has no SO_REUSEPORT")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if options.broadcast:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    if options.receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.receive_buffer)
    if options.send_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(options.v6only))
    set_up_multicast(sock, options)
    _hear_of_errors(sock)


def _hear_of_errors(sock: socket.socket) -> None:
    """Have the system keep ICMP errors, with whom they are about, where it does so (ip(7))."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        if sock.family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
