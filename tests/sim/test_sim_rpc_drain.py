"""Servers that drain and come back under load, over many seeds: no request is lost or run twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import helianthus
from helianthus import CallPolicy, RetryPolicy, RpcError, Server, Service, StatusCode, method
from helianthus.sim import World

CLIENTS = 3
CALLS = 40  # of each client
DRAINS = 3


class Ledger(Service):
    """Writes down what was run, across the servers that follow each other."""

    def __init__(self, runs: Counter[str], rng: random.Random) -> None:
        self._runs = runs
        self._rng = rng

    @method
    def enter(self, name: str) -> str:
        self._runs[name] += 1
        return name

    @method
    async def enter_slowly(self, name: str) -> str:
        await asyncio.sleep(self._rng.uniform(0, 0.3))
        self._runs[name] += 1
        return name


async def serve_and_drain(runs: Counter[str], rng: random.Random, drained: list[bool]) -> None:
    for number in range(DRAINS + 1):
        server = Server([Ledger(runs, rng)])
        await server.listen("tcp://0.0.0.0:7070")
        if number == DRAINS:
            await server.serve_forever()
        await asyncio.sleep(rng.uniform(0.2, 1.5))
        drained.append(await server.drain(grace=10.0))
        await asyncio.sleep(rng.uniform(0.0, 0.5))


async def call_all_the_time(name: str, rng: random.Random, done: list[str]) -> None:
    policy = CallPolicy(retry=RetryPolicy(codes={StatusCode.UNAVAILABLE}), wait_for_ready=True)
    async with helianthus.connect("tcp://server:7070", policies={"*": policy}) as client:
        for number in range(CALLS):
            entry = f"{name} {number}"
            called = rng.choice(("ledger.enter", "ledger.enter_slowly"))
            assert await client.call(called, entry, timeout=60.0) == entry
            done.append(entry)
            await asyncio.sleep(rng.uniform(0, 0.1))


async def call_without_policy(name: str, rng: random.Random, lost: Counter[str]) -> None:
    """Without retries a call may fail, but never so that it could have been run."""
    async with helianthus.connect("tcp://server:7070") as client:
        for number in range(CALLS):
            try:
                await client.call("ledger.enter_slowly", f"{name} {number}", timeout=60.0)
            except RpcError as error:
                assert error.code is StatusCode.UNAVAILABLE
                assert not error.maybe_executed
                lost[f"{name} {number}"] += 1
            await asyncio.sleep(rng.uniform(0, 0.1))


def test_draining_servers_lose_no_request(sim_seeds: range) -> None:
    for seed in sim_seeds:
        rng = random.Random(seed)
        runs: Counter[str] = Counter()
        lost: Counter[str] = Counter()
        done: list[str] = []
        drained: list[bool] = []
        world = World(seed=seed)
        world.node("server").spawn(serve_and_drain(runs, random.Random(rng.random()), drained))
        tasks = [
            world.node(f"client{n}").spawn(call_all_the_time(f"client{n}", random.Random(rng.random()), done))
            for n in range(CLIENTS)
        ]
        plain = world.node("plain").spawn(call_without_policy("plain", random.Random(rng.random()), lost))
        world.run(until=120.0)
        for task in (*tasks, plain):
            assert task.done, f"seed {seed}"
            task.result()
        assert drained == [True] * DRAINS, f"seed {seed}: a drain cut calls off"
        assert len(done) == CLIENTS * CALLS
        assert all(runs[entry] == 1 for entry in done), f"seed {seed}: {runs}"
        assert sum(runs[f"plain {n}"] for n in range(CALLS)) == CALLS - lost.total()
        assert not any(runs[entry] for entry in lost), f"seed {seed}: refused, and yet it ran"
