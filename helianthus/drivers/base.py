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
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from ..protocols.machine import Action, DatagramMachine, Machine, StreamMachine
from .address import Address
from .buffers import BufferPool
from .datagram_options import DEFAULT_OPTIONS, DatagramOptions
from .errors import AcceptPaused, DriverUnavailable
from .link_options import Fairness
from .link_statistics import DriverStatistics, LinkStatistics
from .timers import Timer, TimerHeap

if TYPE_CHECKING:
    from .datagram_link import DatagramLink
    from .pump import Host, Link
    from .recordings import Recordings

_log = logging.getLogger("helianthus.drivers")

E = TypeVar("E")
M = TypeVar("M")
T = TypeVar("T")
P = ParamSpec("P")

DEFAULT_WRITE_DEADLINE = 30.0
"""Seconds that a peer may take nothing of what is queued for it before it is dropped."""


class HostHandler(Protocol[E]):
    """Told what a hosted machine has to say."""

    def on_events(self, events: list[E]) -> None:
        """Handle events in order; the list belongs to the handler."""

    def on_actions(self, actions: list[Action]) -> None:
        """Carry out actions, and give each outcome to `machine.complete`, then `wake()`."""


class LinkHandler(HostHandler[E], Protocol[E]):
    """Told what becomes of a link. Calls never nest, and none follows `on_closed`.

    A handler with an attribute `link_options` says with it how its link writes; see `LinkOptions`.
    """

    def on_ready(self, link: Link[Any]) -> None:
        """The link is connected. The first call, unless the connection failed."""

    def on_writable(self) -> None:
        """The transport has taken everything that had been waiting for it."""

    def on_closed(self, error: Exception | None) -> None:
        """The link has ended; `error` is None after a clean close. Always called, once, last."""


class DatagramHandler(HostHandler[E], Protocol[E]):
    """Told what becomes of a datagram socket. None of its calls follows `on_closed`."""

    def on_closed(self, error: Exception | None) -> None:
        """The socket has been closed; `error` is None unless it broke. Always called, once, last."""


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

    def pause(self) -> None:  # noqa: B027 - see below
        """Leave connections to the system, which holds some, until `resume`. May be repeated.

        Called from within `accept`, too. A driver that cannot do so goes on accepting.
        """

    def resume(self) -> None:  # noqa: B027 - nothing has been paused
        """Accept again, first what has come meanwhile. May be repeated."""


class Driver(ABC):
    """Moves bytes, time and actions between machines and one platform.

    Not thread-safe, except for `post`. Many drivers may live in one process.

    Attributes:
        name: As given to `helianthus.driver`.
        rng: Seeds the machines; the simulator's is seeded itself.
        on_error: Told of exceptions that callbacks, handlers or machines let out, and of listeners
            that cannot accept (`AcceptPaused`).
        write_deadline: Seconds after which a peer that takes nothing is dropped.
        looks_up_inline: Whether a native driver resolves names in the thread that turns it, and
            blocks it, instead of starting one: for a caller that does nothing but wait.
        recordings: Where the inputs of machines are recorded, or None; at first the directory that
            the environment variable HELIANTHUS_RECORD names.
        fairness: How much one link or listener may do in a tick. May be replaced at any time.
        buffers: Lends the memory that operations and machines own for a while. May be replaced as
            long as nothing was leased.
    """

    name: str

    def __init__(self, rng: random.Random | None = None) -> None:
        self.rng = rng or random.Random()
        self.on_error: Callable[[Exception], None] = _log_error
        self.write_deadline = DEFAULT_WRITE_DEADLINE
        self.looks_up_inline = False
        self.recordings = _recordings_wanted()
        self.fairness = Fairness()
        self.buffers = BufferPool()
        self._ended_links = LinkStatistics()
        self._timers = TimerHeap()
        _live.add(self)

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds; their zero means nothing."""

    def random_bytes(self, count: int) -> bytes:
        """Bytes that nobody can guess, for keys and nonces; the simulator's come from its seed."""
        return os.urandom(count)

    def make_machine(self, label: str, cls: Callable[P, M], *args: P.args, **kwargs: P.kwargs) -> M:
        """Make a machine, whose inputs are recorded where `recordings` is set.

        Args:
            label: What it is for, such as the peer's address; names the recording.
            cls: Its class.
            args: Of its constructor.
            kwargs: Likewise.
        """
        if self.recordings is None:
            return cls(*args, **kwargs)
        return self.recordings.make(label, self.name, cls, *args, **kwargs)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, not before `when` (seconds of `now()`; infinity is never).

        Raises:
            ValueError: `when` is no number, or NaN.
        """
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

    def bind(
        self,
        address: Address,
        machine: DatagramMachine[T],
        handler: DatagramHandler[T],
        options: DatagramOptions = DEFAULT_OPTIONS,
    ) -> DatagramLink[T]:
        """Send and receive datagrams at an address.

        The address may have any scheme but those of paths: `udp` and `dtls` are both UDP to a driver.
        Port 0 takes any free port. An empty host means every address of this machine, in the family
        of `options.peer`; without a peer those of IPv4, or with `v6only=False` those of both. A host
        name is resolved at once and may block.

        What the machine sends is addressed to IP addresses (in the simulator to nodes); a name would
        have to be looked up first (`resolve`), and is reported to the machine as an error.

        Raises:
            ValueError: The address is a path.
            DriverUnavailable: The driver has no datagrams, or the system lacks what an option asks.
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
            ValueError: `timeout` is no number of seconds, or less than 0.
            RuntimeError: Called from within the driver's own callbacks, or while somebody else
                turns the driver.
        """

    @abstractmethod
    def close(self) -> None:
        """Abort every link, close every listener and free what the driver holds.

        May be repeated. Called from within the driver's own callbacks it takes effect when they
        have returned.
        """

    def statistics(self) -> DriverStatistics:
        """What the driver's links and buffers have done so far."""
        total = LinkStatistics()
        total.add(self._ended_links)
        links = [link for link in self._live_links() if not link.closed]
        for link in links:
            total.add(link)
        return DriverStatistics(sum(link.links for link in links), total, self.buffers.statistics())

    def _live_links(self) -> Iterable[Link[Any]]:
        """Every link that has not ended."""
        return ()

    def _link_ended(self, link: Link[Any]) -> None:
        """Keep the numbers of a link that ends."""
        self._ended_links.add(link)

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


def _recordings_wanted() -> Recordings | None:
    directory = os.environ.get("HELIANTHUS_RECORD")
    if not directory:
        return None
    from .recordings import Recordings

    try:
        return Recordings(directory)
    except OSError as error:
        text = f"HELIANTHUS_RECORD names {directory}, where no recording can be made: {error.strerror}"
        raise OSError(error.errno, text) from None


def _log_error(error: Exception) -> None:
    if isinstance(error, AcceptPaused):
        _log.error("%s", error)
        return
    _log.error("a callback let an exception out", exc_info=error)
