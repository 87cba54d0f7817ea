"""Streams between nodes: what TCP shows to programs."""

from __future__ import annotations

import asyncio
import random

import pytest
from sim_streams import PORT, ByteMachine, Stream, call, connect, echo, listen, serve, serve_echo

from helianthus.drivers.address import Address
from helianthus.drivers.errors import (
    AddressInUse,
    AddressNotAvailable,
    ConnectionRefused,
    ConnectionReset,
    TimedOut,
    WriteTimeout,
)
from helianthus.protocols.machine import Closing
from helianthus.sim import World


def pair(world: World) -> tuple[Stream, Stream]:
    """A connection from b to a, made without a coroutine."""
    listener, accepted = listen(world.node("a").driver)
    client = call(world.node("b").driver, "a")
    world.run_until(lambda: client.link and accepted)
    listener.close()
    return client, accepted[0]


def bulk(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# -- connecting ----------------------------------------------------------------------------------


def test_plain_machines_talk_without_a_coroutine() -> None:
    with World() as world:
        client, server = pair(world)
        client.say(b"hello")
        world.run_until(lambda: server.received == b"hello")
        server.say(b"world")
        world.run_until(lambda: client.received == b"world")
        assert client.link is not None
        assert client.link.peer_address == f"a:{PORT}"
        assert client.link.local_address.startswith("b:")
        assert server.link is not None
        assert server.link.peer_address == client.link.local_address
        assert server.link.local_address == client.link.peer_address


def test_handlers_run_inside_their_nodes_loop() -> None:
    with World() as world:
        client, server = pair(world)
        client.say(b"hello")
        client.end()
        world.run_until(lambda: server.eof)
        server.end()
        world.run_until(lambda: client.closed and server.closed)
        assert set(client.loops) == {world.node("b").loop}
        assert set(server.loops) == {world.node("a").loop}


def test_connecting_takes_a_round_trip() -> None:
    with World(latency=(0.1, 0.1)) as world:
        _client, _ = pair(world)
        assert world.now == pytest.approx(0.3)  # the acceptor hears of it with the third segment


def test_refused_after_a_round_trip() -> None:
    with World(latency=(0.1, 0.1)) as world:
        world.node("a")
        client = call(world.node("b").driver, "a")
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, ConnectionRefused)
        assert client.link is None
        assert world.now == pytest.approx(0.2)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "a"])
def test_a_node_reaches_itself(host: str) -> None:
    with World() as world:
        driver = world.node("a").driver
        listener, accepted = listen(driver, "localhost", 0)
        client = call(driver, host, listener.address.port)
        world.run_until(lambda: client.link and accepted)
        assert world.now < 0.001
        client.say(b"me")
        world.run_until(lambda: accepted[0].received == b"me")


def test_host_names_have_no_case() -> None:
    with World() as world:
        listen(world.node("Server").driver)
        client = call(world.node("b").driver, "server")
        world.run_until(lambda: client.link)
        for name in ("SERVER", "0.0.0.0", "two words", "a:b", ""):
            with pytest.raises(ValueError, match=r"case only|means a node itself|cannot stand"):
                world.node(name)


def test_an_unknown_host() -> None:
    with World() as world:
        client = call(world.node("b").driver, "nowhere")
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, AddressNotAvailable)


def test_listening_twice_and_elsewhere() -> None:
    with World() as world:
        world.node("b")
        driver = world.node("a").driver
        listener, _ = listen(driver, port=PORT)
        with pytest.raises(AddressInUse):
            listen(driver, port=PORT)
        with pytest.raises(AddressNotAvailable):
            listen(driver, host="b")
        listener.close()
        listen(driver, host="a", port=PORT)


def test_a_connection_made_as_the_listener_closes_is_reset() -> None:
    with World(latency=(0.1, 0.1)) as world:
        listener, accepted = listen(world.node("a").driver)
        client = call(world.node("b").driver, "a")
        world.run(until=0.15)  # the handshake's answer is on its way
        listener.close()
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, ConnectionReset)
        assert accepted == []


def test_connecting_over_a_partition_is_tried_again() -> None:
    with World() as world:
        _listener, accepted = listen(world.node("a").driver)
        world.node("b")
        world.partition("a", "b")
        client = call(world.node("b").driver, "a")
        world.run(until=2.5)
        assert client.link is None
        world.heal()
        world.run_until(lambda: client.link and accepted)
        assert 3.0 < world.now < 3.1  # the retries come after 1, 3, 7… seconds


