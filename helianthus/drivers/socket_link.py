"""Links and listeners over readiness events, and attempts to connect over TCP.

All three are edge-triggered: an event is only a hint that a system call is worth trying, and a
stale one is harmless. Reading stops at a short read, because for stream sockets that means the
buffer was empty (epoll(7), question 9), unless the event also announced a hang-up.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

from ..protocols.machine import Buffer, StreamMachine
from .address import Address
from .base import Accept, LinkHandler, Listener
from .connect_attempt import ConnectAttempt, meets_itself, refused
from .errors import (
    ConnectionReset,
    TimedOut,
    TransportError,
    Unreachable,
    from_os_error,
)
from .file_transfer import NOT_DIRECT, WOULD_BLOCK
from .names import resolve
from .native import HANG_UP, READ, WRITE
from .pump import Link
from .read_size import ReadSize
from .resetting import reset_when_closed
from .shortage import ACCEPT_PAUSE, SHORTAGES, Shortage
from .socket_file import SocketFile, listen_at_path
from .unix_socket import is_unix, peer_text, unix_text

if TYPE_CHECKING:
    from .reactor import Reactor

E = TypeVar("E")

BACKLOG = 4096
"""Connections that the kernel may hold for a listener; it is cut to net.core.somaxconn."""

_JOIN_BELOW = 4096  # bytes: buffers smaller than this on average cost less joined than gathered
_GATHER = 512  # buffers in one sendmsg; Linux, macOS and the BSDs allow 1024 (IOV_MAX)

_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP)  # for this pair of files


class Watched(Protocol):
    """Something whose socket a reactor watches."""

    @property
    def sock(self) -> socket.socket:
        """What is watched."""

    def ready(self, events: int) -> None:
        """Try what the flags hint at."""

    def driver_closed(self) -> None:
        """The reactor is closing."""


def address_text(sockaddr: Any) -> str:
    """Write what a socket call gives as `host:port`."""
    if isinstance(sockaddr, tuple) and len(sockaddr) >= 2:
        host = f"[{sockaddr[0]}]" if ":" in str(sockaddr[0]) else sockaddr[0]
        return f"{host}:{sockaddr[1]}"
    return str(sockaddr)


def set_tcp_options(sock: socket.socket) -> None:
    """Have small frames sent at once, and peers found that have vanished.

    The latter for protocols without pings. When the system asks is its own setting: on Linux after two
    hours, unless somebody changed it.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class SocketLink(Link[E]):
    """A link over a non-blocking stream socket."""

    __slots__ = ("_hung_up", "_queue", "_queued", "_reactor", "_read_size", "_socket")

    def __init__(
        self, reactor: Reactor, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(reactor, machine, handler, peer_address)
        self._reactor = reactor
        self._socket: socket.socket | None = None
        self._queue: list[memoryview] = []
        self._queued = 0
        if self._leasing:
            self._read_size = ReadSize()
        self._hung_up = False  # announced once: reading must go on to the end of the stream

    @property
    def sock(self) -> socket.socket:
        """The socket, once there is one."""
        if self._socket is None:
            raise RuntimeError(f"the link to {self.peer_address} has no socket")
        return self._socket

    @property
    def unsent(self) -> int:
        """Bytes that wait for the kernel."""
        return self._queued

    @property
    def awaits_room(self) -> bool:
        """Whether the kernel has left something over."""
        return self._clogged or self._queued > 0

    def connecting_on(self, sock: socket.socket | None) -> None:
        """The socket of the present attempt to connect; it is closed if the link is aborted."""
        self._socket = sock

    def open_on(self, sock: socket.socket) -> None:
        """Begin to pump over a connected, watched socket."""
        self._socket = sock
        try:
            if is_unix(sock):
                local, peer = unix_text(sock.getsockname()), self.peer_address
            else:
                set_tcp_options(sock)
                local, peer = address_text(sock.getsockname()), address_text(sock.getpeername())
        except OSError as error:
            self._lost(self._why_not_opened(error))
            return
        self._reactor.connect_ended(self)
        self._connected(local, peer)

    def _why_not_opened(self, error: OSError) -> TransportError:
        if error.errno == errno.EINVAL:  # setsockopt(2) of macOS: the socket has been shut down
            return ConnectionReset("the peer was gone at once", code=error.errno, address=self.peer_address)
        return from_os_error(error, self.peer_address)

    def failed_to_connect(self, error: Exception) -> None:
        """The attempt to connect is over."""
        self._lost(error)

    # -- readiness --------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """Write what waits, read what has come."""
        if events & WRITE and self._write_timer is not None:  # something is left over
            self._send_queue()
            if self._queued <= self._low and not self.closed:
                self._drained()
        if not events & (READ | HANG_UP):
            return
        if events & HANG_UP:
            self._hung_up = True
        if self._leasing:
            self._read_leases()
            return
        reactor = self._reactor
        buffer = reactor.receive_buffer
        size = len(buffer)
        for _ in reactor.fairness.turns:
            sock = self._socket
            if not self._reading or sock is None:
                return  # resumed by `_resume_reading`, which tries again whatever was missed
            try:
                received = sock.recv_into(buffer)
            except OSError as error:
                if error.errno not in _WOULD_BLOCK:
                    self._lost(from_os_error(error, self.peer_address))
                return
            if not received:
                self._received_eof()
                return
            self._received(buffer[:received])
            if received < size and not self._hung_up:
                return
        if self._socket is not None:
            reactor.unread[self] = None

    def _read_leases(self) -> None:
        """Read for a machine that keeps what it receives, into memory of its own each time."""
        for _ in range(self._reactor.fairness.reads_per_tick):
            if not self._reading or self._socket is None:
                return
            lease = self._reactor.buffers.lease(self._read_size.bytes)
            size = len(lease)
            try:
                received = self._socket.recv_into(lease.view)
            except OSError as error:
                lease.release()
                if error.errno not in _WOULD_BLOCK:
                    self._lost(from_os_error(error, self.peer_address))
                return
            if not received:
                lease.release()
                self._received_eof()
                return
            self._read_size.note(received)
            lease.truncate(received)
            self._received_lease(lease)
            if received < size and not self._hung_up:
                return
        if self._socket is not None:
            self._reactor.unread[self] = None

    def _resume_reading(self) -> None:
        self._reactor.unread[self] = None

    def driver_closed(self) -> None:
        """The reactor is closing: so does the link."""
        self.abort()

    # -- writing ------------------------------------------------------------------------------------

    def _send(self, buffers: list[Buffer]) -> None:
        """Send in as few system calls as the sizes make sensible."""
        if len(buffers) == 1 and not self._queued:
            whole = buffers[0]
        else:
            total = sum(map(len, buffers))
            if total >= _JOIN_BELOW * len(buffers) or self._queued:
                wait = self._queued > 0  # until the kernel has taken that
                self._queue.extend(memoryview(buffer) for buffer in buffers if len(buffer))
                self._queued += total
                if not wait:
                    self._send_queue()
                if self._queued:
                    self._left_over()
                return
            whole = b"".join(buffers)
        try:
            sent = self._socket.send(whole)  # type: ignore[union-attr]  # an open link has one
        except OSError as error:
            if error.errno not in _WOULD_BLOCK:
                self._lost(from_os_error(error, self.peer_address))
                return
            sent = 0
        self.writes += 1
        self.bytes_out += sent
        if sent < len(whole):
            self.partial_writes += 1
            self._queue.append(memoryview(whole)[sent:])
            self._queued += len(whole) - sent
            self._send_queue()
            if self._queued:
                self._left_over()

    def _send_queue(self) -> None:
        queue = self._queue
        while queue:
            try:
                sent = self.sock.sendmsg(queue[:_GATHER]) if len(queue) > 1 else self.sock.send(queue[0])
            except OSError as error:
                if error.errno not in _WOULD_BLOCK:
                    self._lost(from_os_error(error, self.peer_address))
                return
            offered = self._queued if len(queue) <= _GATHER else sum(map(len, queue[:_GATHER]))
            self.writes += 1
            self.bytes_out += sent
            if sent < offered:
                self.partial_writes += 1
            self._queued -= sent
            self._progress_at = self._driver.now()
            gone = 0  # buffers that have been sent whole
            while sent:
                first = queue[gone]
                if sent < len(first):
                    queue[gone] = first[sent:]
                    break
                sent -= len(first)
                gone += 1
            del queue[:gone]

    def _left_over(self) -> None:
        super()._left_over()
        self._reactor.await_writable(self)

    def _send_direct(self, descriptor: int, offset: int, count: int) -> int:
        """Have the kernel send a part of a file; see `Link._send_direct`."""
        if not hasattr(os, "sendfile"):
            return NOT_DIRECT
        try:
            sent = os.sendfile(self.sock.fileno(), descriptor, offset, count)
            self.writes += 1
            self.bytes_out += sent
            self.partial_writes += 0 < sent < count
            return sent
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                self._left_over()
                return WOULD_BLOCK
            if error.errno in _NO_SENDFILE:
                return NOT_DIRECT
            failure = from_os_error(error, self.peer_address)
            if isinstance(failure, ConnectionReset | TimedOut | Unreachable):
                self._lost(failure)
                return WOULD_BLOCK
            raise  # the file's own

    def _shut_down_writing(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lost(from_os_error(error, self.peer_address))

    def _close_transport(self, *, reset: bool) -> None:
        self._queue.clear()
        self._queued = 0
        self._reactor.connect_ended(self)
        if self._socket is not None:
            if reset:
                reset_when_closed(self._socket)
            self._reactor.discard(self._socket)
            self._socket = None


class SocketListener(Listener):
    """Accepts connections and gives each to a link."""

    def __init__(self, reactor: Reactor, address: Address, accept: Accept) -> None:
        self._reactor = reactor
        self._accept = accept
        self._closed = False
        self._resting = False
        self._paused = False
        self._shortage = Shortage()
        self.sock, self.address, self._file = listening_socket(address)

    def ready(self, events: int) -> None:
        """Accept what waits."""
        for _ in range(self._reactor.fairness.accepts_per_tick):
            if self._closed or self._resting or self._paused:
                return
            try:
                sock, peer = self.sock.accept()
            except OSError as error:
                self._accept_failed(error)
                return
            self._adopt(sock, peer)
        self._reactor.unread[self] = None

    def _accept_failed(self, error: OSError) -> None:
        """Go on after what concerns one connection only; rest when descriptors have run out."""
        if error.errno in _WOULD_BLOCK:
            return
        if error.errno not in SHORTAGES:  # the connection was reset before it was accepted
            self._reactor.unread[self] = None
            return
        self._resting = True
        now = self._reactor.now()
        report = self._shortage.failed(error, self.address, now)
        if report is not None:
            self._reactor.on_error(report)
        self._reactor.call_at(now + ACCEPT_PAUSE, self._accept_again)

    def _accept_again(self) -> None:
        self._resting = False
        self.ready(READ)

    def _adopt(self, sock: socket.socket, peer: Any) -> None:
        sock.setblocking(False)
        text = peer_text(sock) if is_unix(sock) else address_text(peer)
        try:
            machine, handler = self._accept(text)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not stop the listener
            self._reactor.on_error(error)
            sock.close()
            return
        link = SocketLink(self._reactor, machine, handler, text)
        link.connecting_on(sock)
        self._reactor.watch(link, READ)
        link.open_on(sock)

    def pause(self) -> None:
        """Accept no more for now; see `Listener.pause`."""
        self._paused = True

    def resume(self) -> None:
        """Accept again; see `Listener.resume`."""
        if self._paused and not self._closed:
            self._paused = False
            self._reactor.unread[self] = None  # an edge may have passed by meanwhile

    def driver_closed(self) -> None:
        """The reactor is closing: so does the listener."""
        self.close()

    def close(self) -> None:
        """Stop accepting; see `Listener.close`."""
        if not self._closed:
            self._closed = True
            if self._file is not None:
                self._file.remove()
            self._reactor.discard(self.sock)


class Connector(ConnectAttempt["Reactor", SocketLink[Any]]):
    """An attempt over readiness events."""

    @property
    def sock(self) -> socket.socket:
        """The socket of the present attempt."""
        return self._link.sock

    def _try(self, family: socket.AddressFamily, sockaddr: Any) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        code = sock.connect_ex(sockaddr)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            raise OSError(code, os.strerror(code))
        self._link.connecting_on(sock)
        self._driver.watch(self, WRITE)
        if code == 0:
            self._succeed()

    def ready(self, events: int) -> None:
        """The attempt has ended, one way or the other."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._give_up(OSError(code, os.strerror(code)))
        elif events & WRITE:
            self._succeed(events & ~WRITE)  # the peer may have spoken already, in the same edge

    def _succeed(self, events: int = 0) -> None:
        if meets_itself(self.sock):
            self._give_up(refused())
            return
        self._driver.hand_over_watch(self._link)
        self._link.open_on(self.sock)
        self._link.ready(events)

    def _give_up(self, error: OSError) -> None:
        self._driver.discard(self.sock)
        self._link.connecting_on(None)
        self._failed(error)

    def driver_closed(self) -> None:
        """The reactor is closing: so does the attempt."""
        self._link.abort()


def turn_away(sock: socket.socket) -> None:
    """Reset a connection that has been accepted for a listener that is closed.

    Its peer is told what the kernel tells those who have waited in the backlog.
    """
    reset_when_closed(sock)
    sock.close()


def listening_socket(address: Address) -> tuple[socket.socket, Address, SocketFile | None]:
    """Bind and listen at a path, or at the first of a name's addresses that this machine has; may block.

    Returns:
        The socket, the address that was really bound, and the file to remove before the socket is closed.

    Raises:
        TransportError: One of `drivers.errors`, such as `AddressInUse`.
    """
    if address.local:
        sock, file = listen_at_path(address, BACKLOG)
        return sock, attrs.evolve(address, mode=None), file
    try:
        candidates = resolve(address.host, address.port)
    except OSError as error:
        raise from_os_error(error, str(address)) from error
    failure: OSError | None = None
    for family, sockaddr in candidates:
        try:
            sock = _listen_at(family, sockaddr)
            host, port = sock.getsockname()[:2]
            return sock, Address(host, port, address.scheme), None
        except OSError as error:
            failure = failure or error
    raise from_os_error(failure or OSError("the name has no address"), str(address)) from failure


def _listen_at(family: socket.AddressFamily, sockaddr: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows the option would let another process take the address
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(sockaddr)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
