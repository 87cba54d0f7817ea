"""Datagrams between nodes: lost, late, twice, out of order."""

from __future__ import annotations

import itertools

import pytest
from sim_streams import DatagramTalk

from helianthus.drivers.address import Address
from helianthus.drivers.base import Driver
from helianthus.drivers.datagram_link import DatagramLink
from helianthus.drivers.errors import (
    AddressInUse,
    AddressNotAvailable,
    DriverUnavailable,
    MessageTooLarge,
)
from helianthus.sim import World

COUNT = 1000


def bind(
    driver: Driver, host: str = "0.0.0.0", port: int = 5353
) -> tuple[DatagramTalk, DatagramLink[object]]:
    talk = DatagramTalk()
    return talk, driver.bind(Address(host, port), talk, talk)


def send_many(world: World, count: int = COUNT) -> list[int]:
    """Send numbers from a to b, spread over time; gives them as they arrived."""
    receiver, _ = bind(world.node("b").driver)
    sender, link = bind(world.node("a").driver, port=0)
    for number in range(count):
        sender.output.append((b"%d" % number, ("b", 5353)))
        link.wake()
        world.run(until=world.now + 0.0005)
    world.run(until=world.now + 5.0)
    return [int(data) for data, _ in receiver.received]


def test_datagrams_arrive_in_order_on_a_perfect_link() -> None:
    with World() as world:
        assert send_many(world) == list(range(COUNT))


def test_loss() -> None:
    with World(loss=0.2) as world:
        arrived = send_many(world)
        assert 700 < len(arrived) < 900
        assert arrived == sorted(arrived)


def test_duplicates() -> None:
    with World(duplicate=0.2) as world:
        arrived = send_many(world)
        assert 1100 < len(arrived) < 1300
        assert set(arrived) == set(range(COUNT))


def test_reordering() -> None:
    with World(reorder=0.2) as world:
        arrived = send_many(world)
        assert sorted(arrived) == list(range(COUNT))
        late = sum(a > b for a, b in itertools.pairwise(arrived))
        assert late > 50


def test_a_link_in_one_direction() -> None:
    with World() as world:
        world.node("a"), world.node("b")
        world.link("b", "a", loss=1.0, one_way=True)
        assert len(send_many(world, 100)) == 100
        world.link("a", "b", loss=1.0, one_way=True)
        world.node("b").driver.close()


def test_partitions_and_nodes_that_are_down_lose_datagrams() -> None:
    with World() as world:
        receiver, _ = bind(world.node("b").driver)
        sender, link = bind(world.node("a").driver)

        def send(data: bytes) -> None:
            sender.output.append((data, ("b", 5353)))
            link.wake()
            world.run(until=world.now + 1.0)

        world.partition("a", "b", one_way=True)
        send(b"lost")
        world.heal()
        send(b"arrives")
        world.crash("b")
        send(b"lost")
        world.restart("b")
        send(b"nobody is bound")
        again, _ = bind(world.node("b").driver)
        send(b"arrives again")
        assert receiver.received == [(b"arrives", ("a", 5353))]
        assert again.received == [(b"arrives again", ("a", 5353))]


def test_replies_go_to_where_datagrams_came_from() -> None:
    with World() as world:
        server, server_link = bind(world.node("a").driver)
        client, client_link = bind(world.node("b").driver, port=0)
        client.output.append((b"ping", ("a", 5353)))
        client_link.wake()
        world.run()
        ((data, source),) = server.received
        server.output.append((data.upper(), source))
        server_link.wake()
        world.run()
        assert client.received == [(b"PING", ("a", 5353))]


def test_a_node_reaches_itself() -> None:
    with World() as world:
        talk, link = bind(world.node("a").driver)
        talk.output.append((b"me", ("127.0.0.1", 5353)))
        talk.output.append((b"me", ("a", 5353)))
        link.wake()
        world.run()
        assert [data for data, _ in talk.received] == [b"me", b"me"]


def test_many_datagrams_from_one_turn_are_sent_in_batches() -> None:
    with World(latency=(0.001, 0.001)) as world:
        receiver, _ = bind(world.node("b").driver)
        sender, link = bind(world.node("a").driver)
        sender.output.extend((b"%d" % number, ("b", 5353)) for number in range(900))
        link.wake()
        world.run()
        assert len(receiver.received) == 900
        assert receiver.batches == [900]


def test_a_flooded_node_drops_datagrams() -> None:
    with World(latency=(0.001, 0.001)) as world:
        receiver, _ = bind(world.node("b").driver)
        sender, link = bind(world.node("a").driver)
        sender.output.extend((b"%d" % number, ("b", 5353)) for number in range(3000))
        link.wake()
        world.run()
        assert len(receiver.received) == 1024


def test_a_datagram_that_is_too_large_is_reported() -> None:
    with World() as world:
        sender, link = bind(world.node("a").driver)
        sender.output.append((bytes(70_000), ("a", 5353)))
        sender.output.append((b"small", ("a", 5353)))
        link.wake()
        with pytest.raises(MessageTooLarge, match="65507"):
            world.run()
        assert [data for data, _ in sender.received] == [b"small"]


def test_to_nobody_is_silent() -> None:
    with World() as world:
        sender, link = bind(world.node("a").driver)
        sender.output.append((b"lost", ("nowhere", 1)))
        sender.output.append((b"lost", ("a", 1)))
        link.wake()
        world.run()


def test_ports() -> None:
    with World() as world:
        world.node("b")
        driver = world.node("a").driver
        _, link = bind(driver)
        assert link.local_address.port == 5353
        with pytest.raises(AddressInUse):
            bind(driver)
        with pytest.raises(AddressNotAvailable):
            bind(driver, host="b")
        link.close()
        link.close()
        assert link.closed
        bind(driver)
        assert bind(driver, port=0)[1].local_address.port >= 49152


def test_a_driver_without_datagrams_says_so() -> None:
    from helianthus.drivers.choose import driver

    native = driver("epoll")
    try:
        with pytest.raises(DriverUnavailable, match="epoll driver has no datagrams"):
            bind(native)
    finally:
        native.close()


def test_a_machine_that_fails_keeps_its_socket() -> None:
    class Faulty(DatagramTalk):
        def on_events(self, events: list[object]) -> None:
            if events[0][0] == b"bad":  # type: ignore[index]
                raise ValueError("a bad datagram")
            super().on_events(events)

    with World() as world:
        talk = Faulty()
        world.node("b").driver.bind(Address("b", 5353), talk, talk)
        sender, link = bind(world.node("a").driver)
        for data in (b"bad", b"good"):
            sender.output.append((data, ("b", 5353)))
            link.wake()
            if data == b"bad":
                with pytest.raises(ValueError, match="bad datagram"):
                    world.run()
        world.run()
        assert [data for data, _ in talk.received] == [b"good"]
