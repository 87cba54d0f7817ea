"""A double of `select.kqueue` and `select.kevent` for Linux, after the manual page kqueue(2).

It stands in for the module `select` where `KqueueReactor` takes its kqueue from. The model is that of
the manual page. A queue holds knotes, each found by its ident and filter. A change of the world puts
a knote on a list, if the filter finds its condition true. Who looks at the queue gets the knotes of
that list for which it is still true. EV_CLEAR takes them off the list then, EV_ONESHOT deletes them,
and all others stay on it, for as long as the filter agrees.

What changes tells epoll, edge-triggered: one instance for each filter, so that input does not report
a socket as writable, or the other way round. What is true, and how many bytes it is, the filters ask
the descriptor itself.

Where it differs from a BSD, for the want of Linux' cooperation:

- EVFILT_READ, EVFILT_WRITE and EVFILT_USER are there, for sockets, pipes and FIFOs.
- That a descriptor was closed is noticed when it is next looked at.
- The error of a socket, which `fflags` shows, is a guess: Linux tells an error once only, and it is
  for the program to hear.
- `data` of the write filter is an estimate.

FreeBSD and macOS agree in all that is done here; where the two manual pages leave something open,
FreeBSD's kernel decides.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import termios
import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any

# <sys/event.h>, as `select` of a BSD names them
KQ_FILTER_READ = -1
KQ_FILTER_WRITE = -2
KQ_FILTER_AIO = -3
KQ_FILTER_VNODE = -4
KQ_FILTER_PROC = -5
KQ_FILTER_SIGNAL = -6
KQ_FILTER_TIMER = -7
KQ_EV_ADD = 0x0001
KQ_EV_DELETE = 0x0002
KQ_EV_ENABLE = 0x0004
KQ_EV_DISABLE = 0x0008
KQ_EV_ONESHOT = 0x0010
KQ_EV_CLEAR = 0x0020
KQ_EV_FLAG1 = 0x2000
KQ_EV_SYSFLAGS = 0xF000
KQ_EV_EOF = 0x8000
KQ_EV_ERROR = 0x4000
KQ_NOTE_LOWAT = 0x0001

# what it does not name; the number of the filter is FreeBSD's
KQ_FILTER_USER = -11
EV_RECEIPT = 0x0040
EV_DISPATCH = 0x0080
NOTE_TRIGGER = 0x01000000
NOTE_FFNOP = 0x00000000
NOTE_FFAND = 0x40000000
NOTE_FFOR = 0x80000000
NOTE_FFCOPY = 0xC0000000
_FF_CONTROL = 0xC0000000
_FF_FLAGS = 0x00FFFFFF

_KEPT = KQ_EV_ONESHOT | KQ_EV_CLEAR | EV_RECEIPT | EV_DISPATCH  # flags that a knote keeps from its making
_DESCRIPTORS = (KQ_FILTER_READ, KQ_FILTER_WRITE)
_SIOCOUTQ = termios.TIOCOUTQ  # bytes that a socket has not got rid of

# states of TCP, <netinet/tcp.h>
_SYN_SENT, _SYN_RECEIVED, _CLOSED, _LISTEN = 2, 3, 7, 10
_WE_SHUT = (4, 5, 6, _CLOSED, 9, 11)  # FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, LAST_ACK, CLOSING


class kevent:  # noqa: N801 - its name in `select`
    """An event or a change, as in `select.kevent`."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        ident: Any,
        filter: int = KQ_FILTER_READ,  # noqa: A002 - its name in `select`
        flags: int = KQ_EV_ADD,
        fflags: int = 0,
        data: int = 0,
        udata: int = 0,
    ) -> None:
        self.ident = ident if isinstance(ident, int) else int(ident.fileno())
        self.filter = filter
        self.flags = flags
        self.fflags = fflags
        self.data = data
        self.udata = udata

    def _values(self) -> tuple[int, ...]:
        return self.ident, self.filter, self.flags, self.fflags, self.data, self.udata

    def __eq__(self, other: object) -> bool:
        return isinstance(other, kevent) and self._values() == other._values()

    def __repr__(self) -> str:
        return "<kqueue_double.kevent ident={} filter={} flags={:#x} fflags={:#x} data={} udata={}>".format(
            *self._values()
        )


