"""Timeouts that are none: refused in the same words wherever one is taken, and nothing else is harmed."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from rpc_bench import LOCAL, Bench, Ground
from rpc_waiting import Waiting
from sockets_pairs import pair

from helianthus import CallPolicy, Client, Middleware, connect_sync
from helianthus.drivers.choose import running_driver
from helianthus.sockets import CancelToken, UdpSocket, cancel_scope, connect, listen

WRONG = [math.nan, -1, -0.001, -math.inf, "5", [1]]

refused = pytest.raises(ValueError, match="timeout must be a number of seconds, 0 or more, not")


async def refuse(operation: Callable[[Any], Awaitable[Any]]) -> None:
    """Each of them is refused."""
    for wrong in WRONG:
        with refused:
            await operation(wrong)


async def time_goes_on() -> None:
    """The driver still has its timers."""
    rung = asyncio.Event()
    driver = running_driver()
    driver.call_at(driver.now() + 0.01, rung.set)
    await asyncio.wait_for(rung.wait(), 5)


def test_of_streams(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with pair() as (near, far), await listen(LOCAL) as listener:
            await far.send_all(b"there")
            await near.recv_exactly(1)  # from now on, something is there at once
            await refuse(lambda wrong: near.recv(timeout=wrong))
            await refuse(lambda wrong: near.recv_exactly(100, timeout=wrong))
            await refuse(lambda wrong: near.recv_until(b"!", timeout=wrong))
            await refuse(lambda wrong: near.send_all(b"x", timeout=wrong))
            await refuse(lambda wrong: near.send(b"x", timeout=wrong))
            await refuse(lambda wrong: near.flush(timeout=wrong))
            await refuse(lambda wrong: near.sendfile(__file__, timeout=wrong))
            await refuse(lambda wrong: near.close(timeout=wrong))
            await refuse(lambda wrong: listener.accept(timeout=wrong))
            await refuse(lambda wrong: listen(LOCAL, timeout=wrong))
            await refuse(lambda wrong: connect(str(listener.address), timeout=wrong))
            assert not near.closed
            await near.send_all(b"hello", timeout=math.inf)
            assert await far.recv_exactly(5, timeout=math.inf) == b"hello"
            assert await near.recv_exactly(4, timeout=1e300) == b"here"
        await time_goes_on()

    run_on(scenario)


def test_of_datagrams(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        async with await UdpSocket.bind("udp://127.0.0.1:0") as sock:
            await refuse(lambda wrong: sock.recv_from(timeout=wrong))
            await refuse(lambda wrong: sock.send_to(b"x", sock.local_address, timeout=wrong))
            await refuse(lambda wrong: sock.close(timeout=wrong))
            await refuse(lambda wrong: UdpSocket.bind("udp://127.0.0.1:0", timeout=wrong))
            assert not sock.closed
        await time_goes_on()

    run_on(scenario)


def test_of_dtls(run_on: Ground) -> None:
    dtls_pairs = pytest.importorskip("dtls_pairs")

    async def scenario(bench: Bench) -> None:
        async with dtls_pairs.pair() as (near, far, listener):
            await far.send(b"there")
            await refuse(lambda wrong: near.recv(timeout=wrong))
            await refuse(lambda wrong: near.send(b"x", timeout=wrong))
            await refuse(lambda wrong: listener.accept(timeout=wrong))
            assert await near.recv(timeout=math.inf) == b"there"
        await time_goes_on()

    run_on(scenario)


def test_of_scopes_and_tokens(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        for wrong in WRONG:
            with refused:
                cancel_scope(timeout=wrong)
            with pytest.raises(ValueError, match="seconds must be a number of seconds, 0 or more, not"):
                CancelToken.after(wrong)
        for wrong in (math.nan, "5", None):
            with pytest.raises(ValueError, match="when must be a time in seconds, not"):
                CancelToken.at(wrong)  # type: ignore[arg-type]
        with cancel_scope(timeout=math.inf):
            async with pair() as (near, far):
                await near.send_all(b"x")
                assert await far.recv() == b"x"
        await time_goes_on()

    run_on(scenario)


async def call_with_token(client: Client, timeout: Any) -> None:
    await client.call("waiting.now", 1, timeout=timeout, cancel=CancelToken())


class Looking(Middleware):
    """Makes calls go the long way."""


def test_of_calls(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Waiting())
        client = await bench.client(server)
        long_way = await bench.client(server, middleware=[Looking()])
        for one in (client, long_way):
            await refuse(lambda wrong, one=one: one.call("waiting.now", 1, timeout=wrong))  # not connected
            assert await one.call("waiting.now", 1, timeout=math.inf) == 1
            await refuse(lambda wrong, one=one: one.call("waiting.now", 1, timeout=wrong))
            await refuse(lambda wrong, one=one: one.batch([("waiting.now", 1)], timeout=wrong))
            await refuse(lambda wrong, one=one: one.notify("waiting.now", 1, timeout=wrong))
            await refuse(functools.partial(call_with_token, one))
            for wrong in WRONG:
                with refused:
                    one.stream("waiting.now", timeout=wrong)
            assert await one.call("waiting.now", 2, timeout=20) == 2
        plain = client.with_policy(CallPolicy())
        await refuse(lambda wrong: plain.call("waiting.now", 1, timeout=wrong))
        (peer, *_) = server.peers
        await refuse(lambda wrong: peer.call("x", timeout=wrong))
        with cancel_scope(timeout=20):
            await refuse(lambda wrong: client.call("waiting.now", 1, timeout=wrong))
        await time_goes_on()
        assert bench.errors == []

    run_on(scenario)


def test_of_blocking_calls(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        server = await bench.serve(Waiting())

        def call() -> None:
            with connect_sync(str(server.addresses[0])) as client:
                for wrong in WRONG:
                    with refused:
                        client.call("waiting.now", 1, timeout=wrong)
                    with refused:
                        client.batch([("waiting.now", 1)], timeout=wrong)
                assert client.call("waiting.now", 1, timeout=math.inf) == 1

        await asyncio.to_thread(call)

    run_on_real(scenario)
