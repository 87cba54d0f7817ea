"""A thousand clients lose the same server, and come back without trampling it down."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from helianthus import Client, PoolOptions, Server, Service, method
from helianthus.drivers.choose import running_driver
from helianthus.services.rpc import ChannelState
from helianthus.sim import World

NODES, PER_NODE = 20, 50
CLIENTS = NODES * PER_NODE

KILLED, DOWN, ENOUGH = 5.0, 30.0, 30.0
"""When the server is killed, for how long, and how many seconds later all have to be back: the
longest delay that can be under way then, 1.6 ** 6 s, and its jitter."""

BIN = 0.1
"""Seconds of one bar of a histogram."""


class Storm:
    """The world of the storm, and when what happened in it.

    Attributes:
        tried: Virtual seconds of each attempt to connect.
        came: Of each connection that the server has accepted.
    """

    def __init__(self, seed: int, **options: Any) -> None:
        self.world = World(seed=seed)
        self.tried: list[float] = []
        self.came: list[float] = []
        self.clients: list[Client] = []
        self._options = options
        self._count_attempts()
        self.world.node("server").spawn(self._serve())
        for number in range(NODES):
            self.world.node(f"node{number}").spawn(self._use())

    def _count_attempts(self) -> None:
        network = self.world._network
        connect = network.connect

        def counted(*args: Any) -> None:
            self.tried.append(self.world.now)
            connect(*args)

        network.connect = counted  # type: ignore[method-assign]  # to look on

    async def _serve(self) -> None:
        await self._listen()
        await asyncio.sleep(KILLED)
        running_driver().abort_all()  # type: ignore[attr-defined]  # what a system does for a killed process
        await asyncio.sleep(DOWN)
        await self._listen()
        await asyncio.Event().wait()

    async def _listen(self) -> None:
        server = Server([Ping()])
        server.on_connect(lambda peer: self.came.append(self.world.now))
        await server.listen("tcp://0.0.0.0:7070")

    async def _use(self) -> None:
        for _ in range(PER_NODE):
            client = Client("tcp://server:7070", **self._options)
            self.clients.append(await client.__aenter__())

    @property
    def ready(self) -> int:
        """Clients that have a connection."""
        return sum(client.state is ChannelState.READY for client in self.clients)


class Ping(Service):
    name = "ping"

    @method
    def ping(self) -> None: ...


def histogram(times: list[float], after: float) -> Counter[int]:
    """How many came in each bin after a time."""
    return Counter(int((time - after) / BIN) for time in times if time >= after)


@pytest.mark.parametrize("pool", [PoolOptions(), PoolOptions(max_age=3600.0)], ids=["one", "pool"])
def test_a_reconnect_storm_spreads_out(pool: PoolOptions) -> None:
    storm = Storm(seed=1, pool=pool)
    with storm.world as world:
        world.run(until=KILLED - 1)
        assert storm.ready == CLIENTS
        world.run(until=KILLED + DOWN)
        assert storm.ready == 0
        world.run(until=KILLED + DOWN + ENOUGH)
        assert storm.ready == CLIENTS
        world.run(until=world.now + 1000)
        assert storm.ready == CLIENTS

    tried = histogram(storm.tried, KILLED)
    shown = {round(place * BIN, 1): count for place, count in sorted(tried.items())}
    assert tried[0] == CLIENTS, "the one retry that comes at once"
    assert max(count for place, count in tried.items() if place > 0) <= CLIENTS * 0.4, shown
    assert max(count for place, count in tried.items() if place * BIN >= 8) <= CLIENTS * 0.1, shown
    assert tried.total() <= 8 * CLIENTS, "1 + 7: that is all that half a minute has room for"

    back = histogram(storm.came, KILLED + DOWN)
    assert back.total() == CLIENTS, "each is accepted once"
    assert max(back.values()) <= CLIENTS * 0.05, back
    assert len(back) * BIN >= 5, "they come over many seconds"
