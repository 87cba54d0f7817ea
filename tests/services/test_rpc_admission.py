"""Limits of concurrency at a server, and the queue before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until

from helianthus import AdmissionLimits, Client, ConcurrencyLimit, RpcError, Service, StatusCode, method


class Workshop(Service):
    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = {}
        self.begun: list[int] = []
        self.most = self.now = 0

    @method
    async def work(self, number: int) -> int:
        self.begun.append(number)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gates.setdefault(number, asyncio.Event()).wait()
        finally:
            self.now -= 1
        return number

    @method
    async def watch(self) -> AsyncIterator[int]:
        for number in range(1000):
            yield number
            await asyncio.sleep(0.01)

    @method
    def quick(self) -> str:
        return "at once"

    def finish(self, *numbers: int) -> None:
        for number in numbers:
            self.gates.setdefault(number, asyncio.Event()).set()


async def failure(awaitable: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


def start(client: Client, number: int, **options: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(client.call("workshop.work", number, **options))


def test_calls_wait_in_order_and_are_refused_beyond_the_queue(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        workshop = Workshop()
        limits = AdmissionLimits(server=ConcurrencyLimit(2, 3), retry_after=0.5)
        server = await bench.serve(workshop, admission=limits)
        client = await bench.client(server)
        tasks = []
        for number in range(5):
            tasks.append(start(client, number))
            await until(lambda count=number + 1: server.gate.running + server.gate.waiting == count)
        error = await failure(client.call("workshop.work", 9))
        assert error.code is StatusCode.RESOURCE_EXHAUSTED
        assert "max_concurrent (2)" in error.message
        assert "max_queued (3)" in error.message
        assert error.details == {"retry_after": 0.5}
        assert not error.maybe_executed
        assert await client.call("workshop.quick") == "at once"  # it takes no permit
        workshop.finish(*range(5))
        assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4]
        assert workshop.begun == [0, 1, 2, 3, 4]
        assert workshop.most == 2
        assert (server.gate.running, server.gate.waiting) == (0, 0)

    run_on(scenario)


def test_clients_and_methods_have_limits_of_their_own(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        workshop = Workshop()
        limits = AdmissionLimits(client=ConcurrencyLimit(1), methods={"workshop.watch": ConcurrencyLimit(1)})
        server = await bench.serve(workshop, admission=limits)
        first, second, third = [await bench.client(server) for _ in range(3)]
        tasks = [start(first, 1), start(second, 2)]
        await until(lambda: len(workshop.begun) == 2)
        error = await failure(first.call("workshop.work", 3))
        assert "the client runs max_concurrent (1)" in error.message
        workshop.finish(1, 2)
        await asyncio.gather(*tasks)
        async with first.stream("workshop.watch") as stream:
            assert await anext(stream) == 0
            error = await failure(anext(third.stream("workshop.watch")))
            assert "the method workshop.watch runs max_concurrent (1)" in error.message
        await until(lambda: server.gate.running == 0)
        async with third.stream("workshop.watch") as stream:
            assert await anext(stream) == 0
        await until(lambda: server.gate.running == 0)

    run_on(scenario)


def test_what_expires_or_is_given_up_in_the_queue_is_never_run(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        workshop = Workshop()
        server = await bench.serve(workshop, admission=AdmissionLimits(server=ConcurrencyLimit(1, 10)))
        client = await bench.client(server)
        running = start(client, 0)
        await until(lambda: workshop.begun == [0])
        error = await failure(client.call("workshop.work", 1, timeout=0.1))
        assert error.code is StatusCode.DEADLINE_EXCEEDED
        given_up = start(client, 2)
        await until(lambda: server.gate.waiting == 1)
        given_up.cancel()
        await until(lambda: server.gate.waiting == 0)
        workshop.finish(0, 1, 2, 3)
        assert await running == 0
        assert await client.call("workshop.work", 3) == 3
        assert workshop.begun == [0, 3]
        assert server.gate.running == 0
        with pytest.raises(asyncio.CancelledError):
            await given_up

    run_on(scenario)


def test_permits_come_back_when_connections_end(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        workshop = Workshop()
        server = await bench.serve(workshop, admission=AdmissionLimits(server=ConcurrencyLimit(1, 10)))
        leaver, stayer = await bench.client(server), await bench.client(server)
        tasks = [start(leaver, 0)]
        await until(lambda: workshop.begun == [0])
        tasks += [start(leaver, 1), start(stayer, 2)]
        await until(lambda: server.gate.waiting == 2)
        await leaver.close()
        await until(lambda: workshop.begun == [0, 2])
        workshop.finish(2)
        assert await tasks[2] == 2
        await until(lambda: (server.gate.running, server.gate.waiting) == (0, 0))
        for task in tasks[:2]:
            assert (await failure(task)).code is StatusCode.CANCELLED

    run_on(scenario)


def test_no_permit_leaks_wherever_a_call_is_cancelled(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        workshop = Workshop()
        server = await bench.serve(workshop, admission=AdmissionLimits(server=ConcurrencyLimit(2, 2)))
        client = await bench.client(server)
        workshop.finish(7)
        for turns in range(12):
            tasks = [start(client, 7) for _ in range(4)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await until(lambda: (server.gate.running, server.gate.waiting) == (0, 0))
            assert await client.call("workshop.work", 7) == 7
        assert not server.gate._admission.scopes  # type: ignore[union-attr]  # it was given limits

    run_on(scenario)


def test_a_draining_server_loses_no_request_that_waits(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        workshop = Workshop()
        server = await bench.serve(workshop, admission=AdmissionLimits(server=ConcurrencyLimit(1, 10)))
        client = await bench.client(server)
        tasks = [start(client, number) for number in range(5)]
        await until(lambda: server.gate.waiting == 4)
        draining = asyncio.ensure_future(server.drain(grace=20.0))
        await until(lambda: server._closed)
        workshop.finish(*range(5))
        assert await draining
        assert await asyncio.gather(*tasks) == [0, 1, 2, 3, 4]

    run_on(scenario)
