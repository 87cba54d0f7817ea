"""A client with several addresses, or a name that has several, uses the first that answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until, url_of
from rpc_thread import ThreadedServer

import helianthus
from helianthus import Client, RpcError, Server, Service, StatusCode, method
from helianthus.drivers.address import Address
from helianthus.protocols.racing import ATTEMPT_DELAY
from helianthus.services.rpc import ChannelState
from helianthus.sim import World

NODES = ("a", "b", "c")
URLS = [f"tcp://{name}:7070" for name in NODES]
NETWORK = 0.05
"""Seconds that a few messages over the simulated network take, at most."""


class Named(Service):
    """Tells where it runs."""

    name = "named"

    def __init__(self, node: str = "") -> None:
        self._node = node

    @method
    def where(self) -> str:
        return self._node


def serve_on(world: World, name: str) -> list[Server]:
    """Have a node serve, anew after each restart; the list is of its servers."""
    servers: list[Server] = []

    async def serve() -> None:
        server = Server([Named(name)])
        servers.append(server)
        await server.listen("tcp://0.0.0.0:7070")
        await server.serve_forever()

    world.node(name).spawn(serve)
    return servers


def simulate(scenario: Callable[[World], Coroutine[Any, Any, Any]], *, seed: int = 1, **settings: Any) -> Any:
    with World(seed=seed, **settings) as world:
        for name in NODES:
            world.node(name)
        return world.run_until(world.node("client").spawn(lambda: scenario(world)), timeout=10_000)


def now() -> float:
    return asyncio.get_running_loop().time()


def test_the_first_address_is_preferred() -> None:
    async def scenario(world: World) -> None:
        servers = {name: serve_on(world, name) for name in NODES}
        async with Client(URLS) as client:
            assert await client.call("named.where") == "a"
            await asyncio.sleep(2)
            assert [len(servers[name][0].peers) for name in NODES] == [1, 0, 0]

    simulate(scenario)


def test_an_address_that_does_not_answer_holds_nobody_up() -> None:
    async def scenario(world: World) -> None:
        for name in NODES:
            serve_on(world, name)
        world.partition("client", "a")
        async with Client(URLS) as client:
            assert await client.call("named.where") == "b"
            assert ATTEMPT_DELAY <= now() <= ATTEMPT_DELAY + NETWORK

    simulate(scenario)


def test_an_address_that_refuses_is_passed_over_at_once() -> None:
    async def scenario(world: World) -> None:
        serve_on(world, "c")
        await asyncio.sleep(0.01)
        async with Client(URLS) as client:
            assert await client.call("named.where") == "c"
            assert now() <= 0.01 + NETWORK

    simulate(scenario)


def test_those_that_answer_later_are_ended() -> None:
    """Also where they had connected already: the winner is the only connection in the end."""

    async def scenario(world: World) -> None:
        servers = {name: serve_on(world, name) for name in NODES}
        world.delay("client", "a", 0.4)
        world.delay("client", "b", 0.15)
        async with Client(URLS) as client:
            assert await client.call("named.where") == "c"
            await asyncio.sleep(3)
            assert client._channel is not None
            assert client._channel.open_links == 1
            assert [len(servers[name][0].peers) for name in NODES] == [0, 0, 1]

    simulate(scenario, latency=(0.001, 0.002))


def test_all_addresses_are_tried_again_after_a_loss() -> None:
    async def scenario(world: World) -> None:
        for name in NODES:
            serve_on(world, name)
        async with Client(URLS) as client:
            for expected in ("a", "b"):
                assert await client.call("named.where") == expected
                await asyncio.sleep(2)
                world.partition("client", expected)
                world.reset("client", expected)
                await until(lambda: client.state is not ChannelState.READY)
            assert await client.call("named.where") == "c"

    simulate(scenario)


def test_all_fail() -> None:
    """The error tells what happened at each address."""

    async def scenario(world: World) -> None:
        world.partition("client", "b")
        async with Client([*URLS[:2], "tcp://nowhere:1"], connect_timeout=3.0) as client:
            with pytest.raises(RpcError) as caught:
                await client.call("named.where")
            error = caught.value
            assert error.code is StatusCode.UNAVAILABLE
            assert not error.maybe_executed
            for part in (
                "tcp://a:7070: nobody listens there",
                "tcp://nowhere:1: the world has no such node",
                "no connection within 3 s",
            ):
                assert part in error.message
            assert now() == pytest.approx(2 * 3.0, abs=0.1)

    simulate(scenario)


def test_a_name_with_several_nodes() -> None:
    async def scenario(world: World) -> None:
        for name in ("b", "c"):
            serve_on(world, name)
        world.set_name("service.example", "a", "b")
        await asyncio.sleep(0.01)
        async with Client("tcp://Service.Example:7070") as client:
            assert await client.call("named.where") == "b"
            await asyncio.sleep(2)
            world.set_name("service.example", "c")  # it is looked up again for each connection
            world.reset("client", "b")
            await until(lambda: client.state is not ChannelState.READY)
            assert await client.call("named.where") == "c"
            world.set_name("service.example")
            await asyncio.sleep(2)
            world.reset("client", "c")
            await until(lambda: client.state is ChannelState.BACKING_OFF)
            with pytest.raises(RpcError, match="no such node"):
                await client.call("named.where")

    simulate(scenario)


def test_a_name_that_means_something_already() -> None:
    with World() as world:
        world.node("a")
        for name in ("A", "localhost", "::"):
            with pytest.raises(ValueError, match="has a meaning already"):
                world.set_name(name, "a")
        with pytest.raises(ValueError, match="no node 'b'"):
            world.set_name("service.example", "b")


@pytest.mark.parametrize("seed", range(20))
def test_there_is_one_winner_whatever_the_network_does(seed: int) -> None:
    """All answer at about the time at which the next one is tried."""

    async def scenario(world: World) -> None:
        servers = {name: serve_on(world, name) for name in NODES}
        async with Client(URLS) as client:
            where = await client.call("named.where")
            await asyncio.sleep(3)
            assert client._channel is not None
            assert client._channel.open_links == 1
            assert [len(servers[name][0].peers) for name in NODES] == [int(name == where) for name in NODES]

    simulate(scenario, seed=seed, latency=(0.0, 0.3))


@pytest.mark.parametrize("close_after", [0.0, 0.1, 0.26, 0.4, 0.51, 0.7])
def test_a_race_is_closed(close_after: float) -> None:
    """At any time, and nothing is left of it."""

    async def scenario(world: World) -> None:
        for name in NODES:
            serve_on(world, name)
        async with Client(URLS) as client:
            await asyncio.sleep(close_after)
        assert client.state is ChannelState.CLOSED
        assert client._channel is not None
        assert client._channel.open_links == 0
        await asyncio.sleep(5)
        assert client._channel.open_links == 0

    simulate(scenario, latency=(0.3, 0.3))


# -- on every driver ------------------------------------------------------------------------------


async def closed_url(bench: Bench) -> str:
    """Where somebody has listened until just now."""
    server = await bench.serve(Named())
    await server.close()
    return url_of(server)


def test_several_urls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        closed, server = await closed_url(bench), await bench.serve(Named("here"))
        client = await bench.closing(helianthus.connect([closed, url_of(server)]))
        assert await client.call("named.where") == "here"
        assert len(server.peers) == 1

    run_on(scenario)


def test_several_urls_at_none_of_which_anybody_listens(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        urls = [await closed_url(bench) for _ in range(2)]
        client = await bench.closing(helianthus.connect(urls))
        with pytest.raises(RpcError) as caught:
            await client.call("named.where", timeout=20)
        assert all(url in caught.value.message for url in urls)

    run_on(scenario)


def test_both_families(run_on_real: Ground) -> None:
    """IPv6 first, where the machine has it."""

    async def scenario(bench: Bench) -> None:
        old = await bench.serve(Named("IPv4"))
        try:
            new = await bench.serve(Named("IPv6"), url="tcp://[::1]:0")
        except OSError:
            pytest.skip("no IPv6 here")
        client = await bench.closing(helianthus.connect([url_of(old), url_of(new)]))
        assert await client.call("named.where") == "IPv6"

    run_on_real(scenario)


def test_a_blocking_client(run_on_real: Ground) -> None:
    """It races in its own turns; names are looked up there too."""
    with ThreadedServer(run_on_real, Named("closed")) as closed:
        pass
    with ThreadedServer(run_on_real, Named("here")) as server:
        by_name = server.url.replace("127.0.0.1", "localhost")
        with helianthus.connect_sync([closed.url, "tcp://no-such-host.invalid:1", by_name]) as client:
            assert client.call("named.where") == "here"


def test_no_url_at_all() -> None:
    with pytest.raises(ValueError, match="no URL was given"):
        helianthus.connect([])
    assert Address.parse_all(itertools.repeat("tcp://a:1", 3)) == (Address("a", 1),)
