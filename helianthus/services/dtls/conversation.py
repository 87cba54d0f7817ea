"""What is behind a DTLS socket: datagrams of one peer, and who waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...drivers.base import Driver
from ...drivers.errors import ConnectionRefused, MessageTooLarge, Unreachable
from ...protocols.dtls import DtlsClosed, DtlsEstablished, DtlsFailed, DtlsRefused
from ...protocols.dtls.datagram_queue import DatagramLost, DatagramQueue, DatagramsCame, RoomMade
from ...protocols.machine import Buffer, DatagramAddress
from ..cancel import CancelToken
from ..sockets.errors import SocketBusy, SocketClosed
from ..sockets.waiting import Bound, Woken, bound_of, check_bounds
from ..waiter import Waiter


class Conversation:
    """One peer.

    Attributes:
        queue: The machine on top of the association.
        established: What was agreed upon, once it was.
        ended: Whether nothing more comes.
        error: Why, unless one end has said goodbye.
        closed: Whether this side has closed it.
        wake: Has what was put into the queue sent.
    """

    def __init__(self, driver: Driver, peer: DatagramAddress) -> None:
        self.queue = driver.make_machine(f"datagrams of {peer[0]} port {peer[1]}", DatagramQueue, peer)
        self.established: DtlsEstablished | None = None
        self.ended = False
        self.error: Exception | None = None
        self.closed = False
        self.wake: Callable[[], None] = _nothing
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._opened: Waiter | None = None
        self._reader: Waiter | None = None
        self._writer: Waiter | None = None

    # -- operations --------------------------------------------------------------------------------

    async def opened(self, what: str, bound: Bound) -> DtlsEstablished:
        """Wait for the end of the handshake; raises what it failed by."""
        while self.established is None and not self.ended:
            self._opened = Waiter(self._loop)
            bound.check(what, await bound.wait(self._driver, self._opened))
        if self.established is None:
            raise self.error or SocketClosed(f"{what}: it was closed meanwhile")
        return self.established

    async def receive(self, timeout: float | None, cancel: CancelToken | None) -> bytes:
        """See `DtlsSocket.recv`."""
        what = "recv"
        if self._reader is not None:
            raise SocketBusy(f"{what}: another task is receiving from this socket; one can at a time")
        check_bounds(self._driver, what, timeout, cancel)
        bound = bound_of(self._driver, timeout, cancel)
        while True:
            if self.closed:
                raise SocketClosed(f"{what}: the socket has been closed")
            data = self.queue.take()
            if data is not None:
                return data
            if self.ended:
                if self.error is not None:
                    raise self.error
                return b""
            self._reader = Waiter(self._loop)
            try:
                woken = await bound.wait(self._driver, self._reader)
            finally:
                self._reader = None
            bound.check(what, woken)

    async def send(
        self, data: Buffer, largest: int, timeout: float | None, cancel: CancelToken | None
    ) -> None:
        """See `DtlsSocket.send`."""
        what = "send"
        if not 0 < len(data) <= largest:
            raise MessageTooLarge(
                f"a datagram of {len(data)} bytes cannot be sent over DTLS; 1 to {largest} bytes can, see mtu"
            )
        if self._writer is not None:
            raise SocketBusy(f"{what}: another task is sending on this socket; one can at a time")
        check_bounds(self._driver, what, timeout, cancel)
        bound = bound_of(self._driver, timeout, cancel)
        while not self.queue.has_room and not self.closed and not self.ended:
            self._writer = Waiter(self._loop)
            try:
                woken = await bound.wait(self._driver, self._writer)
            finally:
                self._writer = None
            bound.check(what, woken)
        if self.closed or self.ended:
            raise self.error or SocketClosed(f"{what}: the association has been closed")
        self.queue.put(data)
        self.wake()

    def close(self) -> None:
        """Nothing is received or sent any more; who waits hears it."""
        self.closed = True
        self._wake_all()

    def broken(self, error: Exception | None) -> None:
        """The socket beneath is gone."""
        self._end(error)

    # -- events ------------------------------------------------------------------------------------

    def handle(self, event: Any) -> None:
        """Take over what has happened, and wake who has waited for it."""
        match event:
            case DtlsEstablished():
                self.established = event
                self._wake(self._opened)
            case DatagramsCame():
                self._wake(self._reader)
            case RoomMade():
                self._wake(self._writer)
            case DtlsClosed() | DtlsFailed():
                self._end(event.error)
            case DatagramLost(error) if self.established is None and isinstance(
                error, ConnectionRefused | Unreachable
            ):
                self._end(error)
            case DatagramLost() | DtlsRefused():
                pass  # datagrams may be lost

    def _end(self, error: Exception | None) -> None:
        if not self.ended:
            self.ended = True
            self.error = error
            self._wake_all()

    def _wake_all(self) -> None:
        for waiter in (self._opened, self._reader, self._writer):
            self._wake(waiter)

    def _wake(self, waiter: Waiter | None) -> None:
        if waiter is not None:
            waiter.finish(Woken.BY_EVENT, None, direct=False)


def _nothing() -> None:
    """Before there is a link."""
