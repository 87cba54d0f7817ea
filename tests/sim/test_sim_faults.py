"""Crashes, restarts, drifting clocks and chaos."""

from __future__ import annotations

import asyncio
import gc

import pytest
from sim_streams import PORT, Stream, call, connect, listen, serve_echo

from helianthus.drivers.address import Address
from helianthus.drivers.errors import ConnectionReset, TransportError
from helianthus.sim import NodeCrashed, NodeDown, World

# -- clocks ---------------------------------------------------------------------------------------


def test_clocks_drift_and_have_their_own_zero() -> None:
    with World() as world:
        true, fast, slow = (
            world.node("true"),
            world.node("fast", drift=50e-6, offset=1000.0),
            world.node("slow", drift=-0.5),
        )
        ended: dict[str, float] = {}

        async def sleep(name: str) -> None:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await asyncio.sleep(100)
            assert loop.time() - began == pytest.approx(100, abs=1e-6)
            ended[name] = world.now

        for node in (true, fast, slow):
            node.spawn(sleep(node.name))
        world.run()
        assert ended["true"] == 100.0
        assert ended["fast"] == pytest.approx(100 / (1 + 50e-6))
        assert ended["slow"] == pytest.approx(200)
        assert fast.now == pytest.approx(1000 + 200 * (1 + 50e-6))
        assert fast.driver.now() == fast.now


def test_a_clock_with_a_great_offset_still_fires_its_timers() -> None:
    with World() as world:
        node = world.node("a", drift=3e-5, offset=1.7e9)
        fired: list[float] = []
        for number in range(50):
            when = node.now + number * 0.0137
            node.driver.call_at(when, lambda when=when: fired.append(node.driver.now() - when))
        spawned = node.spawn(asyncio.sleep(1))
        world.run_until(spawned)
        assert len(fired) == 50
        assert min(fired) >= 0
        assert max(fired) < 1e-6


def test_an_infinite_deadline_is_never() -> None:
    with World() as world:
        driver = world.node("a").driver
        driver.call_at(float("inf"), lambda: pytest.fail("it has come"))
        driver.loop.call_at(5.0, lambda: None)
        world.run()
        assert world.now == 5.0


def test_impossible_clocks_are_refused() -> None:
    with World() as world, pytest.raises(ValueError, match="backwards"):
        world.node("a", drift=-1.0)


# -- crashes ------------------------------------------------------------------------------------------


def test_nothing_that_a_crashed_node_does_reaches_anybody() -> None:
    with World() as world:
        _, accepted = listen(world.node("a").driver)
        ends: list[str] = []

        async def talk() -> None:
            stream = await connect("a")
            try:
                stream.say(b"before")
                await asyncio.sleep(10)
            finally:
                ends.append("finally")
                stream.say(b"after")
                stream.end()

        spawned = world.node("b").spawn(talk())
        world.run(until=5.0)
        world.crash("b")
        world.crash("b")
        world.run(until=20.0)
        assert accepted[0].received == b"before"
        assert not accepted[0].eof
        assert not accepted[0].closed
        assert ends == []
        assert spawned.done
        with pytest.raises(NodeCrashed, match=r"node 'b' crashed before .*talk"):
            spawned.result()
        with pytest.raises(NodeDown, match=r"world\.restart\('b'\)"):
            _ = world.node("b").driver
    gc.collect()


def test_a_peer_of_a_crashed_node_finds_out_by_a_reset_after_the_restart() -> None:
    with World() as world:
        listen(world.node("a").driver)
        client = call(world.node("b").driver, "a")
        world.run_until(lambda: client.link)
        world.crash("a")
        world.run(until=10.0)
        assert not client.closed  # half-open: it has nothing to send
        client.say(b"hello?")
        world.run(until=20.0)
        assert not client.closed  # nobody answers yet
        world.restart("a")
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, ConnectionReset)


def test_a_sender_with_a_full_window_finds_out_too() -> None:
    with World() as world:
        world.node("b").driver.write_deadline = 1e6
        _, accepted = listen(world.node("a").driver)
        client = call(world.node("b").driver, "a")
        world.run_until(lambda: client.link and accepted)
        accepted[0].read(False)
        client.say(bytes(1_000_000))
        world.run(until=5.0)
        world.restart("a")
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, ConnectionReset)


def test_functions_are_called_again_upon_restart() -> None:
    with World() as world:
        node = world.node("a")
        starts: list[float] = []
        drivers: list[object] = []

        async def main() -> float:
            starts.append(world.now)
            drivers.append(node.driver)
            await asyncio.sleep(1.0)
            return world.now

        once = node.spawn(main())
        again = node.spawn(main)
        world.run(until=0.5)
        world.crash("a")
        world.run(until=2.0)
        assert once.done
        assert not again.done
        assert "spawn the function to have it started again" in world.timeline()
        world.restart("a")
        assert world.run_until(again) == 3.0
        assert starts == [0.0, 0.0, 2.0]
        assert drivers[2] is not drivers[0]
        world.restart("a")  # of a node that is up: it crashes first
        world.run()
        assert starts == [0.0, 0.0, 2.0, 3.0]
        assert again.result() == 4.0


def test_a_node_may_crash_itself() -> None:
    with World() as world:
        went_on: list[str] = []

        async def main() -> None:
            world.crash("a")
            await asyncio.sleep(0)
            went_on.append("it went on")

        world.node("a").spawn(main())
        world.run()
        assert went_on == []
        assert not world.node("a").up


