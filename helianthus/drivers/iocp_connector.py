"""Attempts to connect through a completion port: ConnectEx."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from .connect_attempt import ConnectAttempt, meets_itself, refused
from .errors import TransportError
from .iocp_link import IocpLink
from .overlapped import kernel, new_operation
from .socket_link import address_text
from .unix_socket import unix_name

if TYPE_CHECKING:
    from .iocp import IocpDriver  # noqa: F401 - named in a string below


class IocpConnector(ConnectAttempt["IocpDriver", IocpLink[Any]]):
    """An attempt by completion."""

    def start(self) -> None:
        """Begin; the link hears the end of it from within a later tick."""
        if self._address.local:
            self._driver.post(self._refuse)
        else:
            super().start()

    def _refuse(self) -> None:
        try:
            unix_name(self._address)  # Python has no Unix-domain sockets on Windows, as this says
        except TransportError as error:
            if not self._link.closed:
                self._link.failed_to_connect(error)

    def _try(self, family: socket.AddressFamily, sockaddr: Any) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        operation = new_operation()
        try:
            kernel.BindLocal(sock.fileno(), family)  # ConnectEx wants a socket that is bound
            self._driver.associate(sock.fileno())
            operation.ConnectEx(sock.fileno(), sockaddr)
        except OSError:
            sock.close()
            raise
        self._link.connecting_on(sock, operation)
        self._driver.begun(operation, lambda _, error: self._ended(sock, sockaddr, error))

    def _ended(self, sock: socket.socket, sockaddr: Any, error: OSError | None) -> None:
        if self._link.closed:
            return  # and it has closed the socket
        if error is None:
            with contextlib.suppress(OSError):  # it has been reset since, which the link will find
                sock.setsockopt(socket.SOL_SOCKET, kernel.SO_UPDATE_CONNECT_CONTEXT, 0)
            if not meets_itself(sock):
                self._link.open_on(sock, address_text(sockaddr))
                return
            error = refused()
        self._link.connecting_on(None)
        sock.close()
        self._failed(error)
