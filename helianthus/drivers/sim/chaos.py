"""Faults drawn from the seed.

As in TigerBeetle's simulator, each world first draws which kinds of fault it has at all and how
strong they are, because a world with everything at once explores less than many worlds with a few
kinds each. Faults strike until a time; then everything is healed, and the system under test must
recover by itself: that second half is where most faults of design show.
"""

from __future__ import annotations

import itertools
import random
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .clock import to_ns
from .errors import SimulationError
from .path import LinkSettings
from .schedule import Schedule
from .trace import Trace

if TYPE_CHECKING:
    from .node import Node
    from .world import World

T = TypeVar("T")

_LOSSINESS = ("loss", "duplicate", "reorder")

INTERVALS = (0.05, 0.2, 1.0, 3.0)
"""Seconds between faults, on average; each world draws one."""

DURATIONS = (0.05, 0.5, 2.0, 8.0)
"""Seconds that a fault lasts, on average; each world draws one."""

DELAYS = (0.02, 0.2, 1.5)
"""Seconds of the strongest latency spike; each world draws one."""

RATES = (2_000, 20_000, 500_000)
"""Bytes per second of the slowest node; each world draws one."""

LOSSES = (0.01, 0.1, 0.4)
"""Probability that a datagram is lost, comes twice or is overtaken; each world draws one."""


class Chaos:
    """The faults of one world, from now until a time.

    Attributes:
        kinds: The kinds of fault that were drawn.
    """

    def __init__(
        self,
        world: World,
        schedule: Schedule,
        trace: Trace,
        rng: random.Random,
        until: int,
        nodes: list[str],
        crashable: list[str],
    ) -> None:
        self._present = weakref.ref(world)  # a world is referred to by its users only: it ends with them
        self._schedule = schedule
        self._rng = rng
        self._until = until
        self._nodes = nodes
        self._crashable = crashable
        self._delayed: dict[tuple[str, str], None] = {}  # dicts for their order
        self._slowed: dict[str, None] = {}
        self._links: dict[tuple[str, str], LinkSettings] = {}  # what they were like before
        faults: dict[str, Callable[[], None]] = {
            "partition": self._partition,
            "one-way partition": self._one_way_partition,
            "reset": self._reset,
            "delay": self._delay,
            "slow": self._slow,
        }
        if crashable:
            faults["crash"] = self._crash
        if len(nodes) < 2:
            faults = {kind: strike for kind, strike in faults.items() if kind in ("slow", "crash")}
        self._faults = {kind: strike for kind, strike in faults.items() if rng.random() < 0.5}
        self._interval = self._pick(INTERVALS)
        self._duration = self._pick(DURATIONS)
        self._longest_delay = self._pick(DELAYS)
        self._slowest = self._pick(RATES)
        self.kinds = list(self._faults)
        self._draw_lossiness()
        trace.note(schedule.ns, f"chaos: {self}")
        schedule.at(max(until, schedule.ns), self._heal)
        self._plan()

    def __str__(self) -> str:
        kinds = ", ".join(self.kinds) or "no faults"
        return f"{kinds}; every {self._interval:g} s, for {self._duration:g} s"

    @property
    def _world(self) -> World:
        world = self._present()
        if world is None:
            raise SimulationError("the world has ended")
        return world

    # -- drawing: by `random()` alone, whose values are the same in every version of Python --------

    def _pick(self, choices: Sequence[T]) -> T:
        return choices[int(self._rng.random() * len(choices))]

    def _around(self, mean: float) -> int:
        return to_ns(mean * 2 * self._rng.random())

    def _pair(self) -> tuple[str, str]:
        first = int(self._rng.random() * len(self._nodes))
        second = int(self._rng.random() * (len(self._nodes) - 1))
        return self._nodes[first], self._nodes[second if second < first else second + 1]

    # -- when --------------------------------------------------------------------------------------

    def _plan(self, _: None = None) -> None:
        """Draw the time of the next fault."""
        when = self._schedule.ns + self._around(self._interval)
        if self._faults and when < self._until:
            self._schedule.at(when, self._strike)

    def _strike(self, _: None) -> None:
        self._faults[self._pick(self.kinds)]()
        self._plan()

    def _undo_later(self, undo: Callable[[], None]) -> None:
        when = self._schedule.ns + self._around(self._duration)
        if when < self._until:  # else it is undone with all the rest
            self._schedule.at(when, lambda _: undo())

    # -- what --------------------------------------------------------------------------------------

    def _partition(self) -> None:
        a, b = self._pair()
        self._world.partition(a, b)
        self._undo_later(lambda: self._world.heal(a, b))

    def _one_way_partition(self) -> None:
        a, b = self._pair()
        self._world.partition(a, b, one_way=True)
        self._undo_later(lambda: self._world.heal(a, b))

    def _reset(self) -> None:
        self._world.reset(*self._pair())

    def _delay(self) -> None:
        a, b = self._pair()
        self._delayed[a, b] = None
        self._world.delay(a, b, self._longest_delay * self._rng.random(), one_way=True)
        self._undo_later(lambda: self._world.delay(a, b, 0.0, one_way=True))

    def _slow(self) -> None:
        name = self._pick(self._nodes)
        self._slowed[name] = None
        self._world.slow(name, self._slowest * (1 + 9 * self._rng.random()))
        self._undo_later(lambda: self._world.slow(name, None))

    def _crash(self) -> None:
        node = self._world.node(self._pick(self._crashable))
        if node.up:
            self._world.crash(node.name)
            self._undo_later(lambda: self._start_again(node))

    def _start_again(self, node: Node) -> None:
        if not node.up:
            self._world.restart(node.name)

    def _draw_lossiness(self) -> None:
        """Draw how bad the links are for datagrams; a lost segment of a stream is just late."""
        rates: dict[str, Any] = {name: self._pick(LOSSES) for name in _LOSSINESS if self._rng.random() < 0.5}
        if rates:
            for a, b in itertools.permutations(self._nodes, 2):
                self._links[a, b] = self._world.link(a, b)
                self._world.link(a, b, one_way=True, **rates)

    # -- the end -----------------------------------------------------------------------------------

    def _heal(self, _: None) -> None:
        """End every fault, so that the system can show that it recovers."""
        world = self._world
        world.heal()
        for a, b in self._delayed:
            world.delay(a, b, 0.0, one_way=True)
        for name in self._slowed:
            world.slow(name, None)
        for (a, b), settings in self._links.items():
            before = {name: getattr(settings, name) for name in _LOSSINESS}
            world.link(a, b, one_way=True, **before)
        for name in self._crashable:
            self._start_again(world.node(name))
