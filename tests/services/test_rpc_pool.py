"""A client with several connections: which it opens, uses, closes and replaces, and what calls see of it."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until
from rpc_thread import ThreadedServer
from rpc_waiting import Waiting

import helianthus
from helianthus import (
    CallContext,
    CallPolicy,
    Client,
    KeepAlive,
    PoolOptions,
    RetryPolicy,
    RetryThrottle,
    RpcError,
    RpcLimits,
    Server,
    Service,
    method,
)
from helianthus.services.rpc import ChannelState
from helianthus.services.rpc.channel_pool import ChannelPool
from helianthus.sim import World

URL = "tcp://server:7070"
LATER = 10.0
"""Virtual seconds after which the server listens that is down at first."""
BEARS_PINGS = KeepAlive(time=300.0, without_calls=True, min_interval=1.0)


class Counting(Service):
    """Counts calls by connection."""

    name = "counting"

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.release = asyncio.Event()

    @method
    def count(self, context: CallContext, number: int = 0) -> int:
        self.calls[context.peer.address] += 1
        return number

    @method
    async def wait(self, context: CallContext, number: int = 0) -> int:
        self.calls[context.peer.address] += 1
        await self.release.wait()
        return number

    @method
    async def items(self, number: int) -> AsyncIterator[int]:
        for item in range(number):
            yield item

    @method
    async def take(self, seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds


def simulate(scenario: Callable[[World], Coroutine[Any, Any, Any]], *, seed: int = 1, **settings: Any) -> Any:
    """Run a scenario on the client's node of a world that has a server as well."""

    async def serve() -> None:
        server = Server([Counting(), Waiting()], keep_alive=BEARS_PINGS)
        await server.listen("tcp://0.0.0.0:7070")
        await server.serve_forever()

    with World(seed=seed, **settings) as world:
        world.node("server").spawn(serve)
        return world.run_until(world.node("client").spawn(lambda: scenario(world)), timeout=100_000)


def states(client: Client) -> list[ChannelState]:
    return [connection.state for connection in client.connections()]


def ready(client: Client) -> int:
    return states(client).count(ChannelState.READY)


# -- how many, and which ---------------------------------------------------------------------------------


