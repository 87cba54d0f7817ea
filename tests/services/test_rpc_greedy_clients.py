"""Clients that take more than they give: what they cost is bounded, and the others are served meanwhile."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgpack
import pytest
from rpc_bench import Bench, Ground, until
from rpc_raw import HELLO, NOTIFICATION, REQUEST, RESPONSE, raw_client
from rpc_sockets import BadClient, with_extensions, witnessed

from helianthus import Client, KeepAlive, Peer, RpcError, RpcLimits, Server, Service, StatusCode, method
from helianthus.errors import LimitExceeded, WriteTimeout
from helianthus.sim import World

MIB = 1024 * 1024


class Probe(Service):
    def __init__(self) -> None:
        self.made = 0
        self.running = 0
        self.most = 0
        self.ended = 0
        self.gate = asyncio.Event()

    @method
    def add(self, a: int, b: int) -> int:
        return a + b

    @method
    def big(self, size: int) -> bytes:
        self.made += 1
        return bytes(size)

    @method
    async def bigs(self, size: int) -> AsyncIterator[bytes]:
        try:
            while True:
                self.made += 1
                yield bytes(size)
        finally:
            self.ended += 1

    @method
    async def ignore(self, items: AsyncIterator[Any]) -> int:
        await self.gate.wait()
        return len([item async for item in items])

    @method
    async def hold(self, data: bytes) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
            self.ended += 1
        return len(data)


def resident() -> int:
    """Bytes of memory that the process has; 0 where only other ways than Linux's would tell."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def held_for(peer: Peer) -> int:
    """Bytes that wait for a peer."""
    return peer.session.queued + (peer.link.unsent if peer.link is not None else 0)


async def settled(measure: Callable[[], int]) -> int:
    """Wait until a number has stopped to change, and give it."""
    same = 0
    before = measure()
    while same < 20:
        await asyncio.sleep(0.002)
        now = measure()
        same = same + 1 if now == before else 0
        before = now
    return before


async def bad_peer(bench: Bench, server: Server, bad: BadClient) -> Peer:
    """The server's end of a bad client's connection."""
    host, port = bad.sock.getsockname()
    address = f"{host}:{port}"
    await until(lambda: any(peer.address == address for peer in server.peers))
    return next(peer for peer in server.peers if peer.address == address)


# -- who never reads -----------------------------------------------------------------------------------------


def test_big_answers_for_somebody_who_never_reads(run_on_real: Ground) -> None:
    """A request at a time: reading pauses, so that the answers stop long before memory does."""

    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe)
        async with witnessed(bench, server) as witness, BadClient(server, receive_buffer=4096) as bad:
            peer = await bad_peer(bench, server, bad)
            before = resident()
            asking = asyncio.ensure_future(ask(bad, MIB - 100, 120))
            await settled(lambda: probe.made)
            assert probe.made < 50
            assert held_for(peer) < 4 * MIB
            assert not peer.session.wants_read
            assert resident() - before < 64 * MIB
            await witness.more(50)
            # and now it reads after all, and gets everything
            for _ in range(120):
                kind, _, error, result = await bad.hear()
                assert (kind, error, len(result)) == (RESPONSE, None, MIB - 100)
            await asking
            assert probe.made == 120
            assert resident() - before < 128 * MIB

    run_on_real(scenario)


async def ask(bad: BadClient, size: int, times: int) -> None:
    """Ask for large answers, each in a segment of its own as long as the server reads them."""
    for number in range(times):
        await bad.say([REQUEST, number, "probe.big", [size]])
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def test_many_big_answers_at_once(run_on_real: Ground) -> None:
    """They are asked for in one read, and made one by one as there is room."""

    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe)
        async with witnessed(bench, server) as witness, BadClient(server, receive_buffer=4096) as bad:
            peer = await bad_peer(bench, server, bad)
            before = resident()
            await bad.say(*([REQUEST, number, "probe.big", [MIB]] for number in range(900)))
            await settled(lambda: probe.made)
            assert probe.made < 50
            assert held_for(peer) < 8 * MIB
            assert resident() - before < 64 * MIB
            await witness.more(20)
            for number in range(30):
                assert (await bad.hear())[1] == number
            bad.reset()
            await until(lambda: len(server.peers) == 1)
            assert probe.made < 200

    run_on_real(scenario)


