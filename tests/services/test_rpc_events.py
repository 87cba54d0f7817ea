"""What clients tell of their connections and calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rpc_bench import Bench, Ground, until

import helianthus
from helianthus import Peer, RpcError, Service, current_call, method


class Host(Service):
    def __init__(self) -> None:
        self.gate = asyncio.Event()

    @method
    async def wait(self) -> str:
        await self.gate.wait()
        return "done"

    @method
    async def ask_back(self) -> Any:
        call = current_call()
        assert call is not None
        return await call.peer.call("guest.fail")


class Guest(Service):
    @method
    def fail(self) -> None:
        raise KeyError("no luck")


def test_a_client_tells_of_its_connections(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Host())
        client = helianthus.connect(str(server.addresses[0]))
        told: list[Any] = []
        client.on_connect(lambda peer: told.append(("connect", peer)))
        client.on_disconnect(lambda peer, error: told.append(("disconnect", peer, error)))
        async with client:
            await until(lambda: len(told) == 1)
            assert await client.call("node.services")
            next(iter(server.peers)).abort()
            await until(lambda: len(told) == 3)
            assert await client.call("node.services")
        await until(lambda: len(told) == 4)
        assert [what for what, *_ in told] == ["connect", "disconnect", "connect", "disconnect"]
        assert told[0][1] is told[1][1] is not told[2][1] is told[3][1]
        assert isinstance(told[0][1], Peer)
        assert told[3][2] is None

    run_on(scenario)


def test_an_attempt_that_fails_is_no_connection(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Host())
        url = str(server.addresses[0])
        await server.close()
        told: list[Any] = []
        client = helianthus.connect(url)
        client.on_connect(told.append)
        client.on_disconnect(lambda peer, error: told.append(peer))
        async with client:
            with pytest.raises(RpcError):
                await client.call("host.wait")
        assert told == []

    run_on(scenario)


def test_a_client_tells_of_errors_and_slow_calls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        host = Host()
        server = await bench.serve(host)
        client = await bench.client(server, Guest())
        failed: list[tuple[str, str]] = []
        slow: list[str] = []

        @client.on_error
        def on_error(peer: Peer, name: str, error: Exception) -> None:
            failed.append((name, type(error).__name__))

        client.on_slow_call(lambda peer, name, seconds: slow.append(name), after=0.02)
        with pytest.raises(RpcError):
            await client.call("host.ask_back")
        assert failed == [("guest.fail", "KeyError")]
        call = client.call("host.wait")
        await asyncio.sleep(0.03)  # time has to pass: that is what is measured
        host.gate.set()
        await call
        assert "host.wait" in slow

    run_on(scenario)
