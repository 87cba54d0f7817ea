"""What the drivers that own their links share, whether the kernel tells them of readiness or completion.

One tick: settle what was commanded since the last one, wait once, handle what the kernel reports, run
posts and timers, settle. A subclass brings the kernel's queue: how to wait for it, how to wake it from
another thread, and what its reports mean.
"""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from ..protocols.timeouts import check_timeout
from .address import Address
from .base import Driver, Resolved, attempt
from .names import literal_candidate, look_up
from .pump import Host
from .timers import LONGEST_WAIT, TimerHeap

T = TypeVar("T")

READ, WRITE, HANG_UP = 1, 2, 4
"""Readiness flags; the first two are those of `selectors`."""

RECEIVE_BUFFER = 256 * 1024
"""Bytes of the one buffer that all links of a driver receive into."""

_SETTLE_ROUNDS = 16  # links woken by handlers while settling go again this often within one tick
_THREADS = 8  # for name resolution and disk; started only when needed


class Readable(Protocol):
    """Something that may have more to read than one tick allows."""

    def ready(self, events: int) -> None:
        """Try what the flags hint at."""


class Doomed(Protocol):
    """Something to be closed at the end of a tick, such as a socket."""

    def close(self) -> None:
        """Free it."""


class NativeDriver(Driver):
    """A driver over a kernel's queue, without an event loop of somebody else's; see `Driver`.

    Attributes:
        receive_buffer: What links receive into; its contents are handled before the next read.
        unread: What has more to read than one tick allows. A dict for its order, and because each is
            to be in it once: a link that were entered again by every report would soon be read from
            all day.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__(rng)
        self.now = time.monotonic  # type: ignore[method-assign]  # the method, without its own frame
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self.unread: dict[Readable, None] = {}
        self._dirty: deque[Host[Any]] = deque()
        self._settle_soon = self._dirty.append  # type: ignore[assignment,method-assign]  # likewise
        self._doomed: list[Doomed] = []  # to be closed at the end of the tick
        self._batch: deque[Any] = deque()  # survives a KeyboardInterrupt in a handler
        self._posted: deque[Callable[[], None]] = deque()
        self._threads: ThreadPoolExecutor | None = None
        self._turning = False
        self._close_wanted = False
        self._closed = ""  # why it can be used no more

    # -- the kernel's queue, brought by the subclass --------------------------------------------

    @abstractmethod
    def _wait(self, timeout: float | None) -> Iterable[Any]:
        """Wait for reports; gives them, for `_dispatch`."""

    @abstractmethod
    def _dispatch(self) -> list[Any]:
        """Handle every report in `_batch`; gives what those were that belong to an asyncio loop."""

    @abstractmethod
    def _wake_up(self) -> None:
        """End the wait; from any thread or signal handler."""

    @abstractmethod
    def _serves_a_loop(self) -> bool:
        """Whether an asyncio loop has work of its own in the queue."""

    @abstractmethod
    def _free(self) -> None:
        """Free the queue; every link and listener has been closed."""

    @abstractmethod
    def abort_all(self) -> None:
        """Abort every link and close every listener; the driver itself goes on."""

    # -- Driver -----------------------------------------------------------------------------------

    def now(self) -> float:
        """Monotonic seconds of the operating system."""
        return time.monotonic()

    def post(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in the next tick; from any thread or signal handler."""
        self._posted.append(callback)
        self._wake_up()

    def resolve(self, address: Address, done: Resolved) -> None:
        """Find what a name stands for, in a thread or inline; see `Driver.resolve`."""
        self._check_open()
        if address.local or literal_candidate(address.host, address.port) is not None:
            self.post(lambda: done([address], None))
        elif self.looks_up_inline:
            self.post(lambda: done(*attempt(lambda: look_up(address))))
        else:
            self.in_thread(lambda: look_up(address), done)

    def in_thread(self, work: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Run blocking work in one of a few threads, started when first needed."""
        self._check_open()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"helianthus-{self.name}")

        def run() -> None:
            outcome = attempt(work)
            self.post(lambda: done(*outcome))

        self._threads.submit(run)

    def poll(self, timeout: float | None = None) -> None:
        """Run one tick from a loop of your own; see `Driver.poll`."""
        self._check_open()
        check_timeout(timeout)
        if self._serves_a_loop():  # what is ready of that would be lost
            raise RuntimeError(f"{self.name} driver: an asyncio loop turns it; poll() would take its events")
        self._tick(None if timeout is None else min(timeout, LONGEST_WAIT))

    def close(self) -> None:
        """Abort every link, close every listener, free the descriptors; see `Driver.close`."""
        if self._closed:
            return
        if self._turning:
            self._close_wanted = True
            return
        self._closed = "it is closed"
        self.abort_all()
        self._settle_all()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._close_doomed()
        self._free()

    def _settle_soon(self, host: Host[Any]) -> None:
        self._dirty.append(host)

    def _abandon(self) -> None:
        """Forget everything, in a forked child; see `Driver._abandon`."""
        self._closed = "it was made before the fork and belongs to the parent process; make another"
        # new ones instead of clear(): the fork may have happened in a callback, inside their loops
        self._posted, self._dirty, self.unread = deque(), deque(), {}
        self._settle_soon = self._dirty.append  # type: ignore[assignment,method-assign]  # as above
        self._timers = TimerHeap()
        self._threads = None

    # -- one tick -------------------------------------------------------------------------------------

    def _tick(self, timeout: float | None) -> list[Any]:
        """Turn once; returns what `_dispatch` found that is not the driver's own."""
        if self._closed or self._turning:
            self._check_open()
            raise RuntimeError(f"{self.name} driver: poll() was called from within its own callbacks")
        self._turning = True
        try:
            if self._dirty and self._settle_all():
                timeout = 0.0  # a handler was called: asyncio, or our caller, may have got work from it
            if not self._batch:
                self._batch.extend(self._wait(self._patience(timeout)))
            foreign = self._dispatch_and_read_on() if self.unread else self._dispatch()
            if self._posted:
                self._run_posted()
            self._timers.run_due(self.now(), self.on_error)
            if self._dirty:
                self._settle_all()
        finally:
            self._turning = False
            if self._doomed:
                self._close_doomed()
            if self._close_wanted:
                self.close()
        return foreign

    def _patience(self, timeout: float | None) -> float | None:
        """How long the kernel may wait."""
        if timeout == 0.0 or self._dirty or self.unread or self._posted:
            return 0.0
        due = self._timers.next_time()
        if due is None:
            return timeout
        wait = due - self.now()
        if wait < 0.0:
            return 0.0
        if wait > LONGEST_WAIT:
            wait = LONGEST_WAIT
        return wait if timeout is None or wait < timeout else timeout

    def _dispatch_and_read_on(self) -> list[Any]:
        """Also go on with what had more to read than the last tick allowed."""
        unread, self.unread = self.unread, {}
        try:
            foreign = self._dispatch()
            while unread:
                readable = next(iter(unread))
                if readable not in self.unread:  # else it has had its turn in this tick
                    readable.ready(READ)
                unread.pop(readable, None)
        finally:
            self.unread.update(unread)  # interrupted: these are to try again
        return foreign

    def _run_posted(self) -> None:
        for _ in range(len(self._posted)):
            try:
                self._posted.popleft()()
            except Exception as error:  # noqa: BLE001 - one callback's fault must not stop the others
                self.on_error(error)

    def _settle_all(self) -> bool:
        """Settle what was woken; gives whether a handler was called."""
        dirty = self._dirty
        called = False
        rounds = 0
        while dirty and rounds < _SETTLE_ROUNDS:
            rounds += 1
            for _ in range(len(dirty)):
                if dirty.popleft().settle():
                    called = True
        return called

    def _close_doomed(self) -> None:
        for doomed in self._doomed:
            doomed.close()
        self._doomed.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"{self.name} driver: {self._closed}")
