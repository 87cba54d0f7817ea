"""The driver of one simulated node, for one life of it: from its start to its crash.

A node runs in slices. In a slice its asyncio loop runs as it would anywhere, with this driver for
a selector; each `select()` turns the driver once. When the loop asks to wait and the driver has
nothing to do, the node is idle: the driver leaves word when it is to be woken, and stops the loop.
So links, timers and coroutines all run inside the node's own running loop, at one virtual instant.

A crash ends a life without a word: the coroutines stand where they stood and never go on, and
what the network still carries for them finds nobody. A restarted node has a new driver.
"""

from __future__ import annotations

import random
import selectors
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Protocol, TypeVar

import attrs

from ...protocols.machine import DatagramMachine, StreamMachine
from ...protocols.timeouts import check_timeout
from ..address import Address
from ..base import Accept, DatagramHandler, Driver, LinkHandler, Resolved, attempt
from ..datagram_link import check_bindable
from ..datagram_options import DEFAULT_OPTIONS, DatagramOptions
from ..errors import AddressInUse, AddressNotAvailable
from ..pump import Host
from ..timers import Timer
from .clock import NodeClock
from .datagram_ports import DatagramPorts
from .datagrams import SimDatagramLink
from .errors import BusyLoop, NotSimulated
from .link import SimLink, SimListener
from .loop import SimLoop
from .network import FIRST_PORT, LAST_PORT, Network, check_simulated
from .schedule import Schedule
from .stream import Endpoint

T = TypeVar("T")

RECEIVE_BUFFER = 64 * 1024
"""Bytes of the buffer that all of a node's links receive into."""

BUSY_AFTER = 100_000
"""Turns of a node's loop at one instant of virtual time after which it is said never to rest."""

THREAD_DELAY = (50e-6, 2e-3)
"""Shortest and longest virtual seconds that work given to `in_thread` takes: a disk's, about."""

_SETTLE_ROUNDS = 16  # as in the native reactors


class Stopped(BaseException):
    """Leaves the loop of a node that has crashed, past all that would catch an `Exception`."""


class Turner(Protocol):
    """The world, as far as a driver may turn it."""

    def step(self, timeout: float | None) -> None:
        """Turn once; see `SimDriver.poll`."""

    def run_until(self, condition: Callable[[], object], timeout: float | None) -> object:
        """Turn until a condition holds."""

    def fault_seen(self) -> None:
        """An exception has been let out that nobody has taken yet."""