@pytest.mark.parametrize("one_way", [("a", "b"), ("b", "a"), None])
def test_connecting_times_out(one_way: tuple[str, str] | None) -> None:
    with World() as world:
        listen(world.node("a").driver)
        world.node("b")
        if one_way is None:
            world.crash("a")
        else:
            world.partition(*one_way, one_way=True)
        client = call(world.node("b").driver, "a")
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, TimedOut)
        assert world.now == 127.0


def test_an_aborted_attempt_is_over_at_once() -> None:
    with World() as world:
        _listener, accepted = listen(world.node("a").driver)
        stream = Stream()
        link = world.node("b").driver.connect(Address("a", PORT), stream.machine, stream)
        link.abort()
        world.run()
        assert stream.closed
        assert stream.error is None
        assert accepted == []


def test_an_acceptor_that_fails_refuses_one_connection_only() -> None:
    with World() as world:
        node = world.node("a")
        accepted: list[Stream] = []

        def accept(peer: str) -> tuple[ByteMachine, Stream]:
            if not accepted:
                accepted.append(Stream())
                raise ValueError("not you")
            accepted.append(Stream())
            return accepted[-1].machine, accepted[-1]

        node.driver.listen(Address("a", PORT), accept)
        first = call(world.node("b").driver, "a")
        with pytest.raises(ValueError, match="not you"):
            world.run_until(lambda: first.closed)
        world.run_until(lambda: first.closed)
        assert isinstance(first.error, ConnectionReset)
        second = call(world.node("b").driver, "a")
        world.run_until(lambda: second.link and len(accepted) == 2)


# -- bytes ---------------------------------------------------------------------------------------


def test_streams_are_cut_and_joined_anyhow(sim_seeds: range) -> None:
    cuts = joins = 0
    for seed in sim_seeds:
        with World(seed, splitting=0.5) as world:
            client, server = pair(world)
            said = [bytes([65 + number]) * 20 for number in range(20)]
            for data in said:
                client.say(data)
                world.run(until=world.now + 0.0004)
            world.run_until(lambda server=server: len(server.received) == 400)
            assert server.received == b"".join(said)
            cuts += sum(len(chunk) < 20 for chunk in server.chunks)
            joins += sum(len(chunk) > 20 for chunk in server.chunks)
    assert cuts
    assert joins


def test_input_is_given_from_a_buffer_that_is_used_again() -> None:
    with World(splitting=0.0) as world:
        client, server = pair(world)
        client.say(b"first")
        world.run_until(lambda: server.received == b"first")
        client.say(b"other")
        world.run_until(lambda: server.received == b"firstother")
        assert bytes(server.machine.kept[0]) == b"other"  # a machine must copy what it keeps


def test_latency_is_within_its_range_and_keeps_order() -> None:
    with World(seed=5, latency=(0.01, 0.03), splitting=0.0) as world:
        client, server = pair(world)
        took: list[float] = []
        for number in range(100):
            began = world.now
            client.say(b"x")
            world.run_until(lambda number=number: len(server.received) == number + 1)
            took.append(world.now - began)
        assert min(took) >= 0.01 - 1e-9
        assert max(took) <= 0.03 + 1e-9
        assert max(took) - min(took) > 0.01


def test_a_link_has_its_own_settings() -> None:
    with World(latency=(0.001, 0.001), splitting=0.0) as world:
        client, server = pair(world)
        world.link("b", "a", one_way=True, latency=(0.5, 0.5))
        began = world.now
        client.say(b"slow")
        world.run_until(lambda: server.received)
        assert world.now - began == pytest.approx(0.5)
        server.say(b"fast")
        world.run_until(lambda: client.received)
        assert world.now - began == pytest.approx(0.501)
        assert world.link("b", "a").latency == (0.5, 0.5)
        with pytest.raises(TypeError):
            world.link("a", "b", colour="blue")
        with pytest.raises(ValueError, match="latency"):
            world.link("a", "b", latency=(2, 1))
        with pytest.raises(ValueError, match="probability"):
            world.link("a", "b", loss=1.5)
        with pytest.raises(ValueError, match="no node 'c'"):
            world.link("a", "c", loss=0.5)


def test_bandwidth_takes_time() -> None:
    with World(latency=(0.001, 0.001), bandwidth=100_000) as world:
        client, server = pair(world)
        data = bulk(200_000)
        client.say(data)
        world.run_until(lambda: len(server.received) == len(data))
        assert server.received == data
        assert 2.0 < world.now < 2.2


