"""Sockets with a peer, and what comes back from where nobody is bound; on every driver."""

from __future__ import annotations

import time

import pytest
from datagrams import ROOM, WINE_FORGETS, Echo, Hearing, bind, closed_port, url
from peers import Peers
from platforms import Platform
from recording import in_time

from helianthus.drivers.address import Address
from helianthus.drivers.errors import AddressNotAvailable, ConnectionRefused, Unreachable

# -- one peer -------------------------------------------------------------------------------------------


def test_a_peer(platform: Platform) -> None:
    """There and back; the link knows both ends."""
    server = bind(platform, Echo())
    client = bind(platform, peer=url(server.address))
    assert client.link.peer_address == server.address
    client.say(b"hello", b"", b"again", to=server.address)
    platform.turn_until(lambda: len(client.machine.received) == 3)
    assert client.machine.received == [(data, server.address) for data in (b"hello", b"", b"again")]


def test_a_burst_to_a_peer(platform: Platform) -> None:
    server = bind(platform, Echo(), receive_buffer=ROOM)
    client = bind(platform, peer=url(server.address), receive_buffer=ROOM)
    datagrams = [b"%d" % number for number in range(1000)]
    client.say(*datagrams, to=server.address)
    platform.turn_until(lambda: len(client.machine.received) == 1000)
    assert client.machine.data == datagrams


def test_an_empty_host_takes_the_family_of_the_peer(platform: Platform) -> None:
    server = bind(platform, Echo())
    client = bind(platform, at=Address("", 0, "udp"), peer=url(server.address))
    client.say(b"x", to=server.address)
    platform.turn_until(lambda: client.machine.received)


def test_a_peer_by_its_name(platform: Platform) -> None:
    """What the machine sends may be addressed to the name, or to what it stands for."""
    server = bind(platform, Echo())
    peer = ("localhost", server.address[1])
    client = bind(platform, peer=url(peer))
    assert client.link.peer_address is not None
    client.say(b"x", to=peer)
    client.say(b"y", to=client.link.peer_address)
    platform.turn_until(lambda: len(client.machine.received) == 2)
    assert client.machine.data == [b"x", b"y"]
    assert client.machine.errors == []


def test_strangers_are_not_heard(platform: Platform) -> None:
    """Also those that send before the peer does."""
    server, stranger = bind(platform), bind(platform)
    client = bind(platform, peer=url(server.address))
    stranger.say(b"let me in", to=client.address)
    platform.turn_until(lambda: stranger.link.statistics.sent)
    server.say(b"hello", to=client.address)
    platform.turn_until(lambda: client.machine.received)
    platform.turn_until(in_time(platform.driver, 0.005))
    assert client.machine.received == [(b"hello", server.address)]


def test_nothing_goes_to_strangers(platform: Platform) -> None:
    """It is reported with the peer's name, and the rest is sent."""
    server, stranger = bind(platform), bind(platform)
    client = bind(platform, peer=url(server.address))
    client.say(b"lost", to=stranger.address)
    client.say(b"sent", to=server.address)
    platform.turn_until(lambda: server.machine.received)
    ((error, address),) = client.machine.errors
    assert isinstance(error, Unreachable)
    assert f"connected to {server.address[0]}:{server.address[1]}" in str(error)
    assert address == stranger.address
    assert stranger.machine.received == []
    assert client.link.statistics.dropped == 1


def test_a_peer_that_cannot_be_found(platform: Platform) -> None:
    with pytest.raises(AddressNotAvailable):
        bind(platform, peer="udp://no-such-host.invalid:7")


def test_a_socket_for_each_peer_at_one_address(socket_platform: Platform, peers: Peers) -> None:
    """As servers do that give each of their clients a socket: the kernel sorts what comes."""
    shared = {"reuse_address": True}
    socks = [peers.datagram_socket() for _ in range(3)]
    anybody = bind(socket_platform, **shared)
    at = anybody.link.local_address
    ends = [bind(socket_platform, Echo(), at=at, peer=url(sock.getsockname()), **shared) for sock in socks]
    for number, sock in enumerate(socks):
        sock.sendto(b"%d" % number, anybody.address)
    socket_platform.turn_until(lambda: all(end.machine.received for end in ends))
    assert [end.machine.data for end in ends] == [[b"0"], [b"1"], [b"2"]]
    workers = [peers.work(sock.recv, 10) for sock in socks]
    socket_platform.turn_until(lambda: all(worker.done() for worker in workers))
    assert [worker.result() for worker in workers] == [b"0", b"1", b"2"]
    assert anybody.machine.received == []


# -- nobody is bound there ------------------------------------------------------------------------------


