"""Accepting connections in Windows' proactor loop.

Not through `loop.sock_accept`: when a visitor has reset its connection before it is accepted, that
leaves the socket and the error of a task of its own to the garbage collector, which complains; and
after the listener has been closed its port is still taken until the loop has run on. So AcceptEx is
begun here, and asyncio's proactor only asked to make a future of it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

from .address import Address
from .asyncio_listener import AsyncioListener
from .base import Accept
from .errors import from_os_error
from .overlapped import Overlapped, kernel, new_operation
from .shortage import ACCEPT_PAUSE, SHORTAGES
from .socket_link import turn_away

if TYPE_CHECKING:
    from .asyncio import AsyncioDriver


class ProactorListener(AsyncioListener):
    """Accepts connections one after the other, by completion."""

    def __init__(self, driver: AsyncioDriver, address: Address, accept: Accept) -> None:
        self._accepting: asyncio.Future[socket.socket] | None = None
        self._failures = 0  # in a row
        self._held: socket.socket | None = None  # accepted while paused
        super().__init__(driver, address, accept)

    def _start(self) -> None:
        if self._closed or self._paused or (self._accepting is not None and not self._accepting.done()):
            return
        if self._held is not None:
            self._driver.soon(self._adopt_held)
            return
        try:
            self._accepting = begin_accept(self._loop, self._socket)
        except OSError as error:
            self._failed(error)
        else:
            self._driver.when_done(self._accepting, self._accepted)

    def _accepted(self, accepting: asyncio.Future[socket.socket]) -> None:
        if accepting.cancelled():
            return
        try:
            sock = accepting.result()
        except OSError as error:
            self._failed(error)
            return
        if self._closed:
            turn_away(sock)
            return
        self._held = sock
        self._failures = 0
        self._adopt_held()

    def _adopt_held(self) -> None:
        if self._held is None or self._paused or self._closed:
            return
        sock, self._held = self._held, None
        try:
            self._adopt(sock, sock.getpeername())
        except OSError:  # the connection has been reset since
            sock.close()
        finally:
            self._start()

    def _failed(self, error: OSError) -> None:
        """Go on after what concerns one connection only; rest when handles have run out."""
        self._failures += 1
        if error.errno in SHORTAGES:
            self._report_shortage(error)
        elif self._failures < self._driver.fairness.accepts_per_tick:
            self._driver.soon(self._start)  # the connection was reset before it was accepted
            return
        else:
            self._report(from_os_error(error, str(self.address)))
        self._failures = 0
        self._driver.call_at(self._driver.now() + ACCEPT_PAUSE, self._start)

    def _stop(self) -> None:
        if self._closed:  # a listener that is paused only keeps who comes until it is resumed
            if self._accepting is not None:
                self._accepting.cancel()
            if self._held is not None:
                turn_away(self._held)


def begin_accept(loop: Any, listener: socket.socket) -> asyncio.Future[socket.socket]:
    """Begin to accept a connection, as `IocpProactor.accept` does but for what it leaves behind."""
    proactor = loop._proactor
    sock = socket.socket(listener.family, socket.SOCK_STREAM)
    operation = new_operation()
    try:
        proactor._register_with_iocp(listener)
        operation.AcceptEx(listener.fileno(), sock.fileno())
    except OSError:
        sock.close()
        raise

    def finish(transferred: int, key: int, operation: Overlapped) -> socket.socket:
        try:
            operation.getresult()
            handle = struct.pack("@P", listener.fileno())
            sock.setsockopt(socket.SOL_SOCKET, kernel.SO_UPDATE_ACCEPT_CONTEXT, handle)
            sock.getpeername()
        except OSError:
            sock.close()
            raise
        return sock

    accepting: asyncio.Future[socket.socket] = proactor._register(operation, listener, finish)
    accepting.add_done_callback(lambda done: turn_away(sock) if done.cancelled() else None)
    return accepting
