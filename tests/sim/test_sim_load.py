"""Load tests in the simulator: on its clock, what they find can be worked out beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from helianthus import Server, Service, connect, method
from helianthus.cli.load import run_load
from helianthus.protocols.rpc.load import Load
from helianthus.sim import World

ONE_WAY = 0.25


class Worker(Service):
    @method
    async def work(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def serve() -> None:
    server = Server([Worker()])
    await server.listen("tcp://0.0.0.0:7070")
    await server.serve_forever()


async def measured(
    callers: int,
    seconds: float,
    duration: float,
    rate: float | None = None,
    stop_after: float | None = None,
    timeout: float = 60.0,
) -> dict[str, Any]:
    """Measure from node b what node a makes of it."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    async with connect("tcp://a:7070", keep_alive=None) as client:
        await client.call("worker.work", 0)
        load = Load(loop.time(), duration, rate)
        if stop_after is not None:
            loop.call_later(stop_after, stop.set)
        calls = [lambda: client.call("worker.work", seconds, timeout=timeout)] * callers
        await run_load(load, calls, stop, now=loop.time, spin=0)
        return load.summary()


def run(*arguments: Any, faults: Callable[[World], None] | None = None, **options: Any) -> dict[str, Any]:
    with World(seed=3) as world:
        world.node("a").spawn(serve)
        b = world.node("b")
        world.link("a", "b", latency=(ONE_WAY, ONE_WAY))
        spawned = b.spawn(measured(*arguments, **options))
        if faults is not None:
            faults(world)
        found = world.run_until(spawned, timeout=1000)
        assert found is not None
        return found


def latencies(found: dict[str, Any]) -> list[float]:
    return [found["latency"][name] for name in ("mean", "max")]


def test_a_closed_loop() -> None:
    found = run(4, 0.5, 10.0)
    assert (found["calls"], found["errors"], found["elapsed"]) == (40, {}, pytest.approx(10.0))
    assert found["calls_per_second"] == pytest.approx(4.0)
    assert latencies(found) == pytest.approx([1.0, 1.0])


def test_an_open_loop_that_keeps_up() -> None:
    found = run(10, 0.5, 10.0, rate=8.0)
    assert (found["calls"], found["not_started"]) == (80, 0)
    assert latencies(found) == pytest.approx([1.0, 1.0])
    assert found["start_delay"]["max"] == pytest.approx(0.0, abs=1e-6)


def test_an_open_loop_that_cannot_keep_up() -> None:
    """One caller, a second a call, ten a second wanted: the n-th ends at n + 1, and was due at n / 10."""
    found = run(1, 0.5, 10.0, rate=10.0)
    expected = [number + 1 - number / 10 for number in range(10)]
    assert (found["calls"], found["not_started"], found["unfinished"]) == (10, 90, 0)
    assert latencies(found) == pytest.approx([sum(expected) / 10, max(expected)])
    assert found["start_delay"]["max"] == pytest.approx(9 - 0.9)


def test_stopped_early() -> None:
    found = run(1, 0.5, 10.0, rate=10.0, stop_after=3.25)
    assert (found["calls"], found["unfinished"], found["not_started"]) == (3, 1, 33 - 4)
    assert found["elapsed"] == pytest.approx(3.25)


def test_a_server_that_is_gone_is_told_by_code() -> None:
    def crash(world: World) -> None:
        world.run(until=5.0)
        world.crash("a")
        world.restart("a")

    found = run(2, 0.5, 30.0, faults=crash, timeout=2.0)
    assert found["errors"]["DEADLINE_EXCEEDED"] == 2  # were under way, and nobody told their callers
    assert found["errors"]["UNAVAILABLE"] >= 2  # found out what had happened
    assert found["succeeded"] > 40  # it is called again as soon as it is back
    assert found["unfinished"] == 0
