"""One world of clients with pools, whose several servers crash, vanish and come back.

What must hold whatever happens, and whichever call is cancelled when: a pool never has more
connections than it may; a call ends by its deadline, with its own answer or a known code; once all
calls have ended, nothing counts them any more, at either end; and once the faults have ended, calls
succeed and no connection is left that nobody wants.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import helianthus
from helianthus import (
    AdmissionLimits,
    CancelToken,
    Client,
    ConcurrencyLimit,
    KeepAlive,
    PoolOptions,
    RpcError,
    RpcLimits,
    Server,
    StatusCode,
)
from helianthus.services.rpc import ChannelState
from helianthus.services.rpc.channel_pool import ChannelPool
from helianthus.sim import World

SERVERS = ("alpha", "beta", "gamma")
CLIENTS = ("c0", "c1")
WORKERS = 4
FAULTS_UNTIL = 6.0
SLACK = 0.02
"""Virtual seconds that a call may end after its deadline: clocks drift, and timers are rounded."""
RECOVERY = 400.0
"""Virtual seconds for recovery. The longest single wait is the back-off's 120 s + 20 %."""
SETTLING = 15.0
"""Virtual seconds after which what ends by itself has ended: idle and old connections, calls of
clients that a server has not found to be gone."""

EXPECTED = {
    StatusCode.UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.CANCELLED,
    StatusCode.RESOURCE_EXHAUSTED,  # the queue of a server is full
}

KEEP_ALIVE = KeepAlive(time=6.0, timeout=3.0, without_calls=True, min_interval=1.0, min_interval_idle=1.0)


class Depot(helianthus.Service):
    """Methods whose every answer shows which call it belongs to."""

    @helianthus.method
    def echo(self, value: str) -> str:
        return value

    @helianthus.method
    async def later(self, value: str, delay: float) -> str:
        await asyncio.sleep(delay)
        return value

    @helianthus.method
    async def count(self, value: str, number: int) -> AsyncIterator[str]:
        for index in range(number):
            yield f"{value}/{index}"


def draw_pool(rng: random.Random) -> PoolOptions:
    """Options that make something happen within the few seconds of a world."""
    size = rng.choice((1, 2, 4))
    return PoolOptions(
        size=size,
        min_size=rng.randint(0, size),
        open_above=rng.choice((0, 1, 5)),
        idle_time=rng.choice((0.2, 2.0)),
        max_age=rng.choice((1.0, 4.0, 1000.0)),
        grace=rng.choice((0.0, 0.3, 1000.0)),
    )


