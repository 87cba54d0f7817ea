"""Accepting connections through a completion port: AcceptEx.

Those that find no accept under way wait in the kernel's backlog.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any

from ..protocols.machine import StreamMachine
from .address import Address
from .base import Accept, LinkHandler
from .completion_listener import CompletionListener
from .iocp_link import IocpLink
from .overlapped import Overlapped, kernel, new_operation
from .socket_link import address_text, listening_socket, turn_away

if TYPE_CHECKING:
    from .iocp import IocpDriver

ACCEPTS = 16
"""Accepts that a listener has under way; each holds a socket."""


class IocpListener(CompletionListener[socket.socket]):
    """Accepts TCP connections and gives each to a link."""

    at_once = ACCEPTS

    def __init__(self, driver: IocpDriver, address: Address, accept: Accept) -> None:
        self._socket, bound, _ = listening_socket(address)
        super().__init__(driver, bound, accept)
        driver.associate(self._socket.fileno())
        driver.opened(self)
        self._begin_accepts()

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

    def _arrived(self, end: socket.socket) -> str:
        listener = struct.pack("@P", self._socket.fileno())
        end.setsockopt(socket.SOL_SOCKET, kernel.SO_UPDATE_ACCEPT_CONTEXT, listener)
        peer = address_text(end.getpeername())
        self._driver.associate(end.fileno())
        return peer

    def _open(
        self, end: socket.socket, peer: str, machine: StreamMachine[Any], handler: LinkHandler[Any]
    ) -> None:
        IocpLink(self._driver, machine, handler, peer).open_on(end, peer)

    def pause(self) -> None:
        """Accept no more for now; see `Listener.pause`."""
        if not self._paused and not self._closed:
            self._paused = True
            for operation in self._under_way:
                self._driver.cancel(operation)

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