def test_small_answers_without_end_end_the_connection(run_on_real: Ground) -> None:
    """What must be answered at once - a refusal - is bounded by what may be queued at all."""

    async def scenario(bench: Bench) -> None:
        limits = RpcLimits(max_calls=10, max_queued_output=MIB, pause_reading_at=8 * MIB)
        server = await bench.serve(Probe(), limits=limits)
        async with witnessed(bench, server) as witness, BadClient(server, receive_buffer=4096) as bad:
            flood = b"".join(
                msgpack.packb([REQUEST, number, "probe.hold", [b""]]) for number in range(100_000)
            )
            sending = asyncio.ensure_future(bad.send(flood))
            await until(lambda: bench.disconnected)
            ((name, error),) = bench.take_errors()
            assert name == ""
            assert isinstance(error, LimitExceeded)
            assert error.limit == "max_queued_output"
            await witness.more(20)
            await sending

    run_on_real(scenario)


def test_a_stream_for_somebody_who_never_reads(run_on_real: Ground) -> None:
    """However much credit the peer gives, the producer waits for the transport."""

    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe)
        async with witnessed(bench, server) as witness, BadClient(server, receive_buffer=4096) as bad:
            generous = [NOTIFICATION, "helianthus.hello", [{"version": 1, "credit": 1_000_000}]]
            await bad.say(generous, [REQUEST, 1, "probe.bigs", [100_000], {"stream": 1}])
            peer = await bad_peer(bench, server, bad)
            await settled(lambda: probe.made)
            assert held_for(peer) < 4 * MIB
            assert probe.made < 200
            await witness.more(50)
            bad.reset()
            await until(lambda: probe.ended == 1)
            await until(lambda: len(server.peers) == 1)

    run_on_real(scenario)


def test_many_clients_that_never_read(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe)
        before = resident()
        async with witnessed(bench, server) as witness:
            bad = [await BadClient(server, receive_buffer=4096).connect() for _ in range(20)]
            asking = [asyncio.ensure_future(ask(one, 200_000, 200)) for one in bad]
            await settled(lambda: probe.made)
            assert sum(map(held_for, server.peers)) < 20 * 3 * MIB
            assert resident() - before < 256 * MIB
            await witness.more(50)
            for one in bad:
                one.reset()
            await asyncio.gather(*asking, return_exceptions=True)
            await until(lambda: len(server.peers) == 1)

    run_on_real(scenario)


def test_somebody_who_reads_slowly_gets_everything(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe)
        async with witnessed(bench, server), BadClient(server, receive_buffer=4096) as bad:
            await bad.say(*([REQUEST, number, "probe.big", [50_000]] for number in range(40)))
            loop = asyncio.get_running_loop()
            unpacker = msgpack.Unpacker(max_buffer_size=2**30)
            answers: list[Any] = []
            while len(answers) < 40:
                unpacker.feed(await loop.sock_recv(bad.sock, 4000))
                answers.extend(unpacker)
                await asyncio.sleep(0)
            assert [msgid for _, msgid, _, _ in answers] == list(range(40))
            assert all(len(result) == 50_000 for _, _, _, result in answers)

    run_on_real(scenario)


# -- who sends more than can be worked on --------------------------------------------------------------------


def test_requests_that_are_held_are_bounded_in_bytes(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe, limits=RpcLimits(max_request_bytes=MIB))
        async with witnessed(bench, server), BadClient(server) as bad:
            await with_extensions(bad)
            await bad.say(*([REQUEST, 2 * n + 1, "probe.hold", [bytes(100_000)]] for n in range(50)))
            refused = [await bad.hear() for _ in range(40)]
            assert {error[0] for _, _, error, _ in refused} == {StatusCode.RESOURCE_EXHAUSTED}
            assert all("max_request_bytes" in error[1] for _, _, error, _ in refused)
            probe.gate.set()
            assert sorted([(await bad.hear())[3] for _ in range(10)]) == [100_000] * 10
            await bad.say([REQUEST, 201, "probe.hold", [bytes(100_000)]])
            assert await bad.hear() == [RESPONSE, 201, None, 100_000]

    run_on_real(scenario)


