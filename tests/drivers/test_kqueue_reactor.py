"""What is the kqueue reactor's own: which filters it registers when, and how it is woken."""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("Windows has no kqueue, and no epoll to make one of", allow_module_level=True)

from helianthus.drivers import kqueue as kqueue_module
from helianthus.drivers.address import Address
from helianthus.drivers.errors import ConnectionReset
from helianthus.drivers.kqueue import KqueueReactor, user_filter
from helianthus.protocols.machine import Closing

if hasattr(select, "kqueue"):
    kq: Any = select
else:
    kq = pytest.importorskip("kqueue_double", reason="the double is for Linux")

NAMES = {kq.KQ_FILTER_READ: "read", kq.KQ_FILTER_WRITE: "write", user_filter(kq): "user"}


class Noting:
    """The kqueue of a system, with every change noted as words.

    Attributes:
        changes: Such as "+read" and "-write" for what was added and deleted.
        refused: An error for everybody who adds a user event.
    """

    def __init__(self, refused: int = 0, **replaced: Any) -> None:
        self.changes: list[str] = []
        self.waits: list[float | None] = []
        self.refused = refused
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(kq, name)

    def kqueue(self) -> Any:
        return NotingQueue(self)


class NotingQueue:
    def __init__(self, system: Noting) -> None:
        self._system = system
        self._queue = kq.kqueue()
        self.close = self._queue.close

    def control(self, changes: Any, most: int, timeout: float | None = None) -> Any:
        for change in changes or ():
            name = NAMES.get(change.filter, "user")
            if name == "user" and change.flags & kq.KQ_EV_ADD and self._system.refused:
                raise OSError(self._system.refused, os.strerror(self._system.refused))
            self._system.changes.append(("-" if change.flags & kq.KQ_EV_DELETE else "+") + name)
        if changes is None:
            self._system.waits.append(timeout)
        return self._queue.control(changes, most, timeout)


class Machine:
    """Machine and handler in one: sends what it is told to, counts what it receives."""

    def __init__(self) -> None:
        self.wants_read = True
        self.closing = Closing.OPEN
        self.link: Any = None
        self.received = 0
        self.output: list[bytes] = []
        self.writable = 0
        self.closed = False
        self.error: Exception | None = None

    def deadline(self) -> None:
        return None

    def take_data(self) -> list[bytes]:
        output, self.output = self.output, []
        return output

    def take_actions(self) -> list[Any]:
        return []

    take_events = take_actions

    def receive_data(self, data: Any, now: float) -> None:
        self.received += len(data)

    def receive_eof(self, now: float) -> None:
        self.closing = Closing.FULL

    def connection_lost(self, error: Exception | None, now: float) -> None:
        pass

    def on_ready(self, link: Any) -> None:
        self.link = link

    def on_writable(self) -> None:
        self.writable += 1

    def on_closed(self, error: Exception | None) -> None:
        self.closed, self.error = True, error


@pytest.fixture
def system() -> Noting:
    return Noting()


@pytest.fixture
def reactor(system: Noting) -> Iterator[KqueueReactor]:
    made = KqueueReactor(system=system)
    yield made
    made.close()


def turn_until(reactor: KqueueReactor, predicate: Callable[[], object]) -> None:
    end = reactor.now() + 20.0
    while not predicate():
        assert reactor.now() < end
        reactor.poll(1.0)


def connected(reactor: KqueueReactor) -> tuple[Machine, Machine]:
    """Both ends of a connection."""
    near, far = Machine(), Machine()
    listener = reactor.listen(Address("127.0.0.1", 0), lambda _: (far, far))
    reactor.connect(listener.address, near, near)
    turn_until(reactor, lambda: near.link is not None and far.link is not None)
    listener.close()
    return near, far


# -- filters ----------------------------------------------------------------------------------------------


def test_a_link_is_watched_for_input_only(reactor: KqueueReactor, system: Noting) -> None:
    """The write filter is there while it connects, and not while messages go to and fro."""
    system.changes.clear()
    near, far = connected(reactor)
    filters = sorted(change for change in system.changes if change != "+user")
    assert filters == ["+read", "+read", "+read", "+write", "-write"]  # one is the listener's
    system.changes.clear()
    for number in range(1, 20):
        near.output.append(b"x")
        near.link.wake()
        turn_until(reactor, lambda number=number: far.received == number)
    assert system.changes == []


def test_the_write_filter_is_registered_while_something_is_left_over(
    reactor: KqueueReactor, system: Noting
) -> None:
    """Once, however often the kernel takes only a part; it goes when it reports for nothing."""
    near, far = connected(reactor)
    system.changes.clear()
    total = 32 * 1024 * 1024
    near.output.append(bytes(total))
    near.link.wake()
    turn_until(reactor, lambda: far.received == total)
    assert near.writable == 1
    assert system.changes in (["+write"], ["+write", "-write"])
    near.output.append(bytes(total))
    near.link.wake()
    turn_until(reactor, lambda: far.received == 2 * total)
    assert near.writable == 2
    assert {*system.changes[::2]} == {"+write"}
    assert {*system.changes[1::2]} <= {"-write"}
    for _ in range(5):
        reactor.poll(0.01)
    assert not reactor._writers or system.changes[-1] == "+write"


