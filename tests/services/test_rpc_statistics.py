"""What is counted of calls, on both ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rpc_bench import SOON, Bench, Ground, until

from helianthus import CallStatistics, Peer, RpcCollector, RpcError, Service, StatusCode, method


class Shop(Service):
    def __init__(self) -> None:
        self.gate = asyncio.Event()

    @method
    def add(self, a: int, b: int) -> int:
        return a + b

    @method
    async def wait(self) -> str:
        await self.gate.wait()
        return "done"

    @method
    def fail(self) -> None:
        raise RpcError(StatusCode.ABORTED, "no luck")

    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i


def brief(statistics: CallStatistics) -> tuple[int, dict[str, int], int]:
    errors = {code.name: count for code, count in statistics.errors.items()}
    return statistics.calls, errors, statistics.running


def test_both_ends_count_calls_and_errors_by_method(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Shop())
        client = await bench.client(server)
        for _ in range(3):
            await client.call("shop.add", 1, 2)
        await asyncio.gather(*[client.call("shop.add", 1, n) for n in range(200)])
        for call in (client.call("shop.fail"), client.call("shop.add", "x"), client.call("no.such")):
            with pytest.raises(RpcError):
                await call
        for statistics in (client.statistics(), server.statistics().methods):
            by_method = statistics.by_method
            assert brief(by_method["shop.add"]) == (204, {"INVALID_ARGUMENT": 1}, 0)
            assert brief(by_method["shop.fail"]) == (1, {"ABORTED": 1}, 0)
        assert brief(server.statistics().methods.by_method[""]) == (1, {"UNIMPLEMENTED": 1}, 0)
        assert brief(client.statistics().by_method["no.such"]) == (1, {"UNIMPLEMENTED": 1}, 0)

    run_on(scenario)


def test_bytes_agree_at_both_ends(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Shop())
        client = await bench.client(server)
        await asyncio.gather(*[client.call("shop.add", 1, n) for n in range(50)])
        await asyncio.gather(*[client.call("shop.add", 1, n, timeout=9) for n in range(50)])
        assert [item async for item in client.stream("shop.count", 100)] == list(range(100))
        with pytest.raises(RpcError):
            await client.call("shop.fail")
        theirs = server.statistics().methods.by_method
        for name, ours in client.statistics().by_method.items():
            served = theirs[name]
            assert ours.bytes_out == served.bytes_in > 0, name
            assert ours.bytes_in == served.bytes_out > 0, name

    run_on(scenario)


def test_calls_in_flight_are_counted_while_they_run(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        shop = Shop()
        server = await bench.serve(shop)
        client = await bench.client(server)
        calls = [asyncio.ensure_future(client.call("shop.wait")) for _ in range(3)]
        await until(lambda: server.statistics().methods.of("shop.wait").running == 3)
        assert client.statistics().of("shop.wait").running == 3
        shop.gate.set()
        await asyncio.gather(*calls)
        for statistics in (client.statistics(), server.statistics().methods):
            assert brief(statistics.by_method["shop.wait"]) == (3, {}, 0)

    run_on(scenario)


def test_cancelled_and_expired_calls_are_counted_as_such(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Shop())
        client = await bench.client(server)
        with pytest.raises(RpcError):
            await client.call("shop.wait", timeout=SOON)
        task = asyncio.ensure_future(client.call("shop.wait"))
        await until(lambda: server.statistics().methods.of("shop.wait").running == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert brief(client.statistics().by_method["shop.wait"]) == (
            2,
            {"DEADLINE_EXCEEDED": 1, "CANCELLED": 1},
            0,
        )
        await until(lambda: server.statistics().methods.of("shop.wait").calls == 2)

    run_on(scenario)


def test_what_a_peer_did_is_counted_for_it_and_kept_when_it_has_gone(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Shop())
        first, second = await bench.client(server), await bench.client(server)
        await first.call("shop.add", 1, 2)
        await second.call("shop.add", 1, 2)
        await second.call("shop.add", 1, 2)
        counted = [peer.methods.by_method["shop.add"].calls for peer in server.statistics().peers]
        assert sorted(counted) == [1, 2]
        await second.close()
        await until(lambda: len(server.peers) == 1)
        assert [peer.methods.of("shop.add").calls for peer in server.statistics().peers] == [1]
        assert server.statistics().methods.of("shop.add").calls == 3

    run_on(scenario)


def test_the_node_tells_of_it(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Shop())
        await client.call("shop.add", 1, 2)
        with pytest.raises(RpcError):
            await client.call("shop.fail")
        stats: dict[str, Any] = await client.call("node.stats")
        assert stats["methods"]["shop.add"]["calls"] == 1
        assert stats["methods"]["shop.fail"]["errors"] == {"ABORTED": 1}
        assert set(stats["methods"]["shop.add"]["latency"]) == {"mean", "p50", "p99", "p999", "max"}
        assert stats["methods"]["node.stats"]["running"] == 0  # a plain function is counted at its end
        (peer,) = stats["peers"]
        assert peer["methods"]["shop.add"]["calls"] == 1
        assert peer["address"]

    run_on(scenario)


def test_slow_calls_are_told(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        shop = Shop()
        server = await bench.serve(shop)
        slow: list[tuple[str, float]] = []

        @server.on_slow_call
        def told(peer: Peer, method: str, seconds: float) -> None:
            raise AssertionError("none takes a second")

        def told_early(peer: Peer, method: str, seconds: float) -> None:
            slow.append((method, seconds))

        server.on_slow_call(told_early, after=0.02)
        client = await bench.client(server)
        await client.call("shop.add", 1, 2)
        call = client.call("shop.wait")
        await asyncio.sleep(0.03)  # time has to pass: that is what is measured
        shop.gate.set()
        await call
        assert [method for method, _ in slow] == ["shop.wait"]
        assert slow[0][1] > 0.02

    run_on(scenario)


def test_prometheus_is_given_samples(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Shop())
        client = await bench.client(server)
        await client.call("shop.add", 1, 2)
        with pytest.raises(RpcError):
            await client.call("shop.fail")
        registry = CollectorRegistry()
        registry.register(RpcCollector(servers=[server], clients=[client]))
        for end in ("server", "client"):
            for called, code in (("shop.add", "OK"), ("shop.fail", "ABORTED")):
                labels = {"method": called, "code": code}
                assert registry.get_sample_value(f"helianthus_{end}_calls_total", labels) == 1
            labels = {"method": "shop.add"}
            assert registry.get_sample_value(f"helianthus_{end}_call_seconds_count", labels) == 1
            assert (
                registry.get_sample_value(f"helianthus_{end}_call_seconds_bucket", {**labels, "le": "+Inf"})
                == 1
            )
            assert registry.get_sample_value(f"helianthus_{end}_calls_running", labels) == 0
            assert registry.get_sample_value(f"helianthus_{end}_sent_bytes_total", labels)
        assert b"helianthus_server_calls_total" in generate_latest(registry)

    run_on(scenario)