def test_a_slow_node_is_slow_until_it_is_not() -> None:
    with World() as world:
        client, server = pair(world)
        world.slow("a", 10_000)
        data = bulk(500_000)
        client.say(data)
        world.run(until=10.0)
        assert 80_000 < len(server.received) < 110_000
        world.slow("a", None)
        world.run(until=12.0)
        assert server.received == data
        with pytest.raises(ValueError, match="more than zero"):
            world.slow("a", 0)


def test_a_delay_is_added_to_the_latency() -> None:
    with World(latency=(0.001, 0.001), splitting=0.0) as world:
        client, server = pair(world)
        world.delay("a", "b", 2.0)
        began = world.now
        client.say(b"x")
        world.run_until(lambda: server.received)
        assert world.now - began == pytest.approx(2.001)


def test_lost_segments_of_a_stream_are_late_only() -> None:
    with World(seed=2, loss=0.3) as world:
        client, server = pair(world)
        data = bulk(300_000)
        client.say(data)
        world.run_until(lambda: len(server.received) == len(data))
        assert server.received == data


# -- back-pressure --------------------------------------------------------------------------------


def test_a_peer_that_does_not_read_stops_the_sender() -> None:
    with World() as world:
        client, server = pair(world)
        server.read(False)
        data = bulk(1_000_000)
        client.say(data)
        world.run(until=5.0)
        assert client.link is not None
        assert 1_000_000 - client.link.unsent <= 2 * 64 * 1024
        assert server.received == b""
        taken = client.link.unsent
        world.run(until=10.0)
        assert client.link.unsent == taken
        server.read(True)
        world.run_until(lambda: len(server.received) == len(data))
        assert server.received == data
        assert client.link.unsent == 0


def test_window_and_send_buffer_are_settings() -> None:
    with World(window=1000, send_buffer=500) as world:
        client, server = pair(world)
        server.read(False)
        client.say(bulk(10_000))
        world.run(until=5.0)
        assert client.link is not None
        assert client.link.unsent == 8_500
        server.read(True)
        world.run_until(lambda: len(server.received) == 10_000)


def test_a_peer_that_never_reads_is_dropped() -> None:
    with World() as world:
        client, server = pair(world)
        server.read(False)
        client.say(bulk(1_000_000))
        began = world.now
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, WriteTimeout)
        assert world.now - began == pytest.approx(30.0, abs=1.0)
        world.run_until(lambda: server.closed)
        assert isinstance(server.error, ConnectionReset)


# -- the end ---------------------------------------------------------------------------------------


def test_a_graceful_end_delivers_everything_first() -> None:
    with World() as world:
        client, server = pair(world)
        data = bulk(500_000)
        client.say(data)
        client.end()
        world.run_until(lambda: server.eof)
        assert server.received == data
        server.end()
        world.run_until(lambda: client.closed and server.closed)
        assert (client.error, server.error) == (None, None)


def test_one_half_may_end_before_the_other() -> None:
    with World() as world:
        client, server = pair(world)
        client.say(b"question")
        client.end(Closing.HALF)
        world.run_until(lambda: server.eof)
        assert not client.closed
        data = bulk(200_000)
        server.say(data)
        server.end()
        world.run_until(lambda: client.eof)
        assert client.received == data
        world.run_until(lambda: client.closed and server.closed)
        assert (client.error, server.error) == (None, None)


def test_an_abort_with_an_error_resets_the_peer() -> None:
    with World() as world:
        client, server = pair(world)
        assert client.link is not None
        client.link.abort(ValueError("enough"))
        world.run_until(lambda: client.closed and server.closed)
        assert isinstance(client.error, ValueError)
        assert isinstance(server.error, ConnectionReset)


def test_data_to_a_closed_end_is_answered_with_a_reset() -> None:
    with World() as world:
        client, server = pair(world)
        assert client.link is not None
        client.link.abort()  # no error: a plain close, as of a program that ends
        world.run_until(lambda: server.eof)
        assert not server.closed
        server.say(b"are you there?")
        world.run_until(lambda: server.closed)
        assert isinstance(server.error, ConnectionReset)


def test_closing_with_unread_input_resets() -> None:
    with World() as world:
        client, server = pair(world)
        server.read(False)
        client.say(b"unheard")
        world.run(until=world.now + 1)
        assert server.link is not None
        server.link.abort()
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, ConnectionReset)


