"""Servers whose clients take less than they are sent: wait, drop the oldest, or disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from rpc_bench import Bench, Ground, until

from helianthus import RpcError, RpcLimits, Service, StatusCode, method
from helianthus.drivers.errors import WriteTimeout
from helianthus.drivers.link_options import LinkOptions
from helianthus.errors import SlowConsumer

ITEM = b"x" * 1000
ROOM = 64 * 1024


class Ticker(Service):
    """Produces faster than anybody takes."""

    def __init__(self) -> None:
        self.produced = 0
        self.received: list[int] = []
        self.gate = asyncio.Event()

    @method
    async def ticks(self, count: int) -> AsyncIterator[list[int | bytes]]:
        for number in range(count):
            yield [number, ITEM]
            self.produced += 1

    @method
    async def collect(self, ticks: AsyncIterator[int]) -> int:
        """Takes nothing until told to; then all."""
        await self.gate.wait()
        self.received = [number async for number in ticks]
        return len(self.received)

    @method
    def add(self, a: int, b: int) -> int:
        return a + b


def test_block_makes_the_producer_wait(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Ticker()
        client = await bench.pair(service, slow_consumer="block")
        stream = client.stream("ticker.ticks", 2000)
        first = await anext(stream)
        assert first[0] == 0
        await until(lambda: service.produced >= 256)
        assert await client.call("ticker.add", 1, 2) == 3
        assert service.produced <= 1024
        assert [item[0] async for item in stream] == list(range(1, 2000))

    run_on(scenario)


def test_drop_oldest_brings_the_newest(run_on: Ground) -> None:
    """The producer never waits; whoever looks late finds what came last."""

    async def scenario(bench: Bench) -> None:
        service = Ticker()
        server = await bench.serve(service, slow_consumer="drop-oldest", max_pending=ROOM)
        client = await bench.client(server)
        stream = client.stream("ticker.ticks", 3000)
        assert (await anext(stream))[0] == 0
        await until(lambda: service.produced == 3000)
        assert await client.call("ticker.add", 1, 2) == 3  # the same connection
        taken = [item[0] async for item in stream]
        assert taken == sorted(set(taken))
        assert taken[-1] == 2999
        (peer,) = bench.connected
        dropped = peer.session.dropped_messages
        assert dropped == 3000 - 1 - len(taken) > 0
        (statistics,) = server.statistics().peers
        assert statistics.transport.dropped == dropped
        assert statistics.summary()["transport"]["dropped"] == dropped
        assert bench.driver.statistics().links.dropped == dropped

    run_on(scenario)


def test_disconnect_ends_the_connection(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Ticker()
        client = await bench.pair(service, slow_consumer="disconnect", max_pending=ROOM)
        stream = client.stream("ticker.ticks", 3000)
        await anext(stream)
        await until(lambda: bench.disconnected)
        errors = [error for _, error in bench.take_errors() if isinstance(error, SlowConsumer)]
        assert len(errors) == 1
        assert errors[0].limit == "max_pending"
        assert f"max_pending ({ROOM})" in str(errors[0])
        with pytest.raises(RpcError) as failure:
            async for _ in stream:
                pass
        assert failure.value.code is StatusCode.UNAVAILABLE
        assert service.produced < 3000
        assert await client.call("ticker.add", 1, 2) == 3  # over another connection

    run_on(scenario)


@pytest.mark.parametrize("policy", ["drop-oldest", "disconnect"])
def test_a_client_that_keeps_up_loses_nothing(run_on: Ground, policy: str) -> None:
    async def scenario(bench: Bench) -> None:
        client = await bench.pair(Ticker(), slow_consumer=policy)
        assert [item[0] async for item in client.stream("ticker.ticks", 2000)] == list(range(2000))
        (peer,) = bench.connected
        assert peer.session.dropped_messages == 0

    run_on(scenario)


def test_clients_have_the_policies_too(run_on: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        service = Ticker()

        server = await bench.serve(service)
        client = await bench.client(server, limits=RpcLimits(slow_consumer="drop-oldest", max_pending=2000))  # type: ignore[arg-type]
        stream = client.stream("ticker.collect")
        for number in range(5000):
            await stream.send(number)
        await stream.end()
        service.gate.set()
        count = await stream
        assert service.received == sorted(service.received)
        assert service.received[-1] == 4999
        assert 256 <= count < 5000

    run_on(scenario)


def test_a_flood_of_notifications_keeps_the_newest(run_on: Ground) -> None:
    heard: list[int] = []

    class Listener(Service):
        @method
        def news(self, number: int, text: bytes) -> None:
            heard.append(number)

    async def scenario(bench: Bench) -> None:
        heard.clear()
        server = await bench.serve(Ticker(), slow_consumer="drop-oldest", max_pending=ROOM)
        client = await bench.client(server, Listener())
        await client.call("ticker.add", 1, 2)
        (peer,) = bench.connected
        for number in range(500):  # in one turn, before the transport can take anything
            peer.notify("listener.news", number, ITEM)
        await until(lambda: heard and heard[-1] == 499)
        assert heard == list(range(500 - len(heard), 500))
        assert len(heard) == ROOM // (len(ITEM) + 22)
        assert peer.session.dropped_messages == 500 - len(heard)

    run_on(scenario)


def test_a_server_says_how_its_links_write(run_on: Ground) -> None:
    """A client that takes nothing at all is dropped after the server's own write deadline."""

    async def scenario(bench: Bench) -> None:
        options = LinkOptions(high_water=64 * 1024, low_water=16 * 1024, write_deadline=0.2)
        server = await bench.serve(Ticker(), slow_consumer="drop-oldest", link_options=options)
        client = await bench.client(server)
        await client.call("ticker.add", 1, 2)
        (peer,) = bench.connected
        assert peer.link is not None
        assert (peer.link._high, peer.link._low) == (64 * 1024, 16 * 1024)
        (link,) = [link for link in bench.driver._live_links() if link is not peer.link]
        link.machine._buffered_items = 10**9  # it reads no more, as a process that hangs
        link.wake()
        while not bench.disconnected:
            for _ in range(100):
                if not peer.closed:
                    peer.notify("listener.news", 0, ITEM * 100)
            await asyncio.sleep(0.01)
        ((_, error),) = bench.disconnected
        assert isinstance(error, WriteTimeout)
        assert "0.2 s (write_deadline)" in str(error)
        link.abort()

    run_on(scenario)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"slow_consumer": "wait"}, "slow_consumer must be one of block, drop-oldest, disconnect"),
        ({"max_pending": -1}, "max_pending"),
    ],
)
def test_bad_options(run_on: Ground, options: dict[str, object], error: str) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(ValueError, match=error):
            await bench.serve(Ticker(), **options)

    run_on(scenario)
