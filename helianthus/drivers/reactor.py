"""The readiness reactor that epoll and kqueue share.

A reactor owns its links and timers, and turns in one of two ways: somebody calls `poll()`, or an
asyncio loop uses it as its selector (`asyncio.SelectorEventLoop(reactor)`), in which case every
`select()` of the loop also turns the reactor. Its own sockets are registered edge-triggered, once;
those that asyncio registers are level-triggered, as asyncio expects.

What happens in one tick is `native.py`'s. Sockets closed during a tick are freed at its end, so that
the kernel cannot give their number to a new socket while events for the old one are still in the
batch.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ..protocols.machine import DatagramMachine, StreamMachine
from .address import Address
from .base import Accept, DatagramHandler, LinkHandler
from .datagram_options import DEFAULT_OPTIONS, DatagramOptions
from .datagram_socket import open_datagram_socket
from .native import HANG_UP, READ, WRITE, NativeDriver
from .socket_datagrams import ReactorDatagramLink
from .socket_link import Connector, SocketLink, SocketListener, Watched
from .unix_connector import UnixConnector

T = TypeVar("T")


class Reactor(NativeDriver, selectors.BaseSelector):
    """A driver over readiness events; a subclass brings the kernel's queue."""

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__(rng)
        self._connecting: dict[SocketLink[Any], None] = {}  # a dict for its order
        self._watched: dict[int, Watched] = {}
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._open_wake_up()

    # -- the kernel's queue, brought by the subclass --------------------------------------------

    @abstractmethod
    def _watch_edges(self, fd: int, events: int, previous: int = 0) -> None:
        """Report a socket, edge-triggered, until it is closed.

        Reports for directions that are not among `events` are allowed, where they cost nothing.
        `previous` was in force.
        """

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

    def _free(self) -> None:
        self._keys.clear()
        self._close_wake_up()
        self._close_queue()

    def _serves_a_loop(self) -> bool:
        return bool(self._keys)

    # -- Driver -----------------------------------------------------------------------------------

    def listen(self, address: Address, accept: Accept) -> SocketListener:
        """Accept connections at an address; see `Driver.listen`."""
        self._check_open()
        listener = SocketListener(self, address, accept)
        self.watch(listener, READ)
        return listener

    def connect(self, address: Address, machine: StreamMachine[T], handler: LinkHandler[T]) -> SocketLink[T]:
        """Begin to connect; see `Driver.connect`."""
        self._check_open()
        link = SocketLink(self, machine, handler, address.endpoint)
        self._connecting[link] = None
        connector = UnixConnector if address.local else Connector
        connector(self, address, link).start()
        return link

    def bind(
        self,
        address: Address,
        machine: DatagramMachine[T],
        handler: DatagramHandler[T],
        options: DatagramOptions = DEFAULT_OPTIONS,
    ) -> ReactorDatagramLink[T]:
        """Send and receive datagrams at an address; see `Driver.bind`."""
        self._check_open()
        link = ReactorDatagramLink(self, machine, handler, open_datagram_socket(address, options), options)
        self.watch(link)
        link.wake()
        return link

    def abort_all(self) -> None:
        """Abort every link and close every listener; the reactor itself goes on."""
        for connecting in list(self._connecting):
            connecting.abort()
        for watched in list(self._watched.values()):
            watched.driver_closed()

    def _live_links(self) -> list[SocketLink[Any]]:
        return [watched for watched in self._watched.values() if isinstance(watched, SocketLink)]

    # -- for the reactor's own links ---------------------------------------------------------------

    def watch(self, watched: Watched, events: int = READ | WRITE) -> None:
        """Begin to tell a link, listener or connector about its socket's readiness."""
        fd = watched.sock.fileno()
        self._watched[fd] = watched
        self._watch_edges(fd, events)

    def hand_over_watch(self, watched: Watched) -> None:
        """Tell a link about the input of a socket that was watched for the end of connecting."""
        fd = watched.sock.fileno()
        self._watched[fd] = watched
        self._watch_edges(fd, READ, WRITE)

    def await_writable(self, link: SocketLink[Any]) -> None:
        """The kernel has not taken all of what a link sent: tell it when it takes more.

        For queues that report so only when they are asked.
        """

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
        super()._abandon()
        self._close_wake_up()
        self._close_queue()
        for watched in self._watched.values():
            watched.sock.close()  # without shutdown: the parent's connection lives on
        self._watched.clear()

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

    # -- waking the wait from another thread -----------------------------------------------------------

    _wake_reader = _wake_writer = -1  # where another way to wake it takes the place of the pipe

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
