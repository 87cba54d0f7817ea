"""What `client.call` returns: begun at once, awaited in any of asyncio's ways."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until
from rpc_waiting import Waiting

from helianthus import Client, RpcError, StatusCode


async def connected(bench: Bench) -> tuple[Client, Waiting]:
    """A client that begins calls at once, because it is connected."""
    service = Waiting()
    client = await bench.pair(service)
    await client.call("waiting.now")
    return client, service


def test_calls_begin_before_they_are_awaited(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, service = await connected(bench)
        calls = [client.call("waiting.wait", name) for name in "abc"]
        await service.happened("c", "began")
        assert [service.entries(name) for name in "abc"] == [["began"]] * 3
        service.gate.set()
        assert [await call for call in calls] == ["a", "b", "c"]

    run_on(scenario)


def test_every_way_to_await(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, _ = await connected(bench)

        def call(value: int) -> Any:
            return client.call("waiting.now", value)

        assert await call(1) == 1
        assert await asyncio.create_task(call(2)) == 2
        assert await asyncio.wait_for(call(3), 5.0) == 3
        assert await asyncio.shield(call(4)) == 4
        assert await asyncio.gather(*map(call, range(20))) == list(range(20))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call(number)) for number in range(5)]
        assert [task.result() for task in tasks] == list(range(5))
        done, _ = await asyncio.wait([asyncio.ensure_future(call(number)) for number in range(5)])
        assert sorted(task.result() for task in done) == list(range(5))

    run_on(scenario)


def test_an_answer_that_came_before_the_await_is_kept(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, _ = await connected(bench)
        good, bad = client.call("waiting.now", 7), client.call("waiting.nothing_like_it")
        assert await client.call("waiting.now", 8) == 8  # answers come in the order of the calls
        for _ in range(2):
            assert await good == 7
            with pytest.raises(RpcError) as caught:
                await bad
            assert caught.value.code is StatusCode.UNIMPLEMENTED

    run_on(scenario)


def test_an_error_before_the_call_is_sent_comes_with_the_await(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, _ = await connected(bench)
        call = client.call("waiting.now", object())
        with pytest.raises(RpcError, match="cannot be encoded"):
            await call

    run_on(scenario)


def test_two_tasks_cannot_await_one_call(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client, service = await connected(bench)
        call = client.call("waiting.wait", "a")

        async def awaiting() -> Any:
            return await call

        first = asyncio.create_task(awaiting())
        await service.happened("a", "began")
        with pytest.raises(RuntimeError, match="another task awaits this already"):
            await call
        service.gate.set()
        assert await first == "a"

    run_on(scenario)


def test_a_call_that_is_closed_is_cancelled(run_on: Ground) -> None:
    """As a coroutine that nobody will await is closed."""

    async def scenario(bench: Bench) -> None:
        client, service = await connected(bench)
        call = client.call("waiting.wait", "a")
        await service.happened("a", "began")
        call.close()
        await service.happened("a", "cancelled")
        await until(lambda: bench.connected[0].in_flight == 0)
        with pytest.raises(RpcError) as caught:
            await call
        assert caught.value.code is StatusCode.CANCELLED

    run_on(scenario)
