"""A world of nodes, a network between them, and one virtual clock: seeded, so it can be repeated.

Everything that is left to chance - latencies, how streams are cut, what is lost, which faults
strike - is drawn from generators that the seed makes. Nothing is drawn from anywhere else, so a
world that is built and driven by the same calls does the same things in the same order, whatever
the machine, the process or the hash seed. `World.digest()` says whether it did.
"""

from __future__ import annotations

import contextlib
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs

from .chaos import Chaos
from .clock import NANOSECONDS, NodeClock, to_ns
from .driver import SimDriver
from .errors import SimulationError, Stalled
from .network import ANY_NAMES, LOOPBACK_NAMES, Network
from .node import Node, Spawned
from .path import LinkSettings, Path
from .schedule import Schedule
from .trace import Trace

T = TypeVar("T")

PATIENCE = 3600.0
"""Virtual seconds that `World.run_until` waits unless told otherwise."""

NOTE_LINES = 40
"""Lines of the timeline in the note on an exception that leaves a run."""


class World:
    """Nodes, a network and a clock.

    Use it as a context manager, or `close()` it: tasks that wait for ever are then ended quietly. A
    world that nobody refers to any more closes itself, whether or not somebody still has its nodes.

    Attributes:
        seed: What everything is drawn from.
    """

    def __init__(self, seed: int | str = 0, **settings: Any) -> None:
        """Make an empty world.

        Args:
            seed: The same seed and the same calls give the same world.
            settings: What links are like unless `link` says otherwise; see `LinkSettings`.
        """
        self._closed = True  # until there is something to close
        self.seed = seed
        self._schedule = Schedule()
        self._trace = Trace()
        rng = random.Random(f"{seed}/network")
        self._network = Network(self._schedule, self._trace, rng, LinkSettings(**settings))
        self._nodes: dict[str, Node] = {}
        self._graveyard: list[SimDriver] = []
        self._running = False
        self._fault_seen = False
        self._closed = False

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._running:
            self.close()

    def __repr__(self) -> str:
        return f"<World seed={self.seed!r}, t={self.now:.6f}, nodes {', '.join(self._nodes) or 'none'}>"

    @property
    def now(self) -> float:
        """Virtual seconds since the world began."""
        return self._schedule.ns / NANOSECONDS

    @property
    def nodes(self) -> list[Node]:
        """All nodes, in the order of their making."""
        return list(self._nodes.values())

    def node(self, name: str, *, drift: float = 0.0, offset: float = 0.0) -> Node:
        """The node of a name, made and started if there is none yet.

        Args:
            name: Names it in addresses.
            drift: Seconds that its clock gains per second.
            offset: What its clock shows at the beginning of the world, in seconds.
        """
        node = self._nodes.get(name)
        if node is None:
            self._check_open()
            self._check_name(name)
            node = Node(name, self.seed, self._network, _Turner(self), NodeClock(drift, offset))
            self._nodes[name] = node
        return node

    def _check_name(self, name: str) -> None:
        if name == "localhost":  # the usual name of a world's only node
            return
        if name in LOOPBACK_NAMES + ANY_NAMES:
            raise ValueError(f"{name!r} means a node itself and cannot name one")
        if urlsplit(f"tcp://{name}:1").hostname != name.lower() or len(name.split()) != 1:
            raise ValueError(f"{name!r} cannot stand in an address, tcp://{name}:port")
        if self._network.resolve(name, "") is not None:
            raise ValueError(f"{name!r} differs from another node's name in case only")

    def set_name(self, name: str, *nodes: str) -> None:
        """Have a host name stand for nodes, in this order; without any it is unknown from now on.

        A client tries all of them. `Driver.connect` to the name goes to the first.

        Args:
            name: What stands in addresses; no node's name.
            nodes: Names of nodes.
        """
        if name in LOOPBACK_NAMES + ANY_NAMES or name.lower() in map(str.lower, self._nodes):
            raise ValueError(f"{name!r} has a meaning already")
        self._network.set_names(name, tuple(self._named(node).name for node in nodes))
        self._network.note(f"name {name}", ", ".join(nodes))

    # -- running -----------------------------------------------------------------------------------

    def run(self, until: float | None = None) -> None:
        """Let everything happen up to a time, or until nothing is left to do.

        Args:
            until: Virtual seconds since the world began; the clock stands there afterwards.

        Raises:
            BusyLoop: A node never came to rest.
            BaseException: The first exception that a spawned task, a callback or a handler let out
                and that nobody took; a note has the seed and the end of the timeline.
        """
        limit = None if until is None else to_ns(until)
        if limit is not None and limit < self._schedule.ns:
            raise ValueError(f"cannot run until t={until}: it is t={self.now} already")
        with self._explaining():
            with self._turning():
                self._schedule.run(limit)
            self._raise_faults()

    def run_until(
        self, condition: Callable[[], object] | Spawned[T], timeout: float | None = PATIENCE
    ) -> T | None:
        """Let everything happen until a condition holds.

        Args:
            condition: A function that is asked after everything that happens, or what `spawn` gave.
            timeout: Virtual seconds from now, or None for no limit.

        Returns:
            The result of what was spawned; None for a function.

        Raises:
            TimeoutError: It did not come true in time.
            Stalled: It cannot come true any more: nothing is left to do.
            BaseException: As for `run`, and what the spawned function raised.
        """
        enough = (lambda: condition.done) if isinstance(condition, Spawned) else condition
        limit = None if timeout is None else self._schedule.ns + to_ns(timeout)
        with self._explaining():
            with self._turning():
                reached = self._run_towards(enough, limit)
            if isinstance(condition, Spawned) and reached:
                condition.exception()  # raised below, rather than as a fault of nobody's
            self._raise_faults()
            if not reached:
                self._complain(condition, timeout)
            return condition.result() if isinstance(condition, Spawned) else None

    def _run_towards(self, enough: Callable[[], object], limit: int | None) -> bool:
        """Run until it is enough, but not past a fault, after which it may never be."""
        while True:
            self._fault_seen = False
            if not self._schedule.run(limit, lambda: self._fault_seen or enough()):
                return False
            if enough():
                return True
            self._raise_faults()

    def fault_seen(self) -> None:
        """Called by a node: `run_until` is to stop, unless somebody takes the exception."""
        self._fault_seen = True

    def step(self, timeout: float | None = None) -> None:
        """Let what is due happen, or go to the next instant at which there is something to do.

        Faults are not raised here; the next `run` does.

        Args:
            timeout: Virtual seconds by which the clock advances at most.

        Raises:
            Stalled: Nothing is ever going to happen, and no timeout was given.
        """
        limit = None if timeout is None else self._schedule.ns + to_ns(timeout)
        with self._explaining(), self._turning():
            if not self._schedule.step(limit) and timeout is None:
                raise Stalled(f"nothing is left to do at t={self.now:.6f}")

    def _complain(self, condition: object, timeout: float | None) -> None:
        what: object = condition if isinstance(condition, Spawned) else getattr(condition, "__name__", "")
        what = "the condition" if what in ("", "<lambda>") else what
        if self._schedule.is_empty():
            raise Stalled(
                f"nothing is left to do at t={self.now:.6f}, and what was waited for has not happened "
                f"({what}): whoever is to bring it about waits for something that cannot come"
            )
        raise TimeoutError(f"nothing came of {what} within {timeout} virtual seconds")

    @contextlib.contextmanager
    def _turning(self) -> Iterator[None]:
        self._check_open()
        if self._running:
            raise SimulationError("the world is running already: it cannot be run from within itself")
        self._running = True
        try:
            yield
        finally:
            self._running = False

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """Add to an exception what is needed to see it again."""
        try:
            yield
        except Exception as error:
            lines = "\n".join(self._trace.lines(NOTE_LINES))
            note = f"simulated with seed {self.seed!r}; at t={self.now:.6f}, after:\n{lines}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise

    def _raise_faults(self) -> None:
        faults: list[BaseException] = []
        for node in self._nodes.values():
            faults.extend(node.take_faults())
        if faults:
            for other in faults[1:]:
                faults[0].add_note(f"another fault of the same run: {other!r}")
            raise faults[0]

    # -- the network -------------------------------------------------------------------------------

    def link(self, a: str, b: str, *, one_way: bool = False, **settings: Any) -> LinkSettings:
        """Say, or ask, what the link between two nodes is like.

        Args:
            a: A node's name.
            b: Another's.
            one_way: Only what goes from a to b.
            settings: What is to change; see `LinkSettings`.

        Returns:
            What holds now for what goes from a to b.
        """
        paths = self._paths_between(a, b, one_way=one_way)
        if settings:
            for path in paths:
                path.settings = attrs.evolve(path.settings, **settings)
            self._network.note(f"link {a} {'>' if one_way else '-'} {b}", str(settings))
        return paths[0].settings

    def partition(self, a: str, b: str, *, one_way: bool = False) -> None:
        """Lose everything between two nodes, or, one way, all that goes from a to b."""
        for path in self._paths_between(a, b, one_way=one_way):
            path.blocked = True
        self._network.note(f"partition {a} {'>' if one_way else '-'} {b}")

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """End the partition between two nodes; without names, every one."""
        if (a is None) != (b is None):
            raise ValueError("heal takes two nodes, or none for all")
        if a is None or b is None:
            for path in self._network.paths():
                path.blocked = False
            self._network.note("heal")
        else:
            for path in self._paths_between(a, b):
                path.blocked = False
            self._network.note(f"heal {a} - {b}")

    def reset(self, a: str, b: str) -> None:
        """Break every connection between two nodes, at both ends at once."""
        self._network.note(f"reset {a} - {b}")
        self._network.reset(self._named(a).name, self._named(b).name)

    def slow(self, name: str, bytes_per_second: float | None) -> None:
        """Limit what a node takes and sends, each way; None ends it."""
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise ValueError(f"bytes_per_second must be more than zero, not {bytes_per_second}")
        self._network.limit(self._named(name).name, bytes_per_second)
        self._network.note(f"slow {name}", f"{bytes_per_second} bytes/s")

    def delay(self, a: str, b: str, seconds: float, *, one_way: bool = False) -> None:
        """Add to the latency between two nodes, until told otherwise; 0 ends it."""
        if seconds < 0:
            raise ValueError(f"a delay cannot be {seconds} seconds")
        for path in self._paths_between(a, b, one_way=one_way):
            path.delay = seconds
        self._network.note(f"delay {a} {'>' if one_way else '-'} {b}", f"{seconds} s")

    def _paths_between(self, a: str, b: str, *, one_way: bool = False) -> list[Path]:
        self._named(a), self._named(b)
        there = self._network.path(a, b)
        return [there] if one_way or a == b else [there, self._network.path(b, a)]

    def _named(self, name: str) -> Node:
        node = self._nodes.get(name)
        if node is None:
            raise ValueError(f"the world has no node {name!r}; it has {', '.join(self._nodes) or 'none'}")
        return node

    # -- nodes that fail ---------------------------------------------------------------------------

    def crash(self, name: str) -> None:
        """Stop a node at once, as if its power were cut; a node that is down stays so.

        Its tasks never go on, not even into their `finally`; its peers are told nothing. Coroutines
        are ended only when the world is closed, and what they do then reaches nobody.
        """
        life = self._named(name).crash()
        if life is not None:
            self._graveyard.append(life)

    def restart(self, name: str) -> None:
        """Start a node again, with a fresh loop and driver; one that is up crashes first.

        Functions spawned on it are called again; what was spawned as a coroutine is gone.
        """
        self.crash(name)
        self._named(name).start()

    def chaos(
        self, until: float, *, nodes: list[str] | None = None, crashable: list[str] | None = None
    ) -> Chaos:
        """Have faults drawn from the seed strike until a time, when everything is healed.

        Args:
            until: Virtual seconds since the world began.
            nodes: Between which nodes faults strike; all that there are now if left out.
            crashable: Nodes that may crash; they are restarted after a while.

        Returns:
            What was drawn.
        """
        names = [self._named(name).name for name in nodes] if nodes is not None else list(self._nodes)
        rng = random.Random(f"{self.seed}/chaos")
        return Chaos(self, self._schedule, self._trace, rng, to_ns(until), names, list(crashable or ()))

    # -- what happened -----------------------------------------------------------------------------

    def digest(self) -> str:
        """Hexadecimal digits that stand for everything that has happened.

        Equal for equal seeds and calls, on every machine, in every process.
        """
        return self._trace.digest()

    def timeline(self, last: int = 200) -> str:
        """The end of what happened, a line an event, with virtual seconds."""
        return "\n".join(self._trace.lines(last))

    # -- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """End the world and every coroutine in it, quietly. May be repeated."""
        if self._closed:
            return
        if self._running:
            raise SimulationError("the world cannot be closed from within itself")
        self._closed = True
        for node in self._nodes.values():
            life = node.end_life()
            if life is not None:
                self._graveyard.append(life)
        for life in self._graveyard:
            life.bury()
        self._graveyard.clear()
        self._schedule.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise SimulationError("the world has been closed")


class _Turner:
    """The world, for its own nodes, which hold it weakly.

    A forgotten world so ends at once; and not when garbage is collected, in an order in which its
    coroutines may be freed before it has closed them.
    """

    def __init__(self, world: World) -> None:
        self._world = weakref.ref(world)

    def step(self, timeout: float | None) -> None:
        """See `World.step`."""
        self._present().step(timeout)

    def run_until(self, condition: Callable[[], object], timeout: float | None) -> object:
        """See `World.run_until`."""
        return self._present().run_until(condition, timeout)

    def fault_seen(self) -> None:
        """See `World.fault_seen`."""
        self._present().fault_seen()

    def _present(self) -> World:
        world = self._world()
        if world is None:
            raise SimulationError("the world has ended, because nobody referred to it any more")
        return world
