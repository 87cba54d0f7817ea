"""Datagrams as a socket."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

import attrs

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.choose import running_driver
from ...drivers.datagram_link import DatagramLink, DatagramStatistics
from ...drivers.datagram_options import DatagramOptions
from ...drivers.errors import TransportError
from ...protocols.datagram_queue import (
    DatagramQueue,
    DatagramQueueEvent,
    DatagramQueueLimits,
    DatagramReady,
)
from ...protocols.machine import Action, Buffer, DatagramAddress
from ..cancel import CancelToken
from ..waiter import Waiter
from .errors import OperationCancelled, OperationTimedOut, SocketBusy, SocketClosed
from .name_lookup import addresses_of
from .schemes import DATAGRAM_SOCKET_SCHEMES
from .waiting import Bound, Woken, bound_of, check_bounds

Destination: TypeAlias = str | Address | DatagramAddress
"""Where a datagram goes: a URL or an `Address`, whose name is looked up, or host and port, such as
`recv_from` gives."""


class UdpSocket:
    """Sends and receives datagrams; made by `bind` and `connect`.

    One task may receive and another one send at the same time. Use it as an async context manager, or
    iterate over it for what is received.

    Every operation takes `timeout`, in seconds, and `cancel`, a token; scopes bound it as well. One that
    is given up has taken no datagram, and has sent none.

    What arrives when `max_received` datagrams wait to be taken is dropped and counted. UDP itself may
    lose datagrams, double them, and change their order.
    """

    __slots__ = ("_handler",)

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler

    @classmethod
    async def bind(
        cls,
        url: str,
        *,
        options: DatagramOptions | None = None,
        limits: DatagramQueueLimits | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        driver: Driver | None = None,
    ) -> UdpSocket:
        """Make a socket at an address.

        Args:
            url: Such as `udp://127.0.0.1:0`; port 0 takes any free port.
            options: Broadcast, multicast and the like.
            limits: What may wait in the socket, either way.
            timeout: Seconds that looking up a name may take.
            cancel: A token that can cancel that.
            driver: By default the running loop's.

        Raises:
            ValueError: The URL is none.
            TransportError: Such as `AddressInUse`.
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
        """
        wanted = options or DatagramOptions()
        address = Address.parse(url, DATAGRAM_SOCKET_SCHEMES)
        return await cls._open(
            address,
            f"binding to {address}",
            lambda driver, found: _Handler(driver, found, wanted, limits),
            timeout,
            cancel,
            driver,
        )

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        options: DatagramOptions | None = None,
        limits: DatagramQueueLimits | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        driver: Driver | None = None,
    ) -> UdpSocket:
        """Make a socket that sends to one peer and hears of no other; nothing is sent yet.

        Args:
            url: The peer, such as `udp://127.0.0.1:53`.
            options: As for `bind`.
            limits: As for `bind`.
            timeout: As for `bind`.
            cancel: As for `bind`.
            driver: As for `bind`.

        Raises:
            Exception: As `bind`.
        """
        wanted = options or DatagramOptions()
        address = Address.parse(url, DATAGRAM_SOCKET_SCHEMES)
        anywhere = Address("", 0, address.scheme)
        return await cls._open(
            address,
            f"connecting to {address}",
            lambda driver, found: _Handler(driver, anywhere, attrs.evolve(wanted, peer=found), limits),
            timeout,
            cancel,
            driver,
        )

    @classmethod
    async def _open(
        cls,
        address: Address,
        what: str,
        make: Callable[[Driver, Address], _Handler],
        timeout: float | None,
        cancel: CancelToken | None,
        driver: Driver | None,
    ) -> UdpSocket:
        """Make a socket of the first of a name's addresses that allows it; what the last says is raised."""
        driver = driver or running_driver()
        check_bounds(driver, what, timeout, cancel)
        found = await addresses_of(driver, address, what, bound_of(driver, timeout, cancel))
        for candidate in found[:-1]:
            with contextlib.suppress(TransportError):
                return cls(make(driver, candidate))
        return cls(make(driver, found[-1]))

    @property
    def local_address(self) -> Address:
        """Where it is bound, with the port that was really taken; its `str` is a URL to send to."""
        return self._handler.link.local_address

    @property
    def peer_address(self) -> DatagramAddress | None:
        """Whom it is connected to, or None."""
        return self._handler.link.peer_address

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._handler.closed

    @property
    def dropped(self) -> int:
        """Datagrams that arrived when too many waited to be taken."""
        return self._handler.queue.dropped

    @property
    def statistics(self) -> DatagramStatistics:
        """What has passed through it."""
        return self._handler.link.statistics

    def take_errors(self) -> list[tuple[OSError, DatagramAddress | None]]:
        """What the network has reported since the last call, the last 64 of it.

        Such as `ConnectionRefused` because nobody is bound where a datagram was sent to; each with
        whom it is about, if that is known. Those of a connected socket are raised by `recv`.
        """
        return self._handler.queue.take_errors()

    # -- receiving -------------------------------------------------------------------------------------

    async def recv_from(
        self, *, timeout: float | None = None, cancel: CancelToken | None = None
    ) -> tuple[bytes, DatagramAddress]:
        """Receive a datagram; gives it and where it came from, as host and port.

        Raises:
            TransportError: The network has reported an error to a connected socket, which goes on.
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
            SocketClosed: The socket has been closed.
            SocketBusy: Another task receives.
        """
        return await self._handler.receive("recv_from", timeout, cancel)

    async def recv(self, *, timeout: float | None = None, cancel: CancelToken | None = None) -> bytes:
        """Receive a datagram, wherever it came from; raises as `recv_from`."""
        data, _ = await self._handler.receive("recv", timeout, cancel)
        return data

    def __aiter__(self) -> UdpSocket:
        return self

    async def __anext__(self) -> tuple[bytes, DatagramAddress]:
        try:
            return await self.recv_from()
        except SocketClosed:
            raise StopAsyncIteration from None

    # -- sending ---------------------------------------------------------------------------------------

    async def send_to(
        self,
        data: Buffer,
        destination: Destination,
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        """Send a datagram; returns when it is queued, and waits for room as long as it takes.

        What comes of it, only the peer can tell; for what the network tells see `take_errors`.

        Args:
            data: The datagram.
            destination: Where it goes.
            timeout: Seconds.
            cancel: A token that can cancel it.

        Raises:
            TransportError: The name of the destination cannot be looked up.
            OperationTimedOut: Its time was up; the datagram is not sent.
            OperationCancelled: It was cancelled by a token; likewise.
            SocketClosed: The socket has been closed.
            SocketBusy: Another task sends.
        """
        await self._handler.send("send_to", data, destination, timeout, cancel)

    async def send(
        self, data: Buffer, *, timeout: float | None = None, cancel: CancelToken | None = None
    ) -> None:
        """Send a datagram to the peer of a connected socket; as `send_to`.

        Raises:
            ValueError: The socket is not connected.
            Exception: As `send_to`.
        """
        peer = self.peer_address
        if peer is None:
            raise ValueError("send: the socket is not connected; use send_to")
        await self._handler.send("send", data, peer, timeout, cancel)

    # -- ending ----------------------------------------------------------------------------------------

    async def close(self, *, timeout: float | None = None, cancel: CancelToken | None = None) -> None:
        """Send what is queued, then free the socket; when given up, free it at once. May be repeated.

        Raises:
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
        """
        await self._handler.close(timeout, cancel)

    def abort(self) -> None:
        """Free the socket at once; what is queued is dropped."""
        self._handler.abort()

    async def __aenter__(self) -> UdpSocket:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            await self.close()
        except (OperationTimedOut, OperationCancelled):
            self.abort()  # a scope's time is up

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        """Do not keep an address that nobody can reach any more."""
        handler = self._handler
        if not handler.closed:
            handler.driver.post(handler.abort)  # the collector may run in any thread
            warn(f"{self!r} was dropped without being closed", ResourceWarning, source=self)

    def __repr__(self) -> str:
        peer = f" to {self.peer_address}" if self.peer_address is not None else ""
        return f"<UdpSocket {self.local_address}{peer}{', closed' if self.closed else ''}>"


class _Handler:
    """What is behind a socket: the queue, its link, and who waits for either."""

    def __init__(
        self, driver: Driver, address: Address, options: DatagramOptions, limits: DatagramQueueLimits | None
    ) -> None:
        self.driver = driver
        self.queue = driver.make_machine(f"datagrams at {address}", DatagramQueue, limits)
        self.closed = False
        self._failure: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._reader: Waiter | None = None
        self._writer: Waiter | None = None
        self._writing = False
        self.link: DatagramLink[DatagramQueueEvent] = driver.bind(address, self.queue, self, options)

    async def receive(
        self, what: str, timeout: float | None, cancel: CancelToken | None
    ) -> tuple[bytes, DatagramAddress]:
        """Take a datagram, as soon as there is one."""
        if self._reader is not None:
            raise SocketBusy(f"{what}: another task is receiving from this socket; one can at a time")
        check_bounds(self.driver, what, timeout, cancel)
        bound: Bound | None = None
        while True:
            if self.closed:
                raise self._why_closed(what)
            self._raise_error_of_peer()
            datagram = self.queue.take()
            if datagram is not None:
                return datagram
            bound = bound or bound_of(self.driver, timeout, cancel)
            if bound.deadline is not None and bound.deadline <= self.driver.now():
                bound.check(what, Woken.BY_TIME)
            waiter = self._reader = Waiter(self._loop)
            self.queue.await_input(or_error=self.link.peer_address is not None)
            try:
                woken = await bound.wait(self.driver, waiter)
            finally:
                self._reader = None
                self.queue.stop_awaiting_input()
            if not self.queue.available and not self.closed:
                bound.check(what, woken)

    def _raise_error_of_peer(self) -> None:
        if self.link.peer_address is not None:
            for error, _ in self.queue.take_errors()[:1]:
                raise error.with_traceback(None)

    async def send(
        self,
        what: str,
        data: Buffer,
        destination: Destination,
        timeout: float | None,
        cancel: CancelToken | None,
    ) -> None:
        """Queue a datagram, as soon as there is room."""
        if self._writing:
            raise SocketBusy(f"{what}: another task is sending on this socket; one can at a time")
        if self.closed:
            raise self._why_closed(what)
        check_bounds(self.driver, what, timeout, cancel)
        destination = _checked(what, destination)
        if isinstance(destination, tuple) and self.queue.send(data, destination):
            self.link.wake()
            return
        bound = bound_of(self.driver, timeout, cancel)
        self._writing = True
        try:
            if not isinstance(destination, tuple):
                destination = await self._look_up(what, destination, bound)
            while not self.queue.send(data, destination):
                await self._all_taken(what, bound)
        finally:
            self._writing = False
        self.link.wake()

    async def _look_up(self, what: str, destination: str | Address, bound: Bound) -> DatagramAddress:
        if isinstance(destination, str):
            destination = Address.parse(destination, DATAGRAM_SOCKET_SCHEMES)
        found = await addresses_of(self.driver, destination, what, bound)
        family = ":" in self.link.local_address.host  # of two, the one that the socket has
        best = min(found, key=lambda address: (":" in address.host) != family)
        return best.host, best.port

    async def _all_taken(self, what: str, bound: Bound) -> None:
        """Wait until the transport has been given everything that is queued."""
        waiter = self._writer = Waiter(self._loop)
        self.queue.await_output()
        self.link.wake()
        try:
            woken = await bound.wait(self.driver, waiter)
        finally:
            self._writer = None
            self.queue.stop_awaiting_output()
        if self.closed:
            raise self._why_closed(what)
        if self.queue.queued:
            bound.check(what, woken)

    async def close(self, timeout: float | None, cancel: CancelToken | None) -> None:
        """Free the socket, once what is queued has been sent."""
        bound = bound_of(self.driver, timeout, cancel)
        try:
            while self.queue.queued and not self.closed and not self._writing:
                await self._all_taken("close", bound)
        except SocketClosed:
            pass  # by somebody else
        finally:
            self.abort()

    def abort(self) -> None:
        """Free the socket."""
        self.closed = True
        self.link.close()
        self._wake(self._reader, self._writer)

    def _why_closed(self, what: str) -> Exception:
        if self._failure is not None:
            return self._failure.with_traceback(None)
        return SocketClosed(f"{what}: the socket has been closed")

    def _wake(self, *waiters: Waiter | None) -> None:
        direct = asyncio.current_task(self._loop) is None
        for waiter in waiters:
            if waiter is not None:
                waiter.finish(Woken.BY_EVENT, None, direct=direct)

    # -- DatagramHandler -------------------------------------------------------------------------------

    def on_events(self, events: list[DatagramQueueEvent]) -> None:
        """What somebody waited for has happened."""
        for event in events:
            self._wake(self._reader if isinstance(event, DatagramReady) else self._writer)

    def on_actions(self, actions: list[Action]) -> None:
        """A queue has no actions."""

    def on_closed(self, error: Exception | None) -> None:
        """The socket has been closed, or is broken."""
        if not self.closed:
            self.closed = True
            self._failure = error
        self._wake(self._reader, self._writer)


def _checked(what: str, destination: Destination) -> Destination:
    """Refuse at once what no datagram could be sent to; of a pair with a name make what is looked up.

    Raises:
        ValueError: It is none, or has no such port.
    """
    if isinstance(destination, str | Address):
        return destination
    if not (isinstance(destination, tuple) and len(destination) == 2 and isinstance(destination[0], str)):
        raise ValueError(
            f"{what}: the destination must be a URL, an Address, or host and port, not {destination!r}"
        )
    host, port = destination
    if not isinstance(port, int) or not 1 <= port <= 65_535:
        raise ValueError(f"{what}: the port must be a whole number from 1 to 65535, not {port!r}")
    if ":" in host or host[-1:].isdecimal():  # an IP address; of no top-level domain (RFC 3696)
        return destination
    return Address(host, port, "udp")