class SimDriver(Driver, selectors.BaseSelector):
    """Moves bytes, time and actions between machines and a simulated network.

    Attributes:
        node_name: The node it drives.
        network: What its links go through.
        loop: The node's asyncio loop; this driver is its selector.
        alive: False once the node has crashed, or the world was closed.
        queued: The schedule is going to run a slice.
        listeners: By port, or by the path of a Unix-domain socket.
        datagram_ports: Bound datagram ports.
        endpoints: Ends of connections, in the order of their making.
        receive_buffer: All links receive into it.
    """

    name = "sim"

    def __init__(
        self,
        node_name: str,
        network: Network,
        clock: NodeClock,
        rng: random.Random,
        turner: Turner,
    ) -> None:
        super().__init__(rng)
        self.node_name = node_name
        self.network = network
        self.alive = True
        self.queued = False
        self.listeners: dict[int | str, SimListener] = {}
        self.datagram_ports = DatagramPorts()
        self.endpoints: dict[Endpoint, None] = {}  # a dict for its order, like the next one
        self.receive_buffer = memoryview(bytearray(RECEIVE_BUFFER))
        self._links: dict[SimLink[Any], None] = {}
        self._clock = clock
        self._schedule: Schedule = network.schedule
        self._turner = turner
        self._dirty: deque[Host[Any]] = deque()
        self._inputs: list[Callable[[], None]] = []
        self._posted: deque[Callable[[], None]] = deque()
        self._next_port = FIRST_PORT
        self._thread_free_at = 0.0
        self._alarm: int | None = None
        self._now = 0.0
        self._in_slice = False
        self._idle = False
        self._instant = -1
        self._turns = 0
        self._burying = False
        self._in_turn = False
        self._close_wanted = False
        self._close_world: Callable[[], None] | None = None
        self._closed = False
        self._log_fault = self.on_error
        self.loop = SimLoop(self)

    # -- Driver ------------------------------------------------------------------------------------

    def random_bytes(self, count: int) -> bytes:
        """Bytes that depend on the seed."""
        return self.rng.randbytes(count)

    def now(self) -> float:
        """Seconds of the node's own clock."""
        return self._now if self._in_slice else self._clock.seconds(self._schedule.ns)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """See `Driver.call_at`."""
        timer = super().call_at(when, callback)
        self.touch()
        return timer

    def post(self, callback: Callable[[], None]) -> None:
        """Have `callback` called in the node's next turn. A world belongs to one thread."""
        self._posted.append(callback)
        self.touch()

    def resolve(self, address: Address, done: Resolved) -> None:
        """Find the nodes that a name stands for, in no time; see `Driver.resolve`."""
        self._check_open()
        hosts = ("",) if address.local else self.network.hosts_of(address.host)
        if hosts:
            found = [attrs.evolve(address, host=host) for host in hosts]
            self.post(lambda: done(found, None))
        else:
            error = AddressNotAvailable("the world has no such node", address=str(address))
            self.post(lambda: done(None, error))

    def listen(self, address: Address, accept: Accept) -> SimListener:
        """Accept connections at a port or path of the node; see `Driver.listen`."""
        self._check_open()
        if address.local:
            place: int | str = self._take_path(address)
            bound = attrs.evolve(address, mode=None)
        else:
            place = port = self._take_port(address, self.listeners)
            bound = Address(address.host, port, address.scheme)
        listener = SimListener(self, bound, accept)
        self.listeners[place] = listener
        self.network.note(f"{self.node_name} listens at {place}")
        return listener

    def connect(self, address: Address, machine: StreamMachine[T], handler: LinkHandler[T]) -> SimLink[T]:
        """Begin to connect to a node by its name; see `Driver.connect`."""
        self._check_open()
        link = SimLink(self, machine, handler, address.endpoint)
        self._links[link] = None
        self.network.connect(self, address, link)
        return link

    def bind(
        self,
        address: Address,
        machine: DatagramMachine[T],
        handler: DatagramHandler[T],
        options: DatagramOptions = DEFAULT_OPTIONS,
    ) -> SimDatagramLink[T]:
        """Send and receive datagrams at a port of the node; see `Driver.bind`."""
        self._check_open()
        check_bindable(address)
        self._check_own(address)
        if options.peer is not None and not self.network.hosts_of(options.peer.host):
            raise AddressNotAvailable("the world has no such node", address=str(options.peer))
        if address.port:
            self.datagram_ports.check_free(address, options)
        else:
            address = attrs.evolve(address, port=self.free_port())
        link = SimDatagramLink(self, machine, handler, address, options)
        self.datagram_ports.add(link)
        link.wake()
        return link

    def in_thread(self, work: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Do the work in the node's own turn, after a virtual delay; in the order of asking."""
        self._check_open()

        shortest, longest = THREAD_DELAY
        due = self.now() + shortest + self.network.rng.random() * (longest - shortest)
        self._thread_free_at = max(due, self._thread_free_at)
        self.call_at(self._thread_free_at, lambda: done(*attempt(work)))

    def poll(self, timeout: float | None = None) -> None:
        """Turn the whole world once: let what is due happen, or go to the next thing to do.

        Args:
            timeout: Virtual seconds by which the clock advances at most.

        Raises:
            Stalled: Nothing is ever going to happen, and no timeout was given.
            RuntimeError: Called from within the simulation.
        """
        self._check_open()
        check_timeout(timeout)
        self._turner.step(timeout)

    def close(self) -> None:
        """Abort every link and close every listener; see `Driver.close`.

        Called from outside of the simulation, handlers hear of it when the world runs on.
        """
        if self._closed:
            return
        if self._in_turn:
            self._close_wanted = True
            return
        self._closed = True
        self.abort_all()
        if self._in_slice or self._close_world is not None:
            self._settle_all()  # else in the next slice, so that handlers run inside the loop
        self.end_world()

    def end_world(self) -> None:
        """End the world, if it is this driver's own."""
        if self._close_world is not None and not self._in_slice:
            close_world, self._close_world = self._close_world, None
            close_world()

    def abort_all(self) -> None:
        """Abort every link and close every listener; the driver itself goes on."""
        for link in list(self._links):
            link.abort()
        for listener in list(self.listeners.values()):
            listener.close()
        for datagram_link in self.datagram_ports.links():
            datagram_link.close()

    def stand_alone(self, close_world: Callable[[], None]) -> None:
        """Behave as the other drivers do: log faults; and end the world when closed."""
        self.loop.strict = False
        self.on_error = self._log_fault
        self._close_world = close_world

    def turn_until_stopped(self) -> None:
        """Turn the whole world until somebody stops the node's loop."""
        loop = self.loop
        loop.stop_wanted = False

        def the_end_of_the_program() -> bool:
            return loop.stop_wanted

        self._turner.run_until(the_end_of_the_program, None)

    def _settle_soon(self, host: Host[Any]) -> None:
        self._dirty.append(host)
        self.touch()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"sim driver of node {self.node_name!r}: it is closed")
        if not self.alive:
            raise RuntimeError(
                f"sim driver of node {self.node_name!r}: the node has crashed or its world ended"
            )

    # -- ports and paths ---------------------------------------------------------------------------

    def _take_path(self, address: Address) -> str:
        """A path belongs to its node; there is no directory that must exist, and no user who may not."""
        check_simulated(address)
        if address.path in self.listeners:
            raise AddressInUse("somebody else listens there", address=str(address))
        return address.path

    def _take_port(self, address: Address, taken: Mapping[Any, object]) -> int:
        self._check_own(address)
        if address.port in taken:
            raise AddressInUse("somebody else listens there", address=str(address))
        return address.port or self.free_port()

    def _check_own(self, address: Address) -> None:
        if self.network.resolve(address.host, self.node_name) != self.node_name:
            raise AddressNotAvailable(f"node {self.node_name!r} has no such address", address=str(address))

    def free_port(self) -> int:
        """A port that nobody uses."""
        for _ in range(FIRST_PORT, LAST_PORT + 1):
            port = self._next_port
            self._next_port = port + 1 if port < LAST_PORT else FIRST_PORT
            if port not in self.listeners and port not in self.datagram_ports:
                return port
        raise AddressInUse(f"node {self.node_name!r} has no free port")

    # -- for the node's links ----------------------------------------------------------------------

    def add_input(self, handle: Callable[[], None]) -> None:
        """Have something that arrived handled in the node's next turn."""
        if self.alive:
            self._inputs.append(handle)
            self.touch()

    def _live_links(self) -> list[SimLink[Any]]:
        return list(self._links)

    def remember_link(self, link: SimLink[Any]) -> None:
        """A link has been accepted."""
        self._links[link] = None

    def forget_link(self, link: SimLink[Any]) -> None:
        """A link has ended."""
        self._links.pop(link, None)

    def forget_endpoint(self, endpoint: Endpoint) -> None:
        """An end of a connection is closed."""
        self.endpoints.pop(endpoint, None)

    def forget_listener(self, listener: SimListener) -> None:
        """A listener has been closed."""
        place = listener.address.path or listener.address.port
        if self.listeners.get(place) is listener:
            del self.listeners[place]

    # -- slices ------------------------------------------------------------------------------------

    def touch(self) -> None:
        """Something is to be done; from outside of a slice, have one run."""
        if not self._in_slice and self.alive:
            self._schedule.wake(self)

    def run_slice(self) -> None:
        """Run the loop until the node is idle at the present instant."""
        self.queued = False
        if not self.alive:
            return
        self._now = self._clock.seconds(self._schedule.ns)  # it stands still during a slice
        self._in_slice = True
        self._idle = False
        try:
            self.loop.run_slice()
        except Stopped:
            return
        finally:
            self._in_slice = False
        if not self._idle or self._has_work() or self.loop.stirred:
            self.touch()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Turn once, for the node's loop; stops the loop instead of waiting."""
        if not self.alive:
            if self._burying:
                self.loop.close_coroutines()
            raise Stopped
        self._count_turn()
        loop = self.loop
        loop.stirred = False
        self._in_turn = True
        try:
            self._turn()
        finally:
            self._in_turn = False
        if self._close_wanted:
            self._close_wanted = False
            self.close()
        if not self.alive:
            raise Stopped
        if (timeout is None or timeout > 0) and not loop.stirred and not self._has_work():
            self._idle = self._set_alarm(timeout)
            if self._idle:
                loop.pause()
        return []

    def _turn(self) -> None:
        self._settle_all()
        if self._inputs:
            inputs, self._inputs = self._inputs, []
            for handle in inputs:
                handle()
                if not self.alive:
                    return
        for _ in range(len(self._posted)):
            try:
                self._posted.popleft()()
            except Exception as error:  # noqa: BLE001 - one callback's fault must not stop the others
                self.on_error(error)
        if self._timers:
            self._timers.run_due(self._now, self.on_error)
        self._settle_all()

    def _settle_all(self) -> None:
        dirty = self._dirty
        for _ in range(_SETTLE_ROUNDS):
            if not dirty:
                return
            for _ in range(len(dirty)):
                if not self.alive:
                    return
                dirty.popleft().settle()

    def _has_work(self) -> bool:
        return bool(self._dirty or self._inputs or self._posted)

    def _count_turn(self) -> None:
        ns = self._schedule.ns
        if ns != self._instant:
            self._instant = ns
            self._turns = 0
        self._turns += 1
        if self._turns > BUSY_AFTER:
            self._turns = 0
            raise BusyLoop(
                f"node {self.node_name!r} never rests: its loop turned {BUSY_AFTER} times at "
                f"t={self._clock.seconds(ns):.6f} without waiting for anything; a task may spin on "
                "asyncio.sleep(0), or a machine's deadline may not move"
            )

    # -- alarms ------------------------------------------------------------------------------------

    def _set_alarm(self, timeout: float | None) -> bool:
        """Have the node woken when its loop or a timer wants it; False if that is now."""
        ns = self._schedule.ns
        due = None
        when = self._timers.next_time()
        if when is not None:
            due = self._clock.not_before(when)
            if due is not None and due <= ns:
                return False
        if timeout is not None:
            wanted = self._clock.nearest(self.now() + timeout)
            if wanted is not None and (due is None or wanted < due):
                due = max(wanted, ns + 1)
        if due is not None and (self._alarm is None or due < self._alarm):
            self._alarm = due
            self._schedule.at(due, self._ring, due)
        return True

    def _ring(self, due: int) -> None:
        """An alarm goes off; one that has been replaced by an earlier one does nothing."""
        if self._alarm == due:
            self._alarm = None
            if self.alive:
                self.network.trace.tick(due, f"{self.node_name} wakes")
                self.touch()

    # -- the end of a life -------------------------------------------------------------------------

    def die(self) -> None:
        """The node crashes: from now on nothing it does reaches anybody."""
        self.alive = False
        self.network.vanish(self)
        self.listeners.clear()
        self.datagram_ports.clear()

    def bury(self) -> None:
        """Free a life that has ended; what its coroutines do meanwhile has no effect."""
        self._burying = True
        if self.loop.unfinished_tasks():
            try:
                self.loop.run_slice()
            except Stopped:
                pass
            except RuntimeError:  # it is closed, or another loop runs in this thread: do without it
                self.loop.close_coroutines()
        self.loop.close()
        self._links.clear()
        self._inputs.clear()
        self._dirty.clear()
        self._posted.clear()

    # -- selectors.BaseSelector: there are no descriptors ------------------------------------------

    def register(self, fileobj: Any, events: int, data: Any = None) -> NoReturn:
        """Refused: a simulated node has no descriptors."""
        raise NotSimulated("a simulated node has no file descriptors to watch; connect through its driver")

    def unregister(self, fileobj: Any) -> NoReturn:
        """Refused: nothing is ever registered."""
        raise KeyError(f"{fileobj!r} is not registered")

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Empty: nothing is ever registered."""
        return {}
