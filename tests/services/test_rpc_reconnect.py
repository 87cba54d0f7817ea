"""A client makes its connection again: when, how often, and what calls see of it.

On the simulator's clock, unless a real driver has a part in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until, url_of
from rpc_raw import HELLO, RawServer
from rpc_waiting import Waiting

from helianthus import Client, KeepAlive, RpcError, Server, StatusCode
from helianthus.drivers.address import Address
from helianthus.drivers.choose import running_driver
from helianthus.services.rpc import ChannelState
from helianthus.sim import World

URL = "tcp://server:7070"
NETWORK = 0.05
"""Seconds that a few messages over the simulated network take, at most."""


async def serve() -> None:
    """What the server's node runs, anew after each restart."""
    server = Server([Waiting()])
    await server.listen("tcp://0.0.0.0:7070")
    await server.serve_forever()


def simulate(scenario: Callable[[World], Coroutine[Any, Any, Any]], *, seed: int = 1, **settings: Any) -> Any:
    """Run a scenario on the client's node of a world that has a server's node as well."""
    with World(seed=seed, **settings) as world:
        world.node("server")
        return world.run_until(world.node("client").spawn(lambda: scenario(world)), timeout=100_000)


async def unavailable(awaitable: Any) -> RpcError:
    with pytest.raises(RpcError) as caught:
        await awaitable
    assert caught.value.code is StatusCode.UNAVAILABLE
    return caught.value


def now() -> float:
    return asyncio.get_running_loop().time()


class Doorman:
    """Accepts connections on the server's node, notes when, and ends each after a while."""

    def __init__(self, world: World, *, lasts: float = 0.0, hello: bool = False) -> None:
        self.came: list[float] = []
        self._news = asyncio.Event()
        world.node("server").spawn(self._work(lasts, hello))

    async def _work(self, lasts: float, hello: bool) -> None:
        server = RawServer(Address("0.0.0.0", 7070))
        number = 0
        while True:
            number += 1
            end = await server.accepted(number)
            self.came.append(now())
            self._news.set()
            if hello:
                end.say(HELLO)
            running_driver().call_at(running_driver().now() + lasts, end.abort)

    async def visitors(self, number: int) -> None:
        """Wait until so many have come."""
        while len(self.came) < number:
            self._news.clear()
            await self._news.wait()

    def delays(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.came, self.came[1:], strict=False)]


# -- when it connects ----------------------------------------------------------------------------


def test_the_delays_are_those_of_the_back_off() -> None:
    """At once, then about 1, 1.6, 2.56 … seconds, up to 120; all within a fifth."""

    async def scenario(world: World) -> None:
        doorman = Doorman(world)
        async with Client(URL):
            await doorman.visitors(15)
        first, *others = doorman.delays()
        assert first < NETWORK
        for number, delay in enumerate(others):
            expected = min(1.6**number, 120.0)
            assert 0.8 * expected <= delay <= 1.2 * expected + NETWORK, number
        assert max(others) > 100  # it went as far as that

    simulate(scenario)


def test_clients_do_not_come_back_in_step() -> None:
    def third_delay(seed: int) -> float:
        async def scenario(world: World) -> float:
            doorman = Doorman(world)
            async with Client(URL):
                await doorman.visitors(5)
            return doorman.delays()[3]

        return simulate(scenario, seed=seed)  # type: ignore[no-any-return]

    delays = {round(third_delay(seed), 2) for seed in range(8)}
    assert len(delays) >= 6


def test_a_connection_that_lasted_is_made_again_at_once() -> None:
    async def scenario(world: World) -> None:
        world.node("server").spawn(serve)
        async with Client(URL) as client:
            for _ in range(5):
                await client.call("waiting.now")
                await asyncio.sleep(1.5)
                lost = now()
                world.reset("client", "server")
                await until(lambda: client.state is not ChannelState.READY)
                assert await client.call("waiting.now", 1) == 1
                assert now() - lost < NETWORK

    simulate(scenario)


def test_a_server_that_accepts_and_closes_is_not_pestered() -> None:
    """Also where it says hello: the back-off begins anew only after a connection has lasted a second."""

    async def scenario(world: World) -> None:
        doorman = Doorman(world, lasts=0.5, hello=True)
        async with Client(URL):
            await doorman.visitors(8)
        assert sum(doorman.delays()) > 0.8 * (1 + 1.6 + 2.56 + 4.1 + 6.6 + 10.5)

    simulate(scenario)


