"""One world of clients with policies, whose servers crash, refuse, push back and lose connections.

What must hold whatever happens: a call ends by its deadline, as one call; it is attempted no more
often than its policy and the throttle allow; what carries a key runs once in a server's life; nothing
is left over; and once the faults have ended, calls succeed.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import helianthus
from helianthus import (
    CallContext,
    CallPolicy,
    CancelToken,
    Client,
    HedgingPolicy,
    RetryPolicy,
    RetryThrottle,
    RpcError,
    StatusCode,
)
from helianthus.sim import World

CLIENTS = {"thrifty": (8.0, 0.1), "lavish": (1000.0, 10.0)}
"""By name, the tokens of their throttles and what a success gives back."""
WORKERS = 3
FAULTS_UNTIL = 6.0
SLACK = 0.02
"""Virtual seconds that a call may end after its deadline: clocks drift, and timers are rounded."""
RECOVERY = 400.0
"""Virtual seconds for recovery. The longest single wait is the back-off's 120 s + 20 %."""

MAX_ATTEMPTS = 4
CODES = [StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED]
RETRY = RetryPolicy(MAX_ATTEMPTS, initial=0.02, maximum=0.2, codes=CODES)
HEDGING = HedgingPolicy(MAX_ATTEMPTS, delay=0.05, non_fatal_codes=CODES)

POLICIES = {
    "*": CallPolicy(timeout=2.0, retry=RETRY),
    "target.patient": CallPolicy(retry=RETRY, wait_for_ready=True),
    "target.hedged": CallPolicy(hedging=HEDGING),
    "target.once": CallPolicy(retry=RETRY, idempotent=True, wait_for_ready=True),
}

EXPECTED = {
    StatusCode.UNAVAILABLE,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.CANCELLED,
    StatusCode.INTERNAL,
}


class Record:
    """What reached any server, in whichever of its lives.

    Attributes:
        attempts: `previous_attempts` of each attempt, by value.
        runs: How often a value ran in one life of the server.
    """

    def __init__(self) -> None:
        self.attempts: dict[str, list[int]] = {}
        self.runs: Counter[tuple[int, str]] = Counter()
        self.lives = 0


class Target(helianthus.Service):
    """Methods that fail in every way that a policy knows of."""

    def __init__(self, record: Record, rng: random.Random) -> None:
        self._record = record
        self._rng = rng
        record.lives += 1
        self._life = record.lives

    def _attempt(self, context: CallContext, value: str) -> None:
        self._record.attempts.setdefault(value, []).append(context.meta.get("previous_attempts", 0))
        if value.endswith("7"):
            raise RpcError(CODES[0], "this value fails always")
        if self._rng.random() < 0.4:
            raise self._trouble()

    def _trouble(self) -> RpcError:
        rng = self._rng
        after: Any = rng.choice((0, 0.05, 0.3, 100, -1, "soon", None, None, None))
        details = {"retry_after": after} if after is not None or rng.random() < 0.2 else None
        return RpcError(rng.choice([*CODES, *CODES, StatusCode.INTERNAL]), "in trouble", details)

    @helianthus.method
    async def work(self, context: CallContext, value: str) -> str:
        self._attempt(context, value)
        await asyncio.sleep(self._rng.choice((0.0, 0.01, 0.5)))
        return value

    @helianthus.method
    async def patient(self, context: CallContext, value: str) -> str:
        return await self.work(context, value)

    @helianthus.method
    async def hedged(self, context: CallContext, value: str) -> str:
        return await self.work(context, value)

    @helianthus.method
    async def once(self, value: str) -> str:
        self._record.runs[self._life, value] += 1
        await asyncio.sleep(self._rng.choice((0.0, 0.01, 0.5)))
        return value

    @helianthus.method
    async def count(self, context: CallContext, value: str, number: int) -> AsyncIterator[str]:
        self._attempt(context, value)
        for index in range(number):
            if index and self._rng.random() < 0.02:
                raise self._trouble()
            yield f"{value}/{index}"


async def serve(record: Record, rng: random.Random) -> None:
    server = helianthus.Server([Target(record, rng)])
    await server.listen("tcp://server:7070")
    await server.serve_forever()


