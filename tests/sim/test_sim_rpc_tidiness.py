"""After faults nothing is left over: no call, no request, no task, no connection, no credit.

Clients here do what the other swarm's do not: they cancel, drop streams, send notifications, ask for
more at once than fits, and crash. While faults strike, an answer must be its own call's, and every
call must end in time. When they have ended, every table at both ends must be empty again: what leaks
a little with each fault would only be noticed after weeks.

Run one world alone with `python tests/sim/test_sim_rpc_tidiness.py SEED`.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from helianthus import (
    CallContext,
    CancelToken,
    Client,
    KeepAlive,
    Peer,
    RpcError,
    RpcLimits,
    Server,
    Service,
    StatusCode,
    method,
)
from helianthus.sim import World

SERVERS = ("alpha", "beta")
CLIENTS = ("c0", "c1")
FAULTS_UNTIL = 4.0
"""Virtual seconds."""
SLACK = 0.05
"""Virtual seconds that a call may end after its deadline: clocks drift, and timers are rounded."""
RECOVERY = 400.0
"""Virtual seconds for everybody to be connected again: the back-off's longest wait is 144 s."""
LEAVES = 60.0
"""Virtual seconds for connections to peers that have gone to end, with the keep-alive below."""
ENOUGH = 20
"""Worlds among which everything happens that is rare in one."""
WATCHFUL = KeepAlive(time=10.0, timeout=5.0, without_calls=True, min_interval=1.0, min_interval_idle=1.0)
LIMITS = RpcLimits(max_calls=20, max_streams=8, max_queued_output=400_000, max_buffered_items=60_000)
"""Tight, so that there is always a limit near."""

EXPECTED = {
    StatusCode.CANCELLED,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.UNAVAILABLE,
}


class Tidy(Service):
    """Methods that count who comes in and who goes out."""

    def __init__(self) -> None:
        self.inside = 0

    @method
    def echo(self, value: str) -> str:
        return value

    @method
    async def later(self, value: str, delay: float) -> str:
        self.inside += 1
        try:
            await asyncio.sleep(delay)
        finally:
            self.inside -= 1
        return value

    @method
    def blow_up(self, value: str, size: int) -> list[Any]:
        return [value, bytes(size)]

    @method
    async def blow_up_later(self, value: str, size: int) -> list[Any]:
        self.inside += 1
        try:
            await asyncio.sleep(0.01)
        finally:
            self.inside -= 1
        return [value, bytes(size)]

    @method
    async def ask_back(self, context: CallContext, value: str, size: int) -> str:
        self.inside += 1
        try:
            answer, _ = await context.peer.call("tidy.blow_up", value, size)
        finally:
            self.inside -= 1
        return str(answer)

    @method
    async def produce(self, value: str, count: int, size: int) -> AsyncIterator[list[Any]]:
        self.inside += 1
        try:
            for number in range(count):
                yield [f"{value}/{number}", bytes(size)]
        finally:
            self.inside -= 1

    @method
    async def consume(self, items: AsyncIterator[str], pause: float) -> list[str]:
        self.inside += 1
        taken = []
        try:
            async for item in items:
                taken.append(item)
                await asyncio.sleep(pause)
        finally:
            self.inside -= 1
        return taken

    @method
    async def both(self, items: AsyncIterator[str]) -> AsyncIterator[str]:
        self.inside += 1
        try:
            async for item in items:
                yield item
        finally:
            self.inside -= 1


class Life:
    """What one life of a node holds, so that it can be looked at from outside."""

    def __init__(self) -> None:
        self.service = Tidy()
        self.server: Server | None = None
        self.clients: list[Client] = []


