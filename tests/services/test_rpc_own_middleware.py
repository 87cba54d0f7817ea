"""The middleware that the library brings, and batches through it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until, url_of

import helianthus
from helianthus import (
    CallLog,
    CallMetrics,
    Rate,
    RateLimit,
    Request,
    Response,
    ResponseCache,
    RpcError,
    Service,
    StatusCode,
    method,
)


class Counter(Service):
    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()

    @method
    def add(self, a: int, b: int = 0) -> int:
        self.calls += 1
        return a + b

    @method
    def fail(self) -> None:
        self.calls += 1
        raise RpcError(StatusCode.ABORTED, "no luck")

    @method
    async def wait(self) -> str:
        await self.gate.wait()
        return "done"


async def failure(awaitable: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    return caught.value


def test_a_rate_limit_refuses_and_says_when(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        counter = Counter()
        server = await bench.serve(counter, middleware=[RateLimit(Rate(per_second=0.001, burst=2))])
        first, second = await bench.client(server), await bench.client(server)
        assert [await first.call("counter.add", n) for n in (1, 2)] == [1, 2]
        error = await failure(first.call("counter.add", 3))
        assert error.code is StatusCode.RESOURCE_EXHAUSTED
        assert "more than 0.001 calls a second (burst 2)" in error.message
        assert 0 < error.details["retry_after"] <= 1001
        assert not error.maybe_executed
        assert await second.call("counter.add", 4) == 4  # it has a bucket of its own
        assert counter.calls == 3

    run_on(scenario)


def test_calls_are_logged_at_their_end(run_on: Ground, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client(await bench.serve(Counter(), middleware=[CallLog()]))
        quiet = await bench.client(await bench.serve(Counter(), middleware=[CallLog(only_failed=True)]))
        with caplog.at_level(logging.INFO, "helianthus.rpc.calls"):
            caplog.clear()
            await client.call("counter.add", 1)
            await failure(client.call("counter.fail"))
            await quiet.call("counter.add", 1)
            first, second = (record.getMessage() for record in caplog.records)
        assert first.startswith("counter.add from ")
        assert ": OK in " in first
        assert ": ABORTED: no luck in " in second
        assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]

    run_on(scenario)


def test_calls_are_counted_by_a_label(run_on: Ground) -> None:
    def tenant(request: Request) -> str:
        return str(request.meta.get("tenant", "nobody"))

    async def scenario(bench: Bench) -> None:
        metrics = CallMetrics(tenant)
        client = await bench.client(await bench.serve(Counter(), middleware=[metrics]))
        await client.call("counter.add", 1, meta={"tenant": "a"})
        await failure(client.call("counter.fail", meta={"tenant": "a"}))
        await client.call("counter.add", 1)
        counted = {label: (entry.calls, entry.failed) for label, entry in metrics.table.by_method.items()}
        assert counted == {"a": (2, 1), "nobody": (1, 0)}

    run_on(scenario)


@pytest.mark.parametrize("end", ["server", "client"])
def test_results_are_answered_from_the_cache_while_they_are_good(run_on: Ground, end: str) -> None:
    async def scenario(bench: Bench) -> None:
        counter = Counter()
        cache = ResponseCache({"counter.add": 60.0, "counter.fail": 60.0}, max_entries=2)
        server = await bench.serve(counter, middleware=[cache] if end == "server" else [])
        client = await bench.client(server, middleware=[cache] if end == "client" else [])
        assert [await client.call("counter.add", 1, 2) for _ in range(3)] == [3, 3, 3]
        assert counter.calls == 1
        cache.forget(["counter.fail"])
        cache.forget(["counter.add"])
        assert await client.call("counter.add", 1, 2) == 3
        assert counter.calls == 2
        for _ in range(2):
            await failure(client.call("counter.fail"))
        assert counter.calls == 4  # errors are not remembered
        for n in range(5):
            await client.call("counter.add", n)
        assert len(cache._entries) == 2

    run_on(scenario)


def test_a_result_is_forgotten_when_its_time_is_over() -> None:
    cache = ResponseCache({"m": 5.0})
    cache.after(Request("m", [1], {}, started=10.0), Response("one", elapsed=1.0))
    assert cache.before(Request("m", (1,), {}, started=15.9)) == Response("one")
    assert cache.before(Request("m", [2], {}, started=15.9)) is None
    assert cache.before(Request("m", [1], {}, started=16.0)) is None
    assert not cache._entries
    assert not cache.applies("n")


def test_a_batch_is_answered_in_order_each_call_by_itself(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        counter = Counter()
        server = await bench.serve(counter)
        client = await bench.client(server)
        outcomes = await client.batch(
            [("counter.add", 1, 2), ("counter.fail",), ("counter.add", "x"), ("counter.add", 5), ("no.such",)]
        )
        assert [one if isinstance(one, int) else one.code for one in outcomes] == [
            3,
            StatusCode.ABORTED,
            StatusCode.INVALID_ARGUMENT,
            5,
            StatusCode.UNIMPLEMENTED,
        ]
        assert await client.batch([("counter.add", n) for n in range(2500)]) == list(range(2500))
        assert await client.batch([]) == []

    run_on(scenario)


def test_a_batch_can_be_cancelled_and_has_a_deadline(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        counter = Counter()
        server = await bench.serve(counter)
        client = await bench.client(server)
        outcomes = await client.batch([("counter.wait",), ("counter.add", 1)], timeout=0.3)
        assert outcomes[0].code is StatusCode.DEADLINE_EXCEEDED
        assert outcomes[1] == 1
        for options in ({}, {"cancel": helianthus.CancelToken()}):
            task = asyncio.ensure_future(client.batch([("counter.wait",)] * 3, **options))
            await until(lambda: next(iter(server.peers)).in_flight == 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: next(iter(server.peers)).in_flight == 0)
        token = helianthus.CancelToken()
        task = asyncio.ensure_future(client.batch([("counter.wait",)] * 3, cancel=token))
        await until(lambda: next(iter(server.peers)).in_flight == 3)
        token.cancel("enough")
        assert [one.code for one in await task] == [StatusCode.CANCELLED] * 3

    run_on(scenario)


def test_a_blocking_client_has_batches(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Counter())

        def call() -> None:
            calls = [("counter.add", 1, 2), ("counter.fail",), ("counter.add", 5)]
            for middleware in ([], [CallMetrics()]):
                with helianthus.connect_sync(url_of(server), middleware=middleware) as client:
                    first, second, third = client.batch(calls)
                    assert (first, second.code, third) == (3, StatusCode.ABORTED, 5)
                    many = client.batch([("counter.add", n) for n in range(2500)])
                    assert many == list(range(2500))

        await asyncio.to_thread(call)

    run_on_real(scenario)