def test_a_discarded_link_leaves_no_writer_behind(reactor: KqueueReactor) -> None:
    """Its number is free for others."""
    near, far = connected(reactor)
    far.wants_read = False
    far.link.wake()
    near.output.append(bytes(32 * 1024 * 1024))
    near.link.wake()
    turn_until(reactor, lambda: reactor._writers)
    near.link.abort()
    assert not reactor._writers
    far.wants_read = True
    far.link.wake()
    turn_until(reactor, lambda: far.closed)


def test_input_that_came_while_it_connected_is_read(reactor: KqueueReactor) -> None:
    """The read filter is registered after the fact, and reports what is there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        machine = Machine()
        reactor.connect(Address(*listening.getsockname()), machine, machine)
        turn_until(reactor, lambda: reactor._watched)
        with listening.accept()[0] as peer:
            peer.sendall(b"first words")
            turn_until(reactor, lambda: machine.received == 11)


def test_an_error_event_is_a_hint_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """EV_ERROR and EV_EOF for a link mean that reading tells more; for asyncio, what it asked for."""
    reactor = KqueueReactor(system=kq)
    near, far = socket.socketpair()
    try:
        with near, far:
            flags = kq.KQ_EV_ERROR | kq.KQ_EV_EOF
            event = kq.kevent(near.fileno(), kq.KQ_FILTER_READ, flags, 0, errno.EBADF)
            with monkeypatch.context() as patched:
                patched.setattr(reactor, "_queue", Canned([event]))
                assert reactor._wait(0.0) == [(near.fileno(), kqueue_module.READ)]
                patched.setitem(reactor._watched, near.fileno(), None)
                assert reactor._wait(0.0) == [(near.fileno(), kqueue_module.READ | kqueue_module.HANG_UP)]
    finally:
        reactor.close()


class Canned:
    """A queue that always has the same events."""

    def __init__(self, events: list[Any]) -> None:
        self._events = events

    def control(self, *_: Any) -> list[Any]:
        return self._events


def test_a_timeout_below_zero_is_zero(reactor: KqueueReactor, system: Noting) -> None:
    assert reactor.select(-0.5) == []
    assert min(wait for wait in system.waits if wait is not None) == 0.0


def test_this_system_has_no_kqueue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "kqueue", raising=False)
    with pytest.raises(AttributeError, match="kqueue"):
        KqueueReactor()


def test_a_queue_that_cannot_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a forked child, the number of its parent's queue is not open."""

    def fail() -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    reactor = KqueueReactor(system=kq)
    close = reactor._queue.close
    monkeypatch.setattr(reactor, "_queue", type("Broken", (), {"close": staticmethod(fail)})())
    reactor.close()
    close()


# -- waking -------------------------------------------------------------------------------------------------


def wakes(reactor: KqueueReactor) -> bool:
    """Whether a thread ends the wait."""
    ran: list[int] = []
    thread = threading.Thread(target=lambda: reactor.post(lambda: ran.append(1)))
    thread.start()
    turn_until(reactor, lambda: ran)
    thread.join()
    return bool(ran)


@pytest.mark.skipif(user_filter(kq) is None, reason="this system's EVFILT_USER is not known")
def test_a_user_event_wakes_it(system: Noting, reactor: KqueueReactor) -> None:
    assert reactor._wake_reader == -1, "it has opened a pipe"
    assert wakes(reactor)
    assert set(system.changes) == {"+user"}


def test_a_pipe_wakes_it_where_there_are_no_user_events() -> None:
    reactor = KqueueReactor(system=Noting(KQ_FILTER_USER=None) if kq is not select else kq)
    if kq is not select:
        assert reactor._wake_reader >= 0
    assert wakes(reactor)
    reactor.close()


def test_a_pipe_wakes_it_where_the_kernel_refuses_user_events() -> None:
    reactor = KqueueReactor(system=Noting(refused=errno.EINVAL))
    assert reactor._wake_reader >= 0
    assert wakes(reactor)
    reactor.close()


@pytest.mark.skipif(user_filter(kq) is None, reason="this system's EVFILT_USER is not known")
def test_what_else_the_kernel_says_is_raised() -> None:
    with pytest.raises(OSError, match="Cannot allocate memory"):
        KqueueReactor(system=Noting(refused=errno.ENOMEM))


@pytest.mark.parametrize(
    ("platform", "number"), [("darwin", -10), ("freebsd14", -11), ("netbsd10", None), ("linux", None)]
)
def test_the_number_of_the_user_filter(
    monkeypatch: pytest.MonkeyPatch, platform: str, number: int | None
) -> None:
    """Python does not name it; where it does, that counts."""
    monkeypatch.setattr(kqueue_module.sys, "platform", platform)
    assert user_filter(Noting(KQ_FILTER_USER=None)) == number
    assert user_filter(Noting(KQ_FILTER_USER=-42)) == -42


# -- what other systems do ----------------------------------------------------------------------------------


def test_a_peer_that_was_gone_at_once(reactor: KqueueReactor, monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS refuses to set an option of a socket whose peer has reset it, with EINVAL."""

    class Gone(socket.socket):
        def setsockopt(self, level: int, *arguments: Any) -> None:
            if level == socket.IPPROTO_TCP:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            super().setsockopt(level, *arguments)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(socket, "socket", Gone)
        machine = Machine()
        reactor.connect(Address(*listening.getsockname()), machine, machine)
        turn_until(reactor, lambda: machine.closed)
    assert isinstance(machine.error, ConnectionReset)
    assert machine.error.errno == errno.EINVAL