def test_reset_breaks_every_connection_between_two_nodes() -> None:
    with World() as world:
        client, server = pair(world)
        other = call(world.node("c").driver, "a")
        _, accepted = listen(world.node("a").driver)
        world.run_until(lambda: other.link and accepted)
        world.reset("a", "b")
        world.run_until(lambda: client.closed and server.closed)
        assert isinstance(client.error, ConnectionReset)
        assert isinstance(server.error, ConnectionReset)
        assert not other.closed
        assert not accepted[0].closed


def test_closing_a_driver_ends_its_links_and_listeners() -> None:
    with World() as world:
        client, server = pair(world)
        driver = world.node("a").driver
        listen(driver)
        driver.close()
        driver.close()
        world.run_until(lambda: client.eof and server.closed)
        late = call(world.node("b").driver, "a")
        world.run_until(lambda: late.closed)
        assert isinstance(late.error, ConnectionRefused)
        with pytest.raises(RuntimeError, match="closed"):
            listen(driver)


# -- partitions --------------------------------------------------------------------------------------


def test_a_partition_holds_streams_up_and_healing_lets_them_go_on() -> None:
    with World() as world:
        client, server = pair(world)
        world.partition("a", "b")
        client.say(b"held")
        server.say(b"up")
        world.run(until=5.0)
        assert (client.received, server.received) == (b"", b"")
        world.heal("a", "b")
        world.run_until(lambda: client.received == b"up" and server.received == b"held")
        assert world.now < 15.0  # within the back-off
        assert not client.closed


def test_a_one_way_partition_lets_the_other_way_pass() -> None:
    with World() as world:
        client, server = pair(world)
        world.partition("a", "b", one_way=True)
        client.say(b"passes")
        server.say(b"does not")
        world.run(until=5.0)
        assert server.received == b"passes"
        assert client.received == b""
        world.heal()
        world.run_until(lambda: client.received == b"does not")


def test_what_is_under_way_when_a_partition_begins_is_sent_again_in_order() -> None:
    with World(latency=(0.1, 0.5)) as world:
        client, server = pair(world)
        said = b""
        for number in range(30):
            if number == 10:
                world.partition("b", "a", one_way=True)
            if number == 20:
                world.heal()
            said += b"%d " % number
            client.say(b"%d " % number)
            world.run(until=world.now + 0.05)
        world.run_until(lambda: len(server.received) == len(said))
        assert server.received == said


@pytest.mark.parametrize("one_way", [False, True])
def test_a_long_partition_times_the_sender_out(one_way: bool) -> None:
    with World() as world:
        client, server = pair(world)
        world.partition("a", "b", one_way=one_way)  # one way: what arrives is not acknowledged
        client.say(b"x")
        world.run_until(lambda: client.closed)
        assert isinstance(client.error, TimedOut)
        assert 924 < world.now < 1100
        assert not server.closed  # half-open: it has not tried to send
        world.heal()
        server.say(b"still there?")
        world.run_until(lambda: server.closed)
        assert isinstance(server.error, ConnectionReset)


def test_a_window_update_lost_in_a_partition_does_not_stall_the_stream() -> None:
    with World() as world:
        client, server = pair(world)
        server.read(False)
        data = bulk(500_000)
        client.say(data)
        world.run(until=2.0)
        world.partition("a", "b")
        server.read(True)
        world.run(until=3.0)
        assert len(server.received) < len(data)
        world.heal()
        world.run_until(lambda: len(server.received) == len(data))
        assert server.received == data


# -- coroutines ---------------------------------------------------------------------------------------


def test_coroutines_on_both_sides() -> None:
    async def talk() -> bytes:
        stream = await connect("a")
        for number in range(100):
            stream.say(b"%03d" % number)
            assert await stream.take(3) == b"%03d" % number
        stream.end()
        await stream.wait_closed()
        assert stream.error is None
        return b"done"

    with World(seed=1) as world:
        server = world.node("a").spawn(serve(echo))
        assert world.run_until(world.node("b").spawn(talk())) == b"done"
        assert not server.done


def test_many_clients_at_once() -> None:
    async def talk(number: int) -> None:
        await asyncio.sleep(number * 0.001)
        stream = await connect("server")
        stream.say(bulk(number))
        assert await stream.take(number) == bulk(number)
        stream.end()
        await stream.wait_closed()

    with World(seed=1) as world:
        world.node("server").spawn(serve_echo)
        spawned = [world.node(f"client{number}").spawn(talk(number)) for number in range(1, 100)]
        world.run_until(lambda: all(each.done for each in spawned))
