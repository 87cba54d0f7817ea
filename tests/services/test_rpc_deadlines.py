"""Deadlines: the caller gives up in time, and what runs for it is cancelled."""

from __future__ import annotations

import asyncio

import pytest
from rpc_bench import SOON, Bench, Ground, until
from rpc_waiting import Waiting

from helianthus import Client, RpcError, StatusCode
from helianthus.sim import World

"""Seconds: long enough for a call to arrive, on an idle machine."""


async def expires(awaitable: object) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable  # type: ignore[misc]
    assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
    return caught.value


def test_a_call_ends_at_its_deadline_and_the_method_is_cancelled(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        began = bench.driver.now()
        error = await expires(client.call("waiting.wait", "a", timeout=SOON))
        assert bench.driver.now() - began >= SOON - 0.002  # uvloop's clock has whole milliseconds
        assert error.maybe_executed
        await service.happened("a", "finally")
        assert service.entries("a") == ["began", "cancelled", "finally"]
        await until(lambda: bench.connected[0].in_flight == 0)
        assert await client.call("waiting.now", 1) == 1
        assert bench.errors == []

    run_on(scenario)


def test_a_method_knows_its_deadline(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        with_one = asyncio.ensure_future(client.call("waiting.wait", "with", timeout=20))
        without = asyncio.ensure_future(client.call("waiting.wait", "without"))
        await service.happened("with", "began")
        await service.happened("without", "began")
        remaining = service.contexts["with"].remaining()
        assert remaining is not None
        assert 15 < remaining <= 20.001  # whole milliseconds are sent, rounded up
        assert service.contexts["without"].deadline is None
        assert service.contexts["without"].remaining() is None
        service.gate.set()
        assert await with_one == "with"
        assert await without == "without"

    run_on(scenario)


def test_an_answer_in_time_is_no_error(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        service.gate.set()
        client = await bench.pair(service)
        assert await client.call("waiting.wait", "a", timeout=20) == "a"
        assert await client.call("waiting.now", 1, timeout=20) == 1
        assert [item async for item in client.stream("waiting.produce", "b", 3, timeout=20)] == [0, 1, 2]

    run_on(scenario)


@pytest.mark.parametrize("timeout", [0, 0.0])
def test_a_deadline_that_has_passed_is_not_sent(run_on: Ground, timeout: float) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await client.call("waiting.now")
        error = await expires(client.call("waiting.wait", "a", timeout=timeout))
        assert not error.maybe_executed
        error = await expires(anext(client.stream("waiting.produce", "b", 1, timeout=timeout)))
        assert not error.maybe_executed
        await client.call("waiting.now")
        assert service.journal == []

    run_on(scenario)


def test_a_passed_deadline_does_not_wait_for_a_connection(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Waiting())  # it connects, but has not yet
        error = await expires(client.call("waiting.now", timeout=0))
        assert not error.maybe_executed
        assert await client.call("waiting.now", 1) == 1

    run_on(scenario)


def test_many_deadlines_in_any_order(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        ended: list[int] = []

        async def one(number: int) -> None:
            await expires(client.call("waiting.wait", str(number), timeout=SOON * (1 + number / 10)))
            ended.append(number)

        numbers = [7, 2, 9, 0, 5, 3, 8, 1, 6, 4]
        await asyncio.gather(*(one(number) for number in numbers))
        # Not in order: a busy machine may begin a short one after a long one's time has come.
        assert sorted(ended) == sorted(numbers)
        for number in numbers:
            await service.happened(str(number), "finally")

    run_on(scenario)


def test_a_stream_of_the_callee_ends_at_its_deadline(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        stream = client.stream("waiting.produce", "a", 3, timeout=SOON)
        got = []
        with pytest.raises(RpcError) as caught:
            async for item in stream:
                got.append(item)  # noqa: PERF401 - what came before the deadline is kept
        assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        assert got == [0, 1, 2]
        await expires(stream)
        await service.happened("a", "finally")
        assert "cancelled" in service.entries("a")

    run_on(scenario)


def test_a_stream_of_the_caller_ends_at_its_deadline(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        stream = client.stream("waiting.consume", "a", timeout=SOON)
        await stream.send(1)

        async def send_on() -> None:
            while True:
                await stream.send(1)
                await asyncio.sleep(SOON / 10)

        await expires(send_on())
        await expires(stream)
        await service.happened("a", "cancelled")

    run_on(scenario)


def test_a_sender_that_waits_for_credit_is_woken_by_the_deadline(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        stream = client.stream("waiting.ignore", "a", timeout=SOON)

        async def send_on() -> None:
            while True:
                await stream.send(1)

        await expires(send_on())

    run_on(scenario)


def test_a_method_may_take_its_time_to_clean_up(run_on: Ground) -> None:
    """The caller is free at the deadline; the request counts until the method has really ended."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await expires(client.call("waiting.slow_clean_up", "a", timeout=SOON))
        assert await client.call("waiting.now", 1) == 1
        assert bench.connected[0].in_flight == 1
        service.gate.set()
        await service.happened("a", "finally")
        await until(lambda: bench.connected[0].in_flight == 0)

    run_on(scenario)


def test_a_method_that_ignores_its_deadline_changes_nothing_for_the_caller(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await expires(client.call("waiting.stubborn", "a", timeout=SOON))
        await service.happened("a", "ignored it")
        await until(lambda: bench.connected[0].in_flight == 0)
        assert await client.call("waiting.now", 1) == 1

    run_on(scenario)


def test_a_fault_in_the_clean_up_is_reported(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        await expires(client.call("waiting.broken_clean_up", "a", timeout=SOON))
        await until(lambda: bench.errors)
        ((name, error),) = bench.take_errors()
        assert name == "waiting.broken_clean_up"
        assert isinstance(error, ZeroDivisionError)

    run_on(scenario)


def test_the_deadline_holds_while_nobody_answers_the_connection() -> None:
    """Connecting, hello and call share the one timeout."""
    with World(seed=1) as world:
        world.node("server")
        world.node("client")
        world.partition("client", "server")

        async def call() -> float:
            loop = asyncio.get_running_loop()
            async with Client("tcp://server:7070") as client:
                began = loop.time()
                error = await expires(client.call("waiting.now", timeout=2.5))
                assert not error.maybe_executed
                return loop.time() - began

        took = world.run_until(world.node("client").spawn(call))
        assert took == pytest.approx(2.5)


def test_the_deadline_holds_when_the_network_is_cut() -> None:
    """Each side finds out by its own clock."""
    with World(seed=2) as world:
        service = Waiting()

        async def serve() -> None:
            from helianthus import Server

            server = Server([service])
            await server.listen("tcp://0.0.0.0:7070")
            await server.serve_forever()

        async def call() -> float:
            loop = asyncio.get_running_loop()
            client = Client("tcp://server:7070")
            await client.call("waiting.now")
            began = loop.time()
            calling = asyncio.ensure_future(client.call("waiting.wait", "a", timeout=3.0))
            await asyncio.sleep(1.0)
            world.partition("client", "server")
            error = await expires(calling)
            assert error.maybe_executed
            return loop.time() - began

        world.node("server").spawn(serve)
        took = world.run_until(world.node("client").spawn(call))
        assert took == pytest.approx(3.0)
        world.run(until=world.now + 0.1)
        assert service.entries("a") == ["began", "cancelled", "finally"]
