"""Calls under asyncio's own tools: they behave as any other awaitable does."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars

import pytest
from rpc_bench import Bench, Ground, until
from rpc_waiting import Waiting

from helianthus import CallContext, Client, RpcError, Service, StatusCode, method


class Echo(Service):
    @method
    def now(self, value: int) -> int:
        return value

    @method
    async def later(self, value: int, delay: float = 0.0) -> int:
        await asyncio.sleep(delay)
        return value

    @method
    def fail(self, value: int) -> None:
        raise RpcError(StatusCode.ABORTED, str(value))


def test_gather_keeps_the_order(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Echo())
        delays = [0.003, 0.0, 0.002, 0.001]
        answers = await asyncio.gather(
            *(client.call("echo.later", number, delay) for number, delay in enumerate(delays))
        )
        assert answers == [0, 1, 2, 3]

    run_on(scenario)


def test_gather_can_return_exceptions(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Echo())
        names = ["echo.now", "echo.fail", "echo.later", "echo.fail"]
        answers = await asyncio.gather(
            *(client.call(name, number) for number, name in enumerate(names)), return_exceptions=True
        )
        assert answers[0] == 0
        assert answers[2] == 2
        assert [type(answers[number]) for number in (1, 3)] == [RpcError, RpcError]

    run_on(scenario)


def test_a_task_group_cancels_the_siblings_of_a_failure(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service, Echo())
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                waiting = [group.create_task(client.call("waiting.wait", name)) for name in "ab"]
                for name in "ab":
                    await service.happened(name, "began")
                group.create_task(client.call("echo.fail", 1))
        assert [type(error) for error in caught.value.exceptions] == [RpcError]
        assert all(task.cancelled() for task in waiting)
        for name in "ab":
            await service.happened(name, "cancelled")

    run_on(scenario)


def test_wait_for_cancels_the_call(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await client.call("waiting.now")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.call("waiting.wait", "a"), 0.05)
        await service.happened("a", "cancelled")
        assert await asyncio.wait_for(client.call("waiting.now", 1), 20) == 1

    run_on(scenario)


def test_timeout_cancels_the_call(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await client.call("waiting.now")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.call("waiting.wait", "a")
        await service.happened("a", "cancelled")
        async with asyncio.timeout(20):
            assert await client.call("waiting.now", 1) == 1
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run_on(scenario)


def test_timeouts_of_asyncio_and_of_the_call(run_on: Ground) -> None:
    """Whichever is shorter has its say, and its own exception."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await client.call("waiting.now")
        with pytest.raises(RpcError) as caught:
            async with asyncio.timeout(20):
                await client.call("waiting.wait", "a", timeout=0.05)
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.call("waiting.wait", "b", timeout=20)
        for name in "ab":
            await service.happened(name, "finally")

    run_on(scenario)


def test_shield_keeps_the_call(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        inner = asyncio.ensure_future(client.call("waiting.wait", "a"))
        outer = asyncio.ensure_future(_shielded(inner))
        await service.happened("a", "began")
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert not inner.done()
        service.gate.set()
        assert await inner == "a"
        assert service.entries("a") == ["began", "finally", "ended"]

    run_on(scenario)


async def _shielded(inner: asyncio.Future[object]) -> object:
    return await asyncio.shield(inner)


def test_wait_and_as_completed(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service, Echo())
        await client.call("waiting.now")
        slow = asyncio.ensure_future(client.call("waiting.wait", "a"))
        quick = asyncio.ensure_future(client.call("echo.now", 1))
        done, pending = await asyncio.wait([slow, quick], return_when=asyncio.FIRST_COMPLETED)
        assert done == {quick}
        assert pending == {slow}
        done, pending = await asyncio.wait([slow], timeout=0.01)
        assert not done
        service.gate.set()
        assert await slow == "a"
        calls = [client.call("echo.later", number) for number in range(5)]
        assert sorted([await one for one in asyncio.as_completed(calls)]) == [0, 1, 2, 3, 4]

    run_on(scenario)


def test_awaiting_inside_an_except_or_finally_of_a_cancelled_task(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        cleaned: list[object] = []

        async def work() -> None:
            try:
                await client.call("waiting.wait", "a")
            finally:
                cleaned.append(await client.call("waiting.now", "cleaned up"))

        working = asyncio.create_task(work())
        await service.happened("a", "began")
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert cleaned == ["cleaned up"]

    run_on(scenario)


def test_many_rounds_of_tasks_that_wake_each_other(run_on: Ground) -> None:
    """Answers resume tasks in the middle of the driver's work; futures between tasks mix with that."""

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Echo())
        baton: asyncio.Queue[int] = asyncio.Queue()
        finished: list[int] = []

        async def runner() -> None:
            while (number := await baton.get()) < 200:
                assert await client.call("echo.now", number) == number
                await baton.put(number + 1)
            finished.append(number)
            await baton.put(number)

        runners = [asyncio.create_task(runner()) for _ in range(5)]
        await baton.put(0)
        await asyncio.gather(*runners)
        assert finished == [200] * 5

    run_on(scenario)


def test_locks_semaphores_and_events_work_around_calls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Echo())
        lock, gate = asyncio.Lock(), asyncio.Semaphore(3)
        inside = most = 0

        async def one(number: int) -> int:
            nonlocal inside, most
            async with gate:
                inside += 1
                most = max(most, inside)
                async with lock:
                    answer: int = await client.call("echo.now", number)
                inside -= 1
            return answer

        assert await asyncio.gather(*(one(number) for number in range(50))) == list(range(50))
        assert most == 3

    run_on(scenario)


