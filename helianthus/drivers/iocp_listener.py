"""Accepting connections through a completion port: AcceptEx.

An accept is begun before there is a connection, with the socket that the connection is to become.
Several are under way at a time: while the completion of one is on its way through the port, the next
connections find theirs. Those that find none wait in the kernel's backlog.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

from .address import Address
from .base import Accept, Listener
from .errors import from_os_error
from .iocp_link import IocpLink
from .overlapped import Overlapped, kernel, new_operation
from .shortage import ACCEPT_PAUSE, SHORTAGES, Shortage
from .socket_link import address_text, listening_socket, turn_away

if TYPE_CHECKING:
    from .iocp import IocpDriver

ACCEPTS = 16
"""Accepts that a listener has under way; each holds a socket."""


class IocpListener(Listener):
    """Accepts TCP connections and gives each to a link."""

    def __init__(self, driver: IocpDriver, address: Address, accept: Accept) -> None:
        self._driver = driver
        self._accept = accept
        self._closed = False
        self._resting = False
        self._paused = False
        self._shortage = Shortage()
        self._held: deque[socket.socket] = deque()  # accepted while paused
        self._under_way: dict[Overlapped, socket.socket] = {}
        self._socket, self.address, _ = listening_socket(address)
        driver.associate(self._socket.fileno())
        driver.opened(self)
        self._begin_accepts()

    def _begin_accepts(self) -> None:
        """Have as many accepts under way as there are to be; rest when handles have run out."""
        while not (self._closed or self._resting or self._paused) and len(self._under_way) < ACCEPTS:
            try:
                self._begin_accept()
            except OSError as error:
                self._rest(error)

    def _begin_accept(self) -> None:
        sock = socket.socket(self._socket.family, socket.SOCK_STREAM)
        operation = new_operation()
        try:
            operation.AcceptEx(self._socket.fileno(), sock.fileno())
        except OSError:
            sock.close()
            raise
        self._under_way[operation] = sock
        self._driver.begun(operation, lambda _, error: self._ended(operation, error))

    def _rest(self, error: OSError) -> None:
        self._resting = True
        now = self._driver.now()
        report: Exception | None = from_os_error(error, str(self.address))
        if error.errno in SHORTAGES:
            report = self._shortage.failed(error, self.address, now)
        if report is not None:
            self._driver.on_error(report)
        self._driver.call_at(now + ACCEPT_PAUSE, self._accept_again)

    def _accept_again(self) -> None:
        self._resting = False
        self._begin_accepts()

    def _ended(self, operation: Overlapped, error: OSError | None) -> None:
        sock = self._under_way.pop(operation)
        if self._closed and error is None:  # the kernel was quicker than we were
            turn_away(sock)
            return
        if error is not None:  # we have closed or paused, or the connection was reset before it was accepted
            sock.close()
            self._begin_accepts()
            return
        self._held.append(sock)
        self._adopt_held()

    def _adopt_held(self) -> None:
        try:
            while self._held and not self._paused and not self._closed:
                self._adopt(self._held.popleft())
        finally:
            self._begin_accepts()

    def _adopt(self, sock: socket.socket) -> None:
        """Give an accepted connection a machine and a handler."""
        try:
            listener = struct.pack("@P", self._socket.fileno())
            sock.setsockopt(socket.SOL_SOCKET, kernel.SO_UPDATE_ACCEPT_CONTEXT, listener)
            text = address_text(sock.getpeername())
            self._driver.associate(sock.fileno())
        except OSError:  # the connection has been reset since
            sock.close()
            return
        try:
            machine, handler = self._accept(text)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not stop the listener
            self._driver.on_error(error)
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        IocpLink(self._driver, machine, handler, text).open_on(sock, text)

    def pause(self) -> None:
        """Accept no more for now; see `Listener.pause`."""
        if not self._paused and not self._closed:
            self._paused = True
            for operation in self._under_way:
                self._driver.cancel(operation)

    def resume(self) -> None:
        """Accept again; see `Listener.resume`."""
        if self._paused and not self._closed:
            self._paused = False
            self._driver.post(self._adopt_held)

    def driver_closed(self) -> None:
        """The driver is closing: so does the listener."""
        self.close()

    def close(self) -> None:
        """Stop accepting; see `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        self._driver.gone(self)
        for operation in self._under_way:
            self._driver.cancel(operation)
        while self._held:
            turn_away(self._held.popleft())
        self._socket.close()
