"""Named pipes over a completion port: links, a listener, and attempts to connect."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ..protocols.machine import Buffer, StreamMachine
from .address import Address
from .base import Accept, LinkHandler
from .completion_listener import CompletionListener
from .errors import from_os_error
from .file_transfer import NOT_DIRECT
from .iocp_link import IocpLink
from .named_pipe import NamedPipe, new_instance, try_to_connect
from .overlapped import Overlapped, new_operation
from .unix_socket import Patience

if TYPE_CHECKING:
    from .iocp import IocpDriver

E = TypeVar("E")

INSTANCES = 4
"""Ends of a pipe at which a listener waits. A client that finds none tries again, a little later."""

NO_NAME = "pipe:"
"""The end of a pipe that has connected; only the other one has a name."""

_GONE = (109, 232, 233)  # ERROR_BROKEN_PIPE, ERROR_NO_DATA, ERROR_PIPE_NOT_CONNECTED


class PipeLink(IocpLink[E]):
    """A link over one end of a pipe."""

    __slots__ = ("_pipe",)

    def __init__(
        self, driver: IocpDriver, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(driver, machine, handler, peer_address)
        self._pipe: NamedPipe | None = None

    def open_on_pipe(self, pipe: NamedPipe, local: str, peer: str) -> None:
        """Begin to pump over a connected pipe that the port knows."""
        self._pipe = pipe
        self._iocp.unread[self] = None
        self._connected(local, peer)

    def _handle(self) -> int:
        assert self._pipe is not None
        return self._pipe.handle

    def _begin_read(self, operation: Overlapped, view: memoryview) -> None:
        operation.ReadFileInto(self._handle(), view)

    def _begin_write(self, operation: Overlapped, piece: Buffer) -> None:
        operation.WriteFile(self._handle(), piece)

    def _read_at_once(self) -> bool:
        return False

    def _failed_to_read(self, error: OSError) -> None:
        if getattr(error, "winerror", None) in _GONE:
            self._free_buffer()
            self._received_eof()
        else:
            super()._failed_to_read(error)

    def _send_direct(self, descriptor: int, offset: int, count: int) -> int:
        return NOT_DIRECT

    def _shut_down_writing(self) -> None:
        """A pipe can only be closed both ways; what has been written, the other end still reads."""
        self._lost(None)

    def _close_transport(self, *, reset: bool) -> None:
        super()._close_transport(reset=reset)
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None


class PipeConnector:
    """One attempt to connect; it is repeated while every instance of the pipe is taken."""

    def __init__(self, driver: IocpDriver, address: Address, link: PipeLink[Any]) -> None:
        self._driver = driver
        self._address = address
        self._link = link
        self._patience = Patience(driver.now())

    def start(self) -> None:
        """Begin; the link hears the end of it from within a later tick."""
        self._driver.post(self._try)

    def _try(self) -> None:
        link, driver = self._link, self._driver
        if link.closed:
            return
        try:
            pipe = try_to_connect(self._address)
            if pipe is None:
                now = driver.now()
                driver.call_at(now + self._patience.next_delay(now), self._try)
                return
            driver.associate(pipe.handle)
        except OSError as error:
            link.failed_to_connect(from_os_error(error, str(self._address)))
            return
        link.open_on_pipe(pipe, NO_NAME, self._address.endpoint)


class PipeListener(CompletionListener[NamedPipe]):
    """Waits at instances of a pipe, and gives each that somebody connects to to a link."""

    at_once = INSTANCES

    def __init__(self, driver: IocpDriver, address: Address, accept: Accept) -> None:
        super().__init__(driver, address, accept)
        self._wait_at(new_instance(address, first=True))  # nobody else can listen while there is one
        driver.opened(self)
        self._begin_accepts()

    def _begin_accept(self) -> None:
        self._wait_at(new_instance(self.address, first=False))

    def _wait_at(self, pipe: NamedPipe) -> None:
        operation = new_operation()
        try:
            self._driver.associate(pipe.handle)
            connected = operation.ConnectNamedPipe(pipe.handle)
        except OSError:
            pipe.close()
            raise
        if connected:  # somebody was quicker; no completion follows
            self._held.append(pipe)
            self._driver.post(self._adopt_held)
        else:
            self._under_way[operation] = pipe
            self._driver.begun(operation, partial(self._ended, operation))

    def _ended(self, operation: Overlapped, _: Any, error: OSError | None) -> None:
        pipe = self._under_way.pop(operation)
        if self._closed or error is not None:
            pipe.close()
            self._begin_accepts()
        else:
            self._held.append(pipe)
            self._adopt_held()

    def _arrived(self, end: NamedPipe) -> str:
        return NO_NAME

    def _open(
        self, end: NamedPipe, peer: str, machine: StreamMachine[Any], handler: LinkHandler[Any]
    ) -> None:
        PipeLink(self._driver, machine, handler, peer).open_on_pipe(end, self.address.endpoint, peer)

    def pause(self) -> None:
        """Give nobody to a link for now; those can connect for whom there is an instance already."""
        self._paused = True

    def close(self) -> None:
        """Stop accepting; see `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        self._driver.gone(self)
        for operation, pipe in self._under_way.items():
            self._driver.cancel(operation)
            pipe.close()
        for pipe in self._held:
            pipe.close()
        self._held.clear()
