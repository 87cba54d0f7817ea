"""Datagram links over a completion port.

One receive is always under way; when it has ended, what else has come is read at once. Sends are
operations too. Most end at once; the link waits for the others, so that no more of them are under way
than make a batch.

When nobody is bound where a datagram went, Windows tells the sender with the error of a later
receive, as if a connection had been reset. The machine hears of it, and the next receive is begun.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..protocols.machine import DatagramAddress, DatagramMachine
from .datagram_link import BATCH, text_of
from .datagram_options import DatagramOptions
from .datagram_socket import OpenSocket
from .errors import from_os_error
from .native import READ
from .overlapped import Overlapped, new_operation
from .socket_datagrams import SocketDatagramLink

if TYPE_CHECKING:
    from .base import DatagramHandler
    from .iocp import IocpDriver
    from .lease import Lease

E = TypeVar("E")

_ROOM = 65_536  # bytes: one more than any datagram has
_TRY_AGAIN = 0.001  # seconds until a socket that took no more is tried again
_MORE_DATA = (234, 10040)  # ERROR_MORE_DATA, WSAEMSGSIZE: the datagram was larger than the buffer


class IocpDatagramLink(SocketDatagramLink[E]):
    """A datagram link whose operations end in the driver's port."""

    __slots__ = ("_buffer", "_iocp", "_operation", "_sends")

    def __init__(
        self,
        driver: IocpDriver,
        machine: DatagramMachine[E],
        handler: DatagramHandler[E],
        opened: OpenSocket,
        options: DatagramOptions,
    ) -> None:
        super().__init__(driver, machine, handler, opened, options)
        self._iocp = driver
        self._operation: Overlapped | None = None  # a receive
        self._buffer: Lease | None = None
        self._sends: dict[Overlapped, None] = {}  # that were not done at once
        driver.associate(opened.sock.fileno())
        driver.opened(self)
        driver.unread[self] = None  # receiving begins in the next tick

    # -- receiving --------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        """Read what has come, and wait for more."""
        if self._let_go or self._operation is not None:
            return
        try:
            more = self._read()
        except BaseException:  # interrupted: receiving goes on in the next tick
            self._iocp.unread[self] = None
            raise
        if more:
            self._iocp.unread[self] = None
        elif not self._let_go:
            self._begin_receiving()

    def _begin_receiving(self) -> None:
        if self._buffer is None:
            self._buffer = self._iocp.buffers.lease(_ROOM)
        operation = new_operation()
        try:
            operation.WSARecvFromInto(self._socket.fileno(), self._buffer.view, _ROOM, 0)
        except OSError as error:
            self._receive_failed(error)
            if not self._let_go:
                self._iocp.unread[self] = None
            return
        self._operation = operation
        self._iocp.begun(operation, self._ended)

    def _ended(self, result: tuple[int, Any] | None, error: OSError | None) -> None:
        """The receive has ended; with the link, perhaps."""
        self._operation = None
        if self._let_go:
            self._free_buffer()
            return
        try:
            if result is not None and self._buffer is not None:
                count, source = result
                address = self.peer_address or self._addresses.from_socket(source)
                self._received([(self._buffer.view[:count], address)])
            elif error is not None and error.winerror in _MORE_DATA:  # type: ignore[attr-defined,unused-ignore]
                self._truncated(self.peer_address)
            elif error is not None:
                self._receive_failed(error)
        except BaseException:
            self._iocp.unread[self] = None
            raise
        self.ready(READ)

    def _free_buffer(self) -> None:
        if self._buffer is not None:
            self._buffer.release()
            self._buffer = None

    # -- sending ----------------------------------------------------------------------------------

    def _send_datagrams(self, batch: list[tuple[bytes, DatagramAddress]]) -> int:
        dealt_with = 0
        for data, address in batch:
            if len(self._sends) >= BATCH or self._let_go:
                break
            sockaddr = self._sockaddrs.get(address)
            if sockaddr is None:
                sockaddr = self._look_at_destination(address)
            if sockaddr is not None and not self._send_one(data, address, sockaddr):
                break
            dealt_with += 1
        return dealt_with

    def _send_one(self, data: bytes, address: DatagramAddress, sockaddr: Any) -> bool:
        """Begin to send a datagram; gives false if it is to wait."""
        operation = new_operation()
        try:
            if self.peer_address is not None:
                operation.WSASend(self._socket.fileno(), data, 0)
            else:
                operation.WSASendTo(self._socket.fileno(), data, 0, sockaddr)
        except OSError as error:
            outcome = self._send_again(error, data, sockaddr, address)
            if outcome is None:
                self._wait_for_room()
                return False
            self.statistics.sent += outcome
            return True
        if operation.pending:
            self._sends[operation] = None
            self._iocp.begun(operation, partial(self._sent, operation, address))
        else:
            self.statistics.sent += 1
            self._iocp.begun(operation, _sent_at_once)
        return True

    def _sent(self, operation: Overlapped, address: DatagramAddress, _: Any, error: OSError | None) -> None:
        """A send that was not done at once has ended."""
        del self._sends[operation]
        if self._let_go:
            self.statistics.dropped += error is not None
            return
        if error is None:
            self.statistics.sent += 1
        else:
            self._refused(from_os_error(error, text_of(address)), address)
            self.wake()
        self._writable()

    def _wait_for_room(self) -> None:
        self._iocp.call_at(self._iocp.now() + _TRY_AGAIN, self._writable)

    # -- the end ----------------------------------------------------------------------------------

    def driver_closed(self) -> None:
        """The driver is closing: so does the link."""
        self.close()

    def _close_transport(self) -> None:
        self._iocp.gone(self)
        for operation in self._sends:
            self._iocp.cancel(operation)
        if self._operation is not None:
            self._iocp.cancel(self._operation)
        else:
            self._free_buffer()
        self._socket.close()


def _sent_at_once(result: Any, error: OSError | None) -> None:
    """A send that was not waited for."""
