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

from ..protocols.machine import DatagramMachine, StreamMachine
from ..protocols.timeouts import check_timeout
from .address import Address
from .asyncio_datagrams import AsyncioDatagramLink
from .asyncio_link import AsyncioLink, connect, look_up
from .asyncio_listener import AsyncioListener
from .base import Accept, DatagramHandler, Driver, LinkHandler, Resolved, attempt
from .datagram_options import DEFAULT_OPTIONS, DatagramOptions
from .datagram_socket import open_datagram_socket
from .errors import from_os_error
from .names import resolved
from .native import RECEIVE_BUFFER
from .pump import Host
from .timers import LONGEST_WAIT, Timer, TimerHeap

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task, TimerHandle

E = TypeVar("E")
T = TypeVar("T")

_PROACTOR_LOOP: Any = getattr(asyncio, "ProactorEventLoop", ())  # on Windows
_SETTLE_ROUNDS = 16  # links woken by handlers while settling go again this often in one callback
_EXTRA_RUNS = 2  # a `stop()` from an earlier poll may still be under way and end the first one
_ITERATIONS_TO_FREE = 4  # what was cancelled half-way the loop frees without telling us


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
        receive_buffer: What links receive into; its contents are handled before the next read.
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
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self._completes = isinstance(loop, _PROACTOR_LOOP)
        self._context = contextvars.copy_context()
        self._dirty: deque[Host[Any]] = deque()
        self._settle_due = False
        self._alarm: TimerHandle | None = None
        self._alarm_at = math.inf
        self._links: dict[AsyncioLink[Any], None] = {}  # until their transport is gone
        self._listeners: dict[AsyncioListener, None] = {}
        self._datagram_links: dict[AsyncioDatagramLink[Any], None] = {}
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

    def resolve(self, address: Address, done: Resolved) -> None:
        """Ask the loop what a name stands for; see `Driver.resolve`."""
        self._check_open()

        async def find() -> None:
            await asyncio.sleep(0)  # an eager task would tell the outcome before this has returned
            try:
                found, error = await self._find(address), None
            except OSError as failure:
                found, error = None, from_os_error(failure, str(address))
            self._run_posted(lambda: done(found, error))

        self.start_task(find())

    async def _find(self, address: Address) -> list[Address]:
        return [address] if address.local else resolved(address, await look_up(self.loop, address))

    def listen(self, address: Address, accept: Accept) -> AsyncioListener:
        """Accept connections at an address; see `Driver.listen`."""
        self._check_open()
        if self._completes:
            from .asyncio_proactor_listener import ProactorListener

            return ProactorListener(self, address, accept)
        return AsyncioListener(self, address, accept)

    def connect(self, address: Address, machine: StreamMachine[T], handler: LinkHandler[T]) -> AsyncioLink[T]:
        """Begin to connect; see `Driver.connect`."""
        self._check_open()
        link = self.new_link(machine, handler, address.endpoint)
        link.connect_with(self.start_task(connect(self.loop, address, link)))
        return link

    def bind(
        self,
        address: Address,
        machine: DatagramMachine[T],
        handler: DatagramHandler[T],
        options: DatagramOptions = DEFAULT_OPTIONS,
    ) -> AsyncioDatagramLink[T]:
        """Send and receive datagrams at an address; see `Driver.bind`."""
        self._check_open()
        link = AsyncioDatagramLink(self, machine, handler, open_datagram_socket(address, options), options)
        link.wake()
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
        check_timeout(timeout)
        loop = self.loop
        if loop.is_running():
            raise RuntimeError(
                f"{self.name} driver: poll() was called while its event loop runs; await something instead"
            )
        limit: asyncio.Handle | None = None
        if timeout is not None:
            longest = min(timeout, LONGEST_WAIT)
            limit = loop.call_later(longest, loop.stop) if timeout > 0 else loop.call_soon(loop.stop)
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
        for datagram_link in list(self._datagram_links):
            datagram_link.close()

    async def wait_closed(self) -> None:
        """Return when the loop has freed what the driver held; call it after `close()`."""
        while self._links or self._tasks:
            await asyncio.sleep(0)
        for _ in range(_ITERATIONS_TO_FREE):
            await asyncio.sleep(0)

    def _live_links(self) -> list[AsyncioLink[Any]]:
        return list(self._links)

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
        for datagram_link in self._datagram_links:
            datagram_link.forget_loop()
        self._datagram_links.clear()
        self._links.clear()
        self._listeners.clear()
        if self._owns_loop:
            self._owns_loop = False
            _left_alone.append(self.loop)

    # -- for the driver's own links and listeners -----------------------------------------------------

    def new_link(self, machine: StreamMachine[T], handler: LinkHandler[T], peer: str) -> AsyncioLink[T]:
        """Make a link as the loop's transports need it."""
        if self._completes:
            from .asyncio_proactor_link import ProactorLink

            return ProactorLink(self, machine, handler, peer)
        return AsyncioLink(self, machine, handler, peer)

    def start_task(self, work: Coroutine[Any, Any, None]) -> Task[None]:
        """Run a coroutine in the loop, and keep it from being collected before its end."""
        task = self.loop.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def soon(self, callback: Callable[[], object]) -> None:
        """Have `callback` called in the loop's next iteration."""
        self.loop.call_soon(callback, context=self._context)

    def when_done(self, future: asyncio.Future[T], callback: Callable[[asyncio.Future[T]], object]) -> None:
        """Have `callback` called when a future is done."""
        future.add_done_callback(callback, context=self._context)

    def watch(self, sock: socket.socket, callback: Callable[[], object]) -> None:
        """Have `callback` called whenever a socket is readable; raises as `loop.add_reader`."""
        self._context.copy().run(self.loop.add_reader, sock, callback)

    def watch_for_room(self, sock: socket.socket, callback: Callable[[], object]) -> None:
        """Have `callback` called whenever a socket is writable; ends with `loop.remove_writer`."""
        self._context.copy().run(self.loop.add_writer, sock, callback)

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

    def datagram_link_begun(self, link: AsyncioDatagramLink[Any]) -> None:
        """A datagram link holds a socket."""
        self._datagram_links[link] = None

    def datagram_link_gone(self, link: AsyncioDatagramLink[Any]) -> None:
        """A datagram link has closed."""
        self._datagram_links.pop(link, None)

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
        delay = min(max(0.0, when - self.loop.time()), LONGEST_WAIT)
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
