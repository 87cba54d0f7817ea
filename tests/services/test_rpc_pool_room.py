"""Calls that wait for room in any of several connections, and connections whose time of grace ends."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until

from helianthus import (
    CallContext,
    Client,
    PoolOptions,
    RpcError,
    RpcLimits,
    Server,
    Service,
    StatusCode,
    method,
)
from helianthus.services.rpc import ChannelState
from helianthus.services.rpc.channel_pool import ChannelPool
from helianthus.sim import World

URL = "tcp://server:7070"


class Gated(Service):
    """Calls that wait for a gate of their own.

    Attributes:
        served: Addresses of the callers, in order.
        cancelled: Names of the calls that were cancelled.
    """

    name = "gated"

    def __init__(self) -> None:
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.served: list[str] = []
        self.cancelled: list[str] = []

    @method
    async def wait(self, context: CallContext, name: str) -> str:
        self.served.append(context.peer.address)
        try:
            await self.gates[name].wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return name

    @method
    def where(self, context: CallContext) -> str:
        return context.peer.address


def pool_of(client: Client) -> ChannelPool:
    channel = client._channel
    assert isinstance(channel, ChannelPool)
    return channel


def waiting_for_room(client: Client) -> int:
    """Who waits, by the places in all the queues of its connections."""
    return sum(len(peer.room.waiting) for peer in pool_of(client).peers)


async def full_client(bench: Bench, service: Gated) -> tuple[Client, list[asyncio.Task[Any]]]:
    """A client of two connections, with one call in flight on each, which is all they take."""
    client = await bench.client(
        await bench.serve(service), pool=PoolOptions(size=2, min_size=2), limits=RpcLimits(max_calls=1)
    )
    await until(lambda: len(pool_of(client).peers) == 2)
    calls = [asyncio.ensure_future(client.call("gated.wait", name)) for name in ("a", "b")]
    await until(lambda: len(service.served) == 2)
    assert len(set(service.served)) == 2
    return client, calls


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_call_takes_the_room_that_comes_first(run_on: Ground, first: str) -> None:
    async def scenario(bench: Bench) -> None:
        service = Gated()
        client, calls = await full_client(bench, service)
        third = asyncio.ensure_future(client.call("gated.wait", "c"))
        await until(lambda: waiting_for_room(client) == 2)
        service.gates[first].set()
        service.gates["c"].set()
        assert await third == "c"
        assert [call.done() for call in calls] == [name == first for name in "ab"]
        for name in "ab":
            service.gates[name].set()
        assert await asyncio.gather(*calls) == ["a", "b"]

    run_on(scenario)


def test_many_calls_wait_and_all_are_served(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Gated()
        client, calls = await full_client(bench, service)
        more = [asyncio.ensure_future(client.call("gated.wait", f"{number}")) for number in range(30)]
        await until(lambda: waiting_for_room(client) == 60)
        for name in ("a", "b", *(f"{number}" for number in range(30))):
            service.gates[name].set()
        assert await asyncio.gather(*calls, *more) == ["a", "b", *(f"{number}" for number in range(30))]
        assert len(Counter(service.served)) == 2
        assert waiting_for_room(client) == 0

    run_on(scenario)


def test_whoever_gives_up_waiting_leaves_nothing_behind(run_on: Ground) -> None:
    """A caller that times out again and again, while there is no room, must not fill the queue."""

    async def scenario(bench: Bench) -> None:
        service = Gated()
        client, calls = await full_client(bench, service)
        for _ in range(20):
            with pytest.raises(RpcError) as caught:
                await client.call("gated.wait", "late", timeout=0.001)
            assert caught.value.code is StatusCode.DEADLINE_EXCEEDED
        waiting = asyncio.ensure_future(client.call("gated.wait", "gone"))
        await until(lambda: waiting_for_room(client) == 2)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting_for_room(client) == 0
        assert client._watchers == {}
        for name in "ab":
            service.gates[name].set()
        assert await asyncio.gather(*calls) == ["a", "b"]

    run_on(scenario)


def test_one_connection_keeps_nothing_of_those_who_gave_up_either(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Gated()
        client = await bench.client(await bench.serve(service), limits=RpcLimits(max_calls=1))
        call = asyncio.ensure_future(client.call("gated.wait", "a"))
        await until(lambda: service.served)
        for _ in range(20):
            with pytest.raises(RpcError, match="the deadline passed"):
                await client.call("gated.wait", "late", timeout=0.001)
        assert client._peer is not None
        assert client._peer.room.waiting == {}
        service.gates["a"].set()
        assert await call == "a"

    run_on(scenario)


# -- in virtual time -----------------------------------------------------------------------------------


def simulate(scenario: Any) -> None:
    """Run a scenario on the client's node of a world that has a server as well."""
    service = Gated()

    async def serve() -> None:
        server = Server([service])
        await server.listen("tcp://0.0.0.0:7070")
        await server.serve_forever()

    with World(seed=1) as world:
        world.node("server").spawn(serve)
        world.run_until(world.node("client").spawn(lambda: scenario(service)), timeout=100_000)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_what_outlives_the_time_of_grace_fails() -> None:
    async def scenario(service: Gated) -> None:
        async with Client(URL, pool=PoolOptions(max_age=100.0, grace=5.0)) as client:
            first = await client.call("gated.where")
            long = asyncio.ensure_future(client.call("gated.wait", "long"))
            with pytest.raises(RpcError, match="its grace of 5 s is over") as caught:
                await long
            assert caught.value.code is StatusCode.UNAVAILABLE
            assert caught.value.maybe_executed
            assert 90 + 5 <= now() <= 110 + 5 + 1
            await until(lambda: service.cancelled == ["long"])
            assert await client.call("gated.where") != first
            await until(lambda: len(client.connections()) == 1)
            (connection,) = client.connections()
            assert (connection.state, connection.calls) == (ChannelState.READY, 0)

    simulate(scenario)


def test_what_ends_within_the_time_of_grace_succeeds() -> None:
    async def scenario(service: Gated) -> None:
        async with Client(URL, pool=PoolOptions(max_age=100.0, grace=5.0)) as client:
            call = asyncio.ensure_future(client.call("gated.wait", "a"))
            await until(lambda: len(client.connections()) == 2)
            await asyncio.sleep(4.9)
            service.gates["a"].set()
            assert await call == "a"
            await asyncio.sleep(10)
            assert len(client.connections()) == 1

    simulate(scenario)


def test_calls_between_two_looks_keep_a_connection() -> None:
    """They begin and end without the machine; it is told of them when it would close the connection."""

    async def scenario(service: Gated) -> None:
        pool = PoolOptions(size=2, min_size=0, idle_time=60.0)
        async with Client(URL, pool=pool) as client:
            first = await client.call("gated.where")
            for _ in range(50):
                await asyncio.sleep(55)
                assert await client.call("gated.where") == first
            await asyncio.sleep(121)
            assert client.connections() == []
            assert await client.call("gated.where") != first

    simulate(scenario)