def test_context_variables_stay_with_their_task(run_on: Ground) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Echo())
        await client.call("echo.now", 0)

        async def one(number: int) -> None:
            variable.set(number)
            for _ in range(20):
                assert await client.call("echo.now", number) == number
                assert variable.get() == number

        await asyncio.gather(*(one(number) for number in range(20)))
        assert variable.get() == -1

    run_on(scenario)


def test_context_variables_of_a_method_stay_with_its_call(run_on: Ground) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="untouched")

    class Marked(Service):
        @method
        async def mark(self, value: str) -> list[str]:
            before = variable.get()
            variable.set(value)
            await asyncio.sleep(0)
            return [before, variable.get()]

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Marked())
        answers = await asyncio.gather(*(client.call("marked.mark", str(number)) for number in range(20)))
        assert answers == [["untouched", str(number)] for number in range(20)]
        assert variable.get() == "untouched"

    run_on(scenario)


def test_a_call_made_while_answers_are_handed_out(run_on: Ground) -> None:
    """The next call is made straight from the answer to the last one, by many tasks in one batch."""

    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Echo())

        async def chain(start: int) -> int:
            value = start
            for _ in range(50):
                value = await client.call("echo.now", value + 1)
            return value

        answers = await asyncio.gather(*(chain(1000 * number) for number in range(40)))
        assert answers == [1000 * number + 50 for number in range(40)]

    run_on(scenario)


def test_closing_from_within_an_answer(run_on: Ground) -> None:
    """A task that was resumed in the middle of the driver's work closes what the driver works on."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Echo())
        for _ in range(5):
            client = await bench.client(server)
            others = [asyncio.ensure_future(client.call("echo.later", number, 5)) for number in range(3)]
            assert await client.call("echo.now", 1) == 1
            await client.close()
            for other in others:
                with pytest.raises(RpcError) as caught:
                    await other
                assert caught.value.code in (StatusCode.CANCELLED, StatusCode.UNAVAILABLE)

    run_on(scenario)


def test_a_method_may_call_its_own_server(run_on: Ground) -> None:
    class Inward(Service):
        client: Client

        @method
        async def outer(self, depth: int) -> int:
            if depth == 0:
                return 0
            return 1 + await self.client.call("inward.outer", depth - 1)

    async def scenario(bench: Bench) -> None:
        service = Inward()
        service.client = await bench.pair(service)
        assert await service.client.call("inward.outer", 20, timeout=20) == 20

    run_on(scenario)


def test_tasks_that_a_method_leaves_behind_may_go_on(run_on: Ground) -> None:
    class Background(Service):
        def __init__(self) -> None:
            self.tasks: list[asyncio.Task[None]] = []
            self.done: list[str] = []

        @method
        async def begin(self, context: CallContext) -> str:
            async def work() -> None:
                await asyncio.sleep(0.005)
                self.done.append(context.method)

            self.tasks.append(asyncio.create_task(work()))
            return "begun"

    async def scenario(bench: Bench) -> None:
        service = Background()
        client = await bench.pair(service)
        assert await client.call("background.begin") == "begun"
        await until(lambda: service.done == ["background.begin"])

    run_on(scenario)


def test_an_abandoned_coroutine_leaves_the_connection_usable(run_on: Ground) -> None:
    """`aclose` of an async generator in the middle of a call, as a web framework does on disconnect."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)

        async def pages() -> object:
            yield await client.call("waiting.now", 1)
            yield await client.call("waiting.wait", "a")

        generator = pages()
        assert await anext(generator) == 1  # type: ignore[call-overload]
        stepping = asyncio.ensure_future(anext(generator))  # type: ignore[call-overload]
        await service.happened("a", "began")
        stepping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stepping
        await generator.aclose()  # type: ignore[attr-defined]
        await service.happened("a", "cancelled")
        assert await client.call("waiting.now", 2) == 2

    run_on(scenario)
