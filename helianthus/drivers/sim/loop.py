"""The asyncio loop of one simulated node: ordinary asyncio on a virtual clock.

All of asyncio's own machinery stays in place; only what lies below it is replaced. The loop's
clock is the node's, and its selector is the node's driver, whose `select()` never waits: where a
real selector would, it tells the world when the node wants to be woken and stops the loop, and the
world goes on with whatever comes next.

Two sources of chance inside asyncio are closed as well. Tasks hash by the order of their making,
not by their address, because a `TaskGroup` cancels its tasks in the order of a set. And the loop
holds every task until it is done, because asyncio does so only weakly, and a garbage collection
at an unpredictable moment would otherwise end those that wait for something nobody else knows.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, NoReturn, TypeVarTuple

from .errors import NotSimulated

if TYPE_CHECKING:
    from .driver import SimDriver

Ts = TypeVarTuple("Ts")

_RESOLUTION = 1e-9  # seconds that asyncio may call a timer early
_FINE_BELOW = 1e6  # seconds; above, `now + _RESOLUTION` may be `now`, and a timer never due
_PRUNE_ABOVE = 256  # tasks; below this many the done ones are not worth looking for
_CLOSE_ATTEMPTS = 100  # a coroutine may await in its clean-up; each attempt ends one such wait

_unclosable: list[Any] = []  # coroutines that swallow every GeneratorExit; freeing them would warn


class SimTask(asyncio.Task[Any]):
    """A task with the same hash in every run."""

    def __init__(self, coro: Any, *, number: int, **options: Any) -> None:
        self._number = number  # first: asyncio hashes the task when it is made
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """Runs a node's coroutines.

    Attributes:
        stirred: Something was scheduled since the selector last looked.
        stop_wanted: Somebody called `stop()`.
        strict: Exceptions that nobody takes go to the driver's `on_error`, not to the log.
    """

    def __init__(self, driver: SimDriver) -> None:
        super().__init__()
        self.stirred = False
        self.stop_wanted = False
        self.strict = True
        self._selector = driver
        self._clock_resolution = _RESOLUTION  # asyncio asks the platform, and platforms differ
        self._tasks: list[asyncio.Task[Any]] = []
        self._tasks_made = 0
        self._prune_at = _PRUNE_ABOVE
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        """Seconds of the node's clock."""
        return self._selector.now()

    # -- running -----------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Run the whole world until `stop()` is called, as `asyncio.Runner` expects of a loop."""
        self._selector.turn_until_stopped()

    def run_slice(self) -> None:
        """Run for the world, until the node is idle."""
        now = self.time()
        if not -_FINE_BELOW < now < _FINE_BELOW:
            self._clock_resolution = 2 * math.ulp(now)
        super().run_forever()

    def stop(self) -> None:
        """See `asyncio.loop.stop`."""
        self.stop_wanted = True
        self.pause()

    def pause(self) -> None:
        """End the present slice."""
        super().stop()

    # -- what BaseEventLoop asks of the loop that completes it -------------------------------------

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no descriptors, so none is ever ready."""

    def _write_to_self(self) -> None:
        """Nothing waits in a system call."""

    # -- noticing what is scheduled, from inside and outside of the node ---------------------------

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.loop.call_soon`."""
        handle = super().call_soon(callback, *args, context=context)
        if not self.stirred:
            self.stirred = True
            self._selector.touch()
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio.loop.call_at`."""
        handle = super().call_at(when, callback, *args, context=context)
        if not self.stirred:
            self.stirred = True
            self._selector.touch()
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.loop.call_soon_threadsafe`; only one thread runs a world, though."""
        if not self._selector.alive:
            for arg in args:  # asyncio's `agen.aclose()` for a generator that has been dropped
                if hasattr(arg, "close"):
                    _close_coroutine(arg)
            return asyncio.Handle(callback, (), self)
        return self.call_soon(callback, *args, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Have the world's run fail, unless the program has a handler of its own."""
        if not self._selector.alive:
            return  # tasks that a crash ended: nobody is left to complain to
        if not self.strict or self.get_exception_handler() is not None:
            super().call_exception_handler(context)
            return
        error = context.get("exception")
        if not isinstance(error, Exception):
            error = RuntimeError(context.get("message", "asyncio reported an unknown fault"))
        self._selector.on_error(error)

    # -- tasks -------------------------------------------------------------------------------------

    def _new_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> SimTask:
        self._tasks_made += 1
        task = SimTask(coro, number=self._tasks_made, loop=loop, **options)
        self._tasks.append(task)
        if len(self._tasks) > self._prune_at:
            self.drop_done_tasks()
        return task

    def drop_done_tasks(self) -> None:
        """Let go of tasks that are done; asyncio then reports exceptions that nobody took."""
        self._tasks = [task for task in self._tasks if not task.done()]
        self._prune_at = max(_PRUNE_ABOVE, 2 * len(self._tasks))

    def unfinished_tasks(self) -> list[asyncio.Task[Any]]:
        """Tasks that are not done, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def close_coroutines(self) -> None:
        """End every unfinished coroutine where it stands; their errors are nobody's any more."""
        for task in self.unfinished_tasks():
            _close_coroutine(task.get_coro())

    def close(self) -> None:
        """See `asyncio.loop.close`; the loop of a world of its own ends that world."""
        super().close()
        if not self.strict:
            self._selector.close()
            self._selector.end_world()

    def __del__(self) -> None:
        if not self.is_closed() and not self.is_running():
            super().close()

    # -- what only the real world has --------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], Any], *args: *Ts) -> NoReturn:
        """Refused: threads are not deterministic."""
        raise NotSimulated(
            "a simulated node has no threads (run_in_executor, asyncio.to_thread): give blocking work to "
            "driver.in_thread, which runs it after a virtual delay, or call it directly"
        )

    async def getaddrinfo(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: names are those of the world's nodes."""
        raise NotSimulated(_NO_SOCKETS)

    async def getnameinfo(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: names are those of the world's nodes."""
        raise NotSimulated(_NO_SOCKETS)

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> NoReturn:
        """Refused: a simulated node has no descriptors."""
        raise NotSimulated(_NO_SOCKETS)

    def add_writer(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> NoReturn:
        """Refused: a simulated node has no descriptors."""
        raise NotSimulated(_NO_SOCKETS)

    async def create_connection(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: a simulated node has no sockets."""
        raise NotSimulated(_NO_SOCKETS)

    async def create_server(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: a simulated node has no sockets."""
        raise NotSimulated(_NO_SOCKETS)

    async def create_datagram_endpoint(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: a simulated node has no sockets."""
        raise NotSimulated(_NO_SOCKETS)

    async def subprocess_exec(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: a simulated node has no processes."""
        raise NotSimulated(_NO_PROCESSES)

    async def subprocess_shell(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: a simulated node has no processes."""
        raise NotSimulated(_NO_PROCESSES)


_NO_SOCKETS = (
    "a simulated node has no sockets: connect, listen and bind through its driver, by the names of the "
    "world's nodes"
)
_NO_PROCESSES = (
    "a simulated node has no subprocesses: run what they would do as coroutines on a node of their own"
)


def _close_coroutine(coro: Any) -> None:
    for _ in range(_CLOSE_ATTEMPTS):
        try:
            coro.close()
        except RuntimeError as error:
            if "GeneratorExit" in str(error):  # it awaited something in its clean-up: once more
                continue
            return
        except BaseException:  # noqa: BLE001 - whatever it raises, it has ended
            return
        else:
            return
    _unclosable.append(coro)
