"""One world of calls under policies, judged by what the servers saw.

The service writes down every run of its methods outside of the nodes, where no crash can reach, so
that what clients did can be compared with what their policies allow. What must hold, whatever happens:
a call never runs more often than `max_attempts`; the retries of a client stay within what its throttle
allows; every attempt of a call carries the key of that call, and no other one does; all items of a
stream come from one run; what is said not to have run has not; a call ends by its deadline.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import attrs

from helianthus import (
    CallContext,
    CallPolicy,
    CancelToken,
    Client,
    HedgingPolicy,
    RetryPolicy,
    RetryThrottle,
    RpcError,
    Server,
    Service,
    StatusCode,
    method,
)
from helianthus.sim import World

SERVERS = ("alpha", "beta")
CLIENTS = ("c0", "c1")
WORKERS = 2
FAULTS_UNTIL = 4.0
"""Virtual seconds."""
SLACK = 0.05
"""Virtual seconds that a call may end after its deadline: clocks drift, and timers are rounded."""
RECOVERY = 400.0
"""Virtual seconds for recovery. The longest single wait is the back-off's 120 s + 20 %."""
LEAVES = 60.0
"""Virtual seconds for whatever still runs at a server to end."""

TOKENS, RATIO = 12, 0.5

PUSH_BACKS: tuple[Any, ...] = (
    None,
    None,
    None,
    {"retry_after": 0.02},
    {"retry_after": -1},
    {"retry_after": "x"},
)
TRANSIENT = (StatusCode.UNAVAILABLE, StatusCode.ABORTED)
EXPECTED = {*TRANSIENT, StatusCode.INTERNAL, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED}

RETRY = RetryPolicy(max_attempts=4, initial=0.02, maximum=0.3, codes=TRANSIENT)
HEDGING = HedgingPolicy(max_attempts=3, delay=0.03, non_fatal_codes=TRANSIENT)
POLICIES = {
    "meter.work": CallPolicy(retry=RETRY, idempotent=True),
    "meter.patient": CallPolicy(timeout=2.0, wait_for_ready=True, retry=RETRY),
    "meter.hedged": CallPolicy(hedging=HEDGING),
    "meter.count": CallPolicy(retry=RETRY, wait_for_ready=True),
    "meter": CallPolicy(wait_for_ready=True),
}
MAX_RUNS = {"work": RETRY.max_attempts, "patient": RETRY.max_attempts, "hedged": HEDGING.max_attempts}
MAX_RUNS |= {"count": RETRY.max_attempts, "plain": 1}


@attrs.define
class Run:
    """One run of a method: an attempt that has reached the application."""

    method: str
    previous: int
    key: str | None