def test_items_that_nobody_takes_stop_the_reading(run_on_real: Ground) -> None:
    async def scenario(bench: Bench) -> None:
        probe = Probe()
        limits = RpcLimits(max_buffered_items=MIB, stream_window=100_000)
        server = await bench.serve(probe, limits=limits)
        async with witnessed(bench, server) as witness, BadClient(server) as bad:
            await bad.say(HELLO, [REQUEST, 1, "probe.ignore", [], {"stream": 3}])
            peer = await bad_peer(bench, server, bad)
            before = resident()
            item = msgpack.packb([4, 1, bytes(50_000)])
            sending = asyncio.ensure_future(bad.send(item * 1000))
            await settled(lambda: peer.session._buffered_items)
            assert peer.session._buffered_items < 3 * MIB
            assert not sending.done()
            assert not peer.session.wants_read
            assert resident() - before < 128 * MIB  # the fifty of ours are in it
            await witness.more(20)
            probe.gate.set()
            await sending
            await bad.say([5, 1])
            while (message := await bad.hear())[0] != RESPONSE:
                pass
            assert message == [RESPONSE, 1, None, 1000]

    run_on_real(scenario)


def test_notifications_that_are_held_are_bounded(run_on_real: Ground) -> None:
    """Nobody can be told of what is dropped but the server's own log, and that once."""

    async def scenario(bench: Bench) -> None:
        probe = Probe()
        server = await bench.serve(probe, limits=RpcLimits(max_calls=50))
        async with witnessed(bench, server), BadClient(server) as bad:
            for _ in range(3):
                flood = msgpack.packb([NOTIFICATION, "probe.hold", [b"x"]]) * 2000
                await bad.send(flood)
                await bad.say([REQUEST, 1, "probe.add", [1, 1]])
                assert await bad.hear() == [RESPONSE, 1, None, 2]
                assert probe.most == 50
                ((name, error),) = bench.take_errors()
                assert name == "probe.hold"
                assert isinstance(error, RpcError)
                assert error.code is StatusCode.RESOURCE_EXHAUSTED
                probe.gate.set()
                await until(lambda: probe.running == 0)
                probe.gate.clear()
                await bad.say([NOTIFICATION, "probe.hold", [b"x"]])  # there is room again
                await until(lambda: probe.running == 1)
                probe.gate.set()
                await until(lambda: probe.running == 0)
                probe.gate.clear()

    run_on_real(scenario)


def test_a_server_that_never_reads_does_not_fill_the_client(run_on: Ground) -> None:
    """The same the other way round: calls wait instead of filling memory."""
    from rpc_raw import RawServer

    async def scenario(bench: Bench) -> None:
        server = RawServer()
        client = await bench.client(server.url, extensions=False)
        bench.at_the_end(server.close)
        end = await server.accepted()
        end.machine.wants_read = False
        assert end.link is not None
        end.link.wake()
        calls = [asyncio.ensure_future(client.call("far.swallow", bytes(500_000))) for _ in range(200)]
        await until(lambda: client._peer is not None)
        peer = client._peer
        assert peer is not None
        held = await settled(lambda: held_for(peer))
        assert held < 16 * MIB
        assert sum(call.done() for call in calls) == 0
        server.close()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    run_on(scenario)


# -- over time: on the simulator's clock ---------------------------------------------------------------------


