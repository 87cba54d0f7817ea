"""A connection as a socket: bytes in, bytes out, with bounds on each operation."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.choose import running_driver
from ...protocols.byte_stream import ByteStreamLimits, Shortfall
from ...protocols.errors import LimitExceeded
from ...protocols.machine import Buffer, StreamMachine
from ...protocols.proxy_header import ProxyHeader
from ...protocols.tls import TlsError, TlsEstablished
from ..cancel import CancelToken
from ..tls import ClientTls
from ..tls.by_address import tls_for
from ..tls.layers import ClientSecurity
from .connection import Connection
from .errors import IncompleteRead, OperationCancelled, OperationTimedOut
from .schemes import SOCKET_SCHEMES
from .sending_files import File, send_file
from .waiting import Bound, bound_of, check_bounds

DEFAULT_RECEIVE = 64 * 1024
"""Bytes that one `recv` gives at most: as many as one read of a driver brings."""

DEFAULT_UNTIL = 64 * 1024
"""Bytes that `recv_until` looks through: the limit of asyncio's streams."""


class TcpSocket:
    """One end of a connection; made by `connect` and by `TcpListener.accept`.

    One task may receive and another one send at the same time. Use it as an async context manager:
    it is closed at the end of the block.

    Every operation takes `timeout`, in seconds, and `cancel`, a token; those of a scope around it, see
    `cancel_scope`, bound it as well. When it is given up, by any of these or because its task is
    cancelled, no byte is lost and none is delivered twice, and the socket goes on working:

    * `recv`, `recv_exactly` and `recv_until` have taken nothing. What has arrived is there for the
      next one.
    * `send_all` and `send` of no more than `max_queued_output` bytes have sent nothing. Of more,
      the first `queued` bytes, as the exception says, are sent; so it is with `sendfile`.
    * `flush` and `close` have stopped waiting. What they wait for goes on.

    With a `timeout` of 0 an operation does what can be done at once.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        tls: ClientTls | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        driver: Driver | None = None,
        limits: ByteStreamLimits | None = None,
    ) -> TcpSocket:
        """Connect to an address; an attempt that is given up is ended.

        Args:
            url: Such as `tcp://example.org:7` or `tls://example.org:7`; of a name that has several
                addresses, each is tried. What comes back at a `tls://` address is encrypted.
            tls: How a connection to a `tls://` address is encrypted; by default as `ClientTls()` says.
                Those who connect with the same object resume its sessions.
            timeout: Seconds.
            cancel: A token that can cancel it.
            driver: By default the running loop's.
            limits: What may wait in the socket, either way.

        Raises:
            ValueError: The URL is none, or does not go with `tls`.
            TransportError: Such as `ConnectionRefused`.
            TlsHandshakeFailed: The server's certificate is refused, or the two cannot agree; the message
                says what to do.
            TlsFilesUnusable: A certificate or key of `tls` is not what it should be.
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
        """
        address = Address.parse(url, SOCKET_SCHEMES)
        tls = tls_for([address], tls)
        security = None if tls is None else ClientSecurity(tls)
        driver = driver or running_driver()
        what = f"connecting to {address}"
        check_bounds(driver, what, timeout, cancel)
        connection = Connection(driver, f"socket to {address}", limits)
        machine: StreamMachine[Any] = connection.stream
        if security is not None:
            connection.awaits_tls = True
            machine, connection.keep_session = security.around(machine, address, driver.now())
        link = driver.connect(address, machine, connection)
        try:
            await connection.opened(what, timeout, cancel)
        except TlsError:
            raise  # the server is told why; then the link ends
        except BaseException:
            link.abort()
            raise
        return cls(connection)

    @property
    def local_address(self) -> str:
        """This end as `host:port`."""
        link = self._connection.link
        return link.local_address if link is not None else ""

    @property
    def peer_address(self) -> str:
        """The other end as `host:port`."""
        return self._connection.peer_address

    @property
    def tls(self) -> TlsEstablished | None:
        """Of an encrypted connection: version, cipher, ALPN and the peer's certificate, for example."""
        return self._connection.tls

    @property
    def proxy_header(self) -> ProxyHeader | None:
        """What a proxy in front has told of the connection, where the listener asks for it."""
        return self._connection.proxy_header

    @property
    def closed(self) -> bool:
        """Whether `close` or `abort` was called."""
        return self._connection.closed

    @property
    def bytes_received(self) -> int:
        """Bytes that operations have given out so far."""
        return self._connection.stream.taken

    @property
    def bytes_accepted(self) -> int:
        """Bytes that operations have queued for sending so far, those of files included."""
        return self._connection.accepted

    @property
    def bytes_unsent(self) -> int:
        """Bytes of those that the system has not taken yet."""
        return self._connection.unsent

    # -- receiving -------------------------------------------------------------------------------------

    async def recv(
        self,
        limit: int = DEFAULT_RECEIVE,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> bytes:
        """Receive what is there, or else what comes next.

        Args:
            limit: How many bytes at most.
            timeout: Seconds.
            cancel: A token that can cancel it.

        Returns:
            One byte or more; none once the peer has ended its stream.

        Raises:
            TransportError: The connection was lost, and everything it had brought has been taken.
            TlsError: Likewise, because the peer broke the rules of TLS; `TlsTruncated` where its stream
                ended without a signature.
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
            SocketClosed: This side has closed the socket.
            SocketBusy: Another task receives.
            ValueError: `limit` is less than 1.
        """
        if limit < 1:
            raise ValueError(f"recv: the limit is {limit}; it must be 1 byte or more")
        connection = self._connection
        connection.begin_reading("recv", timeout, cancel)
        stream = connection.stream
        full = stream.full
        data = stream.take_some(limit)
        if data:
            if full:
                connection.wake()  # there is room to read on
            return data
        take = functools.partial(stream.take_some, limit)
        return await connection.take_later("recv", take, timeout, cancel) or b""

    async def recv_exactly(
        self, size: int, *, timeout: float | None = None, cancel: CancelToken | None = None
    ) -> bytes:
        """Receive so many bytes, or none at all.

        Args:
            size: How many.
            timeout: Seconds.
            cancel: A token that can cancel it.

        Raises:
            IncompleteRead: The peer ended its stream before; what there is can still be received.
            ValueError: `size` is less than 0.
            Exception: As `recv`.
        """
        if size < 0:
            raise ValueError(f"recv_exactly: the size is {size}; it must be 0 or more")
        what = "recv_exactly"
        connection = self._connection
        connection.begin_reading(what, timeout, cancel)
        stream = connection.stream
        full = stream.full
        data = stream.take_exactly(size)
        if data is not None:
            if full:
                connection.wake()
            return data
        take = functools.partial(stream.take_exactly, size)
        data = await connection.take_later(what, take, timeout, cancel)
        if not data:
            raise self._incomplete(what, f"{size} bytes")
        return data

    async def recv_until(
        self,
        delimiter: bytes,
        *,
        limit: int = DEFAULT_UNTIL,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> bytes:
        """Receive all bytes up to a delimiter, with the delimiter, or none at all.

        Args:
            delimiter: One byte or more.
            limit: How many bytes that may be, the delimiter included.
            timeout: Seconds.
            cancel: A token that can cancel it.

        Raises:
            LimitExceeded: There is no delimiter among so many bytes. They can still be received.
            IncompleteRead: The peer ended its stream before; what there is can still be received.
            ValueError: The delimiter is empty, or longer than the limit.
            Exception: As `recv`.
        """
        if not 0 < len(delimiter) <= limit:
            raise ValueError(
                f"recv_until: the delimiter {delimiter!r} must have 1 byte or more, and at most as many "
                f"as the limit, {limit}"
            )
        what = "recv_until"
        connection = self._connection
        connection.begin_reading(what, timeout, cancel)
        stream = connection.stream
        full = stream.full
        data = stream.take_until(delimiter, limit)
        if data:
            if full:
                connection.wake()
            return data
        take = functools.partial(stream.take_until, delimiter, limit)
        data = await connection.take_later(what, take, timeout, cancel)
        if data:
            return data
        if stream.shortfall is Shortfall.TOO_LONG:
            raise LimitExceeded(
                f"{connection.peer_address} sent {limit} bytes without the delimiter {delimiter!r}; "
                "receive them otherwise, or raise the limit of recv_until",
                limit="limit",
                maximum=limit,
            )
        raise self._incomplete(what, f"the delimiter {delimiter!r}")

    def _incomplete(self, what: str, wanted: str) -> IncompleteRead:
        available = self._connection.stream.available
        return IncompleteRead(
            f"{what}: {self.peer_address} ended its stream with {available} bytes to be received, "
            f"and without {wanted}",
            available=available,
        )

    # -- sending -----------------------------------------------------------------------------------------

    async def send_all(
        self, *buffers: Buffer, timeout: float | None = None, cancel: CancelToken | None = None
    ) -> None:
        """Send bytes; returns when they are all queued, and waits for room as long as it takes.

        What is queued is sent in order, whatever becomes of the task. Up to `max_queued_output` bytes,
        256 KiB by default, are queued all at once or not at all. More are queued in pieces, as there
        is room; the exception says how many bytes were, when it is given up.

        Args:
            buffers: What to send; several are sent one after the other, without being joined.
            timeout: Seconds.
            cancel: A token that can cancel it.

        Raises:
            TransportError: The connection was lost.
            OperationTimedOut: Its time was up; `queued` bytes are sent all the same.
            OperationCancelled: It was cancelled by a token; likewise.
            SocketClosed: This side has closed the socket, or ended its direction.
            SocketBusy: Another task sends.
        """
        connection = self._connection
        connection.begin_writing("send_all", timeout, cancel)
        stream = connection.stream
        size = sum(map(_size_of, buffers))
        if size <= stream.room:
            for buffer in buffers:
                stream.queue(buffer)
            connection.wake()
            return
        connection.writing = True
        try:
            await self._send_in_time(buffers, size, bound_of(connection.driver, timeout, cancel))
        finally:
            connection.writing = False

    async def _send_in_time(self, buffers: tuple[Buffer, ...], size: int, bound: Bound) -> None:
        """Queue bytes as there is room: all at once where that is possible at all."""
        connection, stream = self._connection, self._connection.stream
        before = stream.accepted
        at_once = size <= stream.limits.max_queued_output
        for buffer in buffers:
            rest = memoryview(buffer).cast("B")
            while rest:
                if stream.room < (size if at_once else 1):
                    await connection.wait_for_room("send_all", bound, stream.accepted - before)
                at_once = False
                rest = rest[stream.queue(rest) :]
                connection.wake()

    async def send(
        self, *buffers: Buffer, timeout: float | None = None, cancel: CancelToken | None = None
    ) -> int:
        """Send as many bytes of some buffers as there is room for, one at least.

        When it is given up, nothing has been sent.

        Args:
            buffers: What to send, one after the other.
            timeout: Seconds.
            cancel: A token that can cancel it.

        Returns:
            How many bytes are queued, from the first on.

        Raises:
            Exception: As `send_all`.
        """
        connection = self._connection
        connection.begin_writing("send", timeout, cancel)
        stream = connection.stream
        if not stream.room and any(map(_size_of, buffers)):
            connection.writing = True
            try:
                await connection.wait_for_room("send", bound_of(connection.driver, timeout, cancel), 0)
            finally:
                connection.writing = False
        before = stream.accepted
        for buffer in buffers:
            if stream.queue(buffer) < _size_of(buffer):
                break
        connection.wake()
        return stream.accepted - before

    async def flush(self, *, timeout: float | None = None, cancel: CancelToken | None = None) -> None:
        """Wait until the system has taken everything that was queued.

        That is not to say that the peer has got it: only an answer of the peer's says so.

        Raises:
            Exception: As `send_all`.
        """
        connection = self._connection
        connection.begin_writing("flush", timeout, cancel)
        connection.writing = True
        try:
            await connection.flushed("flush", bound_of(connection.driver, timeout, cancel))
        finally:
            connection.writing = False
        if connection.closed or connection.stream.lost:
            raise connection.writing_failure("flush")

    async def sendfile(
        self,
        file: File,
        offset: int = 0,
        count: int | None = None,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> int:
        """Send a file, or a part of it, behind what is queued already.

        Args:
            file: The path of a regular file, or a file that is open for reading in binary mode and can
                seek; its position afterwards is behind what was sent.
            offset: Where in the file to begin, in bytes.
            count: How many bytes at most; None for all that follow.
            timeout: Seconds.
            cancel: A token that can cancel it.

        Returns:
            How many bytes the transport was given: fewer than `count` where the file ended before.

        Raises:
            OSError: The file cannot be read.
            ValueError: Nor could it ever: a text, not open for reading, a place before its beginning, a
                pipe or a device.
            Exception: As `send_all`.
        """
        connection = self._connection
        connection.begin_writing("sendfile", timeout, cancel)
        connection.writing = True
        try:
            bound = bound_of(connection.driver, timeout, cancel)
            return await send_file(connection, file, offset, count, bound)
        finally:
            connection.writing = False

    async def send_eof(self) -> None:
        """End this direction of the stream behind what is queued; the peer can still send.

        It does not wait, and may be repeated.

        Raises:
            TransportError: The connection is lost.
            SocketClosed: This side has closed the socket.
            SocketBusy: Another task sends.
        """
        connection = self._connection
        if connection.stream.ended_here and not connection.closed:
            return
        connection.begin_writing("send_eof", None, None)
        connection.stream.end()
        connection.wake()

    # -- ending ------------------------------------------------------------------------------------------

    async def close(self, *, timeout: float | None = None, cancel: CancelToken | None = None) -> None:
        """Close in good order: what is queued is sent, then both directions end.

        Whoever receives or sends meanwhile gets `SocketClosed`. Returns when the system has taken
        everything. When that takes longer than it may, the driver goes on with it all the same, and
        drops a peer that takes nothing for its `write_deadline`. May be repeated.

        Raises:
            OperationTimedOut: Its time was up before the system had taken everything.
            OperationCancelled: It was cancelled by a token before that.
        """
        connection = self._connection
        bound = bound_of(connection.driver, timeout, cancel)
        if not connection.closed:
            connection.begin_closing()
        await connection.flushed("close", bound)

    def abort(self) -> None:
        """Close at once: what is queued is dropped, and the peer finds the connection reset.

        So it does not take this for the end of the stream, and may lose what it has not yet received.
        A peer at a `unix://` address sees an end.
        """
        self._connection.abort()

    async def __aenter__(self) -> TcpSocket:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; after an exception, or at the end of a scope's time, without waiting."""
        connection = self._connection
        if kind is not None:
            if not connection.closed:
                connection.begin_closing()
            return
        with contextlib.suppress(OperationTimedOut, OperationCancelled):  # the scope's; the driver goes on
            await self.close()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        """Do not let a connection go on that nobody can reach any more."""
        connection = self._connection
        if not connection.closed and not connection.ended:
            connection.driver.post(connection.abort)  # the collector may run in any thread
            warn(f"{self!r} was dropped without being closed", ResourceWarning, source=self)

    def __repr__(self) -> str:
        return f"<TcpSocket {self.local_address} to {self.peer_address}{', closed' if self.closed else ''}>"


def _size_of(buffer: Buffer) -> int:
    return len(buffer) if type(buffer) is bytes else memoryview(buffer).nbytes
