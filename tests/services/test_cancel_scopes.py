"""Scopes around calls. (Around operations of sockets: `test_sockets_bounds.py`.)"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until
from rpc_waiting import Waiting

from helianthus import (
    CallContext,
    CancelToken,
    RpcError,
    Service,
    StatusCode,
    cancel_scope,
    connect_sync,
    method,
)
from helianthus.drivers.choose import running_driver
from helianthus.services.scope import raw_bounds
from helianthus.sim import run_in_simulation


async def failure(awaitable: Any) -> tuple[StatusCode, str]:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value.code, caught.value.message


def test_the_earliest_deadline_counts() -> None:
    async def main() -> None:
        now = asyncio.get_running_loop().time
        began = now()
        with cancel_scope() as unbounded:
            assert (unbounded.deadline, unbounded.remaining()) == (None, None)
            with cancel_scope(timeout=5) as outer:
                assert outer.deadline == began + 5
                await asyncio.sleep(2)
                with cancel_scope(timeout=10) as inner:
                    assert inner.deadline == began + 5
                    assert inner.remaining() == 3
                with cancel_scope(timeout=1) as inner:
                    assert inner.deadline == began + 3
                    assert not inner.expired
                    await asyncio.sleep(1)
                    assert inner.expired
                    assert not outer.expired
                    assert not inner.cancelled
                await asyncio.sleep(10)
                assert outer.remaining() == 0

    run_in_simulation(main())


def test_cancelling_reaches_inwards_only() -> None:
    given = CancelToken()
    with cancel_scope(cancel=given) as outer:
        with cancel_scope() as inner:
            inner.cancel("the inner one")
            assert inner.cancelled
            assert not outer.cancelled
        with cancel_scope() as inner:
            given.cancel("all")
            assert (outer.cancelled, inner.cancelled) == (True, True)
            assert inner.token.reason == "all"
    assert given._callbacks == {}


def test_a_scope_is_entered_once() -> None:
    scope = cancel_scope()
    with scope, pytest.raises(RuntimeError, match="once"), scope:
        pass


def test_a_scope_bounds_calls_by_time(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await client.call("waiting.now")
        with cancel_scope(timeout=0.1):
            assert await client.call("waiting.now", 1) == 1
            assert (await failure(client.call("waiting.wait", "a")))[0] is StatusCode.DEADLINE_EXCEEDED
            assert (await failure(client.call("waiting.now", timeout=9)))[0] is StatusCode.DEADLINE_EXCEEDED
            assert (await failure(anext(client.stream("waiting.produce", "s", 1))))[0] is (
                StatusCode.DEADLINE_EXCEEDED
            )
        assert await client.call("waiting.now", 2) == 2
        await service.happened("a", "finally")

    run_on(scenario)


def test_a_scope_cancels_calls_and_streams(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await client.call("waiting.now")
        given = CancelToken()
        with cancel_scope(cancel=given) as scope:
            calling = [
                asyncio.ensure_future(client.call("waiting.wait", "a")),
                asyncio.ensure_future(client.call("waiting.wait", "b", cancel=CancelToken())),
                asyncio.ensure_future(anext(client.stream("waiting.produce", "c", 0))),
            ]
            for name in "abc":
                await service.happened(name, "began")
            scope.cancel("that will do")
            for one in calling:
                assert await failure(one) == (StatusCode.CANCELLED, "that will do")
            for late in (
                client.call("waiting.now", 1),
                client.call("waiting.now", 1, cancel=CancelToken()),
                client.notify("waiting.now", 1),
                anext(client.stream("waiting.produce", "d", 1)),
            ):
                assert await failure(late) == (StatusCode.CANCELLED, "that will do")
        assert await client.call("waiting.now", 2) == 2
        for name in "abc":
            await service.happened(name, "finally")
        assert "d: began" not in service.journal
        assert given._callbacks == {}
        assert scope.token._callbacks == {}

    run_on(scenario)


def test_calls_that_end_leave_nothing_at_the_scope(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Waiting())
        await client.call("waiting.now")
        with cancel_scope(timeout=30) as scope:
            assert [await client.call("waiting.now", number) for number in range(5)] == [0, 1, 2, 3, 4]
            await failure(client.call("waiting.broken"))
            calling = asyncio.ensure_future(client.call("waiting.wait", "a"))
            await asyncio.sleep(0)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            assert scope.token._callbacks == {}

    run_on(scenario)


def test_a_scope_while_connecting(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Waiting())
        with cancel_scope() as scope:
            calling = asyncio.ensure_future(client.call("waiting.now"))
            await asyncio.sleep(0)
            scope.cancel("no patience")
            assert await failure(calling) == (StatusCode.CANCELLED, "no patience")
        assert await client.call("waiting.now", 1) == 1

    run_on(scenario)


def test_what_is_made_within_a_scope_outlives_it(run_on: Ground) -> None:
    """Servers, clients and the loop's driver belong to nobody's scope."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        with cancel_scope(timeout=1000) as scope:
            client = await bench.pair(service)
            await client.call("waiting.now")
        scope.cancel()
        calling = asyncio.ensure_future(client.call("waiting.wait", "a"))
        await service.happened("a", "began")
        assert service.contexts["a"].deadline is None
        service.gate.set()
        assert await calling == "a"

    run_on(scenario)


class Nested(Service):
    """Calls itself within scopes."""

    client: Any

    @method
    async def deadlines(self, context: CallContext) -> list[float | None]:
        """What is left of the time here, of a scope, and in a call from within it."""
        with cancel_scope(timeout=1000) as longer:
            inside = longer.deadline
        with cancel_scope(timeout=5):
            return [context.deadline, inside, await self.client.call("nested.remaining")]

    @method
    async def remaining(self, context: CallContext) -> float | None:
        return context.remaining()

    @method
    async def method_in_a_scope(self) -> str:
        from helianthus import current_call

        with cancel_scope(timeout=5), cancel_scope():
            call = current_call()
            return call.method if call is not None else ""


def test_scopes_and_deadlines_of_calls_are_one(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Nested()
        service.client = client = await bench.pair(service)
        own, inside, nested = await client.call("nested.deadlines", timeout=20)
        assert inside == own
        assert 0 < nested <= 5
        own, inside, nested = await client.call("nested.deadlines", timeout=3)
        assert 0 < nested <= 3
        assert await client.call("nested.method_in_a_scope", timeout=3) == "nested.method_in_a_scope"

    run_on(scenario)


def test_a_scope_around_blocking_calls(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        token = CancelToken()

        def call() -> None:
            with connect_sync(str(server.addresses[0])) as client:
                with cancel_scope(timeout=0.1), pytest.raises(RpcError) as caught:
                    client.call("waiting.wait", "a")
                assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
                with cancel_scope(cancel=token), pytest.raises(RpcError, match="from the loop"):
                    client.call("waiting.wait", "b")
                assert client.call("waiting.now", 1) == 1

        blocking = asyncio.ensure_future(asyncio.to_thread(call))
        await service.happened("b", "began")
        token.cancel("from the loop")
        await blocking
        assert token._callbacks == {}
        await until(lambda: not server.peers)

    run_on_real(scenario)


def test_the_loops_driver_is_in_no_scope() -> None:
    async def main() -> None:
        seen: list[object] = []
        with cancel_scope():
            driver = running_driver()
            driver.post(lambda: seen.append(raw_bounds()))
            await until(lambda: seen)
        assert seen == [None]
        driver.close()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