class Depots:
    """The servers, in their present lives."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}

    async def serve(self, name: str) -> None:
        admission = AdmissionLimits(server=ConcurrencyLimit(10, 20))
        self.servers[name] = server = Server([Depot()], admission=admission, keep_alive=KEEP_ALIVE)
        await server.listen(f"tcp://{name}:7070")
        await server.serve_forever()

    def check_nothing_runs(self) -> None:
        for name, server in self.servers.items():
            assert (server.gate.running, server.gate.waiting) == (0, 0), f"permits of {name} leaked"
            assert sum(peer.in_flight for peer in server.peers) == 0, f"{name} still serves"


class Caller:
    """One client with a pool, and what became of its calls."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.outcomes: Counter[str] = Counter()
        self._rng = random.Random(f"{seed}/{name}")
        self._pool = draw_pool(self._rng)
        self._numbers = 0
        self.client = self._make()

    def _make(self) -> Client:
        urls: Any = self._rng.choice(["tcp://depot:7070", [f"tcp://{name}:7070" for name in SERVERS]])
        limits = RpcLimits(max_calls=self._rng.choice((2, 1000)))
        return helianthus.connect(urls, pool=self._pool, limits=limits, keep_alive=KEEP_ALIVE)

    async def run(self) -> None:
        before = asyncio.all_tasks()
        async with self.client as client:
            async with asyncio.TaskGroup() as workers:
                for _ in range(WORKERS):
                    workers.create_task(self._work())
            await self._recover()
            self.outcomes["recovered"] += 1
            await asyncio.sleep(SETTLING)
            assert asyncio.all_tasks() == before
            self.check_nothing_is_left()
            await self._call_once_more()
        assert client.connections() == [] or client.state is ChannelState.CLOSED

    def check_bounds(self) -> None:
        """The pool is no larger than it may be."""
        states = Counter(connection.state for connection in self.client.connections())
        gone = states[ChannelState.DRAINING] + states[ChannelState.CLOSED]
        assert states.total() - gone <= 2 * self._pool.size, states  # with old ones not yet replaced
        assert gone <= 2 * self._pool.size, states
        channel = self.client._channel
        if isinstance(channel, ChannelPool):
            assert channel._pool.active <= self._pool.size
            assert channel._pool.leaving <= self._pool.size
            assert set(channel._pool._connections) == set(channel._channels)

    def check_nothing_is_left(self) -> None:
        self.check_bounds()
        client = self.client
        assert client._watchers == {}
        assert [connection.calls for connection in client.connections() if connection.calls] == []
        assert all(not peer.room.waiting for channel in channels_of(client) for peer in channel._links)
        assert client.statistics().total().running == 0
        if isinstance(client._channel, ChannelPool):  # one that is idle may just have been looked at
            assert client._channel._pool.active <= max(1, self._pool.min_size)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < FAULTS_UNTIL:
            self._numbers += 1
            value = f"{self.name}.{self._numbers}"
            timeout = self._rng.choice((0.02, 0.3, 2.0))
            began = loop.time()
            try:
                outcome = await self._call(value, timeout)
            except RpcError as error:
                assert error.code in EXPECTED, error
                outcome = error.code.name
            self.outcomes[outcome] += 1
            took = loop.time() - began
            assert took <= timeout + SLACK, f"{value} took {took} s, its timeout was {timeout} s"
            self.check_bounds()
            await asyncio.sleep(self._rng.choice((0.0, 0.01, 0.1)))

    async def _call(self, value: str, timeout: float) -> str:
        rng, client = self._rng, self.client
        kind = rng.choice(("echo", "later", "count", "cancelled", "token", "notify"))
        delay = rng.choice((0.0, 0.01, 0.5))
        if kind == "count":
            number = rng.choice((1, 5, 200))
            async with client.stream("depot.count", value, number, timeout=timeout) as stream:
                assert [item async for item in stream] == [f"{value}/{index}" for index in range(number)]
        elif kind == "cancelled":
            calling = asyncio.ensure_future(client.call("depot.later", value, delay, timeout=timeout))
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(rng.choice((0.0, 0.0, 0.001)))
            calling.cancel()
            await asyncio.wait([calling])
            return "cancelled" if calling.cancelled() else "ended before"
        elif kind == "token":
            token = CancelToken()
            asyncio.get_running_loop().call_later(rng.choice((0.0, 0.01, 0.1)), token.cancel)
            assert await client.call("depot.later", value, delay, timeout=timeout, cancel=token) == value
        elif kind == "notify":
            await client.notify("depot.echo", value, timeout=timeout)
        elif kind == "later":
            assert await client.call("depot.later", value, delay, timeout=timeout) == value
        else:
            assert await client.call("depot.echo", value, timeout=timeout) == value
        return "OK"

    async def _recover(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + RECOVERY
        while True:
            try:
                await self.client.call("depot.echo", self.name, timeout=5.0)
                break
            except RpcError as error:
                assert loop.time() <= until, error
                await asyncio.sleep(1.0)

    async def _call_once_more(self) -> None:
        """A call succeeds, but for two reasons that are no faults of the pool.

        It may be replacing the connection at that very moment, and without a grace cuts off the call.
        Or the connection goes to a server that crashed before it had said hello, as a peer that knows no
        pings may be silent for ever; the call finds that out.
        """
        peers = [peer for channel in channels_of(self.client) for peer in channel._links]
        silent = any(peer.session.peer is None for peer in peers)
        try:
            assert await self.client.call("depot.echo", "last", timeout=5.0) == "last"
        except RpcError as error:
            replaced = self._pool.grace == 0 and "its grace of 0 s is over" in error.message
            assert replaced or (silent and error.code is StatusCode.UNAVAILABLE), error
            await self._recover()


def channels_of(client: Client) -> list[Any]:
    channel = client._channel
    return list(channel._channels.values()) if isinstance(channel, ChannelPool) else [channel]


def run_world(seed: int) -> tuple[str, Counter[str]]:
    """Run one world; gives its digest and how its calls ended."""
    outcomes: Counter[str] = Counter()
    depots = Depots()
    callers = [Caller(name, seed) for name in CLIENTS]
    with World(seed=seed) as world:
        for name in SERVERS:
            world.node(name, drift=20e-6).spawn(lambda name=name: depots.serve(name))
        world.set_name("depot", *SERVERS)
        running = [world.node(one.name, drift=-20e-6).spawn(one.run(), name=one.name) for one in callers]
        world.chaos(until=FAULTS_UNTIL, crashable=list(SERVERS))
        for client in running:
            world.run_until(client, timeout=FAULTS_UNTIL + RECOVERY + 2 * SETTLING)
            client.result()
        depots.check_nothing_runs()
        for caller in callers:
            outcomes += caller.outcomes
        return world.digest(), outcomes
