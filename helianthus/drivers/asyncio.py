"""A driver inside somebody else's event loop: pumps links through asyncio's transports.

It needs nothing of the loop but the documented interface, and so runs on the standard selector
loop, on Windows' proactor loop and on uvloop. A transport's write buffer is kept at a high mark of
zero: `pause_writing` then says exactly what the pump asks, whether the transport has taken all, and
output beyond that stays in the machine.

All links that were woken during one iteration of the loop are flushed by one callback in the next.
All timers of the driver share one timer of the loop, set for the earliest.

Everything runs in copies of the context in which the driver was made. asyncio would give a callback
the context of whoever asked for it: a connection that is first used while a call is served would
carry that call's context variables, its deadline among them, for as long as it lives.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import math
import random
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..protocols.machine import Buffer, StreamMachine
from .address import Address
from .base import Accept, Driver, LinkHandler, Listener, attempt
from .errors import ConnectionRefused, ConnectionReset, TransportError, from_os_error
from .pump import Host, Link
from .socket_link import (
    ACCEPT_PAUSE,
    ACCEPTS_PER_TICK,
    OUT_OF_FILES,
    Candidate,
    address_text,
    listening_socket,
    literal_candidate,
)
from .timers import Timer, TimerHeap

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task, TimerHandle, Transport

E = TypeVar("E")
T = TypeVar("T")

_SETTLE_ROUNDS = 16  # links woken by handlers while settling go again this often in one callback
_JOIN_BELOW = 4096  # bytes: buffers smaller than this on average cost less joined than gathered
_EXTRA_RUNS = 2  # a `stop()` from an earlier poll may still be under way and end the first one
_ITERATIONS_TO_FREE = 4  # what was cancelled half-way the loop frees without telling us
_LONGEST_WAIT = 86400.0  # seconds: loops refuse or wrap very long waits; the alarm is set again


def uvloop_installed() -> bool:
    """Whether uvloop can be imported, without importing it."""
    return importlib.util.find_spec("uvloop") is not None


def new_event_loop() -> AbstractEventLoop:
    """Make uvloop's event loop where it is installed, else the standard one."""
    if uvloop_installed():
        import uvloop

        return cast("AbstractEventLoop", uvloop.new_event_loop())
    return asyncio.new_event_loop()