def test_calls_are_spread(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.client(
            await bench.serve(service), pool=PoolOptions(size=3, min_size=3, open_above=100)
        )
        await until(lambda: ready(client) == 3)
        calls = [asyncio.ensure_future(client.call("counting.wait", number)) for number in range(30)]
        await until(lambda: service.calls.total() == 30)
        assert sorted(service.calls.values()) == [10, 10, 10]
        assert [connection.calls for connection in client.connections()] == [10, 10, 10]
        service.release.set()
        assert await asyncio.gather(*calls) == list(range(30))
        assert client.statistics().of("counting.wait").latency.count == 30

    run_on(scenario)


def test_another_is_opened_when_all_are_busy(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.client(await bench.serve(service), pool=PoolOptions(size=3, open_above=4))
        calls = []
        for number in range(40):
            calls.append(asyncio.ensure_future(client.call("counting.wait", number)))
            await until(lambda: service.calls.total() == len(calls))
            await until(lambda: ChannelState.CONNECTING not in states(client))
        assert len(bench.connected) == ready(client) == 3
        assert max(service.calls.values()) - min(service.calls.values()) <= 1
        service.release.set()
        assert await asyncio.gather(*calls) == list(range(40))

    run_on(scenario)


def test_a_call_begins_at_once_where_there_is_room(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.client(await bench.serve(service), pool=PoolOptions(size=2, min_size=2))
        await until(lambda: ready(client) == 2)
        calls = [client.call("counting.count", number) for number in range(10)]
        await until(lambda: service.calls.total() == 10)
        assert [await call for call in calls] == list(range(10))
        assert await client.batch([("counting.count", number) for number in range(5)]) == [0, 1, 2, 3, 4]

    run_on(scenario)


def test_a_call_that_waits_for_room_takes_a_connection_made_meanwhile(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Counting()
        client = await bench.client(
            await bench.serve(service),
            pool=PoolOptions(size=2, open_above=0),
            limits=RpcLimits(max_calls=1),
        )
        await client.call("counting.count")
        first = asyncio.ensure_future(client.call("counting.wait", 1))
        await until(lambda: service.calls.total() == 2)
        assert await client.call("counting.count", 2) == 2  # nobody answers the first one meanwhile
        waiting = [asyncio.ensure_future(client.call("counting.wait", number)) for number in (3, 4, 5)]
        await until(lambda: service.calls.total() == 4)
        service.release.set()
        assert await asyncio.gather(first, *waiting) == [1, 3, 4, 5]

    run_on(scenario)


def test_streams_and_notifications_go_through_a_pool(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service, waiting = Counting(), Waiting()
        waiting.gate.set()
        client = await bench.client(await bench.serve(service, waiting), pool=PoolOptions(size=2, min_size=2))
        assert len([item async for item in client.stream("waiting.produce", "a", 5)]) == 5
        await client.notify("counting.count")
        await until(lambda: service.calls.total() == 1)

    run_on(scenario)


def test_a_blocking_client_with_a_pool(run_on_real: Ground) -> None:
    """It turns its own driver, for all connections."""
    with ThreadedServer(run_on_real, Counting()) as server:
        pool = PoolOptions(size=2, min_size=2)
        with helianthus.connect_sync(server.url, pool=pool) as client:
            assert [client.call("counting.count", number) for number in range(5)] == list(range(5))
            assert client.batch([("counting.count", number) for number in range(5)]) == list(range(5))
            assert len(client.connections()) == 2
            assert client.statistics().of("counting.count").latency.count == 10


def test_the_picture_of_a_client() -> None:
    async def scenario(world: World) -> None:
        client = Client(URL)
        assert client.connections() == []
        async with client:
            (connection,) = client.connections()
            assert (connection.address, connection.state) == (URL, ChannelState.CONNECTING)
            assert (connection.age, connection.calls) == (0.0, 0)
            await client.call("counting.count")
            await asyncio.sleep(5)
            waiting = asyncio.ensure_future(client.call("waiting.wait", "a"))
            await asyncio.sleep(0.1)
            (connection,) = client.connections()
            assert (connection.address, connection.state) == ("server:7070", ChannelState.READY)
            assert connection.age == pytest.approx(5.1, abs=0.2)
            assert connection.calls == 1
            waiting.cancel()
        assert states(client) == [ChannelState.CLOSED]

    simulate(scenario)


# -- which it closes and replaces --------------------------------------------------------------------------


def test_what_is_not_used_is_closed() -> None:
    async def scenario(world: World) -> None:
        pool = PoolOptions(size=3, min_size=0, idle_time=60.0, open_above=0)
        async with Client(URL, pool=pool) as client:
            assert client.connections() == []
            assert client.state is ChannelState.IDLE
            for _ in range(3):
                await asyncio.gather(*(client.call("counting.take", 1.0) for _ in range(6)))
            assert ready(client) == 3
            await asyncio.sleep(121)
            assert client.connections() == []
            counted = client.statistics().of("counting.take")
            assert (counted.latency.count, counted.running) == (18, 0)
            assert await client.call("counting.count", 1) == 1
            assert ready(client) == 1

    simulate(scenario)


def test_an_idle_connection_says_goodbye(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        pool = PoolOptions(min_size=0, idle_time=0.05)
        client = await bench.client(await bench.serve(Counting()), pool=pool)
        for number in range(3):
            assert await client.call("counting.count", number) == number
            await until(lambda: not client.connections())
        await until(lambda: len(bench.disconnected) == 3)
        assert [error for _, error in bench.disconnected] == [None] * 3

    run_on(scenario)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1, 3])
def test_old_connections_are_replaced_and_no_call_is_lost(seed: int, size: int) -> None:
    async def scenario(world: World) -> None:
        pool = PoolOptions(size=size, min_size=size, max_age=5.0)
        done = 0

        async def work(client: Client, number: int) -> None:
            nonlocal done
            pause = 0.3 + 0.05 * number
            while now() < 100:
                assert await client.call("counting.take", pause) == pause
                assert await client.call("counting.count", number) == number
                done += 1

        async with Client(URL, pool=pool) as client:
            await asyncio.gather(*(work(client, number) for number in range(10)))
            connections = client.connections()
            assert len(connections) <= 2 * size
            assert all(connection.age <= 5.5 + 1.0 for connection in connections)
            assert client.statistics().total().errors == {}
            assert client.statistics().of("counting.take").latency.count == done > 1000

    simulate(scenario, seed=seed)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_an_old_connection_finishes_what_it_has_in_flight() -> None:
    async def scenario(world: World) -> None:
        async with Client(URL, pool=PoolOptions(max_age=10.0)) as client:
            long = asyncio.ensure_future(client.call("counting.take", 30.0))
            await asyncio.sleep(15)
            assert states(client) == [ChannelState.DRAINING, ChannelState.READY]
            assert client.state is ChannelState.READY
            assert await client.call("counting.count", 1) == 1
            assert await long == 30.0
            await asyncio.sleep(1)
            assert len(client.connections()) <= 2

    simulate(scenario)


def test_an_old_connection_serves_while_no_other_can_be_made() -> None:
    async def scenario(world: World) -> None:
        world.node("other").spawn(serve_other)
        world.set_name("service", "server")
        async with Client("tcp://service:7070", pool=PoolOptions(max_age=10.0)) as client:
            await client.call("counting.count")
            world.set_name("service")  # the name is gone: no new connection
            for number in range(60):
                assert await client.call("counting.count", number) == number
                await asyncio.sleep(1)
            world.set_name("service", "other")
            await until(lambda: ready(client) == 1 and client.connections()[-1].address == "other:7070")
            assert await client.call("counting.count", 7) == 7

    async def serve_other() -> None:
        server = Server([Counting()])
        await server.listen("tcp://0.0.0.0:7070")
        await server.serve_forever()

    simulate(scenario)


def test_an_old_connection_whose_server_goes_away_finishes_too() -> None:
    """It is lost to the pool at once; the call that it has in flight is not."""

    async def scenario(world: World) -> None:
        server = Server([Counting()])

        async def serve_and_drain() -> None:
            await server.listen("tcp://0.0.0.0:7070")
            await asyncio.sleep(20)
            await server.drain(60.0)

        world.node("other").spawn(serve_and_drain())
        world.set_name("service", "other")
        async with Client("tcp://service:7070", pool=PoolOptions(max_age=10.0)) as client:
            await client.call("counting.count")
            world.set_name("service")
            assert await client.call("counting.take", 30.0) == 30.0
            assert now() > 29
            await until(lambda: len(client.connections()) == 1)

    simulate(scenario)


def test_a_connection_that_does_not_answer_a_ping_is_replaced() -> None:
    """Calls go to the others meanwhile, and nobody has to wait for it."""

    async def scenario(world: World) -> None:
        for name in ("a", "b"):
            world.node(name).spawn(serve_it)
        world.set_name("service", "a", "b")
        keep_alive = KeepAlive(time=10.0, timeout=5.0, without_calls=True)
        pool = PoolOptions(size=2, min_size=2)
        async with Client("tcp://service:7070", pool=pool, keep_alive=keep_alive) as client:
            await until(lambda: ready(client) == 2)
            assert {connection.address for connection in client.connections()} == {"a:7070"}
            world.partition("client", "a")
            await asyncio.sleep(10 + 5 + 1 + 1)
            assert {connection.address for connection in client.connections()} == {"b:7070"}
            assert ready(client) == 2

    async def serve_it() -> None:
        server = Server([Counting()], keep_alive=BEARS_PINGS)
        await server.listen("tcp://0.0.0.0:7070")
        await server.serve_forever()

    simulate(scenario)


def test_closing_ends_those_on_their_way_out_too() -> None:
    async def scenario(world: World) -> None:
        client = Client(URL, pool=PoolOptions(max_age=10.0))
        async with client:
            call = asyncio.ensure_future(client.call("waiting.wait", "a"))
            await asyncio.sleep(15)
            assert states(client) == [ChannelState.DRAINING, ChannelState.READY]
        with pytest.raises(RpcError, match="the client was closed"):
            await call
        assert client.state is ChannelState.CLOSED
        with pytest.raises(RpcError, match="the client was closed"):
            await client.call("counting.count")

    simulate(scenario)


def test_nobody_can_be_reached() -> None:
    async def scenario(world: World) -> None:
        pool = PoolOptions(size=3, min_size=2)
        async with Client("tcp://nowhere:1", pool=pool) as client:
            with pytest.raises(RpcError, match="no such node"):
                await client.call("counting.count")
            assert len(client.connections()) == 2

    simulate(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_a_pool_under_a_policy_outlives_its_connections(seed: int) -> None:
    """Connections are reset, and grow old, in the middle of calls that may be made again."""

    async def scenario(world: World) -> None:
        policy = CallPolicy(timeout=60.0, wait_for_ready=True, retry=RetryPolicy(max_attempts=5))
        pool = PoolOptions(size=3, min_size=0, open_above=1, idle_time=4.0, max_age=7.0)
        throttle = RetryThrottle(max_tokens=1000)

        async def work(client: Client, number: int) -> None:
            while now() < 60:
                assert await client.call("counting.take", 0.1 * number) == 0.1 * number
                assert await client.call("counting.count", number) == number

        async with Client(URL, pool=pool, policies={"*": policy}, retry_throttle=throttle) as client:
            working = asyncio.gather(*(work(client, number) for number in range(1, 8)))
            for _ in range(12):
                await asyncio.sleep(5)
                world.reset("client", "server")
            await working
            assert client.statistics().total().running == 0
            await until(lambda: not client.connections())

    simulate(scenario, seed=seed)


def test_a_call_fails_at_once_only_when_none_is_ready_or_being_made() -> None:
    """Two connections to a server that is down for a while; each has a back-off of its own."""
    seen: set[frozenset[ChannelState]] = set()

    async def scenario(world: World) -> None:
        pool = PoolOptions(size=2, min_size=2)
        async with Client("tcp://later:7070", pool=pool) as client:
            while states(client) != [ChannelState.READY] * 2:
                before = frozenset(states(client))
                if ChannelState.READY in before:
                    assert await client.call("counting.count", 1) == 1
                    seen.add(before)
                elif before == {ChannelState.BACKING_OFF}:
                    with pytest.raises(RpcError) as caught:
                        await client.call("counting.count")
                    assert not caught.value.maybe_executed
                    assert frozenset(states(client)) == before, "it took no time"
                    seen.add(before)
                elif ChannelState.CONNECTING in before and now() > LATER + 0.2:
                    assert await client.call("counting.count", 2) == 2
                    seen.add(before)
                await asyncio.sleep(0.02)

    async def serve_later() -> None:
        await asyncio.sleep(LATER)
        server = Server([Counting()])
        await server.listen("tcp://0.0.0.0:7070")
        await server.serve_forever()

    def prepare(world: World) -> Coroutine[Any, Any, Any]:
        world.node("later").spawn(serve_later)
        return scenario(world)

    for seed in range(5):
        simulate(prepare, seed=seed, latency=(0.05, 0.05))
    assert {ChannelState.BACKING_OFF} in seen
    assert {ChannelState.BACKING_OFF, ChannelState.READY} in seen
    assert {ChannelState.BACKING_OFF, ChannelState.CONNECTING} in seen


# -- nothing is left of calls that were cancelled -----------------------------------------------------------


class CancelledAfter:
    """Awaits something in a task that is cancelled as soon as it has been resumed so often."""

    def __init__(self, awaited: Any, resumptions: int) -> None:
        self._awaited = awaited
        self._resumptions = resumptions

    def __await__(self) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        inner = self._awaited.__await__()
        step = functools.partial(next, inner)
        for resumed in itertools.count():
            if resumed == self._resumptions and task is not None:
                task.cancel()  # at what it waits for next
            try:
                waited = step()
            except StopIteration as end:
                return end.value
            try:
                step = functools.partial(inner.send, (yield waited))
            except BaseException as error:  # noqa: BLE001 - it is passed on
                step = functools.partial(inner.throw, error)


async def take_all(client: Client) -> list[int]:
    return [item async for item in client.stream("counting.items", 20)]


MAKE: dict[str, Callable[[Client], Any]] = {
    "call": lambda client: client.call("counting.take", 0.05),
    "call with a deadline": lambda client: client.call("counting.count", timeout=3.0),
    "keywords": lambda client: client.call("counting.count", number=1),
    "notify": lambda client: client.notify("counting.count"),
    "batch": lambda client: client.batch([("counting.count", number) for number in range(5)]),
    "stream": take_all,
}


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [1, 2])
def test_no_slot_leaks_whenever_a_call_is_cancelled(size: int, seed: int, kind: str) -> None:
    """While it waits for a connection, for room, for its answer: after any number of its steps."""

    async def is_cancelled(client: Client, resumptions: int) -> bool:
        """Cancel one of many calls; all others succeed."""
        others = [asyncio.ensure_future(client.call("counting.take", 0.01)) for _ in range(6)]

        async def run() -> None:
            await CancelledAfter(MAKE[kind](client), resumptions)

        (outcome,) = await asyncio.gather(asyncio.ensure_future(run()), return_exceptions=True)
        assert await asyncio.gather(*others) == [0.01] * 6
        await until(lambda: all(not connection.calls for connection in client.connections()))
        assert client._watchers == {}
        assert isinstance(client._channel, ChannelPool)
        assert all(not peer.room.waiting for peer in client._channel.peers)
        assert outcome is None or isinstance(outcome, asyncio.CancelledError)
        return outcome is not None

    async def scenario(world: World) -> None:
        pool = PoolOptions(size=size, min_size=0, open_above=0, idle_time=30.0)
        for warm in (False, True):
            resumptions, cancelled = 0, True
            while cancelled:
                async with Client(URL, pool=pool, limits=RpcLimits(max_calls=2)) as client:
                    if warm:
                        await client.call("counting.count")
                    cancelled = await is_cancelled(client, resumptions)
                    after = [client.call("counting.count", number) for number in range(20)]
                    assert await asyncio.gather(*after) == list(range(20))
                    assert len(client.connections()) <= size
                resumptions += 1
            assert resumptions >= 2, "there was a moment to cancel it at"

    simulate(scenario, seed=seed)
