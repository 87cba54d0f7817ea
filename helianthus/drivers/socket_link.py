"""TCP links, listeners and connection attempts over readiness events.

All three are edge-triggered: an event is only a hint that a system call is worth trying, and a
stale one is harmless. Reading stops at a short read, because for stream sockets that means the
buffer was empty (epoll(7), question 9), unless the event also announced a hang-up.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..protocols.machine import Buffer, StreamMachine
from .address import Address
from .base import Accept, LinkHandler, Listener
from .errors import ConnectionRefused, TransportError, from_os_error
from .names import Candidate, literal_candidate, resolve
from .pump import Link

if TYPE_CHECKING:
    from .reactor import Reactor

E = TypeVar("E")

READ, WRITE, HANG_UP = 1, 2, 4
"""Readiness flags; the first two are those of `selectors`."""

READS_PER_TICK = 4
"""Full receive buffers that one link may read in a tick before the others have their turn."""

ACCEPTS_PER_TICK = 128
"""Connections that one listener may accept in a tick before the links have their turn."""

BACKLOG = 4096
"""Connections that the kernel may hold for a listener; it is cut to net.core.somaxconn."""

ACCEPT_PAUSE = 0.1
"""Seconds that a listener waits after running out of file descriptors."""

_JOIN_BELOW = 4096  # bytes: buffers smaller than this on average cost less joined than gathered
_GATHER = 512  # buffers in one sendmsg; Linux, macOS and the BSDs allow 1024 (IOV_MAX)

_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


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


def keep_alive(sock: socket.socket) -> None:
    """Have the system find peers that have vanished, where the protocol on top has no pings.

    When it does so is the system's setting: on Linux after two hours, unless somebody changed it.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class SocketLink(Link[E]):
    """A link over a non-blocking stream socket."""

    __slots__ = ("_hung_up", "_queue", "_queued", "_reactor", "_socket")

    def __init__(
        self, reactor: Reactor, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(reactor, machine, handler, peer_address)
        self._reactor = reactor
        self._socket: socket.socket | None = None
        self._queue: list[memoryview] = []
        self._queued = 0
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

    def connecting_on(self, sock: socket.socket | None) -> None:
        """The socket of the present attempt to connect; it is closed if the link is aborted."""
        self._socket = sock

    def open_on(self, sock: socket.socket) -> None:
        """Begin to pump over a connected, watched socket."""
        self._socket = sock
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(sock)
            local, peer = address_text(sock.getsockname()), address_text(sock.getpeername())
        except OSError as error:
            self._lost(from_os_error(error, self.peer_address))
            return
        if local == peer:  # TCP let a connection to a free local port meet itself
            self._lost(ConnectionRefused("nobody listens there", address=peer))
            return
        self._reactor.connect_ended(self)
        self._connected(local, peer)

    def failed_to_connect(self, error: Exception) -> None:
        """The attempt to connect is over."""
        self._lost(error)

    # -- readiness --------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """Write what waits, read what has come."""
        if events & WRITE and self._queued:
            self._send_queue()
            if not self._queued and not self.closed:
                self._drained()
        if not events & (READ | HANG_UP):
            return
        if events & HANG_UP:
            self._hung_up = True
        buffer = self._reactor.receive_buffer
        size = len(buffer)
        for _ in range(READS_PER_TICK):
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
            self._reactor.unread[self] = None

    def _resume_reading(self) -> None:
        self._reactor.unread[self] = None

    def driver_closed(self) -> None:
        """The reactor is closing: so does the link."""
        self.abort()

    # -- writing ------------------------------------------------------------------------------------

    def _send(self, buffers: list[Buffer]) -> None:
        """Send in as few system calls as the sizes make sensible."""
        if len(buffers) == 1:
            whole = buffers[0]
        else:
            total = sum(map(len, buffers))
            if total >= _JOIN_BELOW * len(buffers):
                self._queue.extend(memoryview(buffer) for buffer in buffers if len(buffer))
                self._queued += total
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
        if sent < len(whole):
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
            self._reactor.discard(self._socket)
            self._socket = None


class SocketListener(Listener):
    """Accepts TCP connections and gives each to a link."""

    def __init__(self, reactor: Reactor, address: Address, accept: Accept) -> None:
        self._reactor = reactor
        self._accept = accept
        self._closed = False
        self._resting = False
        self.sock = listening_socket(address)
        host, port = self.sock.getsockname()[:2]
        self.address = Address(host, port, address.scheme)

    def ready(self, events: int) -> None:
        """Accept what waits."""
        for _ in range(ACCEPTS_PER_TICK):
            if self._closed or self._resting:
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
        if error.errno not in OUT_OF_FILES:  # the connection was reset before it was accepted
            self._reactor.unread[self] = None
            return
        self._resting = True
        self._reactor.on_error(from_os_error(error, str(self.address)))
        self._reactor.call_at(self._reactor.now() + ACCEPT_PAUSE, self._accept_again)

    def _accept_again(self) -> None:
        self._resting = False
        self.ready(READ)

    def _adopt(self, sock: socket.socket, peer: Any) -> None:
        sock.setblocking(False)
        text = address_text(peer)
        try:
            machine, handler = self._accept(text)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not stop the listener
            self._reactor.on_error(error)
            sock.close()
            return
        link = SocketLink(self._reactor, machine, handler, text)
        link.connecting_on(sock)
        self._reactor.watch(link)
        link.open_on(sock)

    def driver_closed(self) -> None:
        """The reactor is closing: so does the listener."""
        self.close()

    def close(self) -> None:
        """Stop accepting; see `Listener.close`."""
        if not self._closed:
            self._closed = True
            self._reactor.discard(self.sock)


class Connector:
    """One attempt to connect: resolves the name, then tries its addresses in turn."""

    def __init__(self, reactor: Reactor, address: Address, link: SocketLink[Any]) -> None:
        self._reactor = reactor
        self._address = address
        self._link = link
        self._candidates: deque[Candidate] = deque()
        self._error: OSError = TransportError("the name has no address")

    @property
    def sock(self) -> socket.socket:
        """The socket of the present attempt."""
        return self._link.sock

    def start(self) -> None:
        """Begin; the link hears the end of it from within a later tick."""
        self._reactor.resolve(self._address, self._resolved)

    def _resolved(self, found: list[Address] | None, error: Exception | None) -> None:
        if isinstance(error, OSError):
            self._error = error
        candidates = (literal_candidate(address.host, address.port) for address in found or ())
        self._candidates.extend(candidate for candidate in candidates if candidate is not None)
        self._try_next()

    def _try_next(self) -> None:
        link = self._link
        while self._candidates and not link.closed:
            family, sockaddr = self._candidates.popleft()
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:
                self._error = error
                continue
            sock.setblocking(False)
            code = sock.connect_ex(sockaddr)
            if code in (0, errno.EINPROGRESS):
                link.connecting_on(sock)
                self._reactor.watch(self)
                if code == 0:
                    self._succeed()
                return
            sock.close()
            self._error = OSError(code, os.strerror(code))
        if not link.closed:
            link.failed_to_connect(from_os_error(self._error, str(self._address)))

    def ready(self, events: int) -> None:
        """The attempt has ended, one way or the other."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._error = OSError(code, os.strerror(code))
            self._reactor.discard(self.sock)
            self._link.connecting_on(None)
            self._try_next()
        elif events & WRITE:
            self._succeed()
            self._link.ready(events & ~WRITE)  # the peer may have spoken already, in the same edge

    def _succeed(self) -> None:
        self._reactor.hand_over_watch(self._link)
        self._link.open_on(self.sock)

    def driver_closed(self) -> None:
        """The reactor is closing: so does the attempt."""
        self._link.abort()


def listening_socket(address: Address) -> socket.socket:
    """Bind and listen at the first of a name's addresses that this machine has; may block.

    Raises:
        TransportError: One of `drivers.errors`, such as `AddressInUse`.
    """
    try:
        candidates = resolve(address.host, address.port)
    except OSError as error:
        raise from_os_error(error, str(address)) from error
    failure: OSError | None = None
    for family, sockaddr in candidates:
        try:
            return _listen_at(family, sockaddr)
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
