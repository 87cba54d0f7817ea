"""A machine of the world: it has a name, a clock, a driver, a loop, and may crash."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from .clock import NodeClock
from .driver import SimDriver, Turner
from .errors import NodeCrashed, NodeDown
from .loop import SimLoop
from .network import Network

T = TypeVar("T")


class Spawned(Generic[T]):
    """What became of something that was spawned on a node.

    A spawned function is called again whenever its node is restarted, and this then tells of the
    latest call.

    Attributes:
        name: Given by whoever spawned it, or made from the function's name.
    """

    def __init__(self, node: Node, target: Callable[[], Coroutine[Any, Any, T]] | None, name: str) -> None:
        self.name = name
        self._node = node
        self._target = target
        self._task: asyncio.Task[T] | None = None
        self._error: BaseException | None = None
        self._result: T | None = None
        self._done = False
        self._taken = False

    def __repr__(self) -> str:
        state = "not done" if not self._done else "done" if self._error is None else repr(self._error)
        return f"<{self._node.name}: {self.name}, {state}>"

    @property
    def done(self) -> bool:
        """Whether it has returned, raised, or been ended for good by a crash."""
        return self._done

    def result(self) -> T:
        """What it returned.

        Raises:
            NodeCrashed: Its node crashed before it was done.
            asyncio.InvalidStateError: It is not done.
            BaseException: What it raised.
        """
        error = self.exception()
        if error is not None:
            raise error
        return self._result  # type: ignore[return-value]

    def exception(self) -> BaseException | None:
        """What it raised, or None. The world's run does not raise that itself any more.

        Raises:
            asyncio.InvalidStateError: It is not done.
        """
        if not self._done:
            raise asyncio.InvalidStateError(f"{self.name!r} on node {self._node.name!r} is not done")
        self._taken = True
        return self._error

    def cancel(self) -> None:
        """Have `CancelledError` raised in it, as with a task."""
        if self._task is not None:
            self._task.cancel()

    # -- for the node ------------------------------------------------------------------------------

    @property
    def failed(self) -> bool:
        """Whether it raised something that nobody has looked at."""
        return self._error is not None and not self._taken

    @property
    def restarts(self) -> bool:
        """Whether it is called again when the node restarts."""
        return self._target is not None

    def start(self, loop: SimLoop, coro: Coroutine[Any, Any, T] | None = None) -> None:
        """Begin, or begin again."""
        if coro is None:
            assert self._target is not None
            coro = self._target()
        self._done = self._taken = False
        self._error = self._result = None
        self._task = loop.create_task(coro, name=f"{self._node.name}: {self.name}")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[T]) -> None:
        if task is not self._task:
            return
        self._done = True
        if task.cancelled():
            self._error = asyncio.CancelledError(f"{self.name!r} was cancelled")
            self._taken = True  # asked for: no fault of the program
        else:
            self._error = task.exception()
            if self._error is None:
                self._result = task.result()
        self._node.spawned_ended(self, self._error)

    def crashed(self) -> None:
        """The node has crashed."""
        self._taken = True
        self._task = None
        if not self._done and self._target is None:
            self._done = True
            self._error = NodeCrashed(f"node {self._node.name!r} crashed before {self.name!r} was done")


class Node:
    """One machine of a simulated world.

    Attributes:
        name: Names it in addresses: `tcp://name:port`.
        life: Its driver while it is up, else None.
    """

    def __init__(self, name: str, seed: object, network: Network, turner: Turner, clock: NodeClock) -> None:
        self.name = name
        self.life: SimDriver | None = None
        self._seed = seed
        self._network = network
        self._turner = turner
        self._clock = clock
        self._lives = 0
        self._spawned: list[Spawned[Any]] = []
        self._names: dict[str, int] = {}
        self._faults: list[Exception] = []
        network.add(self)
        self.start()

    def __repr__(self) -> str:
        return f"<Node {self.name!r}, {'up' if self.up else 'down'}>"

    @property
    def up(self) -> bool:
        """Whether it is running."""
        return self.life is not None

    @property
    def driver(self) -> SimDriver:
        """The driver of its present life.

        Raises:
            NodeDown: It has crashed.
        """
        if self.life is None:
            raise NodeDown(
                f"node {self.name!r} has crashed, and world.restart({self.name!r}) was not called; or its "
                "world has ended"
            )
        return self.life

    @property
    def loop(self) -> SimLoop:
        """The asyncio loop of its present life.

        Raises:
            NodeDown: It has crashed.
        """
        return self.driver.loop

    @property
    def now(self) -> float:
        """Seconds of its own clock."""
        return self._clock.seconds(self._network.schedule.ns)

    def spawn(
        self, target: Coroutine[Any, Any, T] | Callable[[], Coroutine[Any, Any, T]], name: str | None = None
    ) -> Spawned[T]:
        """Run a coroutine on the node.

        Args:
            target: A coroutine, which ends with the node's present life, or a function that makes
                one, which is called again each time the node is restarted.
            name: For messages and the timeline; the function's own name if left out.

        Returns:
            What becomes of it. An exception that nobody asks for there is raised by the world's
            run, when that ends.

        Raises:
            NodeDown: The node has crashed.
        """
        loop = self.loop
        chosen = self._unique(str(name or getattr(target, "__qualname__", type(target).__name__)))
        if isinstance(target, Coroutine):
            spawned: Spawned[T] = Spawned(self, None, chosen)
            spawned.start(loop, target)
        else:
            spawned = Spawned(self, target, chosen)
            spawned.start(loop)
        self._spawned.append(spawned)
        return spawned

    def _unique(self, name: str) -> str:
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}-{count}"

    # -- for the world -----------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life; functions that were spawned in earlier ones are called again."""
        self._lives += 1
        rng = random.Random(f"{self._seed}/node/{self.name}/{self._lives}")
        driver = SimDriver(self.name, self._network, self._clock, rng, self._turner)
        driver.on_error = lambda error: self._report(driver, error)
        self.life = driver
        self._network.note(f"{self.name} starts")
        for spawned in self._spawned:
            spawned.start(driver.loop)

    def crash(self) -> SimDriver | None:
        """End the present life; returns what is left of it, to be buried some time."""
        life = self.end_life()
        if life is not None:
            self._network.note(f"{self.name} crashes")
            self._faults.clear()
            for spawned in self._spawned:
                if not spawned.restarts and not spawned.done:
                    self._network.note(
                        f"{self.name}: {spawned.name} ends for good",
                        "it was spawned as a coroutine; spawn the function to have it started again",
                    )
                spawned.crashed()
            self._spawned = [spawned for spawned in self._spawned if spawned.restarts]
        return life

    def end_life(self) -> SimDriver | None:
        """Be down, from one instant to the next."""
        life, self.life = self.life, None
        if life is not None:
            life.die()
        return life

    def spawned_ended(self, spawned: Spawned[Any], error: BaseException | None) -> None:
        """Something spawned is done."""
        outcome = "returned" if error is None else f"ended with {type(error).__name__}"
        detail = "" if error is None else str(error)
        self._network.note(f"{self.name}: {spawned.name} {outcome}", detail)
        if spawned.failed:
            self._turner.fault_seen()
        elif not spawned.restarts:
            self._spawned.remove(spawned)

    def _report(self, life: SimDriver, error: Exception) -> None:
        if life.alive:
            trace, ns = self._network.trace, self._network.schedule.ns
            trace.remark(ns, f"{self.name}: nobody took {error!r}")
            self._faults.append(error)
            self._turner.fault_seen()

    def take_faults(self) -> list[BaseException]:
        """Exceptions that nobody has taken since the last call, oldest first."""
        if self.life is not None:
            self.life.loop.drop_done_tasks()
        faults: list[BaseException] = list(self._faults)
        self._faults.clear()
        for spawned in self._spawned:
            if spawned.failed:
                error = spawned.exception()
                if error is not None:
                    faults.append(error)
        self._spawned = [spawned for spawned in self._spawned if spawned.restarts or not spawned.done]
        return faults
