"""The native reactor on the kqueue of macOS and the BSDs.

A queue knows a descriptor by filters: one for reading, one for writing. Both are registered with
EV_CLEAR, which makes them report changes instead of states. A link is watched for input only. With
EV_CLEAR every acknowledgement of the peer would be such a change for the write filter, and would wake
the reactor once more for each message; so it is registered while a connection is being made, and
again when the kernel has left something over, and it is removed when it reports for nothing.

Changes take effect at once. Were they to wait for the next look at the queue, where they would cost no
system call, the descriptor could be another by then.

EV_EOF and EV_ERROR mean that the next system call tells more. The error of a socket also comes in
`fflags`, but there it is only shown: the call that fails takes it, and says when it happened, before
or after what is still to be read.
"""

from __future__ import annotations

import contextlib
import errno
import random
import select
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .native import HANG_UP, READ, WRITE
from .reactor import Reactor
from .socket_link import SocketLink

_FLAGS = {flags: flags for flags in range((READ | WRITE | HANG_UP) + 1)}  # `_wait` speaks the reactor's own
_BATCH = 512  # events taken from the kernel at a time

# <sys/event.h>. `select` of Python up to 3.14 names neither, where the systems have both.
_USER_FILTERS = {"darwin": -10, "freebsd": -11}
_TRIGGER = 0x01000000
_WAKE_UP = 0  # the identifier of the only user event


class KernelEvent(Protocol):
    """What `select.kevent` makes."""

    ident: int
    filter: int
    flags: int
    fflags: int
    data: Any


class KernelQueue(Protocol):
    """What `select.kqueue` makes."""

    def control(
        self, changelist: Sequence[Any] | None, maxevents: int, timeout: float | None = None, /
    ) -> Sequence[KernelEvent]:
        """Apply changes, then wait for events."""

    def close(self) -> None:
        """Free the queue."""


class KqueueModule(Protocol):
    """The part of `select` that exists where there is a kqueue."""

    KQ_FILTER_READ: int
    KQ_FILTER_WRITE: int
    KQ_EV_ADD: int
    KQ_EV_DELETE: int
    KQ_EV_CLEAR: int
    KQ_EV_EOF: int
    KQ_EV_ERROR: int

    @property
    def kqueue(self) -> Callable[[], KernelQueue]:
        """Makes a queue."""

    @property
    def kevent(self) -> Callable[..., KernelEvent]:
        """Makes an event from ident, filter, flags, fflags, data and udata."""


class KqueueReactor(Reactor):
    """Pumps links over kqueue with EV_CLEAR, and serves asyncio as a selector.

    Args:
        rng: Seeds the machines.
        system: Where to take the kqueue from, instead of `select`.

    Raises:
        AttributeError: This system has no kqueue.
    """

    name = "kqueue"
    _flags = _FLAGS

    def __init__(self, rng: random.Random | None = None, *, system: KqueueModule | None = None) -> None:
        known: Any = select  # type checkers know its kqueue on the systems that have one
        self._system: KqueueModule = known if system is None else system
        self._queue = self._system.kqueue()
        self._read, self._write = self._system.KQ_FILTER_READ, self._system.KQ_FILTER_WRITE
        self._add = self._system.KQ_EV_ADD
        self._edge = self._system.KQ_EV_ADD | self._system.KQ_EV_CLEAR
        self._delete = self._system.KQ_EV_DELETE
        self._ended = self._system.KQ_EV_EOF | self._system.KQ_EV_ERROR
        self._user_filter: int | None = None  # None: a pipe wakes it
        self._writers: dict[int, SocketLink[Any]] = {}  # whose write filter is registered
        super().__init__(rng)

    # -- filters ------------------------------------------------------------------------------------

    def _watch_edges(self, fd: int, events: int, previous: int = 0) -> None:
        self._switch(fd, events, previous, self._edge)

    def _watch_level(self, fd: int, events: int, previous: int) -> None:
        self._switch(fd, events, previous, self._add)

    def _switch(self, fd: int, events: int, previous: int, flags: int) -> None:
        """Register the filters that are new among `events`, remove those that are no longer in it."""
        event = self._system.kevent
        both = ((READ, self._read), (WRITE, self._write))
        added = [event(fd, kind, flags) for bit, kind in both if events & bit and not previous & bit]
        if added:
            self._queue.control(added, 0, 0)
        for bit, kind in both:
            if previous & bit and not events & bit:
                with contextlib.suppress(OSError):  # its owner has closed it, and the kernel forgot it
                    self._queue.control([event(fd, kind, self._delete)], 0, 0)

    def await_writable(self, link: SocketLink[Any]) -> None:
        """Report it once a link's socket takes more; see `Reactor.await_writable`."""
        fd = link.sock.fileno()
        if fd not in self._writers:
            self._writers[fd] = link
            self._watch_edges(fd, WRITE)

    def discard(self, sock: Any) -> None:
        """Close a socket, and with it the kernel removes its filters; see `Reactor.discard`."""
        self._writers.pop(sock.fileno(), None)
        super().discard(sock)

    # -- events -------------------------------------------------------------------------------------

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        ready: dict[int, int] = {}  # the events of both filters of a socket are one for its link
        if timeout is not None and timeout < 0.0:
            timeout = 0.0  # kqueue refuses what a selector is to take for zero
        for event in self._queue.control(None, _BATCH, timeout):
            fd, kind = event.ident, event.filter
            if kind == self._read:
                flags = READ
            elif kind == self._write:
                writer = self._writers.get(fd)
                if writer is not None and not writer.awaits_room:
                    del self._writers[fd]
                    self._watch_edges(fd, 0, WRITE)
                    continue
                flags = WRITE
            else:
                continue  # the user event: it was to end the wait, and has
            if event.flags & self._ended and fd in self._watched:
                flags |= HANG_UP
            ready[fd] = ready.get(fd, 0) | flags
        return list(ready.items())

    def _close_queue(self) -> None:
        with contextlib.suppress(OSError):  # in a forked child there is none: queues are not inherited
            self._queue.close()

    # -- waking the wait from another thread ----------------------------------------------------------

    def _open_wake_up(self) -> None:
        kind = user_filter(self._system)
        if kind is not None:
            try:
                self._queue.control([self._system.kevent(_WAKE_UP, kind, self._edge)], 0, 0)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise
            else:
                self._user_filter = kind
                return
        super()._open_wake_up()

    def _wake_up(self) -> None:
        if self._user_filter is None:
            super()._wake_up()
            return
        trigger = self._system.kevent(_WAKE_UP, self._user_filter, 0, _TRIGGER)
        with contextlib.suppress(OSError, ValueError):  # closed: nobody waits
            self._queue.control([trigger], 0, 0)

    def _close_wake_up(self) -> None:
        if self._user_filter is None:
            super()._close_wake_up()


def user_filter(system: KqueueModule) -> int | None:
    """The number of EVFILT_USER, if the system has one that is known."""
    named: int | None = getattr(system, "KQ_FILTER_USER", None)
    if named is not None:
        return named
    return next((kind for name, kind in _USER_FILTERS.items() if sys.platform.startswith(name)), None)