def test_a_node_may_crash_another() -> None:
    with World() as world:
        victim = world.node("a").spawn(asyncio.sleep(10))

        async def main() -> None:
            world.crash("a")
            await asyncio.sleep(1)
            world.restart("a")

        world.node("b").spawn(main())
        world.run()
        assert isinstance(victim.exception(), NodeCrashed)
        assert world.node("a").up


def test_a_crash_forgives_what_failed_before_it() -> None:
    async def fail() -> None:
        raise KeyError("lost")

    with World() as world:
        node = world.node("a")
        node.spawn(fail())

        async def crash() -> None:
            await asyncio.sleep(0.5)
            world.crash("a")

        world.node("b").spawn(crash())
        world.run()


def test_a_restarted_node_draws_anew() -> None:
    with World() as world:
        node = world.node("a")
        first = node.driver.rng.random()
        assert first != world.node("b").driver.rng.random()
        world.restart("a")
        assert node.driver.rng.random() != first


def test_connections_of_a_crashed_life_do_not_leak_into_the_next() -> None:
    with World() as world:
        node = world.node("a")
        node.spawn(serve_echo)
        client = call(world.node("b").driver, "a")
        world.run_until(lambda: client.closed or client.link)
        if client.closed:
            client = call(world.node("b").driver, "a")
            world.run_until(lambda: client.link)
        client.say(b"x")
        world.run_until(lambda: client.received == b"x")
        client.say(b"y")
        world.restart("a")
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, ConnectionReset)
        assert client.received == b"x"


# -- chaos -----------------------------------------------------------------------------------------------

MESSAGES = 40


async def _persist(world: World, received: list[bytes]) -> None:
    """Have every message echoed, over as many connections as it takes."""
    while len(received) < MESSAGES:
        try:
            stream = await connect("server")
        except TransportError:
            await asyncio.sleep(0.1)
            continue
        try:
            await _talk(stream, received)
        except (TransportError, EOFError, TimeoutError):
            if stream.link is not None:
                stream.link.abort()


async def _talk(stream: Stream, received: list[bytes]) -> None:
    while len(received) < MESSAGES:
        message = b"message %04d " % len(received) * (1 + len(received) % 7)
        stream.say(message)
        async with asyncio.timeout(5.0):
            echoed = await stream.take(len(message))
        assert echoed == message, "the stream was damaged"
        received.append(echoed)
        await asyncio.sleep(0.2)
    stream.end()
    await stream.wait_closed()


def _survive(seed: int) -> str:
    with World(seed) as world:
        received: list[list[bytes]] = [[], []]
        world.node("server").spawn(serve_echo)
        spawned = [
            world.node(f"client{number}").spawn(_persist(world, received[number])) for number in range(2)
        ]
        world.chaos(until=10.0, crashable=["server"])
        world.run(until=10.0)
        for each in spawned:
            world.run_until(each, timeout=300.0)
        assert all(len(each) == MESSAGES for each in received)
        return world.digest()


def test_an_echo_service_recovers_from_chaos(sim_seeds: range) -> None:
    digests = {_survive(seed) for seed in sim_seeds}
    assert len(digests) == len(sim_seeds)
    assert _survive(sim_seeds[0]) in digests


def test_a_stream_through_chaos_is_whole_or_broken(sim_seeds: range) -> None:
    """Without crashes and resets every byte arrives in order, however bad the network is."""
    for seed in sim_seeds:
        _send_through_chaos(seed)


def test_chaos_breaks_some_streams_and_spares_others() -> None:
    assert {_send_through_chaos(seed) for seed in range(30)} == {True, False}


def _send_through_chaos(seed: int) -> bool:
    with World(seed) as world:
        _, accepted = listen(world.node("a").driver)
        client = call(world.node("b").driver, "a")
        world.run_until(lambda: client.link and accepted)
        server = accepted[0]
        for node in world.nodes:
            node.driver.write_deadline = 1e6
        chaos = world.chaos(until=20.0)
        data = world.node("b").driver.rng.randbytes(200_000)
        for start in range(0, len(data), 10_000):
            client.say(data[start : start + 10_000])
            world.run(until=world.now + 1.0)
        client.end()
        world.run_until(lambda: server.eof or server.closed)
        assert data.startswith(server.received)
        if "reset" not in chaos.kinds:
            assert server.received == data
        return server.received == data


def test_chaos_draws_different_faults() -> None:
    drawn = set()
    for seed in range(50):
        with World(seed) as world:
            for name in "abc":
                world.node(name)
            chaos = world.chaos(until=5.0, crashable=["a"])
            drawn.update(chaos.kinds)
            world.run(until=5.0)
            assert all(node.up for node in world.nodes)
            world.node("b").driver.listen(Address("b", PORT), lambda peer: pytest.fail("nobody connects"))
    assert drawn == {"partition", "one-way partition", "reset", "delay", "slow", "crash"}


def test_chaos_among_some_nodes_leaves_the_others_alone() -> None:
    for seed in range(30):
        with World(seed) as world:
            for name in "abcd":
                world.node(name)
            world.chaos(until=5.0, nodes=["a", "b"])
            world.run(until=6.0)
            faults = [line for line in world.timeline().splitlines() if "partition" in line]
            assert not any(" c" in line or " d" in line for line in faults if "chaos" not in line)
            with pytest.raises(ValueError, match="no node"):
                world.chaos(until=9.0, nodes=["e"])


def test_chaos_with_a_single_node() -> None:
    for seed in range(20):
        with World(seed) as world:
            world.node("a").spawn(serve_echo)
            world.chaos(until=5.0, crashable=["a"])
            world.run(until=6.0)
            assert world.node("a").up
