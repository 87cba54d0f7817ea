"""Streams of items: from the callee, from the caller, both ways, and how fast they may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until
from rpc_waiting import Waiting

from helianthus import Client, Peer, RpcError, RpcLimits, Service, StatusCode, StreamCall, method

WINDOW = 256
"""Items that may be under way: `RpcLimits.stream_window`."""


class Counting(Service):
    """Streams of every kind, which count what they do."""

    def __init__(self) -> None:
        self.produced = 0
        self.consumed = 0
        self.step = asyncio.Semaphore(0)

    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            self.produced += 1
            yield number

    @method
    async def large(self, n: int, size: int) -> AsyncIterator[bytes]:
        for number in range(n):
            self.produced += 1
            yield bytes([number % 256]) * size

    @method
    async def total(self, items: AsyncIterator[int]) -> int:
        total = 0
        async for item in items:
            self.consumed += 1
            total += item
        return total

    @method
    async def total_slowly(self, items: AsyncIterator[Any]) -> int:
        """Takes an item for each step that it is let go."""
        async for _ in items:
            self.consumed += 1
            await self.step.acquire()
        return self.consumed

    @method
    async def running_total(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        total = 0
        async for item in items:
            total += item
            yield total

    @method
    async def first(self, n: int, items: AsyncIterator[int]) -> list[int]:
        """Takes some items and is done."""
        return [await anext(items) for _ in range(n)]

    @method
    async def fail_after(self, n: int, items: AsyncIterator[int]) -> AsyncIterator[int]:
        for _ in range(n):
            yield await anext(items)
        raise RpcError(StatusCode.OUT_OF_RANGE, f"no more than {n}")

    @method
    async def fail_on_step(self, items: AsyncIterator[int]) -> None:
        await self.step.acquire()
        raise RpcError(StatusCode.OUT_OF_RANGE, "enough")

    @method
    async def hold(self, items: AsyncIterator[int]) -> AsyncIterator[str]:
        """Says one word, then takes items until they end."""
        yield "ready"
        async for _ in items:
            self.consumed += 1

    @method
    def add(self, a: int, b: int) -> int:
        return a + b


# -- the four kinds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, WINDOW - 1, WINDOW, WINDOW + 1, 1000])
def test_items_of_the_callee_come_in_order(run_on: Ground, n: int) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        stream = client.stream("counting.count", n)
        assert [item async for item in stream] == list(range(n))
        assert [item async for item in stream] == []  # the end stays the end
        assert await stream is None

    run_on(scenario)


@pytest.mark.parametrize("n", [0, 1, WINDOW, WINDOW + 1, 1000])
def test_items_of_the_caller_come_in_order(run_on: Ground, n: int) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        stream = client.stream("counting.total")
        for number in range(n):
            await stream.send(number)
        await stream.end()
        await stream.end()  # may be repeated
        assert await stream.result() == sum(range(n))
        assert await stream == sum(range(n))  # may be asked again

    run_on(scenario)


def test_items_both_ways(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        stream = client.stream("counting.running_total")
        total = 0
        for number in range(150):
            await stream.send(number)
            total += number
            assert await anext(stream) == total
        await stream.end()
        assert [item async for item in stream] == []

    run_on(scenario)


def test_sending_and_taking_at_the_same_time(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        stream = client.stream("counting.running_total")

        async def send() -> None:
            for _ in range(1000):
                await stream.send(1)
            await stream.end()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            taken = group.create_task(collect(stream))
        assert taken.result() == list(range(1, 1001))

    run_on(scenario)


async def collect(stream: StreamCall) -> list[Any]:
    return [item async for item in stream]


def test_many_streams_and_calls_share_one_connection(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())

        async def sum_up(n: int) -> int:
            stream = client.stream("counting.total")
            for number in range(n):
                await stream.send(number)
            return await stream  # type: ignore[no-any-return]

        async with asyncio.TaskGroup() as group:
            counts = [group.create_task(collect(client.stream("counting.count", 10 * n))) for n in range(30)]
            sums = [group.create_task(sum_up(10 * n)) for n in range(30)]
            calls = [group.create_task(client.call("counting.add", n, n)) for n in range(100)]
        assert [task.result() for task in counts] == [list(range(10 * n)) for n in range(30)]
        assert [task.result() for task in sums] == [sum(range(10 * n)) for n in range(30)]
        assert [task.result() for task in calls] == [2 * n for n in range(100)]
        assert len(bench.connected) == 1

    run_on(scenario)


def test_a_stream_begins_when_it_is_first_used(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.pair(service)
        stream = client.stream("counting.count", 3)
        await client.call("counting.add", 1, 1)
        assert service.produced == 0
        assert await anext(stream) == 0
        async with client.stream("counting.count", 3):
            await until(lambda: service.produced > 3)

    run_on(scenario)


def test_a_stream_that_two_tasks_open_begins_once(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.pair(service)
        stream = client.stream("counting.running_total")
        sending = asyncio.ensure_future(stream.send(5))
        assert await anext(stream) == 5
        await sending
        await stream.end()
        assert await collect(stream) == []

    run_on(scenario)


def test_two_tasks_cannot_iterate_over_one_stream(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        stream = client.stream("waiting.produce", "a", 1)
        assert await anext(stream) == 0
        first = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks"):
            await anext(stream)
        service.gate.set()
        assert await first is None

    run_on(scenario)


def test_several_tasks_may_send_on_one_stream(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        stream = client.stream("counting.total")

        async def send() -> None:
            for _ in range(100):
                await stream.send(1)

        await asyncio.gather(*(send() for _ in range(10)))
        assert await stream == 1000

    run_on(scenario)


def test_more_streams_than_the_limit_are_refused(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Counting(), limits=RpcLimits(max_streams=5))
        generous = await bench.client(server)
        strict = await bench.client(server, limits=RpcLimits(max_streams=5))
        for client in (generous, strict):
            streams = [client.stream("counting.hold") for _ in range(5)]
            for stream in streams:
                assert await anext(stream) == "ready"
            with pytest.raises(RpcError, match="max_streams") as caught:
                await anext(client.stream("counting.count", 1))
            assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
            assert await client.call("counting.add", 1, 1) == 2
            await streams.pop()
            assert await collect(client.stream("counting.count", 1)) == [0]

    run_on(scenario)


# -- backpressure -------------------------------------------------------------------------------------------


def test_a_slow_consumer_holds_the_producer(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.pair(service)
        stream = client.stream("counting.count", 10_000)
        for taken in range(1, 301):
            assert await anext(stream) == taken - 1
            # one more than the window is made, and waits to be sent
            assert service.produced <= taken + WINDOW + 1
            if taken % 50 == 0:
                await settled(lambda: service.produced)
        assert service.produced > WINDOW

    run_on(scenario)


def test_a_slow_callee_holds_the_caller(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.pair(service)
        stream = client.stream("counting.total_slowly")
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await stream.send(sent)
                sent += 1

        sending = asyncio.ensure_future(send())
        for step in range(1, 200):
            await until(lambda step=step: service.consumed >= step)
            assert sent <= service.consumed + WINDOW
            service.step.release()
        await settled(lambda: sent)
        assert WINDOW <= sent <= service.consumed + WINDOW
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        stream.give_up()

    run_on(scenario)


async def settled(measure: Any) -> None:
    """Wait until a number has stopped to change."""
    before = None
    while before != (before := measure()):
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.sleep(0.002)


def test_a_held_stream_holds_nobody_else(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        held = client.stream("counting.large", 1000, 10_000)
        assert len(await anext(held)) == 10_000
        assert await collect(client.stream("counting.count", 500)) == list(range(500))
        assert await asyncio.gather(*(client.call("counting.add", n, 1) for n in range(100))) == list(
            range(1, 101)
        )
        rest = await collect(held)
        assert len(rest) == 999
        assert all(len(item) == 10_000 for item in rest)

    run_on(scenario)


def test_large_items_do_not_pile_up(run_on: Ground) -> None:
    """A window of large items is more than may be queued: the producer waits for the transport."""

    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.pair(service)
        stream = client.stream("counting.large", 100, 500_000)
        most = 0
        number = 0
        async for item in stream:
            assert item == bytes([number]) * 500_000
            number += 1
            most = max(most, *(peer.session.queued for peer in bench.connected))
        assert number == 100
        assert most <= 2 * 1024 * 1024

    run_on(scenario)


def test_large_items_both_ways_at_once(run_on: Ground) -> None:
    """Both ends have more to say than the transport takes: neither may wait for the other to read first."""

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Counting())
        client = await bench.client(server, Counting())
        await client.call("counting.add", 1, 1)
        (peer,) = server.peers

        async def take(end: Client | Peer, size: int) -> list[int]:
            return [len(item) async for item in end.stream("counting.large", 60, size)]

        async with asyncio.TaskGroup() as group:
            taken = [
                group.create_task(take(end, size))
                for end in (client, peer)
                for size in (100_000, 200_000, 100_000, 300_000)
            ]
        assert [task.result()[0] for task in taken] == [100_000, 200_000, 100_000, 300_000] * 2
        assert all(len(task.result()) == 60 for task in taken)

    run_on(scenario)


def test_items_that_nobody_takes_pause_reading(run_on: Ground) -> None:
    """What a client buffers of items is bounded in bytes, too, and goes on when they are taken."""

    async def scenario(bench: Bench) -> None:
        service = Counting()
        server = await bench.serve(service)
        client = await bench.client(server, limits=RpcLimits(max_buffered_items=200_000))
        stream = client.stream("counting.large", 60, 50_000)
        assert len(await anext(stream)) == 50_000
        await settled(lambda: service.produced)
        peer = client._peer
        assert peer is not None
        assert peer.session._buffered_items < 200_000 + 256 * 1024  # and what one read may bring
        assert len(await collect(stream)) == 59
        assert await client.call("counting.add", 1, 1) == 2

    run_on(scenario)


@pytest.mark.parametrize("way", ["from_server", "from_client"])
def test_a_small_output_limit_slows_streams_down_and_breaks_none(run_on: Ground, way: str) -> None:
    """Whatever may be queued, waiting comes before failing."""

    async def scenario(bench: Bench) -> None:
        limits = RpcLimits(max_queued_output=100_000)
        server = await bench.serve(Counting(), limits=limits)
        client = await bench.client(server, limits=limits)
        if way == "from_server":
            assert len(await collect(client.stream("counting.large", 100, 30_000))) == 100
        else:
            stream = client.stream("counting.total_slowly")
            service_items = [bytes(30_000)] * 30
            for item in service_items:
                await stream.send(item)

    run_on(scenario)


def test_credit_is_the_receivers_choice(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        server = await bench.serve(service, limits=RpcLimits(stream_window=2))
        client = await bench.client(server, limits=RpcLimits(stream_window=3))
        stream = client.stream("counting.count", 100)
        for taken in range(1, 101):
            assert await anext(stream) == taken - 1
            assert service.produced <= taken + 3 + 1
        sending = client.stream("counting.total_slowly")
        sent = [asyncio.ensure_future(sending.send(number)) for number in range(10)]
        await until(lambda: service.consumed == 1)
        await settled(lambda: sum(one.done() for one in sent))
        assert sum(one.done() for one in sent) <= 4
        for _ in range(10):
            service.step.release()
        await asyncio.gather(*sent)
        assert await sending == 10

    run_on(scenario)


# -- ends -----------------------------------------------------------------------------------------


def test_a_callee_that_has_enough_ends_the_call(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        stream = client.stream("counting.first", 3)
        with pytest.raises(RpcError, match="has ended; it takes no more items") as caught:
            while True:
                await stream.send(7)
        assert caught.value.code is StatusCode.CANCELLED
        assert await stream == [7, 7, 7]

    run_on(scenario)


def test_the_end_of_the_callers_items_is_met_as_the_end(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        stream = client.stream("counting.first", 3)
        await stream.send(1)
        with pytest.raises(RpcError, match=r"StopAsyncIteration|RuntimeError") as caught:
            await stream
        assert caught.value.code is StatusCode.UNKNOWN
        bench.take_errors()

    run_on(scenario)


def test_an_error_of_the_callee_reaches_whoever_sends_and_takes(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        stream = client.stream("counting.fail_after", 2)
        for number in (1, 2):
            await stream.send(number)
        got = []
        with pytest.raises(RpcError) as caught:
            async for item in stream:
                got.append(item)  # noqa: PERF401 - what came before the error is kept
        assert got == [1, 2]
        assert caught.value.code is StatusCode.OUT_OF_RANGE
        for given in (stream.send(3), stream, anext(stream)):
            with pytest.raises(RpcError, match="no more than 2"):
                await given  # type: ignore[misc]
        await stream.end()  # nothing is left to end

    run_on(scenario)


def test_an_error_wakes_a_sender_that_waits_for_credit(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.pair(service)
        stream = client.stream("counting.fail_on_step")

        async def send() -> None:
            while True:
                await stream.send(1)

        sending = asyncio.ensure_future(send())
        await until(lambda: client._peer is not None and client._peer.session.pending_calls)
        await settled(lambda: len(stream.outgoing._waiters))
        service.step.release()
        for given in (sending, stream):
            with pytest.raises(RpcError, match="enough"):
                await given

    run_on(scenario)


def test_an_exception_of_the_caller_cancels_the_callee(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        with pytest.raises(ZeroDivisionError):
            async with client.stream("waiting.consume", "a") as stream:
                await stream.send(1)
                await service.happened("a", "began")
                await stream.send(1 // 0)
        await service.happened("a", "finally")
        assert service.entries("a") == ["began", "cancelled", "finally"]

    run_on(scenario)


def test_a_generator_that_waits_for_credit_is_closed(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        async with aclosing(client.stream("waiting.produce", "a", 10_000)) as stream:
            async for item in stream:
                if item == 5:
                    break
        await service.happened("a", "finally")
        assert service.entries("a") == ["began", "closed", "finally"]
        with pytest.raises(RpcError) as caught:
            await anext(stream)
        assert caught.value.code is StatusCode.CANCELLED
        await stream.aclose()  # may be repeated

    run_on(scenario)


def test_breaking_out_early_and_going_on_later(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Counting())
        stream = client.stream("counting.count", 200)
        async for item in stream:
            if item == 50:
                break
        async for item in stream:
            assert item == 51
            break
        assert await collect(stream) == list(range(52, 200))

    run_on(scenario)


def test_the_result_lets_the_rest_of_the_items_go(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.pair(service)
        stream = client.stream("counting.count", 5000)
        assert await anext(stream) == 0
        assert await stream.result() is None
        assert service.produced == 5000
        assert await collect(stream) == []

    run_on(scenario)


def test_an_item_that_cannot_be_encoded_leaves_the_stream_usable(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Counting()), limits=RpcLimits(max_message_size=10_000))
        stream = client.stream("counting.total")
        await stream.send(1)
        with pytest.raises(RpcError) as caught:
            await stream.send(object())
        assert caught.value.code is StatusCode.INTERNAL
        with pytest.raises(RpcError) as caught:
            await stream.send(bytes(20_000))
        assert caught.value.code is StatusCode.RESOURCE_EXHAUSTED
        await stream.send(2)
        assert await stream == 3

    run_on(scenario)


def test_sending_after_the_end_is_a_mistake(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)
        stream = client.stream("waiting.ignore", "a")

        async def send() -> None:
            while True:
                await stream.send(1)

        sending = asyncio.ensure_future(send())
        await service.happened("a", "began")
        await settled(lambda: len(stream.outgoing._waiters))
        await stream.end()
        for given in (sending, stream.send(1)):
            with pytest.raises(RpcError, match="have been ended") as caught:
                await given
            assert caught.value.code is StatusCode.INTERNAL
        service.gate.set()
        assert await stream == str(WINDOW)

    run_on(scenario)


def test_a_lost_connection_ends_streams_of_all_kinds(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client: Client = await bench.pair(service)
        producing = client.stream("waiting.produce", "p", 1)
        consuming = client.stream("waiting.consume", "c")
        ignored = client.stream("waiting.ignore", "i")
        ended = client.stream("waiting.ignore", "e")
        assert await anext(producing) == 0

        async def send(stream: StreamCall) -> None:
            while True:
                await stream.send(1)

        pending = [
            asyncio.ensure_future(given)
            for given in (anext(producing), send(consuming), send(ignored), ended.result())
        ]
        for name in "pcie":
            await service.happened(name, "began")
        bench.connected[0].abort()
        for one in pending:
            with pytest.raises(RpcError) as caught:
                await one
            assert caught.value.code is StatusCode.UNAVAILABLE
        for name in "pc":
            assert "cancelled" in service.entries(name)
        assert await client.call("waiting.now", 1, timeout=20) == 1

    run_on(scenario)
