"""Stopping in good order: no new calls, those in flight have a grace period."""

from __future__ import annotations

import asyncio

import pytest
from rpc_bench import Bench, Ground, until, url_of
from rpc_waiting import Waiting

from helianthus import Client, RpcError, Server, StatusCode
from helianthus.services.rpc import ChannelState
from helianthus.sim import World


def test_draining_an_idle_server(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Waiting())
        clients = [await bench.client(server) for _ in range(5)]
        for client in clients:
            await client.call("waiting.now")
        began = bench.driver.now()
        assert await server.drain()
        assert bench.driver.now() - began < 5
        assert not server.peers
        assert [error for _, error in bench.disconnected] == [None] * 5

    run_on(scenario)


def test_draining_a_server_nobody_uses(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Waiting())
        assert await server.drain(grace=0)
        assert await server.drain(grace=0)  # may be repeated
        assert await Server([Waiting()]).drain()

    run_on(scenario)


def test_calls_in_flight_finish_within_the_grace_period(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        clients = [await bench.client(server) for _ in range(3)]
        calls = [
            asyncio.ensure_future(client.call("waiting.wait", f"{number}{name}"))
            for number, client in enumerate(clients)
            for name in "ab"
        ]
        await until(lambda: len(service.journal) == 6)
        draining = asyncio.ensure_future(server.drain(grace=20))
        await until(lambda: clients[0].state is not ChannelState.READY)
        assert not draining.done()
        service.gate.set()
        assert await asyncio.gather(*calls) == ["0a", "0b", "1a", "1b", "2a", "2b"]
        assert await draining
        assert "cancelled" not in " ".join(service.journal)

    run_on(scenario)


def test_streams_in_flight_finish_within_the_grace_period(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        client = await bench.client(server)
        producing = client.stream("waiting.produce", "p", 200)
        consuming = client.stream("waiting.consume", "c")
        assert await anext(producing) == 0
        await consuming.send(1)
        await service.happened("c", "began")
        draining = asyncio.ensure_future(server.drain(grace=20))
        await until(lambda: client.state is not ChannelState.READY)
        for _ in range(200):
            await consuming.send(1)
        assert await consuming == 201
        service.gate.set()
        assert [item async for item in producing] == list(range(1, 200))
        assert await draining

    run_on(scenario)


def test_no_new_connection_is_accepted_while_draining(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        client = await bench.client(server)
        calling = asyncio.ensure_future(client.call("waiting.wait", "a"))
        await service.happened("a", "began")
        draining = asyncio.ensure_future(server.drain(grace=20))
        await until(lambda: client.state is ChannelState.BACKING_OFF)
        late = await bench.client(server)
        for one in (client, late):
            with pytest.raises(RpcError) as caught:
                await one.call("waiting.now")
            assert caught.value.code is StatusCode.UNAVAILABLE
            assert not caught.value.maybe_executed
        service.gate.set()
        assert await calling == "a"
        assert await draining
        assert len(bench.connected) == 1

    run_on(scenario)


def test_what_exceeds_the_grace_period_is_cancelled(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        client = await bench.client(server)
        calls = [asyncio.ensure_future(client.call("waiting.wait", name)) for name in "ab"]
        stream = client.stream("waiting.produce", "s", 1)
        assert await anext(stream) == 0
        for name in "ab":
            await service.happened(name, "began")
        began = bench.driver.now()
        assert not await server.drain(grace=0.05)
        assert bench.driver.now() - began >= 0.045  # uvloop's timers count whole milliseconds
        for name in "abs":
            assert "cancelled" in service.entries(name)
            assert "finally" in service.entries(name)
        for given in (*calls, stream):
            with pytest.raises(RpcError) as caught:
                await given
            assert caught.value.code is StatusCode.UNAVAILABLE
            assert caught.value.maybe_executed
        assert not server.peers

    run_on(scenario)


def test_a_call_that_the_server_has_not_begun_is_safe_to_repeat(run_on: Ground) -> None:
    """It crosses the server's goaway on its way; whichever the server meets first, nothing hangs."""

    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        client = await bench.client(server)
        await client.call("waiting.now")
        holding = asyncio.ensure_future(client.call("waiting.wait", "holding"))
        await service.happened("holding", "began")
        crossing = [asyncio.ensure_future(client.call("waiting.now", number)) for number in range(10)]
        await asyncio.sleep(0)
        draining = asyncio.ensure_future(server.drain(grace=20))
        for number, outcome in enumerate(await asyncio.gather(*crossing, return_exceptions=True)):
            if isinstance(outcome, RpcError):
                assert outcome.code is StatusCode.UNAVAILABLE
                assert not outcome.maybe_executed
            else:
                assert outcome == number
        service.gate.set()
        assert await holding == "holding"
        assert await draining

    run_on(scenario)


def test_pushes_in_flight_finish_too(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(Waiting())
        client = await bench.client(server, service)
        await client.call("waiting.now")
        (peer,) = server.peers
        pushing = asyncio.ensure_future(peer.call("waiting.wait", "push"))
        await service.happened("push", "began")
        draining = asyncio.ensure_future(server.drain(grace=20))
        await until(lambda: client.state is not ChannelState.READY)
        service.gate.set()
        assert await pushing == "push"
        assert await draining
        with pytest.raises(RpcError) as caught:
            await peer.call("waiting.now")
        assert caught.value.code is StatusCode.UNAVAILABLE

    run_on(scenario)


def test_new_calls_go_to_the_successor(run_on: Ground) -> None:
    """A new server takes the address over while the old one finishes: nobody is refused."""

    async def scenario(bench: Bench) -> None:
        old, new = Waiting(), Waiting()
        server = await bench.serve(old)
        client = await bench.client(server)
        calling = asyncio.ensure_future(client.call("waiting.wait", "old"))
        await old.happened("old", "began")
        url = url_of(server)
        draining = asyncio.ensure_future(server.drain(grace=20))
        await asyncio.sleep(0)  # the old one listens no more
        await bench.serve(new, url=url)
        await until(lambda: client.state is not ChannelState.READY or len(bench.connected) == 2)
        newer = asyncio.ensure_future(client.call("waiting.wait", "new"))
        await new.happened("new", "began")
        assert not calling.done()
        new.gate.set()
        assert await newer == "new"
        old.gate.set()
        assert await calling == "old"
        assert await draining
        assert old.entries("new") == new.entries("old") == []

    run_on(scenario)


def test_draining_can_be_cancelled_and_closing_is_still_possible(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Waiting()
        server = await bench.serve(service)
        client = await bench.client(server)
        calling = asyncio.ensure_future(client.call("waiting.wait", "a"))
        await service.happened("a", "began")
        draining = asyncio.ensure_future(server.drain(grace=20))
        await asyncio.sleep(0)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        assert not calling.done()
        await server.close()
        assert "cancelled" in service.entries("a")
        with pytest.raises(RpcError):
            await calling

    run_on(scenario)


def test_a_rolling_restart_loses_no_call() -> None:
    """Two servers behind one name take turns; a client that repeats what is safe to repeat never fails."""
    with World(seed=5) as world:
        node, clients = world.node("server"), world.node("client")
        served: list[int] = []
        drained: list[bool] = []

        async def serve_in_turns() -> None:
            previous: Server | None = None
            for generation in range(5):
                server = Server([Waiting()])
                server.on_connect(lambda peer, number=generation: served.append(number))
                if previous is not None:
                    draining = asyncio.ensure_future(previous.drain(grace=10))
                    await asyncio.sleep(0)
                await server.listen("tcp://0.0.0.0:7070")
                if previous is not None:
                    drained.append(await draining)
                previous = server
                await asyncio.sleep(2)  # a connection that lasts for one is made again at once
            assert previous is not None
            await previous.serve_forever()

        async def call() -> tuple[int, int]:
            repeated = 0
            async with Client("tcp://server:7070") as client:
                await client.call("waiting.now")
                loop = asyncio.get_running_loop()
                number = 0
                while loop.time() < 12:
                    number += 1
                    while True:
                        try:
                            assert await client.call("waiting.now", number, timeout=5) == number
                            break
                        except RpcError as error:
                            assert error.code is StatusCode.UNAVAILABLE
                            assert not error.maybe_executed
                            repeated += 1
                            await asyncio.sleep(0.01)
            return number, repeated

        node.spawn(serve_in_turns)
        number, repeated = world.run_until(clients.spawn(call))
        assert number > 500
        assert repeated < 50
        assert sorted(set(served)) == [0, 1, 2, 3, 4]
        assert drained == [True] * 4


def test_a_plain_client_that_does_not_close_is_no_unfinished_call(run_on_real: Ground) -> None:
    """It was told by the end of the stream; that it keeps its own end open is no call in flight."""
    import socket

    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Waiting())
        with socket.create_connection((server.addresses[0].host, server.addresses[0].port)):
            await until(lambda: bench.connected)
            assert await server.drain(grace=0.05)
        assert not server.peers

    run_on_real(scenario)
