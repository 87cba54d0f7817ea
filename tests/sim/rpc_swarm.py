"""One world of RPC under faults: clients that call, stream and are pushed to, servers that crash.

What must hold whatever happens: a call ends by its deadline, its answer is its own, it fails only
with the codes that the library gives, and once the faults have ended everything works again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import helianthus
from helianthus import CallContext, Client, RpcError, StatusCode
from helianthus.sim import World

SERVERS = ("alpha", "beta")
CLIENTS = ("c0", "c1", "c2")
WORKERS = 2
FAULTS_UNTIL = 6.0
SLACK = 0.01
"""Virtual seconds that a call may end after its deadline: clocks drift, and timers are rounded."""
RECOVERY = 400.0
"""Virtual seconds for recovery. The longest single wait is the back-off's 120 s + 20 %."""

LOST = {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED}


class Swarm(helianthus.Service):
    """Methods whose every answer shows which call it belongs to."""

    def __init__(self, other: Client) -> None:
        self._other = other

    @helianthus.method
    def echo(self, value: str) -> str:
        return value

    @helianthus.method
    async def later(self, value: str, delay: float) -> str:
        await asyncio.sleep(delay)
        return value

    @helianthus.method
    async def relay(self, value: str) -> str:
        answer: str = await self._other.call("swarm.echo", value)
        return answer

    @helianthus.method
    async def push(self, context: CallContext, value: str) -> str:
        answer: str = await context.peer.call("mirror.echo", value)
        return answer

    @helianthus.method
    async def count(self, value: str, number: int) -> AsyncIterator[str]:
        for index in range(number):
            yield f"{value}/{index}"

    @helianthus.method
    async def join(self, items: AsyncIterator[str]) -> str:
        return " ".join([item async for item in items])


class Mirror(helianthus.Service):
    """What a server may call on its clients."""

    @helianthus.method
    def echo(self, value: str) -> str:
        return value


async def serve(name: str) -> None:
    other = next(server for server in SERVERS if server != name)
    async with helianthus.connect(f"tcp://{other}:7070") as client:
        server = helianthus.Server([Swarm(client)])
        await server.listen(f"tcp://{name}:7070")
        await server.serve_forever()


async def one_call(client: Client, rng: random.Random, value: str, timeout: float) -> None:
    """Make a call of some kind and check its answer."""
    kind = rng.randrange(6)
    if kind == 0:
        assert await client.call("swarm.echo", value, timeout=timeout) == value
    elif kind == 1:
        delay = rng.choice((0.0, 0.1, 5.0))
        assert await client.call("swarm.later", value, delay, timeout=timeout) == value
    elif kind == 2:
        assert await client.call("swarm.relay", value, timeout=timeout) == value
    elif kind == 3:
        assert await client.call("swarm.push", value, timeout=timeout) == value
    elif kind == 4:
        number = rng.choice((0, 3, 200))
        async with client.stream("swarm.count", value, number, timeout=timeout) as stream:
            assert [item async for item in stream] == [f"{value}/{index}" for index in range(number)]
    else:
        items = [f"{value}/{index}" for index in range(rng.choice((0, 3, 200)))]
        async with client.stream("swarm.join", timeout=timeout) as stream:
            for item in items:
                await stream.send(item)
            assert await stream.result() == " ".join(items)


async def work(name: str, client: Client, rng: random.Random, outcomes: Counter[str]) -> None:
    """Call until the faults have ended; every call ends in time, with its own answer or a known code."""
    loop = asyncio.get_running_loop()
    until = loop.time() + FAULTS_UNTIL
    number = 0
    while loop.time() < until:
        number += 1
        timeout = rng.choice((0.02, 0.3, 2.0))
        began = loop.time()
        try:
            await one_call(client, rng, f"{name}.{number}", timeout)
            outcomes["OK"] += 1
        except RpcError as error:
            if error.code not in LOST:
                raise
            outcomes[error.code.name] += 1
        took = loop.time() - began
        assert took <= timeout + SLACK, f"{name}.{number} took {took} s, its timeout was {timeout} s"
        await asyncio.sleep(rng.choice((0.0, 0.01, 0.1)))


async def recover(name: str, client: Client, server: str) -> None:
    """Without faults, calls succeed again, and then they all do."""
    loop = asyncio.get_running_loop()
    until = loop.time() + RECOVERY
    while True:
        try:
            await client.call("swarm.relay", name, timeout=5.0)
            break
        except RpcError as error:
            if loop.time() > until:
                raise AssertionError(
                    f"{name} has no way to {server} {RECOVERY:g} s after the faults"
                ) from error
            await asyncio.sleep(1.0)
    for number in range(20):
        value = f"{name} again {number}"
        assert await client.call("swarm.echo", value, timeout=5.0) == value


async def run_client(name: str, rng: random.Random, outcomes: Counter[str]) -> None:
    clients = [helianthus.connect(f"tcp://{server}:7070", [Mirror()]) for server in SERVERS]
    async with clients[0], clients[1], asyncio.TaskGroup() as workers:
        for number in range(WORKERS):
            client = clients[number % len(clients)]
            workers.create_task(work(f"{name}.{number}", client, random.Random(rng.random()), outcomes))
    async with asyncio.TaskGroup() as group:
        for server in SERVERS:
            group.create_task(recover_one(name, server))


async def recover_one(name: str, server: str) -> None:
    async with helianthus.connect(f"tcp://{server}:7070", [Mirror()]) as client:
        await recover(name, client, server)


def run_world(seed: int) -> tuple[str, Counter[str]]:
    """Run one world; gives its digest and how its calls ended."""
    outcomes: Counter[str] = Counter()
    with World(seed=seed) as world:
        for server in SERVERS:
            world.node(server, drift=20e-6).spawn(lambda server=server: serve(server))
        clients = [
            world.node(name, drift=-20e-6).spawn(
                run_client(name, random.Random(f"{seed}/{name}"), outcomes), name=name
            )
            for name in CLIENTS
        ]
        world.chaos(until=FAULTS_UNTIL, crashable=list(SERVERS))
        for client in clients:
            world.run_until(client, timeout=FAULTS_UNTIL + RECOVERY + 100.0)
            client.result()
        return world.digest(), outcomes
