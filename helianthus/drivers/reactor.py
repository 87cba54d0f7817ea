"""The readiness reactor that epoll and kqueue share.

A reactor owns its links and timers, and turns in one of two ways: somebody calls `poll()`, or an
asyncio loop uses it as its selector (`asyncio.SelectorEventLoop(reactor)`), in which case every
`select()` of the loop also turns the reactor. Its own sockets are registered edge-triggered, once;
those that asyncio registers are level-triggered, as asyncio expects.

One tick: settle what was commanded since the last one, wait, read, run timers and posts, settle.
Sockets closed during a tick are freed at its end, so that the kernel cannot give their number to a
new socket while events for the old one are still in the batch.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ..protocols.machine import StreamMachine
from .address import Address
from .base import Accept, Driver, LinkHandler, Resolved, attempt
from .names import literal_candidate, look_up
from .pump import Host
from .socket_link import HANG_UP, Connector, SocketLink, SocketListener, Watched
from .timers import TimerHeap

T = TypeVar("T")

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

RECEIVE_BUFFER = 256 * 1024
"""Bytes of the one buffer that all of a reactor's links receive into."""

_SETTLE_ROUNDS = 16  # links woken by handlers while settling go again this often within one tick
_THREADS = 8  # for name resolution and disk; started only when needed


