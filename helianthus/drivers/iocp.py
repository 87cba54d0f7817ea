"""The native driver on Windows: I/O completion ports.

Windows does not say that a socket is ready; it is given an operation and says when that has ended. So
a link always has a read under way, into a small buffer of its own, and a write while there is
something to write; a listener has several accepts under way, each with the socket that the next
connection is to become. What has ended is found in the completion port, and the port is all that the
driver ever waits for: completions of its own, those of an asyncio loop on top, and the packets that
`post` puts in to end the wait.

Three rules hold it together.

An operation belongs to the kernel until its completion has been taken from the port. Until then the
structure and the buffer that it works on must stay where they are, or the kernel writes into memory
that has become something else. So every operation is in `_operations` from its start, also one that
has ended at once, and that has been cancelled: cancelling only makes it end soon, and its completion
still comes. `close` waits for all of them.

An operation that ends at once has a completion all the same. A link goes on sending without waiting
for that; a read is dealt with only when its completion comes, so that handlers are not called from
within whatever began the read.

What has been taken from the port does not come again. A completion is therefore taken out of the
batch before it is handled, and whoever is interrupted half-way, by Ctrl-C, sees to it that it is
asked to go on in the next tick.

Everything goes through `_overlapped`, the module that asyncio uses. `GetQueuedCompletionStatus` has
an error code among its results which is not relied on: it is what the thread's last error is after
the interpreter's lock has been taken again. `Overlapped.getresult()` reads the code from where the
kernel wrote it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..protocols.machine import DatagramMachine, StreamMachine
from .address import Address
from .base import Accept, DatagramHandler, LinkHandler
from .datagram_options import DEFAULT_OPTIONS, DatagramOptions
from .datagram_socket import open_datagram_socket
from .iocp_connector import IocpConnector
from .iocp_datagrams import IocpDatagramLink
from .iocp_link import IocpLink
from .iocp_listener import IocpListener
from .iocp_pipe import PipeConnector, PipeLink, PipeListener
from .iocp_proactor import LoopProactor
from .native import NativeDriver
from .overlapped import Completion, Overlapped, is_workstation, kernel, new_operation

T = TypeVar("T")

_BATCH = 1024  # completions taken from the port at a time
_LONGEST_WAIT = 500  # milliseconds: Ctrl-C does not end a wait for the port, only what comes after it
_PATIENCE = 5.0  # seconds that `close` waits for cancelled operations; they end at once

Done = Callable[[Any, OSError | None], None]
"""Takes the result of an operation, or its error."""


class Opened(Protocol):
    """A link, a listener or an attempt to connect."""

    def driver_closed(self) -> None:
        """The driver is closing."""


class IocpDriver(NativeDriver):
    """Pumps links over a completion port, and serves asyncio's proactor loop.

    `asyncio.ProactorEventLoop(driver.proactor)` makes a loop that turns the driver.

    Attributes:
        proactor: What such a loop takes.
        transmits_files: Whether the kernel copies files to sockets (TransmitFile). By default on Windows
            Server only: other editions work on two such operations at a time, in the whole system, so
            that two peers that take nothing would hold up all others.
    """

    name = "iocp"

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__(rng)
        self.proactor = LoopProactor(self)
        self.transmits_files = not is_workstation()
        self._port = self.proactor.port
        self._operations: dict[int, tuple[Overlapped, Done]] = {}
        self._opened: dict[Opened, None] = {}  # a dict for its order
        self._foreign: list[Completion] = []  # survives a KeyboardInterrupt in a handler
        self._wake = new_operation()  # never begun; its address is the packet's
        self._wake_due = False  # a packet is in the port

    # -- Driver -----------------------------------------------------------------------------------

    def listen(self, address: Address, accept: Accept) -> IocpListener | PipeListener:
        """Accept connections at an address; see `Driver.listen`."""
        self._check_open()
        if address.scheme == "pipe":
            return PipeListener(self, address, accept)
        return IocpListener(self, address, accept)

    def connect(self, address: Address, machine: StreamMachine[T], handler: LinkHandler[T]) -> IocpLink[T]:
        """Begin to connect; see `Driver.connect`."""
        self._check_open()
        if address.scheme == "pipe":
            pipe_link = PipeLink(self, machine, handler, address.endpoint)
            PipeConnector(self, address, pipe_link).start()
            return pipe_link
        link = IocpLink(self, machine, handler, address.endpoint)
        IocpConnector(self, address, link).start()
        return link

    def bind(
        self,
        address: Address,
        machine: DatagramMachine[T],
        handler: DatagramHandler[T],
        options: DatagramOptions = DEFAULT_OPTIONS,
    ) -> IocpDatagramLink[T]:
        """Send and receive datagrams at an address; see `Driver.bind`."""
        self._check_open()
        link = IocpDatagramLink(self, machine, handler, open_datagram_socket(address, options), options)
        link.wake()
        return link

    def _live_links(self) -> list[IocpLink[Any]]:
        return [opened for opened in self._opened if isinstance(opened, IocpLink)]

    def abort_all(self) -> None:
        """Abort every link and close every listener; the driver itself goes on."""
        for opened in list(self._opened):
            opened.driver_closed()

    def _serves_a_loop(self) -> bool:
        return self.proactor.has_loop

    # -- for the driver's own links and listeners -------------------------------------------------

    def opened(self, something: Opened) -> None:
        """Have this closed with the driver."""
        self._opened[something] = None

    def gone(self, something: Opened) -> None:
        """This has closed by itself."""
        self._opened.pop(something, None)

    def associate(self, handle: int) -> None:
        """Have the ends of a handle's operations reported to the port.

        Raises:
            OSError: The handle belongs to a port already, or is none.
        """
        kernel.CreateIoCompletionPort(handle, self._port, 0, 0)

    def begun(self, operation: Overlapped, done: Done) -> None:
        """Keep an operation until it has completed, then call `done`. To be called when it has begun."""
        self._operations[operation.address] = operation, done

    def cancel(self, operation: Overlapped) -> None:
        """Have an operation end soon, if it has not ended; its completion comes all the same."""
        with contextlib.suppress(OSError):  # it has ended meanwhile
            operation.cancel()

    # -- the port -----------------------------------------------------------------------------------

    def _wake_up(self) -> None:
        if not self._wake_due and not self._closed:
            self._wake_due = True
            with contextlib.suppress(OSError):  # closed meanwhile: nobody waits
                kernel.PostQueuedCompletionStatus(self._port, 0, 0, self._wake.address)

    def _wait(self, timeout: float | None) -> list[Completion]:
        take = kernel.GetQueuedCompletionStatus
        port = self._port
        end = None if timeout is None else time.monotonic() + timeout
        milliseconds = _whole_milliseconds(timeout)
        completion = take(port, milliseconds)
        while completion is None and (end is None or (timeout := end - time.monotonic()) > 0.0):
            completion = take(port, _whole_milliseconds(timeout))
        batch: list[Completion] = []
        while completion is not None:
            batch.append(completion)
            if len(batch) == _BATCH:
                break
            completion = take(port, 0)
        return batch

    def _dispatch(self) -> list[Completion]:
        batch = self._batch
        operations = self._operations
        while batch:
            completion: Completion = batch.popleft()
            address = completion[3]
            if address in operations:
                operation, done = operations.pop(address)
                try:
                    result, error = operation.getresult(), None
                except OSError as failure:
                    result, error = None, failure
                del operation  # it holds the buffer, which may now be used again
                done(result, error)
            elif address == self._wake.address:
                self._wake_due = False
            else:
                self._foreign.append(completion)
        foreign, self._foreign = self._foreign, []
        return foreign

    def collect(self, timeout: float | None) -> list[Completion]:
        """Wait and handle completions, with no more of a tick than that; for the end of the driver."""
        self._batch.extend(self._wait(timeout))
        return self._dispatch()

    def _free(self) -> None:
        self._wake_due = True  # from here on nobody is to put anything into the port
        end = time.monotonic() + _PATIENCE
        while self._operations and time.monotonic() < end:
            for completion in self.collect(0.1):
                self.proactor.completed(completion)
        _left_to_the_kernel.extend(self._operations.values())
        self._operations.clear()
        self.proactor.free()


def new_loop() -> asyncio.AbstractEventLoop:
    """Make an asyncio loop that turns an IOCP driver."""
    return loop_on(IocpDriver())


def loop_on(driver: IocpDriver) -> asyncio.AbstractEventLoop:
    """Make an asyncio loop that turns a driver."""
    make: Any = getattr(asyncio, "ProactorEventLoop")  # noqa: B009 - known on Windows only
    loop: asyncio.AbstractEventLoop = make(driver.proactor)
    return loop


def _whole_milliseconds(timeout: float | None) -> int:
    """Rounded up, so that a timer is not found early; and not so long that nobody could interrupt."""
    if timeout is None:
        return _LONGEST_WAIT
    return min(math.ceil(timeout * 1000), _LONGEST_WAIT)


_left_to_the_kernel: list[object] = []  # operations that did not end in time: memory that stays taken
