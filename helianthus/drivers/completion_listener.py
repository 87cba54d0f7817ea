"""What listeners on a completion port have in common, for sockets and for pipes.

An accept is begun before there is a connection, with the end that the connection is to have here.
Several are under way at a time: while the completion of one is on its way through the port, the next
connections find theirs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..protocols.machine import StreamMachine
from .address import Address
from .base import Accept, LinkHandler, Listener
from .errors import from_os_error
from .overlapped import Overlapped
from .shortage import ACCEPT_PAUSE, SHORTAGES, Shortage

if TYPE_CHECKING:
    from .iocp import IocpDriver


class End(Protocol):
    """Our end of a connection."""

    def close(self) -> None:
        """Free it."""


A = TypeVar("A", bound=End)


class CompletionListener(Listener, Generic[A]):
    """Has accepts under way, and gives each connection to a link."""

    at_once: int
    """Accepts that it has under way; each holds an end."""

    def __init__(self, driver: IocpDriver, address: Address, accept: Accept) -> None:
        self.address = address
        self._driver = driver
        self._accept = accept
        self._closed = False
        self._resting = False
        self._paused = False
        self._shortage = Shortage()
        self._held: deque[A] = deque()  # connected, and to be given to links
        self._under_way: dict[Overlapped, A] = {}

    # -- what sockets and pipes do in their own ways ------------------------------------------------

    @abstractmethod
    def _begin_accept(self) -> None:
        """Begin one more; raises `OSError`."""

    @abstractmethod
    def _arrived(self, end: A) -> str:
        """A connection is to be given to a link; gives its peer's address, or raises `OSError`."""

    @abstractmethod
    def _open(self, end: A, peer: str, machine: StreamMachine[Any], handler: LinkHandler[Any]) -> None:
        """Give it to a link."""

    # -- accepting --------------------------------------------------------------------------------

    def _begin_accepts(self) -> None:
        """Have as many accepts under way as there are to be; rest when handles have run out."""
        while not (self._closed or self._resting or self._paused) and len(self._under_way) < self.at_once:
            try:
                self._begin_accept()
            except OSError as error:
                self._rest(error)

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

    def _adopt_held(self) -> None:
        try:
            while self._held and not self._paused and not self._closed:
                self._adopt(self._held.popleft())
        finally:
            self._begin_accepts()

    def _adopt(self, end: A) -> None:
        """Give a connection a machine and a handler."""
        try:
            peer = self._arrived(end)
        except OSError:  # the connection has been reset since
            end.close()
            return
        try:
            machine, handler = self._accept(peer)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not stop the listener
            self._driver.on_error(error)
            end.close()
            return
        except BaseException:
            end.close()
            raise
        self._open(end, peer, machine, handler)

    # -- Listener ---------------------------------------------------------------------------------

    def resume(self) -> None:
        """Accept again; see `Listener.resume`."""
        if self._paused and not self._closed:
            self._paused = False
            self._driver.post(self._adopt_held)

    def driver_closed(self) -> None:
        """The driver is closing: so does the listener."""
        self.close()