class AsyncioDriver(Driver):
    """Pumps links through the transports of an asyncio loop.

    Without a loop it takes the running one. Where none runs it makes its own, to be turned by
    `poll`; a loop that is given but does not run can be turned that way too.

    Attributes:
        loop: The event loop.
    """

    name = "asyncio"

    def __init__(self, loop: AbstractEventLoop | None = None, rng: random.Random | None = None) -> None:
        super().__init__(rng)
        self._owns_loop = False
        if loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                loop = new_event_loop()
                self._owns_loop = True
        self.loop = loop
        self._context = contextvars.copy_context()
        self._dirty: deque[Host[Any]] = deque()
        self._settle_due = False
        self._alarm: TimerHandle | None = None
        self._alarm_at = math.inf
        self._links: dict[AsyncioLink[Any], None] = {}  # until their transport is gone
        self._listeners: dict[AsyncioListener, None] = {}
        self._tasks: set[Task[None]] = set()
        self._work: set[asyncio.Future[Any]] = set()
        self._turning = False  # by poll(), so that the loop is ours to stop
        self._close_wanted = False
        self._closed = ""  # why it can be used no more

    @property
    def closed(self) -> bool:
        """Whether the driver can be used no more."""
        return bool(self._closed)

    # -- Driver -----------------------------------------------------------------------------------

    def now(self) -> float:
        """Monotonic seconds of the loop."""
        return self.loop.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, not before `when`; see `Driver.call_at`."""
        timer = super().call_at(when, callback)
        if when < self._alarm_at and not self._closed:
            self._set_alarm(when)
        return timer

    def post(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in the loop; from any thread or signal handler."""
        if self._closed:
            return
        try:
            self.loop.call_soon_threadsafe(self._run_posted, callback, context=self._context)
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def listen(self, address: Address, accept: Accept) -> AsyncioListener:
        """Accept connections at an address; see `Driver.listen`."""
        self._check_open()
        return AsyncioListener(self, address, accept)

    def connect(self, address: Address, machine: StreamMachine[T], handler: LinkHandler[T]) -> AsyncioLink[T]:
        """Begin to connect; see `Driver.connect`."""
        self._check_open()
        link = AsyncioLink(self, machine, handler, f"{address.host}:{address.port}")
        link.connect_with(self.start_task(_connect(self.loop, address, link)))
        return link

    def in_thread(self, work: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Run blocking work in the loop's default executor."""
        self._check_open()

        def finished(future: asyncio.Future[tuple[T | None, Exception | None]]) -> None:
            self._work.discard(future)
            if not future.cancelled() and not self._closed:
                self._run_posted(lambda: done(*future.result()))

        future = self.loop.run_in_executor(None, attempt, work)
        self._work.add(future)
        future.add_done_callback(finished, context=self._context)

    def poll(self, timeout: float | None = None) -> None:
        """Turn the loop until something was done, at most for `timeout` seconds; see `Driver.poll`."""
        self._check_open()
        loop = self.loop
        if loop.is_running():
            raise RuntimeError(
                f"{self.name} driver: poll() was called while its event loop runs; await something instead"
            )
        limit: asyncio.Handle | None = None
        if timeout is not None:
            limit = loop.call_later(timeout, loop.stop) if timeout > 0 else loop.call_soon(loop.stop)
        self._turning = True
        try:
            loop.run_forever()
            for _ in range(_EXTRA_RUNS):
                if self._dirty:  # the time was up, but what was received is yet to be answered
                    loop.run_forever()
        finally:
            self._turning = False
            if limit is not None:
                limit.cancel()
            if self._close_wanted:
                self.close()

    def close(self) -> None:
        """Abort every link and close every listener; closes the loop if the driver made it.

        In a loop that somebody else runs, handlers hear `on_closed` and the sockets are freed in its
        next iterations; `wait_closed` waits for that.
        """
        if self._closed:
            return
        if self._turning:
            self._close_wanted = True
            return
        self._closed = "it is closed"
        self.abort_all()
        for future in list(self._work):
            future.cancel()
        if self._alarm is not None:
            self._alarm.cancel()
        if not self.loop.is_running():
            self._settle_all()
        if self._owns_loop:
            self._run_to_the_end()
            self.loop.close()

    def _run_to_the_end(self) -> None:
        """Run our own loop until it has freed everything.

        Not by `run_until_complete`: a `stop()` from the last `poll` may still be under way.
        """
        freed = self.loop.create_task(self.wait_closed())
        freed.add_done_callback(lambda _: self.loop.stop())
        while not freed.done():
            self.loop.run_forever()

    def abort_all(self) -> None:
        """Abort every link and close every listener; the driver itself goes on."""
        for listener in list(self._listeners):
            listener.close()
        for link in list(self._links):
            link.abort()

    async def wait_closed(self) -> None:
        """Return when the loop has freed what the driver held; call it after `close()`."""
        while self._links or self._tasks:
            await asyncio.sleep(0)
        for _ in range(_ITERATIONS_TO_FREE):
            await asyncio.sleep(0)

    def _settle_soon(self, host: Host[Any]) -> None:
        self._dirty.append(host)
        if not self._settle_due:
            self._settle_due = True
            if not self.loop.is_closed():  # else close() settles
                self.soon(self._settle_all)

    def _abandon(self) -> None:
        """Forget everything, in a forked child; see `Driver._abandon`.

        The loop is left as it is: to close it, or to take descriptors from it, would change the
        kernel's queue, which the child shares with its parent.
        """
        if self._closed:
            return
        self._closed = "it was made before the fork and belongs to the parent process; make another"
        self._timers = TimerHeap()
        self._dirty = deque()
        for link in self._links:
            link.forget_transport()
        for listener in self._listeners:
            listener.forget_loop()
        self._links.clear()
        self._listeners.clear()
        if self._owns_loop:
            self._owns_loop = False
            _left_alone.append(self.loop)

    # -- for the driver's own links and listeners -----------------------------------------------------

    def start_task(self, work: Coroutine[Any, Any, None]) -> Task[None]:
        """Run a coroutine in the loop, and keep it from being collected before its end."""
        task = self.loop.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def soon(self, callback: Callable[[], object]) -> None:
        """Have `callback` called in the loop's next iteration."""
        self.loop.call_soon(callback, context=self._context)

    def watch(self, sock: socket.socket, callback: Callable[[], object]) -> None:
        """Have `callback` called whenever a socket is readable; raises as `loop.add_reader`."""
        self._context.copy().run(self.loop.add_reader, sock, callback)

    def link_begun(self, link: AsyncioLink[Any]) -> None:
        """A link holds a transport, or is to get one."""
        self._links[link] = None

    def link_gone(self, link: AsyncioLink[Any]) -> None:
        """The loop has freed a link's transport."""
        self._links.pop(link, None)

    def listener_begun(self, listener: AsyncioListener) -> None:
        """A listener holds a socket."""
        self._listeners[listener] = None

    def listener_gone(self, listener: AsyncioListener) -> None:
        """A listener has closed."""
        self._listeners.pop(listener, None)

    def stop_waiting(self) -> None:
        """Something was done: have `poll`, if it is what turns the loop, return."""
        if self._turning:
            self.loop.stop()

    # -- one iteration of the loop ---------------------------------------------------------------------

    def _settle_all(self) -> None:
        dirty = self._dirty
        try:
            for _ in range(_SETTLE_ROUNDS):
                if not dirty:
                    break
                for _ in range(len(dirty)):
                    dirty.popleft().settle()
        finally:
            self._settle_due = bool(dirty)
            if dirty and not self.loop.is_closed():
                self.soon(self._settle_all)
            self.stop_waiting()

    def _run_posted(self, callback: Callable[[], None]) -> None:
        if self._closed:
            return
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - one callback's fault must not stop the others
            self.on_error(error)
        self.stop_waiting()

    def _set_alarm(self, when: float) -> None:
        """Set the loop's one timer.

        Whole milliseconds, rounded up: uvloop rounds to the nearest one, and an alarm that rang
        early would be set again for no delay at all until the time has come.
        """
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        delay = min(max(0.0, when - self.loop.time()), _LONGEST_WAIT)
        self._alarm = self.loop.call_later(
            math.ceil(delay * 1000) / 1000, self._run_timers, context=self._context
        )

    def _run_timers(self) -> None:
        self._alarm = None
        self._alarm_at = -math.inf  # timers that are added by the callbacks need no alarm yet
        try:
            self._timers.run_due(self.loop.time(), self.on_error)
        finally:
            self._alarm_at = math.inf
            due = self._timers.next_time()
            if due is not None and not self._closed:
                self._set_alarm(due)
            self.stop_waiting()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"{self.name} driver: {self._closed}")