def test_nobody_is_bound_at_the_peer(platform: Platform) -> None:
    """It is told as an event, with the peer, and the socket goes on: a later peer is heard."""
    if not platform.hears_of_nobody:
        pytest.skip(WINE_FORGETS)
    nobody = closed_port(platform)
    client = bind(platform, peer=url(nobody))
    for number in (1, 2):
        client.say(b"anybody?", to=nobody)
        platform.turn_until(lambda number=number: len(client.machine.errors) >= number)
    error, address = client.machine.errors[0]
    assert isinstance(error, ConnectionRefused)
    assert str(error).startswith(f"{nobody[0]}:{nobody[1]}: nobody is bound there")
    assert address == nobody
    assert error in client.handler.events
    assert not client.link.closed
    server = bind(platform, Echo(), at=Address(*nobody, "udp"))
    client.say(b"hello", to=nobody)
    platform.turn_until(lambda: client.machine.received)
    assert client.machine.received == [(b"hello", server.address)]


def test_nobody_is_bound_where_one_of_many_goes(platform: Platform) -> None:
    """A socket without a peer is told, too, where the system does so; it goes on in any case."""
    nobody = closed_port(platform)
    server, client = bind(platform, Echo()), bind(platform)
    client.say(b"anybody?", to=nobody)
    if platform.names_whom_errors_are_about:
        platform.turn_until(lambda: client.machine.errors)
        ((error, address),) = client.machine.errors
        assert isinstance(error, ConnectionRefused)
        assert address == nobody
    client.say(b"hello", to=server.address)
    platform.turn_until(lambda: client.machine.received)
    assert client.machine.received == [(b"hello", server.address)]


def test_a_server_survives_clients_that_are_gone(platform: Platform) -> None:
    """It answers to ports that have been closed, a hundred times, and serves those who are there."""
    server = bind(platform, Echo(), receive_buffer=ROOM)
    for _ in range(100):
        leaving = bind(platform)
        leaving.say(b"and away", to=server.address)
        platform.turn_until(lambda leaving=leaving: leaving.link.statistics.sent)
        leaving.link.close()
    staying = bind(platform)
    staying.say(b"hello", to=server.address)
    platform.turn_until(lambda: staying.machine.received)
    assert staying.machine.data == [b"hello"]
    assert not server.link.closed


def test_a_peer_that_goes_and_comes_back(socket_platform: Platform, peers: Peers) -> None:
    """What is sent meanwhile is lost, one error each; then the conversation goes on."""
    if not socket_platform.hears_of_nobody:
        pytest.skip(WINE_FORGETS)
    sock = peers.datagram_socket()
    address = sock.getsockname()
    client = bind(socket_platform, peer=url(address))
    client.say(b"1", to=address)
    socket_platform.turn_until(lambda: client.link.statistics.sent == 1)
    assert sock.recv(10) == b"1"
    sock.close()
    for number in range(1, 6):
        client.say(b"lost", to=address)
        socket_platform.turn_until(lambda number=number: len(client.machine.errors) == number)
    again = peers.datagram_socket(port=address[1])
    client.say(b"2", to=address)
    socket_platform.turn_until(lambda: client.link.statistics.sent == 7)
    assert again.recv(10) == b"2"
    again.sendto(b"3", client.address)
    socket_platform.turn_until(lambda: client.machine.received)
    assert client.machine.data == [b"3"]
    assert {type(error) for error, _ in client.machine.errors} == {ConnectionRefused}


def test_a_handler_that_closes_at_an_error(platform: Platform) -> None:
    if not platform.hears_of_nobody:
        pytest.skip(WINE_FORGETS)
    nobody = closed_port(platform)
    handler = Hearing(on_events=lambda _: client.link.close())
    client = bind(platform, peer=url(nobody), handler=handler)
    client.say(b"x", to=nobody)
    platform.turn_until(lambda: handler.closed)
    assert handler.closed == [None]
    assert len(handler.events) == 1


def test_an_idle_socket_that_had_an_error_costs_nothing(socket_platform: Platform) -> None:
    """The loop does not go on being told that there is something."""
    if not socket_platform.hears_of_nobody:
        pytest.skip(WINE_FORGETS)
    nobody = closed_port(socket_platform)
    client = bind(socket_platform, peer=url(nobody))
    client.say(b"x", to=nobody)
    socket_platform.turn_until(lambda: client.machine.errors)
    errors_before = client.link.statistics.errors
    before = time.thread_time()
    socket_platform.turn_until(in_time(socket_platform.driver, 0.2))
    assert time.thread_time() - before < 0.15
    assert client.link.statistics.errors == errors_before
