"""What is behind a socket: the machine, its link, and who waits for either of them.

A task that waits is resumed straight from the event that it waits for, as that of a call is; see
`helianthus.services.waiter`. It then asks the machine again, which has kept everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...drivers.base import Driver
from ...drivers.errors import ConnectionReset
from ...drivers.file_transfer import FileTransfer
from ...drivers.pump import Link
from ...protocols.byte_stream import (
    ByteStream,
    ByteStreamEvent,
    ByteStreamLimits,
    InputExpired,
    InputReady,
    OutputExpired,
    OutputTaken,
    Shortfall,
)
from ...protocols.machine import Action, ConnectionFailed
from ...protocols.proxy_header import ProxyHeader, ProxyHeaderReceived
from ...protocols.tls import TlsEstablished, TlsEvent, TlsSessionReceived
from ..cancel import CancelToken
from ..scope import raw_bounds
from ..waiter import Waiter
from .errors import SocketBusy, SocketClosed
from .waiting import Bound, Woken, bound_of, check_bounds


class Connection:
    """One end of a connection, as its link's handler.

    Args:
        driver: Whose turn and time it is.
        label: Names its recording, where there is to be one.
        limits: Of what may wait either way.

    Attributes:
        driver: As above.
        stream: Holds the bytes; the link pumps it, or a layer on top of it.
        link: Once there is one.
        closed: Whether this side has closed it.
        writing: Whether an operation that sends is under way.
        transfer: A file that is being sent, or None.
        file_bytes: Bytes of files that have been sent so far, but for that one.
        awaits_tls: Whether it is to be encrypted, and is not yet: then nobody can use it.
        tls: What is known of the encryption, once there is one.
        keep_session: Told of what can be resumed later.
        awaits_proxy_header: Whether a proxy is to tell who this is, and has not yet; likewise.
        proxy_header: What it has told.
    """

    def __init__(self, driver: Driver, label: str, limits: ByteStreamLimits | None) -> None:
        self.driver = driver
        self.stream = driver.make_machine(label, ByteStream, limits)
        self.link: Link[Any] | None = None
        self.closed = False
        self.writing = False
        self.transfer: FileTransfer | None = None
        self.file_bytes = 0
        self.awaits_tls = False
        self.tls: TlsEstablished | None = None
        self.keep_session: Callable[[Any], None] | None = None
        self.awaits_proxy_header = False
        self.proxy_header: ProxyHeader | None = None
        self._loop = asyncio.get_running_loop()
        self._reader: Waiter | None = None
        self._writer: Waiter | None = None
        self._flushing: dict[Waiter, None] = {}
        self._opened: Waiter | None = Waiter(self._loop)
        self.failure: Exception | None = None
        """Why it could never be used."""

    @property
    def peer_address(self) -> str:
        """The other end as `host:port`."""
        return self.link.peer_address if self.link is not None else ""

    @property
    def ended(self) -> bool:
        """Whether the link has ended."""
        return self.link is not None and self.link.closed

    @property
    def accepted(self) -> int:
        """Bytes that have been queued so far, or that the transport has been given of a file."""
        sending = self.transfer.sent if self.transfer is not None else 0
        return self.stream.accepted + self.file_bytes + sending

    @property
    def unsent(self) -> int:
        """Bytes that were queued and that the system has not taken."""
        return self.stream.queued + (self.link.unsent if self.link is not None else 0)

    def wake(self) -> None:
        """The stream was given commands: carry them out at the end of this turn."""
        if self.link is not None and not self.link.woken:
            self.link.wake()

    # -- connecting ------------------------------------------------------------------------------------

    async def opened(self, what: str, timeout: float | None, cancel: CancelToken | None) -> None:
        """Wait until it is connected, and encrypted where it is to be.

        Raises:
            TransportError: It could not be connected.
            TlsHandshakeFailed: It could not be encrypted. The link sends the peer an alert, and ends by
                itself.
        """
        waiter = self._opened
        if waiter is not None:
            bound = bound_of(self.driver, timeout, cancel)
            woken = await bound.wait(self.driver, waiter)
            stage = what if self.link is None else f"{what}: the TLS handshake"
            bound.check(stage, woken, address=self.peer_address)
        if self.failure is not None:
            raise self.failure

    # -- reading ---------------------------------------------------------------------------------------

    def begin_reading(self, what: str, timeout: float | None, cancel: CancelToken | None) -> None:
        """Look whether an operation may read.

        Raises:
            SocketClosed: This side has closed the socket.
            SocketBusy: Another task reads.
        """
        if self.closed:
            raise SocketClosed(f"{what}: the socket has been closed")
        if self._reader is not None:
            raise SocketBusy(f"{what}: another task is receiving from this socket; one can at a time")
        if cancel is not None or timeout is not None or raw_bounds() is not None:
            check_bounds(self.driver, what, timeout, cancel)

    async def take_later(
        self, what: str, take: Callable[[], bytes | None], timeout: float | None, cancel: CancelToken | None
    ) -> bytes | None:
        """Take something that the stream has just not given, as soon as it is there.

        Args:
            what: The operation.
            take: Takes it, or leaves everything as it is.
            timeout: Seconds.
            cancel: A token that can cancel it.

        Returns:
            What was taken, or nothing where it will never be there: the peer has ended its stream, or
            `shortfall` is `TOO_LONG`.

        Raises:
            OperationTimedOut: Its time is up.
            OperationCancelled: Its token was cancelled.
            SocketClosed: This side has closed the socket.
            TransportError: The connection is lost.
        """
        stream = self.stream
        if stream.shortfall is Shortfall.NOT_YET:
            full = stream.full
            bound = bound_of(self.driver, timeout, cancel)
            while True:
                woken = await self._input(bound)
                data = take()
                if data:
                    if full:
                        self.wake()  # there is room to read on
                    return data
                if self.closed or stream.shortfall is not Shortfall.NOT_YET:
                    break
                bound.check(what, woken, address=self.peer_address)
        if self.closed:
            raise SocketClosed(f"{what}: the socket was closed meanwhile")
        if stream.shortfall is Shortfall.LOST:
            raise self._loss()
        return None

    async def _input(self, bound: Bound) -> Woken:
        """Wait until what the stream did not give can be asked for again."""
        stream, token, deadline = self.stream, bound.token, bound.deadline
        if deadline is not None and deadline <= self.driver.now():
            return Woken.BY_TIME
        waiter = self._reader = Waiter(self._loop)
        stream.await_input(deadline)
        if deadline is not None or stream.full:
            self.wake()
        if token is not None:
            token.add_callback(self._cancel_reader)
        try:
            woken: Woken = await waiter
        finally:
            self._reader = None
            stream.stop_awaiting_input()
            if token is not None:
                token.remove_callback(self._cancel_reader)
        return woken

    def _cancel_reader(self) -> None:
        if self._reader is not None:
            self._reader.finish(Woken.BY_TOKEN, None, direct=False)

    # -- writing ---------------------------------------------------------------------------------------

    def begin_writing(self, what: str, timeout: float | None, cancel: CancelToken | None) -> None:
        """Look whether an operation may send.

        Raises:
            SocketClosed: This side has closed the socket, or ended its direction.
            SocketBusy: Another task sends.
            TransportError: The connection is lost.
        """
        if self.writing:
            raise SocketBusy(f"{what}: another task is sending on this socket; one can at a time")
        if self.closed or not self.stream.sends:
            raise self.writing_failure(what)
        if cancel is not None or timeout is not None or raw_bounds() is not None:
            check_bounds(self.driver, what, timeout, cancel)

    async def _output(self, bound: Bound) -> Woken:
        """Wait until the transport has been given everything that is queued."""
        stream, token, deadline = self.stream, bound.token, bound.deadline
        if deadline is not None and deadline <= self.driver.now():
            return Woken.BY_TIME
        waiter = self._writer = Waiter(self._loop)
        stream.await_output(deadline)
        self.wake()

        def cancelled() -> None:
            waiter.finish(Woken.BY_TOKEN, None, direct=False)

        if token is not None:
            token.add_callback(cancelled)
        try:
            woken: Woken = await waiter
        finally:
            if self._writer is waiter:
                self._writer = None
                stream.stop_awaiting_output()
            if token is not None:
                token.remove_callback(cancelled)
        return woken

    async def wait_for_room(self, what: str, bound: Bound, queued: int) -> None:
        """Wait until there is as much room as there can be.

        Args:
            what: The operation.
            bound: Its bound.
            queued: Bytes of it that have been queued.

        Raises:
            OperationTimedOut: Its time is up.
            OperationCancelled: Its token was cancelled.
            SocketClosed: This side has closed the socket.
            TransportError: The connection is lost.
        """
        while True:
            woken = await self._output(bound)
            if self.closed or not self.stream.sends:
                raise self.writing_failure(what, queued)
            if not self.stream.queued:
                return
            bound.check(what, woken, queued=queued, address=self.peer_address)

    async def flushed(self, what: str, bound: Bound) -> None:
        """Wait until the system has taken everything that is queued, or the connection is lost."""
        while self.unsent:
            if self.stream.queued:
                self.stream.await_output()
                self.wake()
            waiter = Waiter(self._loop)
            self._flushing[waiter] = None
            try:
                woken = await bound.wait(self.driver, waiter)
            finally:
                del self._flushing[waiter]
            if self.unsent:
                bound.check(what, woken, address=self.peer_address)

    def writing_failure(self, what: str, queued: int = 0) -> Exception:
        """Why nothing can be sent any more."""
        if self.closed:
            return SocketClosed(f"{what}: the socket has been closed", queued=queued)
        if self.stream.lost:
            return self._loss()
        return SocketClosed(f"{what}: send_eof() has ended this direction", queued=queued)

    def _loss(self) -> Exception:
        error = self.stream.loss
        if error is None:
            error = ConnectionReset("the connection was ended by its driver", address=self.peer_address)
        return error.with_traceback(None)

    # -- ending ----------------------------------------------------------------------------------------

    def begin_closing(self) -> None:
        """Send what is queued, then close; whoever waits is told that it is closed."""
        self.closed = True
        self.stream.close()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self.stream.stop_awaiting_output()
            writer.finish(Woken.BY_EVENT, None, direct=False)
        if self.transfer is not None:
            self.transfer.cancel()
        self.wake()

    def abort(self) -> None:
        """Close at once; what is queued is dropped, and the peer finds the connection reset."""
        self.closed = True
        if self.link is not None:
            self.link.abort(reset=True)

    # -- LinkHandler -----------------------------------------------------------------------------------

    def on_ready(self, link: Link[Any]) -> None:
        """It is connected."""
        self.link = link
        link.portioned = False
        if self.closed:
            link.abort(reset=True)
        else:
            self._look_whether_usable()

    def on_events(self, events: list[ByteStreamEvent | TlsEvent | ProxyHeaderReceived]) -> None:
        """What somebody waited for has happened."""
        direct = asyncio.current_task(self._loop) is None
        for event in events:
            kind = event.__class__
            if kind is InputReady or kind is InputExpired:
                waiter = self._reader
            elif kind is OutputTaken or kind is OutputExpired:
                waiter = self._writer
                if kind is OutputTaken:
                    self._wake_flushing()
            else:
                self._on_layer_event(event)
                continue
            if waiter is not None:
                by_time = kind is InputExpired or kind is OutputExpired
                waiter.finish(Woken.BY_TIME if by_time else Woken.BY_EVENT, None, direct=direct)

    def on_actions(self, actions: list[Action]) -> None:
        """A byte stream has no actions."""

    def on_writable(self) -> None:
        """The system has taken everything that it had been given."""
        self._wake_flushing()

    def on_closed(self, error: Exception | None) -> None:
        """The link has ended; the stream knows."""
        self._end_of_use(error or ConnectionReset("it was ended at once", address=self.peer_address))

    def _on_layer_event(self, event: object) -> None:
        """Something has happened in what lies between the stream and the transport."""
        if isinstance(event, TlsEstablished):
            self.tls = event
            self.awaits_tls = False
            self._look_whether_usable()
        elif isinstance(event, TlsSessionReceived):
            if self.keep_session is not None:
                self.keep_session(event.session)
        elif isinstance(event, ProxyHeaderReceived):
            self.proxy_header = event.header
            self.awaits_proxy_header = False
            if self.link is not None and event.header.source is not None:
                self.link.peer_address = str(event.header.source)
            self._look_whether_usable()
        elif isinstance(event, ConnectionFailed):  # the stream has heard it, too
            self._end_of_use(event.error)

    def _look_whether_usable(self) -> None:
        if not self.awaits_tls and not self.awaits_proxy_header:
            self.usable()

    def _end_of_use(self, error: Exception) -> None:
        if self._opened is not None:
            self.unusable(error)
        self._wake_flushing()

    def usable(self) -> None:
        """Bytes can be sent and received."""
        self._tell_opened()

    def unusable(self, error: Exception) -> None:
        """They never can be."""
        self.failure = error
        self._tell_opened()

    def _wake_flushing(self) -> None:
        for waiter in self._flushing:
            waiter.finish(Woken.BY_EVENT, None, direct=False)

    def _tell_opened(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.finish(Woken.BY_EVENT, None, direct=asyncio.current_task(self._loop) is None)
