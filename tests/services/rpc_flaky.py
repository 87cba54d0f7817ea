"""A service whose methods fail as often as a test wants, and remember what each attempt brought."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from rpc_bench import Bench, until

from helianthus import CallContext, Client, RpcError, Service, StatusCode, method
from helianthus.services.rpc.errors import NotRun

UNAVAILABLE = StatusCode.UNAVAILABLE


def error(code: StatusCode = UNAVAILABLE, details: Any = None, *, ran: bool = True) -> RpcError:
    """What an attempt is to fail with."""
    return RpcError(code, "as planned", details) if ran else NotRun(code, "as planned", details)


async def failure(awaitable: Any) -> RpcError:
    """The error of a call that is to fail."""
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


class Flaky(Service):
    """Methods that do as planned, and succeed where nothing is planned.

    Attributes:
        plan: What the next attempts do: an error is raised, "wait" waits for the gate, and a number
            is how many items a stream sends before it fails.
        metas: What came with each attempt.
        times: When each attempt came, by the loop's clock.
        gate: Lets those go that wait.
        cancelled: Attempts that were cancelled.
    """

    def __init__(self, *plan: Any) -> None:
        self.plan = list(plan)
        self.metas: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.gate = asyncio.Event()
        self.cancelled = 0
        self.inside = 0

    @property
    def attempts(self) -> int:
        return len(self.metas)

    @property
    def previous(self) -> list[int]:
        """What each attempt said of those before it."""
        return [meta.get("previous_attempts", 0) for meta in self.metas]

    def delays(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]

    def next_step(self, context: CallContext) -> Any:
        self.metas.append(context.meta)
        self.times.append(asyncio.get_running_loop().time())
        return self.plan.pop(0) if self.plan else None

    async def do(self, step: Any) -> None:
        if isinstance(step, RpcError):
            raise step
        if step == "wait":
            self.inside += 1
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.inside -= 1

    @method
    async def work(self, context: CallContext, value: Any = "done") -> Any:
        await self.do(self.next_step(context))
        return value

    @method
    async def count(self, context: CallContext, number: int) -> AsyncIterator[int]:
        step = self.next_step(context)
        if not isinstance(step, int):
            await self.do(step)
        for item in range(number if not isinstance(step, int) else step):
            yield item
        if isinstance(step, int):
            raise error()

    @method
    async def total(self, context: CallContext, items: AsyncIterator[int]) -> int:
        step = self.next_step(context)
        if isinstance(step, RpcError):
            await anext(items, None)
            raise step
        return sum([item async for item in items])

    @method
    def note(self, context: CallContext) -> None:
        self.next_step(context)


async def check_nothing_is_left(bench: Bench, client: Client, flaky: Flaky, tasks: set[Any]) -> None:
    """Neither tasks, calls nor timers, here or at the server."""
    methods = {task for peer in bench.connected for task in peer.tasks}  # that are about to end
    assert asyncio.all_tasks() - methods == tasks
    assert not client._watchers
    peer = client._peer
    assert peer is not None
    assert peer.calls == {}
    assert peer.session.pending_calls == 0
    await until(lambda: flaky.inside == 0)
    timers = bench.driver._timers
    live = [timer for timer in timers._heap if timer.callback is not None]
    assert not [timer for timer in live if "Client._wait" in repr(timer.callback)]


async def step_by_step(work: Coroutine[Any, Any, Any], stop_after: int) -> int:
    """Run a coroutine as a task, and cancel it after so many resumptions.

    Returns:
        How often it was resumed.
    """
    resumed = 0

    class Counted:
        """Passes on what a task sends to and throws into the coroutine."""

        def __await__(self) -> Any:
            nonlocal resumed
            steps = work.__await__()
            value: Any = None
            raised: BaseException | None = None
            while True:
                try:
                    awaited = steps.throw(raised) if raised is not None else steps.send(value)
                except StopIteration as end:
                    return end.value
                raised = None
                if resumed == stop_after:
                    asyncio.get_running_loop().call_soon(task.cancel)
                resumed += 1
                try:
                    value = yield awaited
                except BaseException as thrown:  # noqa: BLE001 - passed on
                    raised = thrown

    async def counted() -> Any:
        return await Counted()

    task = asyncio.ensure_future(counted())
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None or isinstance(task.exception(), RpcError)
    return resumed