class kqueue:  # noqa: N801 - its name in `select`
    """A queue of events, as `select.kqueue`; `control` may be called by several threads at once."""

    def __init__(self) -> None:
        self.closed = False
        self._lock = threading.RLock()  # reentrant: a signal handler may call within a call
        self._notes: dict[tuple[int, int], _Note] = {}
        self._active: dict[_Note, None] = {}  # a dict for its order
        self._edges = {kind: select.epoll() for kind in _DESCRIPTORS}
        self._triggered = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._any = select.epoll()
        for fd in (self._triggered, *(edges.fileno() for edges in self._edges.values())):
            self._any.register(fd, select.EPOLLIN)
        _queues.add(self)

    def fileno(self) -> int:
        self._check_open()
        return self._any.fileno()

    def close(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._notes.clear()
            self._active.clear()
        for edges in self._edges.values():
            edges.close()
        os.close(self._triggered)
        self._any.close()

    def control(
        self, changelist: Iterable[kevent] | None, maxevents: int, timeout: float | None = None, /
    ) -> list[kevent]:
        """Apply the changes, then wait for at most `maxevents` events, none of them if it is 0."""
        self._check_open()
        if maxevents < 0:
            raise ValueError(f"Length of eventlist must be 0 or positive, got {maxevents}")
        if timeout is not None and timeout < 0:
            raise ValueError("timeout must be positive or None")
        changes = [] if changelist is None else list(changelist)
        if not all(isinstance(change, kevent) for change in changes):
            raise TypeError("changelist must be an iterable of select.kevent objects")
        with self._lock:
            reports = self._apply_all(changes, maxevents)
        if reports or not maxevents:
            return reports
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                self._check_open()
                self._collect()
                events = self._retrieve(maxevents)
            left = None if end is None else end - time.monotonic()
            if events or (left is not None and left <= 0.0):
                return events
            self._any.poll(left)

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed kqueue object")

    # -- changes ------------------------------------------------------------------------------------

    def _apply_all(self, changes: list[kevent], room: int) -> list[kevent]:
        reports: list[kevent] = []
        for change in changes:
            code = self._apply(change)
            if not code and not change.flags & EV_RECEIPT:
                continue
            if len(reports) < room:
                reports.append(
                    kevent(change.ident, change.filter, KQ_EV_ERROR, change.fflags, code, change.udata)
                )
            elif code:
                raise OSError(code, os.strerror(code))
            else:
                break
        return reports

    def _apply(self, change: kevent) -> int:
        """Apply one change; gives an errno, or 0."""
        if change.filter in _DESCRIPTORS:
            identity = _identity(change.ident)
            for kind in _DESCRIPTORS:  # what was closed has no knotes
                old = self._notes.get((change.ident, kind))
                if old is not None and old.identity != identity:
                    self._drop(old)
            if identity is None:
                return errno.EBADF
        elif change.filter == KQ_FILTER_USER:
            identity = None
        else:
            return errno.EINVAL
        note = self._notes.get((change.ident, change.filter))
        if note is None and (not change.flags & KQ_EV_ADD or change.flags & KQ_EV_DELETE):
            return errno.ENOENT
        if note is None:
            note = _Note(change, identity)
            try:
                self._attach(note)
            except OSError:
                return errno.EINVAL  # no socket, no pipe
            self._notes[note.key] = note
        elif change.flags & KQ_EV_DELETE:
            self._drop(note)
            return 0
        self._modify(note, change)
        return 0

    def _attach(self, note: _Note) -> None:
        if note.filter in _DESCRIPTORS:
            edges = self._edges[note.filter]
            with contextlib.suppress(FileNotFoundError):
                edges.unregister(note.ident)  # the leavings of a file that was closed here but lives on
            edges.register(note.ident, _WATCHED[note.filter])

    def _modify(self, note: _Note, change: kevent) -> None:
        note.udata = change.udata
        if note.filter == KQ_FILTER_USER:
            note.touch(change)
        elif change.flags & KQ_EV_ADD:
            note.low_water = change.data if change.fflags & KQ_NOTE_LOWAT else 1
        if change.flags & KQ_EV_DISABLE:
            note.enabled = False
        elif change.flags & (KQ_EV_ADD | KQ_EV_ENABLE):
            note.enabled = True
        if note.enabled and note.look():
            self._active.setdefault(note)
            os.eventfd_write(self._triggered, 1)  # somebody may be waiting in another thread

    def _drop(self, note: _Note) -> None:
        self._notes.pop(note.key, None)
        self._active.pop(note, None)
        if note.filter in _DESCRIPTORS:
            with contextlib.suppress(OSError):
                self._edges[note.filter].unregister(note.ident)

    # -- events -------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Put on the list what has changed and whose filter agrees."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._triggered)
        for kind, edges in self._edges.items():
            for ident, _ in edges.poll(0):
                note = self._notes.get((ident, kind))
                if note is not None and note.look():
                    self._active.setdefault(note)
        for note in list(self._notes.values()):
            if note.has_got_rid_of_something() and note.look():
                self._active.setdefault(note)

    def _retrieve(self, most: int) -> list[kevent]:
        """Take from the list what the filters still agree to."""
        events: list[kevent] = []
        for note in list(self._active):
            if len(events) == most:
                break
            if note.is_gone():
                self._drop(note)
                continue
            if not note.enabled:
                continue
            del self._active[note]
            if not note.look():
                continue
            events.append(note.event())
            if note.flags & KQ_EV_ONESHOT:
                self._drop(note)
            elif note.flags & (KQ_EV_CLEAR | EV_DISPATCH):
                note.reset()
            else:
                self._active[note] = None  # at the end: the others have their turn
        return events


class _Note:
    """What a queue knows of one ident and filter."""

    def __init__(self, change: kevent, identity: tuple[int, int] | None) -> None:
        self.ident = change.ident
        self.filter = change.filter
        self.flags = change.flags & _KEPT
        self.identity = identity
        self.enabled = True
        self.udata = change.udata
        self.low_water = 1
        self.data = 0
        self.fflags = 0
        self._user_flags = 0
        self._triggered = False
        self._eof = False
        self._was_connected = False
        self._unsent = 0

    @property
    def key(self) -> tuple[int, int]:
        return self.ident, self.filter

    def is_gone(self) -> bool:
        """Whether the descriptor has been closed."""
        return self.identity is not None and _identity(self.ident) != self.identity

    def event(self) -> kevent:
        """What is told of it."""
        flags = self.flags | (KQ_EV_EOF if self._eof else 0)
        return kevent(self.ident, self.filter, flags, self.fflags, self.data, self.udata)

    def reset(self) -> None:
        """It has been told."""
        if self.flags & KQ_EV_CLEAR:
            self.data = self.fflags = 0
            self._triggered = False
        if self.flags & EV_DISPATCH:
            self.enabled = False

    def touch(self, change: kevent) -> None:
        """Change a user event."""
        given, how = change.fflags & _FF_FLAGS, change.fflags & _FF_CONTROL
        if how == NOTE_FFAND:
            self._user_flags &= given
        elif how == NOTE_FFOR:
            self._user_flags |= given
        elif how == NOTE_FFCOPY:
            self._user_flags = given
        self.data = change.data
        if change.fflags & NOTE_TRIGGER:
            self._triggered = True

    def has_got_rid_of_something(self) -> bool:
        """Whether an acknowledgement has freed space: on a BSD, a change for the write filter."""
        if self.filter != KQ_FILTER_WRITE or not self.flags & KQ_EV_CLEAR or self.is_gone():
            return False
        before, self._unsent = self._unsent, _pending(self.ident, _SIOCOUTQ)
        return self._unsent < before

    # -- the filters ----------------------------------------------------------------------------------

    def look(self) -> bool:
        """Whether the condition holds; notes data, EV_EOF and fflags."""
        if self.filter == KQ_FILTER_USER:
            self.fflags = self._user_flags
            return self._triggered
        if self.is_gone():
            return False
        poll = select.poll()
        poll.register(self.ident, _POLLED[self.filter])
        found = dict(poll.poll(0)).get(self.ident, 0)
        if not stat.S_ISSOCK(os.fstat(self.ident).st_mode):
            return self._look_at_other(found)
        sock = _socket.socket(fileno=self.ident)  # not Python's: tests replace that
        try:
            return self._look_at_socket(sock, found)
        finally:
            sock.detach()

    def _look_at_other(self, found: int) -> bool:
        """A pipe; or what Linux has besides and asyncio watches there, such as a pidfd."""
        if self.filter == KQ_FILTER_READ:
            self._eof = bool(found & (select.POLLHUP | select.POLLERR))  # of a writer: nobody reads it
            self.data = max(_pending(self.ident, termios.FIONREAD), 1) if found & select.POLLIN else 0
        else:
            self._eof = bool(found & select.POLLERR)
            self.data = _room_of_pipe(self.ident) if found & select.POLLOUT else 0
        return self._eof or self.data >= self.low_water

    def _look_at_socket(self, sock: _socket.socket, found: int) -> bool:
        state, backlog = _tcp(sock)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self.data = backlog or bool(found & select.POLLIN)
            return self.filter == KQ_FILTER_READ and self.data > 0
        if state in (_SYN_SENT, _SYN_RECEIVED):
            return False
        failed = bool(found & select.POLLERR)
        if sock.type == socket.SOCK_DGRAM:
            return self._look_at_datagrams(sock, found)
        if state == _CLOSED and not failed and not self._was_connected:
            return False  # it has never been connected
        if failed:
            self.fflags = errno.ECONNRESET if self._was_connected else errno.ECONNREFUSED
        self._was_connected = self._was_connected or state != _CLOSED
        if self.filter == KQ_FILTER_READ:
            self._eof = failed or bool(found & (select.POLLRDHUP | select.POLLHUP))
            self.data = _pending(self.ident, termios.FIONREAD) if found & select.POLLIN else 0
            return self._eof or self.data >= self.low_water
        self._eof = failed or bool(found & select.POLLHUP) or state in _WE_SHUT
        room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - _pending(self.ident, _SIOCOUTQ)
        self.data = max(room, 1) if found & select.POLLOUT else 0
        return self._eof or self.data >= self.low_water

    def _look_at_datagrams(self, sock: _socket.socket, found: int) -> bool:
        ready = select.POLLIN if self.filter == KQ_FILTER_READ else select.POLLOUT
        if self.filter == KQ_FILTER_READ:
            self.data = _pending(self.ident, termios.FIONREAD)
        else:
            self.data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        return bool(found & (ready | select.POLLERR))  # an error is to be heard of, and ends nothing


_WATCHED = {
    KQ_FILTER_READ: select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET,
    KQ_FILTER_WRITE: select.EPOLLOUT | select.EPOLLET,
}
_POLLED = {KQ_FILTER_READ: select.POLLIN | select.POLLRDHUP, KQ_FILTER_WRITE: select.POLLOUT}


def _identity(fd: int) -> tuple[int, int] | None:
    """What tells an open file from another that has its number later."""
    try:
        found = os.fstat(fd)
    except (OSError, OverflowError):
        return None
    return found.st_dev, found.st_ino


def _pending(fd: int, request: int) -> int:
    """Bytes that wait; 0 where the descriptor does not tell."""
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(fd, request, bytes(4)))
    except OSError:
        return 0
    return int(count)


def _room_of_pipe(fd: int) -> int:
    """Bytes that a pipe takes; 1 where it is something else that can be written to."""
    try:
        size = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except OSError:
        return 1
    return max(size - _pending(fd, termios.FIONREAD), 1)


def _tcp(sock: _socket.socket) -> tuple[int, int]:
    """The state of a TCP socket, and the connections that wait for a listener; zeros for others."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return 0, 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
    return info[0], struct.unpack_from("I", info, 24)[0] if info[0] == _LISTEN else 0


_queues: weakref.WeakSet[kqueue] = weakref.WeakSet()


def _not_inherited() -> None:
    """A queue is not inherited by a child; Python closes its object there."""
    for queue in list(_queues):
        queue.close()


os.register_at_fork(after_in_child=_not_inherited)
