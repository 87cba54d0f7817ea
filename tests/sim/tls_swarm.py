"""One world of RPC over TLS under faults: what must hold over TCP holds here, too.

The certificates' signatures always have the same length, and the server gives no tickets, whose length
depends on chance; so the same seed does the same, though no two runs have a byte of ciphertext in common.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

from certificates import Authority

import helianthus
from helianthus import CallContext, Client, ClientTls, RpcError, ServerTls, StatusCode
from helianthus.sim import World

CLIENTS = ("c0", "c1")
FAULTS_UNTIL = 5.0
RECOVERY = 400.0
LOST = {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED}


@cache
def certificates() -> tuple[Path, Path, Path]:
    """Those of the authority and the node, and the node's key."""
    authority = Authority.of_this_process()
    node = authority.issue("node", "node")
    return authority.file, node.certificate, node.key


class Swarm(helianthus.Service):
    """Methods whose every answer shows which call it belongs to."""

    name = "swarm"

    @helianthus.method
    def echo(self, value: str) -> str:
        return value

    @helianthus.method
    async def push(self, context: CallContext, value: str) -> str:
        answer: str = await context.peer.call("swarm.echo", value)
        return answer

    @helianthus.method
    async def count(self, value: str, number: int) -> AsyncIterator[str]:
        for index in range(number):
            yield f"{value}/{index}"


async def serve(reported: list[Exception]) -> None:
    _, certificate, key = certificates()
    server = helianthus.Server([Swarm()])
    server.on_error(lambda peer, method, error: reported.append(error))
    await server.listen("tls://node:7070", tls=ServerTls(certificate, key, session_tickets=0))
    await server.serve_forever()


async def one_call(client: Client, rng: random.Random, value: str, timeout: float) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        assert await client.call("swarm.echo", value, timeout=timeout) == value
    elif kind == 1:
        large = value * rng.choice((100, 5000))
        assert await client.call("swarm.echo", large, timeout=timeout) == large
    elif kind == 2:
        assert await client.call("swarm.push", value, timeout=timeout) == value
    else:
        async with client.stream("swarm.count", value, 100, timeout=timeout) as stream:
            assert [item async for item in stream] == [f"{value}/{index}" for index in range(100)]


async def run_client(name: str, rng: random.Random, outcomes: Counter[str]) -> None:
    loop = asyncio.get_running_loop()
    tls = ClientTls(certificates()[0])
    async with helianthus.connect("tls://node:7070", [Swarm()], tls=tls) as client:
        number = 0
        while loop.time() < FAULTS_UNTIL:
            number += 1
            try:
                await one_call(client, rng, f"{name}.{number}", rng.choice((0.3, 2.0)))
                outcomes["OK"] += 1
            except RpcError as error:
                if error.code not in LOST:
                    raise
                outcomes[error.code.name] += 1
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.1)))
    async with helianthus.connect("tls://node:7070", tls=tls) as client:
        until = loop.time() + RECOVERY
        while True:
            try:
                assert await client.call("swarm.echo", name, timeout=5.0) == name
                return
            except RpcError as error:
                if loop.time() > until:
                    raise AssertionError(f"{name} has no way to the node after the faults") from error
                await asyncio.sleep(1.0)


def run_world(seed: int) -> tuple[str, Counter[str]]:
    """Run one world; gives its digest and how its calls ended."""
    outcomes: Counter[str] = Counter()
    reported: list[Exception] = []
    with World(seed=seed) as world:
        world.node("node", drift=20e-6).spawn(lambda: serve(reported))
        clients = [
            world.node(name, drift=-20e-6).spawn(
                run_client(name, random.Random(f"{seed}/{name}"), outcomes), name=name
            )
            for name in CLIENTS
        ]
        world.chaos(until=FAULTS_UNTIL, crashable=["node"])
        for client in clients:
            world.run_until(client, timeout=FAULTS_UNTIL + RECOVERY + 100.0)
            client.result()
        assert not [error for error in reported if "handshake_timeout" not in str(error)], reported
        return world.digest(), outcomes