def test_the_back_off_begins_anew_after_a_connection_that_lasted() -> None:
    async def scenario(world: World) -> None:
        doorman = Doorman(world, lasts=2.0, hello=True)
        async with Client(URL):
            await doorman.visitors(8)
        assert all(2.0 <= delay < 2.0 + NETWORK for delay in doorman.delays())

    simulate(scenario)


def test_nothing_is_tried_after_closing() -> None:
    async def scenario(world: World) -> None:
        doorman = Doorman(world)
        async with Client(URL) as client:
            await doorman.visitors(4)
        assert client.state is ChannelState.CLOSED
        await asyncio.sleep(1000)
        assert len(doorman.came) == 4

    simulate(scenario)


def test_the_states_of_a_client() -> None:
    async def scenario(world: World) -> None:
        client = Client(URL)
        assert client.state is ChannelState.IDLE
        async with client:
            assert client.state is ChannelState.CONNECTING
            await until(lambda: client.state is ChannelState.BACKING_OFF)  # nobody listens yet
            world.node("server").spawn(serve)
            await until(lambda: client.state is ChannelState.CONNECTING)
            await until(lambda: client.state is ChannelState.READY)
        assert client.state is ChannelState.CLOSED

    simulate(scenario)


# -- what calls see of it ------------------------------------------------------------------------


def test_calls_wait_while_the_client_connects() -> None:
    async def scenario(world: World) -> None:
        world.node("server").spawn(serve)
        async with Client(URL) as client:
            answers = await asyncio.gather(*(client.call("waiting.now", number) for number in range(5)))
            assert answers == [0, 1, 2, 3, 4]
            assert now() >= 3 * 0.3  # to connect, to say hello, to call: three ways at least

    simulate(scenario, latency=(0.3, 0.3))


def test_calls_fail_fast_while_the_client_backs_off() -> None:
    async def scenario(world: World) -> None:
        async with Client(URL) as client:
            error = await unavailable(client.call("waiting.now"))  # waits for the first attempt
            assert not error.maybe_executed
            await until(lambda: client.state is ChannelState.BACKING_OFF)
            began = now()
            for given in (
                client.call("waiting.now"),
                client.call("waiting.now", timeout=10),
                client.notify("waiting.now"),
                anext(client.stream("waiting.produce", "a", 1)),
            ):
                error = await unavailable(given)
                assert "nobody listens there" in error.message
                assert "server:7070" in error.message
                assert not error.maybe_executed
            assert now() == began

    simulate(scenario)


def test_calls_wait_for_the_retry_that_comes_at_once() -> None:
    async def scenario(world: World) -> None:
        world.node("server").spawn(serve)
        async with Client(URL) as client:
            await client.call("waiting.now")
            await asyncio.sleep(2)
            world.reset("client", "server")
            await until(lambda: client.state is ChannelState.CONNECTING)
            assert await client.call("waiting.now", 1) == 1

    simulate(scenario)