class Book:
    """What has happened, written down where no crash can reach."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Run]] = {}
        self.outcomes: Counter[str] = Counter()

    def add(self, name: str, call: str, meta: dict[str, Any]) -> int:
        """Write a run down; gives its number among those of its call."""
        runs = self.runs.setdefault(call, [])
        runs.append(Run(name, meta.get("previous_attempts", 0), meta.get("idempotency_key")))
        return len(runs)


class Meter(Service):
    """Methods that take their time, fail at random, and write down every run.

    Attributes:
        failing: The share of runs that fail; it differs from life to life.
        inside: Methods that run.
    """

    def __init__(self, book: Book, rng: random.Random) -> None:
        self._book = book
        self._rng = rng
        self.failing = rng.choice((0.05, 0.3, 0.9))
        self.inside = 0

    async def _run(self, name: str, context: CallContext, call: str) -> str:
        number = self._book.add(name, call, context.meta)
        self.inside += 1
        try:
            await asyncio.sleep(self._rng.choice((0.0, 0.0, 0.01, 0.1, 1.0)))
            self._fail_perhaps()
        finally:
            self.inside -= 1
        return f"{call}/{number}"

    def _fail_perhaps(self) -> None:
        if self._rng.random() < self.failing:
            code = self._rng.choice((*TRANSIENT, *TRANSIENT, StatusCode.INTERNAL))
            raise RpcError(code, "by chance", self._rng.choice(PUSH_BACKS))

    @method
    async def work(self, context: CallContext, call: str) -> str:
        return await self._run("work", context, call)

    @method
    async def patient(self, context: CallContext, call: str) -> str:
        return await self._run("patient", context, call)

    @method
    async def hedged(self, context: CallContext, call: str) -> str:
        return await self._run("hedged", context, call)

    @method
    async def plain(self, context: CallContext, call: str) -> str:
        return await self._run("plain", context, call)

    @method
    async def count(self, context: CallContext, call: str, number: int) -> AsyncIterator[str]:
        run = self._book.add("count", call, context.meta)
        self.inside += 1
        try:
            self._fail_perhaps()
            for index in range(number):
                yield f"{call}/{run}/{index}"
                await asyncio.sleep(self._rng.choice((0.0, 0.01)))
            self._fail_perhaps()
        finally:
            self.inside -= 1


class Swarm:
    """One world.

    Attributes:
        book: What has happened in it.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.book = Book()
        self._services: dict[str, Meter] = {}
        self._successes: Counter[str] = Counter()
        self._clients: list[Client] = []
        self._lives = 0
        self._calm = False

    def run(self) -> str:
        """Run it; gives the world's digest."""
        with World(seed=self.seed) as world:
            for name in SERVERS:
                world.node(name, drift=20e-6).spawn(lambda name=name: self._serve(name), name=name)
            clients = [
                world.node(name, drift=-20e-6).spawn(self._be_client(name), name=name) for name in CLIENTS
            ]
            world.chaos(until=FAULTS_UNTIL, crashable=list(SERVERS))
            for client in clients:
                world.run_until(client, timeout=FAULTS_UNTIL + RECOVERY + 100.0)
                client.result()
            world.run(until=world.now + LEAVES)
            self._check_runs()
            self._check_tidy()
            return world.digest()

    async def _serve(self, name: str) -> None:
        self._lives += 1
        rng = random.Random(f"{self.seed}/{name}/{self._lives}")
        meter = self._services[name] = Meter(self.book, rng)
        if self._calm:
            meter.failing = 0.0
        server = Server([meter])
        await server.listen(f"tcp://{name}:7070")
        await server.serve_forever()

    # -- clients -------------------------------------------------------------------------------------------

    async def _be_client(self, name: str) -> None:
        async with asyncio.TaskGroup() as group:
            for server in SERVERS:
                group.create_task(self._use(f"{name}-{server}", server))

    async def _use(self, name: str, server: str) -> None:
        """Call one server until the faults have ended, and then until it works again."""
        throttle = RetryThrottle(TOKENS, RATIO)
        client = Client(f"tcp://{server}:7070", policies=POLICIES, retry_throttle=throttle)
        async with client:
            self._clients.append(client)
            async with asyncio.TaskGroup() as workers:
                for number in range(WORKERS):
                    rng = random.Random(f"{self.seed}/{name}/{number}")
                    workers.create_task(self._work(f"{name}.{number}", client, rng))
            self._check_budget(name)
            await self._recover(name, client, throttle)
            peer = client._peer
            assert peer is not None
            assert (peer.calls, peer.session.pending_calls, len(peer._streams.running)) == ({}, 0, 0)
            assert not client._watchers

    async def _work(self, name: str, client: Client, rng: random.Random) -> None:
        loop = asyncio.get_running_loop()
        number = 0
        while loop.time() < FAULTS_UNTIL:
            number += 1
            timeout = rng.choice((0.05, 0.4, 2.0))
            began = loop.time()
            outcome = await self._outcome(client, rng, f"{name}.{number}", timeout)
            took = loop.time() - began
            assert took <= timeout + SLACK, f"{name}.{number} took {took} s, its timeout was {timeout} s"
            self.book.outcomes[outcome] += 1
            if outcome == "OK":
                self._successes[name.rpartition(".")[0]] += 1
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.05)))

    async def _outcome(self, client: Client, rng: random.Random, call: str, timeout: float) -> str:
        """Make a call, give it up now and then, and say how it ended."""
        token = CancelToken() if rng.random() < 0.3 else None
        task = asyncio.ensure_future(self._one_call(client, rng, call, timeout, token))
        loop = asyncio.get_running_loop()
        giving_up = None
        if rng.random() < 0.3:
            giving_up = loop.call_later(
                rng.choice((0.0, 0.005, 0.03, 0.2)), token.cancel if token is not None else task.cancel
            )
        try:
            await task
        except RpcError as error:
            assert error.code in EXPECTED, error
            if not error.maybe_executed:
                assert call not in self.book.runs, f"{call} has run, and yet {error!r} says that it has not"
            return error.code.name
        except asyncio.CancelledError:
            assert task.cancelled()
            return "cancelled"
        finally:
            if giving_up is not None:
                giving_up.cancel()
        return "OK"

    async def _one_call(
        self, client: Client, rng: random.Random, call: str, timeout: float, token: CancelToken | None
    ) -> None:
        name = rng.choice(tuple(MAX_RUNS))
        if name != "count":
            answer = await client.call(f"meter.{name}", call, timeout=timeout, cancel=token)
            assert answer.rpartition("/")[0] == call
            return
        items = []
        number = rng.choice((0, 1, 30))
        async with client.stream("meter.count", call, number, timeout=timeout, cancel=token) as stream:
            async for item in stream:
                items.append(item)
                assert item == f"{items[0].rpartition('/')[0]}/{len(items) - 1}"
        assert len(items) == number

    async def _recover(self, name: str, client: Client, throttle: RetryThrottle) -> None:
        """A patient call needs no help to succeed; then the others do too."""
        self._calm = True
        for meter in self._services.values():
            meter.failing = 0.0
        loop = asyncio.get_running_loop()
        until = loop.time() + RECOVERY
        while True:
            try:
                await client.call("meter.plain", f"{name} again", timeout=RECOVERY)
                break
            except RpcError as error:  # it was sent on a connection that had been lost
                assert loop.time() < until, error
                await asyncio.sleep(0.1)  # it may have failed at once, and time has to pass
        for number in range(5):
            for kind in ("work", "hedged", "patient"):
                call = f"{name} again {number} {kind}"
                answer = await client.call(f"meter.{kind}", call, timeout=10.0)
                assert answer.rpartition("/")[0] == call
        assert 0 <= throttle.tokens <= TOKENS
        self.book.outcomes["recovered"] += 1

    # -- what was written down -----------------------------------------------------------------------------

    def _check_budget(self, name: str) -> None:
        """A retry needs a token, of which half are there for it at first, and the others earned."""
        retries = sum(
            len(runs) - 1
            for call, runs in self.book.runs.items()
            if call.startswith(f"{name}.") and runs[0].method != "hedged"
        )
        allowed = TOKENS / 2 + RATIO * self._successes[name]
        assert retries <= allowed, f"{name} made {retries} retries, and may have made {allowed:g}"
        self.book.outcomes["retried"] += retries

    def _check_runs(self) -> None:
        """No call has run too often, and its attempts have numbers and one key."""
        keys: dict[str, str] = {}
        for call, runs in self.book.runs.items():
            name = runs[0].method
            assert len(runs) <= MAX_RUNS[name], f"{call} ran {len(runs)} times"
            numbers = [run.previous for run in runs]
            assert max(numbers) < MAX_RUNS[name], f"{call}: {numbers}"
            if name != "hedged":
                assert numbers == sorted(numbers), f"{call}: {numbers}"
            elif len(runs) > 1:
                self.book.outcomes["hedged"] += 1
            of_call = {run.key for run in runs}
            if name != "work":
                assert of_call == {None}, call
                continue
            assert len(set(numbers)) == len(numbers), f"{call}: {numbers}"
            assert len(of_call) == 1, f"{call}: {of_call}"
            key = of_call.pop()
            assert isinstance(key, str), f"{call} has come without its key"
            assert keys.setdefault(key, call) == call

    def _check_tidy(self) -> None:
        for name, meter in self._services.items():
            assert meter.inside == 0, f"methods still run at {name}"
        for client in self._clients:
            assert not client._watchers
            assert client.statistics().total().running == 0


def run_world(seed: int) -> tuple[str, Counter[str]]:
    """Run one world; gives its digest and how its calls ended."""
    swarm = Swarm(seed)
    return swarm.run(), swarm.book.outcomes