_left_alone: list[AbstractEventLoop] = []  # in a forked child; being collected would close them


class AsyncioLink(Link[E], asyncio.Protocol):
    """A link over an asyncio transport, and the protocol of that transport."""

    __slots__ = ("_connecting", "_early", "_early_eof", "_loop_driver", "_stuck_at", "_transport")

    def __init__(
        self, driver: AsyncioDriver, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(driver, machine, handler, peer_address)
        self._loop_driver = driver
        self._transport: Transport | None = None
        self._connecting: Task[None] | None = None
        self._stuck_at: int | None = None  # bytes left when the transport last could not take all
        self._early: list[bytes] = []  # uvloop reads once before it can be paused
        self._early_eof = False
        driver.link_begun(self)

    @property
    def unsent(self) -> int:
        """Bytes that wait in the transport."""
        if self._stuck_at is None or self._transport is None:
            return 0
        return self._transport.get_write_buffer_size()

    def connect_with(self, task: Task[None], sock: socket.socket | None = None) -> None:
        """Cancel `task`, which connects the link, when the link is aborted before it has done so.

        Args:
            task: Begins to connect, or takes up an accepted connection.
            sock: The accepted connection; closed if the task is cancelled before it has begun.
        """
        self._connecting = task
        task.add_done_callback(lambda _: self._connect_ended(sock))

    def _connect_ended(self, sock: socket.socket | None) -> None:
        self._connecting = None
        if sock is not None and self._transport is None:
            sock.close()
        if self._transport is None or self.closed:  # then the loop need not tell us any more
            self._loop_driver.link_gone(self)

    def forget_transport(self) -> None:
        """In a forked child: the transport belongs to the parent."""
        self._transport = None

    def failed_to_connect(self, error: Exception) -> None:
        """The attempt to connect is over."""
        self._lost(error)

    def failed(self, error: Exception) -> None:
        """An exception that nobody foresaw ended the attempt to connect."""
        self._fault(error)

    # -- asyncio.Protocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        self._transport = made = cast("Transport", transport)
        if self.closed:  # aborted while the loop was busy connecting
            made.abort()
            return
        made.set_write_buffer_limits(high=0)
        # TCP_NODELAY has been set: asyncio documents it for its loops, and uvloop does the same.
        local, peer = made.get_extra_info("sockname"), made.get_extra_info("peername")
        if not local or not peer:
            self._lost(ConnectionReset("the peer has gone already", address=self.peer_address))
        elif local == peer:  # TCP let a connection to a free local port meet itself
            self._lost(ConnectionRefused("nobody listens there", address=address_text(peer)))
        else:
            self._connected(address_text(local), address_text(peer))
            if not self._reading:
                self._loop_driver.soon(self._pause_reading)

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self._reading:
            self._received(data)
        else:
            self._early.append(data)

    def eof_received(self) -> bool:
        """The peer ended its direction; ours stays open."""
        if self._early:
            self._early_eof = True
        else:
            self._received_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The loop has freed the transport."""
        self._transport = None
        self._loop_driver.link_gone(self)
        if exc is None or isinstance(exc, OSError):
            self._lost(exc and from_os_error(exc, self.peer_address))
        else:
            self._fault(exc)

    def pause_writing(self) -> None:
        """The transport has not taken all; what it has left over it keeps."""
        self._stuck_at = self._transport.get_write_buffer_size() if self._transport is not None else 0
        self._left_over()

    def resume_writing(self) -> None:
        """The transport has taken all."""
        self._stuck_at = None
        self._drained()

    # -- the platform's part of a link ----------------------------------------------------------------

    def _send(self, buffers: list[Buffer]) -> None:
        transport = self._transport
        if transport is None:
            return  # lost, and about to be told so
        if len(buffers) == 1:
            transport.write(buffers[0])
        elif sum(map(len, buffers)) < _JOIN_BELOW * len(buffers):
            transport.write(b"".join(buffers))
        else:
            transport.writelines(buffers)

    def _check_progress(self) -> None:
        """Look whether the transport's buffer has shrunk since the last look, one deadline ago.

        A peer is therefore dropped between one and two write deadlines after it took its last byte.
        """
        unsent = self.unsent
        if unsent != self._stuck_at:
            self._stuck_at = unsent
            self._progress_at = self._driver.now()
        super()._check_progress()

    def _shut_down_writing(self) -> None:
        if self._transport is not None:
            try:
                self._transport.write_eof()
            except OSError as error:  # the peer has reset the connection, and the loop is yet to notice
                self._lost(from_os_error(error, self.peer_address))

    def _close_transport(self, *, reset: bool) -> None:
        self._stuck_at = None
        self._early.clear()
        if self._transport is not None:
            if not self._loop_driver.loop.is_closed():
                self._transport.abort()
        elif self._connecting is not None:
            self._connecting.cancel()
        self._loop_driver.stop_waiting()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._reading:
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._early:
            self._loop_driver.soon(self._take_early)
        elif self._transport is not None:
            self._transport.resume_reading()

    def _take_early(self) -> None:
        """Hand over what came before the transport could be paused."""
        while self._early and self._reading:
            self._received(self._early.pop(0))
        if self._early:
            return
        if self._early_eof:
            self._received_eof()
        elif self._reading:
            self._resume_reading()


class AsyncioListener(Listener):
    """Accepts connections when the loop says that there are some.

    Not through `loop.create_server`: the standard one loses connections that arrive while it is being
    closed, and reports running out of file descriptors once for every place in its backlog; uvloop's
    turns those away for whom there is no descriptor.
    """

    def __init__(self, driver: AsyncioDriver, address: Address, accept: Accept) -> None:
        self._driver = driver
        self._loop = driver.loop
        self._accept = accept
        self._closed = False
        self._task: Task[None] | None = None
        self._socket = listening_socket(address)
        host, port = self._socket.getsockname()[:2]
        self.address = Address(host, port, address.scheme)
        driver.listener_begun(self)
        self._start()

    def _start(self) -> None:
        if self._closed:
            return
        try:
            self._driver.watch(self._socket, self._ready)
        except NotImplementedError:  # Windows' proactor loop: it completes, and knows no readiness
            self._task = self._driver.start_task(self._accept_by_completion())

    def _ready(self) -> None:
        """Accept what waits."""
        for _ in range(ACCEPTS_PER_TICK):
            if self._closed:
                return
            try:
                sock, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_FILES:  # the connection was reset before it was accepted
                    continue
                self._report(from_os_error(error, str(self.address)))
                self._loop.remove_reader(self._socket)
                self._driver.call_at(self._driver.now() + ACCEPT_PAUSE, self._start)
                return
            self._adopt(sock, address_text(peer))

    async def _accept_by_completion(self) -> None:
        """Accept until cancelled."""
        while not self._closed:
            try:
                sock, peer = await self._loop.sock_accept(self._socket)
            except OSError as error:
                self._report(from_os_error(error, str(self.address)))
                await asyncio.sleep(ACCEPT_PAUSE)
            else:
                self._adopt(sock, address_text(peer))

    def _adopt(self, sock: socket.socket, peer: str) -> None:
        """Give an accepted connection a machine, a handler and a transport."""
        sock.setblocking(False)
        try:
            machine, handler = self._accept(peer)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not stop the listener
            self._report(error)
            sock.close()
            return
        link = AsyncioLink(self._driver, machine, handler, peer)
        link.connect_with(self._driver.start_task(_take_up(self._loop, sock, link)), sock)
        if self._driver.closed:  # by `accept`, when there was no link to abort yet
            link.abort()

    def _report(self, error: Exception) -> None:
        self._driver.on_error(error)
        self._driver.stop_waiting()

    def forget_loop(self) -> None:
        """In a forked child: the loop is the parent's; only our copy of the socket is ours."""
        self._closed = True
        self._socket.close()

    def close(self) -> None:
        """Stop accepting; see `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        self._driver.listener_gone(self)
        if self._task is not None and not self._loop.is_closed():
            self._task.add_done_callback(lambda _: self._socket.close())  # the loop still works on it
            self._task.cancel()
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._socket.close()


async def _take_up(loop: AbstractEventLoop, sock: socket.socket, link: AsyncioLink[Any]) -> None:
    """Give an accepted connection's socket to a transport, and that to the link."""
    try:
        await loop.connect_accepted_socket(lambda: link, sock)
    except OSError as error:
        link.failed_to_connect(from_os_error(error, link.peer_address))
    except asyncio.CancelledError:
        link.abort()  # has done so already, unless it is the loop that ends its tasks
        raise
    except Exception as error:  # noqa: BLE001 - nobody awaits this
        link.failed(error)


async def _connect(loop: AbstractEventLoop, address: Address, link: AsyncioLink[Any]) -> None:
    """Connect a link to the first of a name's addresses that answers."""
    await asyncio.sleep(0)  # an eager task would tell the handler before `connect` has returned
    try:
        candidates = await _look_up(loop, address)
        failure: OSError = TransportError("the name has no address")
        for family, sockaddr in candidates:
            try:
                await loop.create_connection(lambda: link, sockaddr[0], sockaddr[1], family=family)
                return
            except OSError as error:
                failure = error
        link.failed_to_connect(from_os_error(failure, str(address)))
    except OSError as error:
        link.failed_to_connect(from_os_error(error, str(address)))
    except asyncio.CancelledError:
        link.abort()  # has done so already, unless it is the loop that ends its tasks
        raise
    except Exception as error:  # noqa: BLE001 - nobody awaits this
        link.failed(error)


async def _look_up(loop: AbstractEventLoop, address: Address) -> list[Candidate]:
    literal = literal_candidate(address.host, address.port)
    if literal is not None:
        return [literal]
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]