def test_a_call_from_within_the_failure_of_another_waits_for_the_next_connection(run_on: Ground) -> None:
    """The answer that never comes resumes its task before the client itself has heard of the loss."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        client = await bench.pair(service)

        async def persistent(name: str) -> object:
            await unavailable(client.call("waiting.wait", name))
            return await client.call("waiting.now", name)

        calls = [asyncio.ensure_future(persistent(name)) for name in "abc"]
        for name in "abc":
            await service.happened(name, "began")
        bench.connected[0].abort()
        assert await asyncio.gather(*calls) == ["a", "b", "c"]

    run_on(scenario)


def test_a_call_from_within_a_failure_while_much_was_queued(run_on: Ground) -> None:
    """The lost connection counts as full; whoever calls again must not wait for room in it."""

    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url, extensions=False)
        end = await server.accepted()
        end.machine.wants_read = False
        end.link.wake()  # type: ignore[union-attr]
        failures = 0

        async def persistent() -> None:
            nonlocal failures
            while failures < 60:
                try:
                    await client.call("far.swallow", bytes(200_000), timeout=20)
                except RpcError as error:
                    assert error.code is StatusCode.UNAVAILABLE
                    failures += 1

        calls = [asyncio.ensure_future(persistent()) for _ in range(30)]
        await until(lambda: client._peer is not None and client._peer.congested)
        server.close()
        await asyncio.gather(*calls)

    run_on(scenario)


def test_an_attempt_has_its_time() -> None:
    async def scenario(world: World) -> None:
        world.partition("client", "server")
        async with Client(URL) as client:
            error = await unavailable(client.call("waiting.now"))
            assert "no connection within 20 s" in error.message
            assert now() == pytest.approx(2 * 20.0, abs=0.01)  # the first retry came at once
        async with Client(URL, connect_timeout=3.0) as client:
            began = now()
            await unavailable(client.call("waiting.now"))
            assert now() - began == pytest.approx(2 * 3.0, abs=0.01)

    simulate(scenario)


def test_a_server_that_comes_late_is_found() -> None:
    async def scenario(world: World) -> None:
        async with Client(URL) as client:
            await unavailable(client.call("waiting.now"))
            await asyncio.sleep(30)
            world.node("server").spawn(serve)
            while client.state is not ChannelState.READY:
                await asyncio.sleep(NETWORK)
            assert await client.call("waiting.now", 1) == 1
            assert now() < 30 + 1.2 * 26.9 + NETWORK  # the longest wait so far: 1.6 ** 7

    simulate(scenario)


def test_a_server_that_restarts_is_found_again() -> None:
    async def scenario(world: World) -> None:
        world.node("server").spawn(serve)
        async with Client(URL) as client:
            for _ in range(4):
                assert await client.call("waiting.now", 1) == 1
                await asyncio.sleep(2)
                world.restart("server")
                await unavailable(client.call("waiting.now"))  # into the connection that is gone
                await until(lambda: client.state is ChannelState.READY)

    simulate(scenario)


def test_a_server_that_vanished_is_noticed_by_keep_alive() -> None:
    async def scenario(world: World) -> None:
        world.node("server").spawn(serve)
        async with Client(URL, keep_alive=KeepAlive(time=10.0, timeout=5.0)) as client:
            await client.call("waiting.now")
            waiting = asyncio.ensure_future(client.call("waiting.wait", "a"))
            await asyncio.sleep(3)
            lost = now()
            world.crash("server")
            error = await unavailable(waiting)
            assert error.maybe_executed
            assert "keep-alive" in error.message
            assert now() - lost <= 15 + NETWORK
            world.restart("server")
            await until(lambda: client.state is ChannelState.READY)
            assert await client.call("waiting.now", 1) == 1

    simulate(scenario)


def test_a_client_that_vanished_is_noticed_by_keep_alive() -> None:
    """What runs for it is cancelled then."""
    with World(seed=2) as world:
        service = Waiting()
        ended: list[float] = []

        async def serve_watchfully() -> None:
            server = Server([service], keep_alive=KeepAlive(time=10.0, timeout=5.0, without_calls=True))
            server.on_disconnect(lambda peer, error: ended.append(now()))
            server.on_error(lambda peer, name, error: None)
            await server.listen("tcp://0.0.0.0:7070")
            await server.serve_forever()

        async def call() -> None:
            async with Client(URL) as client:
                await client.call("waiting.wait", "a")

        world.node("server").spawn(serve_watchfully)
        world.node("client").spawn(call())
        world.run_until(lambda: service.entries("a") == ["began"])
        crashed = world.now
        world.crash("client")
        world.run_until(lambda: ended)
        assert ended[0] - crashed <= 15 + NETWORK
        world.run(until=world.now + 1)
        assert service.entries("a") == ["began", "cancelled", "finally"]


# -- on every driver ------------------------------------------------------------------------------


def test_a_new_server_at_the_same_address_is_found(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Waiting())
        url = url_of(server)
        client = await bench.client(server)
        assert await client.call("waiting.now", 1) == 1
        await server.close()
        await until(lambda: client.state is not ChannelState.READY)
        successor = await bench.serve(Waiting(), url=url)
        await until(lambda: client.state is ChannelState.READY)
        assert await client.call("waiting.now", 2) == 2
        assert len(successor.peers) == 1

    run_on(scenario)


def test_nobody_listens(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Waiting())
        url = url_of(server)
        await server.close()
        client = await bench.client(url)
        error = await unavailable(client.call("waiting.now", timeout=20))
        assert not error.maybe_executed
        assert url in error.message
        assert client.state in (ChannelState.CONNECTING, ChannelState.BACKING_OFF)

    run_on(scenario)


def test_a_name_that_nobody_has(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.client("tcp://no-such-host.invalid:7070")
        error = await unavailable(client.call("waiting.now", timeout=25))
        assert not error.maybe_executed

    run_on_real(scenario)


def test_a_wrong_address_is_the_callers_mistake() -> None:
    for url in ("localhost:7070", "tcp://", "tcp://host", "http://host:1", "tcp://host:1/path"):
        with pytest.raises(ValueError, match="tcp://"):
            Client(url)
    with pytest.raises(TypeError):
        Client("tcp://host:1", no_such_option=1)
