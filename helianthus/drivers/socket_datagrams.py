"""Datagram links over non-blocking sockets, on a reactor and inside an asyncio loop alike.

Reading takes one system call a datagram, `recvfrom` or, with a peer, `recv`: measured against
`recvfrom_into` a shared buffer, `recvmsg_into` and `recvmmsg` through ctypes (see the architecture
page), they were the fastest that Python offers by itself. The room given is that of the largest
datagram there can be, so the system never cuts one, and the link itself says which are too large.

Writing does better where the kernel can cut a run of equal datagrams for the same destination itself
(UDP_SEGMENT, Linux 4.18): one system call for up to 64 of them.

An ICMP error of an earlier datagram makes the system refuse the next call on the socket, whatever
that is. So a call that fails is tried once more when an error was found waiting; what fails twice
failed by itself.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from ..protocols.machine import DatagramAddress, DatagramMachine
from .datagram_link import BATCH, RECEIVES_PER_TICK, DatagramLink, text_of
from .datagram_options import DatagramOptions
from .datagram_socket import OpenSocket
from .error_queue import take_errors
from .errors import ConnectionRefused, TransportError, Unreachable, from_os_error
from .native import HANG_UP, READ, WRITE

if TYPE_CHECKING:
    from .base import DatagramHandler, Driver
    from .reactor import Reactor

E = TypeVar("E")

_ROOM = 65_536  # bytes: one more than any datagram has
_BATCH = range(BATCH)

_SOL_UDP, _UDP_SEGMENT = 17, 103  # linux/udp.h
_SEGMENTS = 64  # UDP_MAX_SEGMENTS of the kernels before 6.9
_SEGMENTED = 65_000  # bytes of all segments; the kernel wants them to fit into one IP packet
_LARGEST_SEGMENT = 1472  # bytes: an Ethernet frame without the headers; larger ones gain little
_NO_SEGMENTS_OF_THIS_SIZE = (errno.EINVAL, errno.EMSGSIZE)  # too large for the route
_SIZE = struct.Struct("@H")

_BROKEN = (errno.EBADF, getattr(errno, "ENOTSOCK", errno.EBADF))
_UNREACHABLE_PORT = (10054, 1234)  # Windows: WSAECONNRESET, ERROR_PORT_UNREACHABLE
_ABOUT_THE_PEER = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, *_UNREACHABLE_PORT)


class SocketDatagramLink(DatagramLink[E]):
    """A datagram link that reads and writes a non-blocking socket itself."""

    __slots__ = ("_addresses", "_segment_limit", "_sockaddrs", "_socket")

    def __init__(
        self,
        driver: Driver,
        machine: DatagramMachine[E],
        handler: DatagramHandler[E],
        opened: OpenSocket,
        options: DatagramOptions,
    ) -> None:
        super().__init__(driver, machine, handler, opened.local_address, options, opened.peer_address)
        self._socket = opened.sock
        self._addresses = opened.addresses
        self._sockaddrs = opened.addresses.known
        if opened.peer_address is not None:
            self._sockaddrs = dict.fromkeys(self._peer_names, ())
        self._segment_limit = _LARGEST_SEGMENT if _can_segment(opened.sock) else 0

    @property
    def sock(self) -> socket.socket:
        """The socket."""
        return self._socket

    @abstractmethod
    def _wait_for_room(self) -> None:
        """The system takes no more: have `_writable` called when it does again."""

    # -- reading -----------------------------------------------------------------------------------

    def _read(self) -> bool:
        """Read what has come; gives whether there may be more than one tick allows."""
        for _ in range(RECEIVES_PER_TICK):
            batch: list[tuple[bytes, DatagramAddress]] = []
            failure: OSError | None = None
            blocked = False
            try:
                self._receive_into(batch)
            except (BlockingIOError, InterruptedError):
                blocked = True
            except OSError as error:
                failure = error
            if batch:
                if not self._addresses.plain and self.peer_address is None:
                    from_socket = self._addresses.from_socket
                    batch = [(data, from_socket(source)) for data, source in batch]
                self._received(batch)
            if failure is not None:
                self._receive_failed(failure)
            if blocked or self._let_go:
                return False
            self.settle()  # the peers can go to work on the answers
            self.woken = True  # still: the driver is to settle it at the end of the tick
        return not self._let_go

    def _receive_into(self, batch: list[tuple[bytes, Any]]) -> None:
        append = batch.append
        peer = self.peer_address
        if peer is None:
            recvfrom = self._socket.recvfrom
            for _ in _BATCH:
                append(recvfrom(_ROOM))
        else:
            recv = self._socket.recv
            for _ in _BATCH:
                append((recv(_ROOM), peer))

    def _receive_errors(self) -> bool:
        """Hand over what has come back; gives whether that was anything."""
        errors = take_errors(self._socket, self._addresses)
        for error, address in errors:
            self._received_error(error, self.peer_address or address)
            if self._let_go:
                break
        return bool(errors)

    def _receive_failed(self, failure: OSError) -> None:
        if self._let_go or self._receive_errors():
            return
        error = failure_of_a_datagram(failure, self.peer_address)
        if failure.errno in _BROKEN:
            self._lost(error)
        else:
            self._received_error(error, self.peer_address)

    # -- writing -----------------------------------------------------------------------------------

    def _send_datagrams(self, batch: list[tuple[bytes, DatagramAddress]]) -> int:
        connected = self.peer_address is not None
        send, sendto = self._socket.send, self._socket.sendto
        sockaddrs = self._sockaddrs
        position, last = 0, len(batch) - 1
        sent = 0
        while position <= last:
            data, address = batch[position]
            sockaddr = sockaddrs.get(address)
            if sockaddr is None:
                sockaddr = self._look_at_destination(address)
                if sockaddr is None:
                    position += 1
                    continue
            if self._segment_limit and position < last:
                following, other = batch[position + 1]
                if len(following) == len(data) and other == address:
                    run = self._send_run(batch, position, sockaddr)
                    if run:
                        sent += run
                        position += run
                        continue
            try:
                if connected:
                    send(data)
                else:
                    sendto(data, sockaddr)
                sent += 1
            except OSError as error:
                outcome = self._send_again(error, data, sockaddr, address)
                if outcome is None:
                    self._wait_for_room()
                    break
                sent += outcome
            position += 1
            if self._let_go:
                break
        self.statistics.sent += sent
        return position

    def _look_at_destination(self, address: DatagramAddress) -> Any:
        """What the socket calls a destination that is new; None where it was refused."""
        try:
            if self.peer_address is not None:
                message = f"the socket is connected to {text_of(self.peer_address)}"
                raise Unreachable(message, address=text_of(address))
            return self._addresses.to_socket(address)
        except TransportError as error:
            self._refused(error, address)
            return None

    def _send_run(self, batch: list[tuple[bytes, DatagramAddress]], position: int, sockaddr: Any) -> int:
        """Send datagrams of one size for one destination at once; gives how many, or 0 for none.

        The last may be shorter.
        """
        data, address = batch[position]
        size = len(data)
        if not 0 < size <= self._segment_limit:
            return 0
        run = []
        for piece, other in batch[position : position + min(_SEGMENTS, _SEGMENTED // size)]:
            if not 0 < len(piece) <= size or other != address:
                break
            run.append(piece)
            if len(piece) < size:
                break
        try:
            control = [(_SOL_UDP, _UDP_SEGMENT, _SIZE.pack(size))]
            self._socket.sendmsg(run, control, 0, sockaddr or None)
        except OSError as error:  # one by one they succeed, or tell which it is
            if error.errno in _NO_SEGMENTS_OF_THIS_SIZE:
                self._segment_limit = size - 1
            elif error.errno == errno.EIO:  # the network card does no checksums
                self._segment_limit = 0
            return 0
        return len(run)

    def _send_again(
        self, failure: OSError, data: bytes, sockaddr: Any, address: DatagramAddress
    ) -> int | None:
        """After a failure: gives how many were sent, 0 for one that is lost, None if it is to wait."""
        if isinstance(failure, (BlockingIOError, InterruptedError)):
            return None
        earlier = take_errors(self._socket, self._addresses)
        peer = self.peer_address
        if not earlier and peer is not None and failure.errno in _ABOUT_THE_PEER:
            earlier = [(failure_of_a_datagram(failure, peer), peer)]
        for error, about in earlier:
            self._report(error, peer or about)
        if earlier:
            try:
                self._socket.sendto(data, sockaddr) if peer is None else self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as again:
                failure = again
            else:
                return 1
        reason = from_os_error(failure, text_of(address))
        self._refused(reason, address)
        if failure.errno in _BROKEN:
            self._lost(reason)
        return 0


class ReactorDatagramLink(SocketDatagramLink[E]):
    """A datagram link whose socket a reactor watches, edge-triggered."""

    __slots__ = ("_reactor",)

    def __init__(
        self,
        reactor: Reactor,
        machine: DatagramMachine[E],
        handler: DatagramHandler[E],
        opened: OpenSocket,
        options: DatagramOptions,
    ) -> None:
        super().__init__(reactor, machine, handler, opened, options)
        self._reactor = reactor

    def ready(self, events: int) -> None:
        """Write what waits, hear what has come back, read what has come."""
        if events & WRITE and self._unsent:
            self._writable()
        if self._let_go:
            return
        if events & HANG_UP:
            self._receive_errors()
        if events & (READ | HANG_UP) and self._read():
            self._reactor.unread[self] = None

    def driver_closed(self) -> None:
        """The reactor is closing: so does the link."""
        self.close()

    def _wait_for_room(self) -> None:
        """The next edge tells."""

    def _close_transport(self) -> None:
        self._reactor.discard(self._socket)


def failure_of_a_datagram(failure: OSError, address: DatagramAddress | None) -> TransportError:
    """Translate an error that a receiving or sending call met.

    Windows says of a datagram that nobody took what it says of a connection that was reset.
    """
    code = getattr(failure, "winerror", None) or failure.errno
    if code in _UNREACHABLE_PORT or code == errno.ECONNREFUSED:
        return ConnectionRefused("nobody is bound there", code=code, address=text_of(address))
    return from_os_error(failure, text_of(address))


def _can_segment(sock: socket.socket) -> bool:
    """Whether the kernel cuts runs of datagrams; one that does not know the option ignores it."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):
        sock.getsockopt(_SOL_UDP, _UDP_SEGMENT)
        return sock.family in (socket.AF_INET, socket.AF_INET6)
    return False
