"""Links over a completion port.

Reading: one operation is always under way, into a small buffer, because as many of these are held as
there are links, most of them idle. When it has completed and the buffer is full, there is probably
more; that is read at once and without an operation, into the large buffer that all links share. A
machine that keeps what it receives gets a buffer of its own for each read instead.

Writing: an operation takes a piece, and the next one begins when the kernel has taken all of it. One
that is taken at once, as most are, is not waited for. Files go in such pieces as well, also where the
kernel reads them itself (TransmitFile): nobody could say how much of an operation that is cancelled has
been sent, so a piece that has begun counts as sent, and is never cancelled but with the link.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..protocols.machine import Buffer, StreamMachine
from .base import LinkHandler
from .errors import ConnectionReset, FileTooShort, from_os_error
from .file_transfer import NOT_DIRECT, WOULD_BLOCK
from .native import READ
from .overlapped import Overlapped, file_handle, new_operation
from .pump import Link
from .read_size import ReadSize
from .resetting import reset_when_closed
from .socket_link import address_text, set_tcp_options
from .write_piece import PIECE, next_piece

if TYPE_CHECKING:
    from .iocp import IocpDriver
    from .lease import Lease

E = TypeVar("E")

RECEIVE = 4096
"""Bytes of the buffer that a link holds while it waits for input."""

_LOW_HALF = 0xFFFFFFFF  # of a position in a file, which goes in two
_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK)


class IocpLink(Link[E]):
    """A link over a connected TCP socket."""

    __slots__ = (
        "_arrived",
        "_buffer",
        "_iocp",
        "_operation",
        "_queue",
        "_queued",
        "_read_size",
        "_sending",
        "_socket",
    )

    def __init__(
        self, driver: IocpDriver, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(driver, machine, handler, peer_address)
        self._iocp = driver
        self._socket: socket.socket | None = None
        self._operation: Overlapped | None = None  # connecting or reading, under way
        self._buffer: Lease | None = None  # what is read into, or what has been and waits
        self._arrived: int | OSError | None = None  # how a read ended that waits to be dealt with
        self._read_size = ReadSize() if self._leasing else None
        self._sending: Overlapped | None = None
        self._queue: list[memoryview] = []
        self._queued = 0
        driver.opened(self)

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

    # -- connecting -------------------------------------------------------------------------------

    def connecting_on(self, sock: socket.socket | None, operation: Overlapped | None = None) -> None:
        """The socket of the present attempt to connect, and the operation; ended if the link is."""
        self._socket = sock
        self._operation = operation

    def open_on(self, sock: socket.socket, peer: str) -> None:
        """Begin to pump over a connected socket that the port knows; `peer` is its other end."""
        self._socket = sock
        self._operation = None
        try:
            sock.setblocking(False)
            set_tcp_options(sock)
            local = address_text(sock.getsockname())
            with contextlib.suppress(OSError):  # which has gone again already, as reading will tell
                peer = address_text(sock.getpeername())
        except OSError as error:
            self._lost(from_os_error(error, self.peer_address))
            return
        self._iocp.unread[self] = None  # reading begins even if a handler is interrupted now
        self._connected(local, peer)

    def failed_to_connect(self, error: Exception) -> None:
        """The attempt to connect is over."""
        self._lost(error)

    # -- reading ----------------------------------------------------------------------------------

    def _begin_reading(self) -> None:
        if self.closed or self._operation is not None:
            return
        if self._buffer is None:
            self._buffer = self._iocp.buffers.lease(
                RECEIVE if self._read_size is None else self._read_size.bytes
            )
        operation = new_operation()
        try:
            self._begin_read(operation, self._buffer.view)
        except OSError as error:
            self._free_buffer()
            self._failed_to_read(error)
            return
        self._operation = operation
        self._iocp.begun(operation, self._read)

    def _begin_read(self, operation: Overlapped, view: memoryview) -> None:
        operation.WSARecvInto(self.sock.fileno(), view, 0)

    def _read(self, count: int | None, error: OSError | None) -> None:
        """The read has ended; with the link, perhaps."""
        self._operation = None
        if self.closed:
            self._free_buffer()
            return
        self._arrived = error if count is None else count
        self.ready(READ)

    def ready(self, events: int) -> None:
        """Deal with what has arrived, and read on."""
        if not self._reading or self._operation is not None:
            return  # what has arrived waits until the machine wants it
        arrived, self._arrived = self._arrived, None
        try:
            if arrived is not None and not self._take(arrived):
                return
            if arrived == RECEIVE and self._read_size is None and self._read_at_once():
                return
        except BaseException:  # interrupted: reading goes on in the next tick
            self._iocp.unread[self] = None
            raise
        finally:
            if self.closed:
                self._free_buffer()
        if self._reading:
            self._begin_reading()

    def _take(self, arrived: int | OSError) -> bool:
        """Hand on the result of a read; gives whether more may follow."""
        buffer = self._buffer
        assert buffer is not None
        if isinstance(arrived, OSError):
            self._failed_to_read(arrived)
        elif arrived == 0:
            self._free_buffer()
            self._received_eof()
        elif self._read_size is None:
            self._received(buffer.view[:arrived])
            return True
        else:
            self._read_size.note(arrived)
            self._buffer = None
            buffer.truncate(arrived)
            self._received_lease(buffer)
            return True
        return False

    def _failed_to_read(self, error: OSError) -> None:
        self._lost(from_os_error(error, self.peer_address))

    def _read_at_once(self) -> bool:
        """Read what has come besides; gives whether somebody sees to reading later."""
        buffer = self._iocp.receive_buffer
        size = len(buffer)
        for _ in range(self._iocp.fairness.reads_per_tick):
            sock = self._socket
            if not self._reading or sock is None:
                return True
            try:
                received = sock.recv_into(buffer)
            except OSError as error:
                if error.errno in _WOULD_BLOCK:
                    return False
                self._failed_to_read(error)
                return True
            if not received:
                self._received_eof()
                return True
            self._received(buffer[:received])
            if received < size:
                return False
        self._iocp.unread[self] = None
        return True

    def _resume_reading(self) -> None:
        self._iocp.unread[self] = None

    def _free_buffer(self) -> None:
        if self._buffer is not None and self._operation is None:
            self._buffer.release()
            self._buffer = None

    # -- writing ----------------------------------------------------------------------------------

    def _send(self, buffers: list[Buffer]) -> None:
        for buffer in buffers:
            size = len(buffer)
            if size:
                self._queue.append(memoryview(buffer))
                self._queued += size
        if self._sending is None:
            self._send_queue()
        if self._queued:
            self._left_over()

    def _send_queue(self) -> None:
        """Give the kernel pieces until it does not take one at once."""
        while self._queue:
            piece = next_piece(self._queue)
            operation = new_operation()
            try:
                self._begin_write(operation, piece)
            except OSError as error:
                self._lost(from_os_error(error, self.peer_address))
                return
            self.writes += 1
            if operation.pending:
                self.partial_writes += 1
                self._sending = operation
                self._iocp.begun(operation, partial(self._wrote, piece))
                return
            self._iocp.begun(operation, _ended_at_once)
            try:
                count = operation.getresult()
            except OSError as error:  # it did not end well, in the instant before it was looked at
                self._lost(from_os_error(error, self.peer_address))
                return
            self._taken(piece, count)

    def _begin_write(self, operation: Overlapped, piece: Buffer) -> None:
        operation.WSASend(self.sock.fileno(), piece, 0)

    def _taken(self, piece: Buffer, count: int) -> None:
        """The kernel has taken so much of a piece."""
        self.bytes_out += count
        self._queued -= count
        self._progress_at = self._driver.now()
        if count < len(piece):
            self._queue.insert(0, memoryview(piece)[count:])

    def _wrote(self, piece: Buffer, count: int | None, error: OSError | None) -> None:
        """A write that was waited for has ended."""
        self._sending = None
        if self.closed:
            return
        if not count:
            failure = error or ConnectionReset("nothing more could be written")
            self._lost(from_os_error(failure, self.peer_address))
            return
        self._taken(piece, count)
        self._send_on()

    def _send_on(self) -> None:
        """Go on with what waited for a write that has ended."""
        self._send_queue()
        if self._queued <= self._low and not self.closed:
            self._drained()

    def _send_direct(self, descriptor: int, offset: int, count: int) -> int:
        """Have the kernel send a piece of a file; see `Link._send_direct`."""
        if not self._iocp.transmits_files:
            return NOT_DIRECT
        size = min(count, PIECE, os.fstat(descriptor).st_size - offset)
        if size <= 0:
            return 0
        operation = new_operation()
        file = os.dup(descriptor)  # the caller may close his own as soon as he has cancelled
        try:
            operation.TransmitFile(
                self.sock.fileno(), file_handle(file), offset & _LOW_HALF, offset >> 32, size, 0, 0
            )
        except OSError:  # reading the piece tells whether the file or the connection is to blame
            os.close(file)
            return NOT_DIRECT
        self.writes += 1
        if not operation.pending:
            self._iocp.begun(operation, _ended_at_once)
            os.close(file)
            try:
                sent: int = operation.getresult()
            except OSError as error:
                self._lost(from_os_error(error, self.peer_address))
                return WOULD_BLOCK
            self.bytes_out += sent
            return sent
        self.partial_writes += 1
        self._queued += size
        self._sending = operation
        self._iocp.begun(operation, partial(self._transmitted, file, size))
        self._left_over()
        return size

    def _transmitted(self, file: int, size: int, count: int | None, error: OSError | None) -> None:
        """A piece of a file has been sent."""
        os.close(file)
        self._sending = None
        if self.closed:
            return
        if count == size:
            self.bytes_out += size
            self._queued -= size
            self._progress_at = self._driver.now()
            self._send_on()
        elif error is not None:
            self._lost(from_os_error(error, self.peer_address))
        else:  # what follows would be in the wrong place
            self._lost(FileTooShort(f"a file was shortened while {size} bytes of it were sent: {count} were"))

    def _shut_down_writing(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lost(from_os_error(error, self.peer_address))

    # -- the end ----------------------------------------------------------------------------------

    def driver_closed(self) -> None:
        """The driver is closing: so does the link."""
        self.abort()

    def _close_transport(self, *, reset: bool) -> None:
        self._queue.clear()
        self._queued = 0
        self._iocp.gone(self)
        for operation in (self._operation, self._sending):
            if operation is not None:
                self._iocp.cancel(operation)
        if self._arrived is not None:  # it has waited for a machine that wanted no more
            self._arrived = None
            self._free_buffer()
        if self._socket is not None:
            if reset:
                reset_when_closed(self._socket)
            self._socket.close()
            self._socket = None


def _ended_at_once(result: Any, error: OSError | None) -> None:
    """A write that was not waited for."""