class Reactor(Driver, selectors.BaseSelector):
    """A driver over readiness events; a subclass brings the kernel's queue."""

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__(rng)
        self.now = time.monotonic  # type: ignore[method-assign]  # the method, without its own frame
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER))
        # These have more to read than one tick allows. A dict for its order, and because each is to be
        # in it once: a link that were entered again by every edge would soon be read from all day.
        self.unread: dict[Watched, None] = {}
        self._dirty: deque[Host[Any]] = deque()
        self._settle_soon = self._dirty.append  # type: ignore[assignment,method-assign]  # likewise
        self._connecting: dict[SocketLink[Any], None] = {}  # a dict for its order
        self._watched: dict[int, Watched] = {}
        self._doomed: list[socket.socket] = []  # to be closed at the end of the tick
        self._batch: deque[tuple[int, int]] = deque()  # survives a KeyboardInterrupt in a handler
        self._posted: deque[Callable[[], None]] = deque()
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._turning = False
        self._close_wanted = False
        self._closed = ""  # why it can be used no more
        self._open_wake_up()

    # -- the kernel's queue, brought by the subclass --------------------------------------------

    @abstractmethod
    def _watch_edges(self, fd: int) -> None:
        """Report both directions of a socket, edge-triggered, until it is closed."""

    @abstractmethod
    def _watch_level(self, fd: int, events: int, previous: int) -> None:
        """Report an fd while it is ready for `events`; zero ends it. `previous` was in force."""

    _flags: Mapping[int, int]
    """What the kernel's flags mean: READ, WRITE and HANG_UP."""

    @abstractmethod
    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for readiness; gives descriptors with the kernel's flags."""

    @abstractmethod
    def _close_queue(self) -> None:
        """Free the kernel's queue."""

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
        if literal_candidate(address.host, address.port) is not None:
            self.post(lambda: done([address], None))
        elif self.looks_up_inline:
            self.post(lambda: done(*attempt(lambda: look_up(address))))
        else:
            self.in_thread(lambda: look_up(address), done)

    def listen(self, address: Address, accept: Accept) -> SocketListener:
        """Accept connections at an address; see `Driver.listen`."""
        self._check_open()
        listener = SocketListener(self, address, accept)
        self.watch(listener)
        return listener

    def connect(self, address: Address, machine: StreamMachine[T], handler: LinkHandler[T]) -> SocketLink[T]:
        """Begin to connect; see `Driver.connect`."""
        self._check_open()
        link = SocketLink(self, machine, handler, f"{address.host}:{address.port}")
        self._connecting[link] = None
        Connector(self, address, link).start()
        return link

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
        if self._keys:  # what is ready of these would be lost
            raise RuntimeError(f"{self.name} driver: an asyncio loop turns it; poll() would take its events")
        self._tick(timeout)

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
        self._keys.clear()
        self._close_wake_up()
        self._close_queue()

    def abort_all(self) -> None:
        """Abort every link and close every listener; the reactor itself goes on."""
        for connecting in list(self._connecting):
            connecting.abort()
        for watched in list(self._watched.values()):
            watched.driver_closed()

    def _settle_soon(self, host: Host[Any]) -> None:
        self._dirty.append(host)

    # -- for the reactor's own links ---------------------------------------------------------------

    def watch(self, watched: Watched) -> None:
        """Begin to tell a link, listener or connector about its socket's readiness."""
        fd = watched.sock.fileno()
        self._watched[fd] = watched
        self._watch_edges(fd)

    def hand_over_watch(self, watched: Watched) -> None:
        """Tell another object about a socket that is already watched."""
        self._watched[watched.sock.fileno()] = watched

    def connect_ended(self, link: SocketLink[Any]) -> None:
        """A link is no longer being connected."""
        self._connecting.pop(link, None)

    def discard(self, sock: socket.socket) -> None:
        """Close a socket, during a tick at the end of it."""
        self._watched.pop(sock.fileno(), None)
        if self._turning:
            self._doomed.append(sock)
        else:
            sock.close()

    def _abandon(self) -> None:
        """Forget everything, in a forked child; see `Driver._abandon`."""
        if self._closed:
            return
        self._closed = "it was made before the fork and belongs to the parent process; make another"
        self._close_wake_up()
        self._close_queue()
        for watched in self._watched.values():
            watched.sock.close()  # without shutdown: the parent's connection lives on
        self._watched.clear()
        # new ones instead of clear(): the fork may have happened in a callback, inside their loops
        self._posted, self._dirty, self.unread = deque(), deque(), {}
        self._settle_soon = self._dirty.append  # type: ignore[assignment,method-assign]  # as above
        self._timers = TimerHeap()
        self._threads = None

    # -- one tick -------------------------------------------------------------------------------------

    def _tick(self, timeout: float | None) -> list[tuple[int, int]]:
        """Turn once; returns readiness of descriptors that are not the reactor's own."""
        if self._closed or self._turning:
            self._check_open()
            raise RuntimeError(f"{self.name} driver: poll() was called from within its own callbacks")
        self._turning = True
        try:
            if self._dirty and self._settle_all():
                timeout = 0.0  # a handler was called: asyncio, or our caller, may have got work from it
            if not self._batch:
                self._batch.extend(self._wait(self._patience(timeout)))
            foreign = self._dispatch()
            if self.unread:
                self._read_on()
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
        return wait if timeout is None or wait < timeout else timeout

    def _dispatch(self) -> list[tuple[int, int]]:
        foreign: list[tuple[int, int]] = []
        batch = self._batch
        watched = self._watched
        while batch:
            fd, flags = batch[0]
            owner = watched.get(fd)
            if owner is not None:
                owner.ready(self._flags[flags])
            elif fd == self._wake_reader:
                self._drain_wake_up()
            else:
                foreign.append((fd, self._flags[flags]))
            batch.popleft()  # not before: an interrupted owner is to try again
        return foreign

    def _read_on(self) -> None:
        """Go on with sockets that had more to read than one tick allows."""
        for watched in list(self.unread):
            self.unread.pop(watched, None)
            try:
                watched.ready(READ)
            except BaseException:
                self.unread[watched] = None  # interrupted: it is to try again
                raise

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
        for sock in self._doomed:
            sock.close()
        self._doomed.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"{self.name} driver: {self._closed}")

    # -- waking the wait from another thread -----------------------------------------------------------

    def _open_wake_up(self) -> None:
        """Make the descriptor through which another thread ends the wait."""
        self._wake_reader, self._wake_writer = os.pipe()
        for fd in (self._wake_reader, self._wake_writer):
            os.set_blocking(fd, False)
        self._watch_level(self._wake_reader, READ, 0)

    def _wake_up(self) -> None:
        with contextlib.suppress(OSError):  # full: the reader wakes anyway; -1, closed: nobody waits
            os.write(self._wake_writer, b"\0")

    def _drain_wake_up(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._wake_reader, 4096)) == 4096:
                pass

    def _close_wake_up(self) -> None:
        reader, writer = self._wake_reader, self._wake_writer
        self._wake_reader = self._wake_writer = -1  # their numbers may soon be somebody else's
        os.close(reader)
        os.close(writer)

    # -- selectors.BaseSelector: descriptors of the asyncio loop on top ---------------------------------

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Turn once; returns what is ready of that which `register` was called for."""
        ready = []
        for fd, events in self._tick(timeout):
            key = self._keys.get(fd)
            if key is not None:
                # after a hang-up both directions are worth trying, as in `selectors.EpollSelector`
                mask = key.events if events & HANG_UP else events & key.events
                if mask:
                    ready.append((key, mask))
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Report a descriptor from `select` while it is ready."""
        key = selectors.SelectorKey(fileobj, _descriptor(fileobj), events, data)
        if key.fd in self._keys:
            raise KeyError(f"{fileobj!r} (FD {key.fd}) is already registered")
        self._watch_level(key.fd, events, 0)
        self._keys[key.fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Undo `register`."""
        key = self._key_of(fileobj)
        del self._keys[key.fd]
        if not self._closed:
            self._watch_level(key.fd, 0, key.events)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Change what a registered descriptor is watched for, or the data that goes with it."""
        key = self._key_of(fileobj)
        if events != key.events:
            self._watch_level(key.fd, events, key.events)
        key = key._replace(events=events, data=data)
        self._keys[key.fd] = key
        return key

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """The registered descriptors and their keys; asyncio looks up by number and by object."""
        return _Registered(self)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """The key of a registered descriptor."""
        return self._key_of(fileobj)

    def _key_of(self, fileobj: Any) -> selectors.SelectorKey:
        try:
            return self._keys[_descriptor(fileobj)]
        except (KeyError, ValueError):
            pass
        for key in self._keys.values():  # a file object that has been closed has lost its number
            if key.fileobj is fileobj:
                return key
        raise KeyError(f"{fileobj!r} is not registered")


class _Registered(Mapping[Any, selectors.SelectorKey]):
    """A reactor's keys, by descriptor number or by file object."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor

    def __getitem__(self, fileobj: Any) -> selectors.SelectorKey:
        return self._reactor.get_key(fileobj)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._reactor._keys)

    def __len__(self) -> int:
        return len(self._reactor._keys)


def _descriptor(fileobj: Any) -> int:
    fd = fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
    if fd < 0:
        raise ValueError(f"{fileobj!r} has no valid file descriptor")
    return fd
