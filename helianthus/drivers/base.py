"""What every driver offers, and what it asks of those who use it.

A driver knows machines, links and timers. It knows no coroutine and no service: whoever opens a
link gives it a `LinkHandler`, and is told there what happened.
"""

from __future__ import annotations

import logging
import os
import random
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..protocols.machine import Action, DatagramMachine, Machine, StreamMachine
from .address import Address
from .errors import DriverUnavailable
from .timers import Timer, TimerHeap

if TYPE_CHECKING:
    from .datagram_link import DatagramLink
    from .pump import Host, Link

_log = logging.getLogger("helianthus.drivers")

E = TypeVar("E")
T = TypeVar("T")

DEFAULT_WRITE_DEADLINE = 30.0
"""Seconds that a peer may take nothing of what is queued for it before it is dropped."""


class HostHandler(Protocol[E]):
    """Told what a hosted machine has to say."""

    def on_events(self, events: list[E]) -> None:
        """Handle events in order; the list belongs to the handler."""

    def on_actions(self, actions: list[Action]) -> None:
        """Carry out actions, and give each outcome to `machine.complete`, then `wake()`."""


class LinkHandler(HostHandler[E], Protocol[E]):
    """Told what becomes of a link. Calls never nest, and none follows `on_closed`."""

    def on_ready(self, link: Link[Any]) -> None:
        """The link is connected. The first call, unless the connection failed."""

    def on_writable(self) -> None:
        """The transport has taken everything that had been waiting for it."""

    def on_closed(self, error: Exception | None) -> None:
        """The link has ended; `error` is None after a clean close. Always called, once, last."""


Accept = Callable[[str], tuple[StreamMachine[Any], LinkHandler[Any]]]
"""Makes machine and handler for a connection; takes the peer's address as text."""


Resolved = Callable[[list[Address] | None, Exception | None], None]
"""Takes the addresses that a name stands for, or the error."""


class Listener(ABC):
    """Accepts connections at one address until it is closed.

    Attributes:
        address: Where it listens, with the port that was really bound.
    """

    address: Address

    @abstractmethod
    def close(self) -> None:
        """Stop accepting; accepted links live on. May be repeated."""


class Driver(ABC):
    """Moves bytes, time and actions between machines and one platform.

    Not thread-safe, except for `post`. Many drivers may live in one process.

    Attributes:
        name: As given to `helianthus.driver`.
        rng: Seeds the machines; the simulator's is seeded itself.
        on_error: Told of exceptions that callbacks, handlers or machines let out.
        write_deadline: Seconds after which a peer that takes nothing is dropped.
        looks_up_inline: Whether a native driver resolves names in the thread that turns it, and
            blocks it, instead of starting one: for a caller that does nothing but wait.
    """

    name: str

    def __init__(self, rng: random.Random | None = None) -> None:
        self.rng = rng or random.Random()
        self.on_error: Callable[[Exception], None] = _log_error
        self.write_deadline = DEFAULT_WRITE_DEADLINE
        self.looks_up_inline = False
        self._timers = TimerHeap()
        _live.add(self)

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds; their zero means nothing."""

    def random_bytes(self, count: int) -> bytes:
        """Bytes that nobody can guess, for keys and nonces; the simulator's come from its seed."""
        return os.urandom(count)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, not before `when` (seconds of `now()`)."""
        return self._timers.call_at(when, callback)

    @abstractmethod
    def post(self, callback: Callable[[], None]) -> None:
        """Have `callback` called by the driver soon; from any thread or signal handler."""

    @abstractmethod
    def resolve(self, address: Address, done: Resolved) -> None:
        """Find what a host name stands for, without blocking others; see `looks_up_inline`.

        Args:
            address: One with an IP address for its host is what it is.
            done: Called by the driver, never from within: with the addresses in the order of the
                system's preference, or with a `TransportError`.
        """

    @abstractmethod
    def listen(self, address: Address, accept: Accept) -> Listener:
        """Accept connections at an address.

        A host name is resolved at once and may block; port 0 takes any free port.

        Raises:
            TransportError: One of `drivers.errors`, such as `AddressInUse`.
        """

    @abstractmethod
    def connect(self, address: Address, machine: StreamMachine[T], handler: LinkHandler[T]) -> Link[T]:
        """Begin to connect; the handler hears `on_ready`, or `on_closed` with the reason."""

    def bind(self, address: Address, machine: DatagramMachine[T], handler: HostHandler[T]) -> DatagramLink[T]:
        """Send and receive datagrams at an address; port 0 takes any free port.

        Raises:
            DriverUnavailable: The driver has no datagrams.
            TransportError: One of `drivers.errors`, such as `AddressInUse`.
        """
        raise DriverUnavailable(f"the {self.name} driver has no datagrams")

    def host(self, machine: Machine[T], handler: HostHandler[T]) -> Host[T]:
        """Give a machine without a transport its deadlines, and its actions to the handler."""
        from .pump import Host

        host = Host(self, machine, handler)
        host.wake()
        return host

    @abstractmethod
    def in_thread(self, work: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Run blocking work elsewhere; `done(result, error)` is called by the driver."""

    @abstractmethod
    def poll(self, timeout: float | None = None) -> None:
        """Run one tick: wait at most `timeout` seconds (None: no limit) for something to do.

        Raises:
            RuntimeError: Called from within the driver's own callbacks, or while somebody else
                turns the driver.
        """

    @abstractmethod
    def close(self) -> None:
        """Abort every link, close every listener and free what the driver holds.

        May be repeated. Called from within the driver's own callbacks it takes effect when they
        have returned.
        """

    @abstractmethod
    def _settle_soon(self, host: Host[Any]) -> None:
        """Have `host.settle()` called at the end of the present tick, or of the next one."""

    def _abandon(self) -> None:  # noqa: B027 - a driver without descriptors has nothing to forget
        """Forget everything, in a forked child: the descriptors belong to the parent's links."""


def attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Call `work`; gives its result and its error as `Driver.in_thread` hands them over."""
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - handed to whoever asked
        return None, error


_live: weakref.WeakSet[Driver] = weakref.WeakSet()


def _abandon_all() -> None:
    for driver in list(_live):
        driver._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def _log_error(error: Exception) -> None:
    _log.error("a callback let an exception out", exc_info=error)