class Swarm:
    """One world.

    Attributes:
        outcomes: How calls ended, by the name of the code.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.outcomes: Counter[str] = Counter()
        self._lives: dict[str, Life] = {}
        self._numbers: Counter[str] = Counter()
        self._calm = False

    def run(self) -> str:
        """Run it; gives the world's digest."""
        with World(self.seed) as world:
            for name in SERVERS:
                world.node(name, drift=30e-6).spawn(lambda name=name: self._serve(name), name=name)
            for name in CLIENTS:
                world.node(name, drift=-30e-6).spawn(lambda name=name: self._be_client(name), name=name)
            world.chaos(until=FAULTS_UNTIL, crashable=[*SERVERS, *CLIENTS])
            world.run(until=FAULTS_UNTIL)
            self._calm = True
            for name in CLIENTS:
                world.run_until(world.node(name).spawn(self._recover(name)), timeout=RECOVERY)
            world.run(until=world.now + LEAVES)
            self._check_tidy()
            return world.digest()

    # -- servers -------------------------------------------------------------------------------------------

    async def _serve(self, name: str) -> None:
        life = self._lives[name] = Life()
        life.server = server = Server([life.service], limits=LIMITS, keep_alive=WATCHFUL)
        server.on_error(self._server_error)
        await server.listen("tcp://0.0.0.0:7070")
        await server.serve_forever()

    def _server_error(self, peer: Peer, called: str, error: Exception) -> None:
        """Only a silent peer is nobody's fault here, and what exceeds a limit."""
        if isinstance(error, RpcError) and error.code is StatusCode.RESOURCE_EXHAUSTED:
            self.outcomes["dropped notification"] += 1
        elif not called and "keep-alive" in str(error):
            self.outcomes["silent peer"] += 1
        else:
            raise error

    # -- clients -------------------------------------------------------------------------------------------

    async def _be_client(self, name: str) -> None:
        life = self._lives[name] = Life()
        self._numbers[name] += 1
        rng = random.Random(f"{self.seed}/{name}/{self._numbers[name]}")
        for server in SERVERS:
            client = Client(f"tcp://{server}:7070", [life.service], limits=LIMITS, keep_alive=WATCHFUL)
            life.clients.append(client)
        loop = asyncio.get_running_loop()
        working: set[asyncio.Task[None]] = set()
        while not self._calm:
            for _ in range(rng.choice((1, 1, 1, 3, 30))):
                value = f"{name}.{self._numbers[name]}.{rng.getrandbits(32):08x}"
                work = self._checked(rng.choice(life.clients), random.Random(rng.random()), value)
                task = loop.create_task(work)
                working.add(task)
                task.add_done_callback(working.discard)
            await asyncio.sleep(rng.choice((0.01, 0.1, 0.3)))
        if working:
            await asyncio.gather(*working)

    async def _checked(self, client: Client, rng: random.Random, value: str) -> None:
        """Do something, and note how it ended."""
        loop = asyncio.get_running_loop()
        timeout = rng.choice((0.03, 0.3, 1.5))
        began = loop.time()
        try:
            await self._do(client, rng, value, timeout)
            outcome = "OK"
        except RpcError as error:
            assert error.code in EXPECTED, error
            outcome = error.code.name
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            outcome = "cancelled"
        took = loop.time() - began
        assert took <= timeout + SLACK, f"{value} took {took} s of {timeout} s"
        self.outcomes[outcome] += 1

    async def _do(self, client: Client, rng: random.Random, value: str, timeout: float) -> None:
        size = rng.choice((0, 100, 50_000, 150_000))
        match rng.randrange(10):
            case 0:
                assert await client.call("tidy.echo", value, timeout=timeout) == value
            case 1:
                name = rng.choice(("tidy.blow_up", "tidy.blow_up_later"))
                assert (await client.call(name, value, size, timeout=timeout))[0] == value
            case 2:
                assert await client.call("tidy.ask_back", value, size, timeout=timeout) == value
            case 3:
                loop = asyncio.get_running_loop()
                task = asyncio.current_task()
                assert task is not None
                loop.call_later(rng.choice((0.0, 0.005, 0.05)), task.cancel)
                await client.call("tidy.later", value, 1.0, timeout=timeout)
                await asyncio.sleep(1.0)  # it was quicker than the cancellation: that is still to come
            case 4:
                token = CancelToken()
                loop = asyncio.get_running_loop()
                loop.call_later(rng.choice((0.0, 0.005, 0.05)), token.cancel)
                await client.call("tidy.later", value, 1.0, timeout=timeout, cancel=token)
            case 5:
                await client.notify("tidy.later", value, rng.choice((0.0, 0.2)), timeout=timeout)
            case 6:
                await self._take(client, rng, value, timeout)
            case 7:
                await self._drop(client, rng, value, timeout)
            case 8:
                count = rng.choice((0, 5, 100))
                async with client.stream(
                    "tidy.consume", pause=rng.choice((0.0, 0.01)), timeout=timeout
                ) as stream:
                    for number in range(count):
                        await stream.send(f"{value}/{number}")
                    assert await stream == [f"{value}/{number}" for number in range(count)]
            case 9:
                async with client.stream("tidy.both", timeout=timeout) as stream:
                    for number in range(rng.choice((0, 5, 30))):
                        await stream.send(f"{value}/{number}")
                        assert await anext(stream) == f"{value}/{number}"

    async def _take(self, client: Client, rng: random.Random, value: str, timeout: float) -> None:
        """Take all items, or leave in the middle of them."""
        count, size = rng.choice(((0, 0), (5, 20_000), (200, 10)))
        leave_at = rng.choice((None, 0, 3))
        number = 0
        async with client.stream("tidy.produce", value, count, size, timeout=timeout) as stream:
            async for item, data in stream:
                assert item == f"{value}/{number}"
                assert len(data) == size
                if number == leave_at:
                    return
                number += 1
        assert number == count

    async def _drop(self, client: Client, rng: random.Random, value: str, timeout: float) -> None:
        """Forget about a stream."""
        stream = client.stream("tidy.produce", value, 100, rng.choice((10, 10_000)), timeout=timeout)
        for number in range(rng.choice((1, 4))):
            assert (await anext(stream))[0] == f"{value}/{number}"

    # -- afterwards ----------------------------------------------------------------------------------------

    async def _recover(self, name: str) -> None:
        """Wait until calls succeed again; then they all do."""
        loop = asyncio.get_running_loop()
        for client in self._lives[name].clients:
            while True:
                try:
                    assert await client.call("tidy.ask_back", name, 10, timeout=5.0) == name
                    break
                except RpcError as error:
                    assert error.code in EXPECTED, error
                    await asyncio.sleep(1.0)
            for number in range(10):
                assert await client.call("tidy.echo", f"{name}.{number}", timeout=5.0) == f"{name}.{number}"
        self.outcomes["recovered"] += 1
        assert loop.time() >= FAULTS_UNTIL * 0.99

    def _check_tidy(self) -> None:
        """Look into the tables of both ends."""
        for name, life in self._lives.items():
            assert life.service.inside == 0, f"methods still run at {name}"
            if life.server is not None:
                peers = list(life.server.peers)
                assert len(peers) == len(CLIENTS), f"{name} has {len(peers)} peers"
                assert [task for task in life.server._ending if not task.done()] == []
            else:
                peers = [client._peer for client in life.clients if client._peer is not None]
                assert len(peers) == len(SERVERS), f"{name} has {len(peers)} connections"
                assert all(client._channel.open_links == 1 for client in life.clients if client._channel)
            for peer in peers:
                self._check_peer(f"{name} <> {peer.address}", peer)

    def _check_peer(self, where: str, peer: Peer) -> None:
        session = peer.session
        assert not peer.closed, where
        assert (session.pending_calls, session.pending_requests, session.queued) == (0, 0, 0), where
        assert session._streams == {}, where
        assert session._buffered_items == 0, where
        assert session.requests.bytes == 0, where
        assert session.wants_read, where
        assert peer.calls == {}, where
        assert len(peer._streams.running) == 0, where
        assert not peer.room.waiting, where
        assert peer.tasks == [], where
        assert not peer._serving._held, where
        assert peer.link is not None, where
        assert peer.link.unsent == 0, where


def run_world(seed: int) -> tuple[str, Counter[str]]:
    """Run one world; gives its digest and how its calls ended."""
    swarm = Swarm(seed)
    try:
        return swarm.run(), swarm.outcomes
    except BaseException as error:
        error.add_note(f"to see it again: python {Path(__file__).name} {seed}")
        raise


def test_nothing_is_left_over(sim_seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    for seed in sim_seeds:
        outcomes += run_world(seed)[1]
    worlds = len(sim_seeds)
    assert outcomes["recovered"] == worlds * len(CLIENTS)
    assert outcomes["OK"] > 50 * worlds
    if worlds < ENOUGH:
        return
    for rare in ("DEADLINE_EXCEEDED", "UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED", "cancelled"):
        assert outcomes[rare] > 0, outcomes


def digest_in_a_process(seed: int, hash_seed: str) -> str:
    here = Path(__file__)
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(here), str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(here.parent.parent.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.split()[0]


def test_the_same_seed_gives_the_same_digest_in_another_process() -> None:
    for seed in (5, 6):
        digests = {digest_in_a_process(seed, hash_seed) for hash_seed in ("1", "77")}
        assert digests == {run_world(seed)[0]}


if __name__ == "__main__":
    print(*run_world(int(sys.argv[1])))
