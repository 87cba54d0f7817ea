"""A peer that never reads costs bounded memory, however much it is sent, and holds nobody up."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from rpc_bench import Bench, Ground

from helianthus import Client, Service, method

MIB = 1024 * 1024

OFFERED = 64 * MIB
ITEM = 64 * 1024
MAX_PENDING = MIB

BOUND = {
    "block": 2 * (256 * 1024 + ITEM),  # SEND_UP_TO and one item, in the session and in the link
    "drop-oldest": 2 * MAX_PENDING,  # in the session and in the link
}
"""Bytes that may wait for a peer, by policy: docs/write-path.md says so."""

BESIDES = MIB
"""Bytes for everything else that the scenario takes meanwhile."""


class Flood(Service):
    def __init__(self) -> None:
        self.made = 0

    @method
    async def flood(self) -> AsyncIterator[bytes]:
        while self.made < OFFERED:
            self.made += ITEM
            yield bytes(ITEM)

    @method
    def add(self, a: int, b: int) -> int:
        return a + b


def stop_reading(client: Client, bench: Bench) -> None:
    """Have a client take nothing more from its socket, as a process that hangs."""
    ours = {peer.link for peer in bench.connected}
    (link,) = [link for link in bench.driver._live_links() if link not in ours]
    link.machine._buffered_items = 10**12
    link.wake()


@pytest.mark.parametrize("policy", ["block", "drop-oldest"])
def test_a_peer_that_never_reads_costs_bounded_memory(run_on: Ground, policy: str) -> None:
    async def scenario(bench: Bench) -> None:
        service = Flood()
        server = await bench.serve(service, slow_consumer=policy, max_pending=MAX_PENDING)
        slow = await bench.client(server)
        await slow.call("flood.add", 1, 2)
        (peer,) = bench.connected
        stop_reading(slow, bench)
        neighbour = await bench.client(server)
        await neighbour.call("flood.add", 1, 2)
        stream = slow.stream("flood.flood")
        asking = asyncio.ensure_future(anext(stream))
        gc.collect()
        tracemalloc.start()
        try:
            most = calls = 0
            link = peer.link
            assert link is not None
            while service.made < OFFERED and calls < 1000:
                assert await neighbour.call("flood.add", calls, 1) == calls + 1
                calls += 1
                most = max(most, peer.session.pending + link.unsent)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert ITEM < most <= BOUND[policy]
        assert peak <= BOUND[policy] + BESIDES
        assert link.high_mark <= BOUND[policy] // 2
        if policy == "block":
            assert service.made <= 8 * MIB  # with what the system buffers
        else:
            assert service.made == OFFERED
            assert peer.session.dropped_messages > (OFFERED - 16 * MIB) // ITEM
        asking.cancel()
        peer.abort()

    run_on(scenario)
