"""Datagrams between nodes: lost, late, twice, out of order."""

from __future__ import annotations

import itertools

import pytest
from sim_streams import DatagramTalk

from helianthus.drivers.address import Address
from helianthus.drivers.base import Driver
from helianthus.drivers.datagram_link import DatagramLink
from helianthus.drivers.datagram_options import DatagramOptions
from helianthus.drivers.errors import (
    AddressInUse,
    AddressNotAvailable,
    ConnectionRefused,
    MessageTooLarge,
    PermissionDenied,
    Unreachable,
)
from helianthus.sim import World

COUNT = 1000
DEFAULTS = DatagramOptions()


def bind(
    driver: Driver, host: str = "0.0.0.0", port: int = 5353, options: DatagramOptions = DEFAULTS
) -> tuple[DatagramTalk, DatagramLink[object]]:
    talk = DatagramTalk()
    return talk, driver.bind(Address(host, port), talk, talk, options)


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
        world.run()
        ((error, address),) = sender.errors
        assert isinstance(error, MessageTooLarge)
        assert "70000 bytes; the largest has 65507" in str(error)
        assert address == ("a", 5353)
        assert [data for data, _ in sender.received] == [b"small"]


def test_to_nobody() -> None:
    """A name that means nothing is known at once; that nobody is bound is told by the other node."""
    with World() as world:
        world.node("b")
        sender, link = bind(world.node("a").driver)
        sender.output.extend((b"lost", to) for to in [("nowhere", 1), ("a", 1), ("b", 1)])
        link.wake()
        world.run()
        assert [(type(error), address) for error, address in sender.errors] == [
            (AddressNotAvailable, ("nowhere", 1)),
            (ConnectionRefused, ("a", 1)),
            (ConnectionRefused, ("b", 1)),
        ]
        assert (link.statistics.sent, link.statistics.dropped, link.statistics.errors) == (2, 1, 3)


def test_nobody_answers_for_a_node_that_is_down_or_cut_off() -> None:
    with World() as world:
        world.node("b")
        sender, link = bind(world.node("a").driver)

        def send() -> None:
            sender.output.append((b"lost", ("b", 1)))
            link.wake()
            world.run(until=world.now + 1.0)

        world.partition("b", "a", one_way=True)
        send()
        world.heal()
        world.crash("b")
        send()
        assert sender.errors == []
        world.restart("b")
        send()
        assert len(sender.errors) == 1


def test_groups_and_broadcast() -> None:
    """Each node that has joined gets one; to all only those may send who have said so."""
    with World() as world:
        group = DatagramOptions(groups=["239.1.2.3"])
        members = [bind(world.node(name).driver, options=group)[0] for name in "bc"]
        outsider, _ = bind(world.node("d").driver)
        sender, link = bind(world.node("a").driver, port=0)
        sender.output.append((b"group", ("239.1.2.3", 5353)))
        sender.output.append((b"all", ("255.255.255.255", 5353)))
        link.wake()
        world.run()
        source = ("a", link.local_address.port)
        assert [member.received for member in members] == [[(b"group", source)]] * 2
        assert outsider.received == []
        assert isinstance(sender.errors[0][0], PermissionDenied)
        crier, link = bind(world.node("a").driver, port=5353, options=DatagramOptions(broadcast=True))
        crier.output.append((b"all", ("255.255.255.255", 5353)))
        link.wake()
        world.run()
        for hearer in (*members, outsider, crier):
            assert hearer.received[-1] == (b"all", ("a", 5353))


def test_datagrams_to_a_group_that_stay_near() -> None:
    with World() as world:
        group = ["239.1.2.3"]
        far, _ = bind(world.node("b").driver, options=DatagramOptions(groups=group))
        for options, hears in (
            (DatagramOptions(groups=group, multicast_ttl=0), "here"),
            (DatagramOptions(groups=group, multicast_loop=False), "there"),
        ):
            near, link = bind(world.node("a").driver, options=options)
            near.output.append((hears.encode(), ("239.1.2.3", 5353)))
            link.wake()
            world.run()
            assert [data for data, _ in near.received] == ([b"here"] if hears == "here" else [])
            link.close()
        assert [data for data, _ in far.received] == [b"there"]


def test_a_connected_socket_hears_its_peer_only() -> None:
    with World() as world:
        server, server_link = bind(world.node("a").driver)
        options = DatagramOptions(peer=Address("a", 5353))
        client, client_link = bind(world.node("b").driver, port=7, options=options)
        stranger, stranger_link = bind(world.node("c").driver)
        for talk, link in ((server, server_link), (stranger, stranger_link)):
            talk.output.append((b"hello", ("b", 7)))
            link.wake()
        client.output.append((b"to the peer", ("a", 5353)))
        client.output.append((b"to another", ("c", 5353)))
        client_link.wake()
        world.run()
        assert client.received == [(b"hello", ("a", 5353))]
        assert server.received == [(b"to the peer", ("b", 7))]
        assert isinstance(client.errors[0][0], Unreachable)
        assert [address for _, address in stranger.errors] == [("b", 7)]


def test_shared_ports() -> None:
    with World() as world:
        driver = world.node("a").driver
        shared = DatagramOptions(reuse_port=True)
        first, _ = bind(driver, options=shared)
        with pytest.raises(AddressInUse):
            bind(driver)
        second, _ = bind(driver, options=shared)
        talks = [bind(world.node("b").driver, port=0) for _ in range(40)]
        for talk, link in talks * 2:
            talk.output.append((b"x", ("a", 5353)))
            link.wake()
            world.run()
        assert len(first.received) + len(second.received) == 80
        assert first.received
        assert second.received
        assert not {source for _, source in first.received} & {source for _, source in second.received}


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
