"""What every listener of sockets shares: connections that wait, tasks that accept them, and the face.

Each connection goes to one of the tasks that wait. A task that is given up after it was woken leaves
what it was woken for to another.
"""

from __future__ import annotations

import asyncio
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.errors import TransportError
from ..cancel import CancelToken
from ..waiter import Waiter
from .errors import SocketClosed
from .waiting import Bound, Woken, bound_of, check_bounds

T = TypeVar("T")
S = TypeVar("S")


class Port(ABC, Generic[T]):
    """What is behind a listener: what has come, and who waits for it.

    Attributes:
        driver: Whose turn and time it is.
        closed: Whether nothing is accepted any more.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.closed = False
        self._waiting: deque[T] = deque()
        self._acceptors: dict[Waiter, None] = {}

    @property
    @abstractmethod
    def address(self) -> Address:
        """Where it listens."""

    @abstractmethod
    def open_at(self, address: Address) -> None:
        """Begin to listen there; raises a `TransportError` where that cannot be."""

    @abstractmethod
    def close(self) -> None:
        """Accept no more, and end what nobody has taken. May be repeated."""

    def open_at_first(self, addresses: Sequence[Address]) -> None:
        """Begin to listen at the first of these where that can be; raises as the last of them."""
        for address in addresses[:-1]:
            try:
                self.open_at(address)
            except TransportError:
                continue
            return
        self.open_at(addresses[-1])

    async def take(self, timeout: float | None, cancel: CancelToken | None) -> T:
        """Take what has come first, as soon as there is something; see `accept` of the listeners."""
        check_bounds(self.driver, "accept", timeout, cancel)
        bound: Bound | None = None
        while not self._waiting:
            if self.closed:
                raise SocketClosed("accept: the listener has been closed")
            bound = bound or bound_of(self.driver, timeout, cancel)
            waiter = Waiter(asyncio.get_running_loop())
            self._acceptors[waiter] = None
            try:
                woken = await bound.wait(self.driver, waiter)
            except BaseException:
                del self._acceptors[waiter]
                if self._waiting:  # what this one was woken for is there for another
                    self._wake_next(direct=False)
                raise
            del self._acceptors[waiter]
            if not self._waiting and not self.closed:
                bound.check("accept", woken)
        return self._waiting.popleft()

    def _offer(self, one: T, *, direct: bool) -> None:
        """Something has come. `direct`: whoever waits for it may go on before this returns."""
        self._waiting.append(one)
        self._wake_next(direct=direct)

    def _wake_next(self, *, direct: bool) -> None:
        for waiter in self._acceptors:
            if not waiter.done():
                waiter.finish(Woken.BY_EVENT, None, direct=direct)
                return

    def _end_accepting(self) -> None:
        """Nothing that waits will be taken, and nobody waits any longer."""
        self.closed = True
        self._waiting.clear()
        for waiter in self._acceptors:
            waiter.finish(Woken.BY_EVENT, None, direct=False)


class AcceptingListener(ABC, Generic[S]):
    """The face of a port. What is dropped without being closed is closed, with a warning."""

    __slots__ = ("_port",)

    _port: Port[Any]

    @property
    def address(self) -> Address:
        """Where it listens, with the port that was really bound; its `str` is a URL to connect to."""
        return self._port.address

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._port.closed

    @abstractmethod
    async def accept(self, *, timeout: float | None = None, cancel: CancelToken | None = None) -> S:
        """Take the next connection, as soon as there is one."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> S:
        try:
            return await self.accept()
        except SocketClosed:
            raise StopAsyncIteration from None

    async def close(self) -> None:
        """Stop accepting; connections that nobody has taken are ended. May be repeated."""
        self._port.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        """Do not let an address be listened at where nobody can accept any more."""
        port = self._port
        if not port.closed:
            port.driver.post(port.close)  # the collector may run in any thread
            warn(f"{self!r} was dropped without being closed", ResourceWarning, source=self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.address}{', closed' if self.closed else ''}>"