class Caller:
    """One client, its throttle, and what became of its calls."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.outcomes: Counter[str] = Counter()
        self.throttle = RetryThrottle(*CLIENTS[name])
        self.successes = 0
        """Of attempts."""
        self.hedged: set[str] = set()
        self._rng = random.Random(f"{seed}/{name}")
        self._numbers = 0

    async def run(self) -> None:
        before = asyncio.all_tasks()
        client = helianthus.connect("tcp://server:7070", policies=POLICIES, retry_throttle=self.throttle)
        async with client:
            async with asyncio.TaskGroup() as workers:
                for _ in range(WORKERS):
                    workers.create_task(self._work(client))
            await self._recover(client)
            assert asyncio.all_tasks() == before, "attempts were left behind"
            assert not client._watchers
            assert client._peer is not None
            assert not client._peer.running
            entries = client.statistics().by_method
            self.successes = sum(entry.calls - entry.failed for entry in entries.values())
            self.outcomes["retries"] += sum(entry.retries for entry in entries.values())
            self.outcomes["hedges"] += sum(entry.hedges for entry in entries.values())
            assert all(not entry.hedges for method, entry in entries.items() if method != "target.hedged")

    async def _work(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < FAULTS_UNTIL:
            self._numbers += 1
            value = f"{self.name}.{self._numbers}"
            timeout = self._rng.choice((0.02, 0.3, 2.0))
            began = loop.time()
            try:
                outcome = await self._call(client, value, timeout)
            except RpcError as error:
                assert error.code in EXPECTED, error
                outcome = error.code.name
            self.outcomes[outcome] += 1
            took = loop.time() - began
            assert took <= timeout + SLACK, f"{value} took {took} s, its timeout was {timeout} s"
            await asyncio.sleep(self._rng.choice((0.0, 0.01, 0.1)))

    async def _call(self, client: Client, value: str, timeout: float) -> str:
        rng = self._rng
        kind = rng.choice(("work", "patient", "hedged", "once", "count", "cancelled", "token"))
        if kind == "count":
            number = rng.choice((1, 5, 200))
            async with client.stream("target.count", value, number, timeout=timeout) as stream:
                items = [item async for item in stream]
            assert items == [f"{value}/{index}" for index in range(number)]
        elif kind == "cancelled":
            method = self._either(value)
            calling = asyncio.ensure_future(client.call(f"target.{method}", value, timeout=timeout))
            await asyncio.wait([calling], timeout=min(timeout, rng.choice((0.0, 0.01, 0.1))))
            if calling.cancel():
                await asyncio.wait([calling])
                return "cancelled" if calling.cancelled() else "ended meanwhile"
            return "ended before" if calling.exception() is None else "failed before"
        elif kind == "token":
            token = CancelToken()
            asyncio.get_running_loop().call_later(rng.choice((0.0, 0.01, 0.1)), token.cancel)
            method = self._either(value)
            await client.call(f"target.{method}", value, timeout=timeout, cancel=token)
        else:
            if kind == "hedged":
                self.hedged.add(value)
            assert await client.call(f"target.{kind}", value, timeout=timeout) == value
        return "OK"

    def _either(self, value: str) -> str:
        """A method that is retried or hedged."""
        method = self._rng.choice(("work", "hedged"))
        if method == "hedged":
            self.hedged.add(value)
        return method

    async def _recover(self, client: Client) -> None:
        """Without faults, calls that wait for a connection succeed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + RECOVERY
        for number in range(10):
            while True:
                try:
                    await client.call("target.once", f"{self.name} again {number}", timeout=RECOVERY)
                    break
                except RpcError as error:
                    assert loop.time() <= until, error
                    await asyncio.sleep(0.1)  # it may have failed at once, and time has to pass
        self.outcomes["recovered"] += 1


def run_world(seed: int) -> tuple[str, Counter[str]]:
    """Run one world; gives its digest and how its calls ended."""
    record, outcomes = Record(), Counter[str]()
    callers = [Caller(name, seed) for name in CLIENTS]
    with World(seed=seed) as world:
        rng = random.Random(f"{seed}/server")
        world.node("server", drift=20e-6).spawn(lambda: serve(record, random.Random(rng.random())))
        running = [world.node(one.name, drift=-20e-6).spawn(one.run(), name=one.name) for one in callers]
        world.chaos(until=FAULTS_UNTIL, crashable=["server"])
        for client in running:
            world.run_until(client, timeout=FAULTS_UNTIL + RECOVERY + 100.0)
            client.result()
        for caller in callers:
            outcomes += caller.outcomes
        check(record, callers)
        return world.digest(), outcomes


def check(record: Record, callers: list[Caller]) -> None:
    """Look at what reached the servers."""
    for value, attempts in record.attempts.items():
        assert len(attempts) <= MAX_ATTEMPTS + 1, f"{value}: {attempts}"  # and one that never ran
        assert max(attempts) < MAX_ATTEMPTS, f"{value}: {attempts}"
    assert max(record.runs.values(), default=1) == 1, "a call with a key ran twice"
    for caller in callers:
        # Each retry is paid for with a token, and only those above the half are for sale. Hedges are
        # not paid for, so their values are left out.
        paid = [
            number
            for value, attempts in record.attempts.items()
            if value.startswith(f"{caller.name}.") and value not in caller.hedged
            for number in attempts
            if number > 0
        ]
        tokens, ratio = CLIENTS[caller.name]
        assert len(paid) <= tokens / 2 + ratio * caller.successes, f"{caller.name}: {len(paid)} retries"