def simulate(scenario: Callable[[World, Server, Probe], Any], *, seed: int = 1, **options: Any) -> Any:
    """Run a scenario on a node of its own, beside one that serves and one whose calls must succeed."""
    with World(seed=seed) as world:
        probe = Probe()
        reported: list[tuple[str, Exception]] = []
        server = Server([probe], **options)
        server.on_error(lambda peer, name, error: reported.append((name, error)))
        witness = {"calls": 0}

        async def serve() -> None:
            await server.listen("tcp://0.0.0.0:7070")
            await server.serve_forever()

        async def look_on() -> None:
            async with Client("tcp://server:7070") as client:
                while True:
                    assert await client.call("probe.add", 1, 1, timeout=1) == 2
                    witness["calls"] += 1
                    await asyncio.sleep(0.5)

        world.node("server").spawn(serve())
        world.node("witness").spawn(look_on())
        bad = world.node("bad").spawn(scenario(world, server, probe))
        result = world.run_until(bad)
        assert witness["calls"] > world.now  # two a second, at the least one
        assert [error for name, error in reported if name] == []
        return result


async def connect() -> Any:
    from helianthus.drivers.address import Address

    return await raw_client(Address("server", 7070))


def test_one_byte_a_second() -> None:
    async def scenario(world: World, server: Server, probe: Probe) -> None:
        bad = await connect()
        data = msgpack.packb([REQUEST, 1, "probe.add", [1, 1]])
        for byte in data:
            bad.send(bytes([byte]))
            await asyncio.sleep(1)
        assert await bad.hear() == [RESPONSE, 1, None, 2]
        for byte in data[:-1]:
            bad.send(bytes([byte]))
            await asyncio.sleep(1)
        bad.end()
        await bad.hear_end()

    simulate(scenario)


def test_a_peer_that_takes_nothing_is_dropped_after_a_while() -> None:
    """The driver's write deadline: thirty seconds without progress."""

    async def scenario(world: World, server: Server, probe: Probe) -> None:
        gone: list[tuple[float, Exception | None]] = []
        loop = asyncio.get_running_loop()
        server.on_disconnect(lambda peer, error: gone.append((loop.time(), error)))
        bad = await connect()
        bad.machine.wants_read = False
        bad.link.wake()
        bad.say(*([REQUEST, number, "probe.big", [400_000]] for number in range(10)))
        asked = loop.time()
        while not gone:
            await asyncio.sleep(0.1)
        when, error = gone[0]
        assert isinstance(error, WriteTimeout)
        assert 30 <= when - asked < 31

    simulate(scenario)


def test_a_peer_that_takes_a_little_now_and_then_is_kept() -> None:
    async def scenario(world: World, server: Server, probe: Probe) -> None:
        bad = await connect()
        bad.say(*([REQUEST, number, "probe.big", [200_000]] for number in range(3)))
        for number in range(3):
            while not bad.heard:
                bad.machine.wants_read = True
                bad.link.wake()
                await asyncio.sleep(0.01)
                bad.machine.wants_read = False
                bad.link.wake()
                await asyncio.sleep(20)
            kind, msgid, _, result = await bad.hear()
            assert (kind, msgid, len(result)) == (RESPONSE, number, 200_000)

    simulate(scenario)


def test_half_open_clients_are_found_by_keep_alive() -> None:
    """Their nodes are gone without a word; only those with the extensions can be asked."""

    async def scenario(world: World, server: Server, probe: Probe) -> None:
        for number in range(10):
            node = world.node(f"gone{number}")
            node.spawn(vanish(number))
        await asyncio.sleep(2)
        assert probe.running == 10
        for number in range(10):
            world.crash(f"gone{number}")
        for _ in range(100):
            await asyncio.sleep(1)
            if len(server.peers) == 1:
                break
        assert len(server.peers) == 1
        assert (probe.running, probe.ended) == (0, 10)

    async def vanish(number: int) -> None:
        async with Client("tcp://server:7070") as client:
            await client.call("probe.hold", bytes(number))

    simulate(scenario, keep_alive=KeepAlive(time=20, timeout=10, without_calls=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_line_slows_down_nobody_else(seed: int) -> None:
    async def scenario(world: World, server: Server, probe: Probe) -> None:
        world.slow("bad", 20_000)
        async with Client("tcp://server:7070") as client:
            got = 0
            async for item in client.stream("probe.bigs", 10_000):
                got += len(item)
                if got >= 500_000:
                    break
            assert await client.call("probe.add", 2, 2, timeout=60) == 4

    simulate(scenario, seed=seed)
