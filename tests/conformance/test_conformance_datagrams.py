"""Datagrams: sending, receiving, limits, and the life of a socket; on every driver."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from datagrams import ROOM, Broken, Echo, End, Hearing, Talk, bind, bind_to_a_pair, burst, closed_port
from machines import Fault
from peers import Peers
from platforms import Platform
from recording import in_time

from helianthus.drivers.address import Address
from helianthus.drivers.datagram_link import BATCH, RECEIVES_PER_TICK
from helianthus.drivers.errors import AddressInUse, AddressNotAvailable, MessageTooLarge
from helianthus.protocols.machine import Action, Outcome

LARGEST = 65_507  # bytes: 65,535 less the headers of IPv4 and UDP


# -- sending and receiving ----------------------------------------------------------------------------


def test_echo(platform: Platform) -> None:
    """There and back, each end told by its address."""
    server, client = bind(platform, Echo()), bind(platform)
    client.say(b"hello", to=server.address)
    platform.turn_until(lambda: client.machine.received)
    assert server.machine.received == [(b"hello", client.address)]
    assert client.machine.received == [(b"hello", server.address)]
    assert client.handler.events == [(b"hello", server.address)]


def test_echo_to_a_foreign_socket(socket_platform: Platform, peers: Peers) -> None:
    """A plain socket of Python, in a thread of its own."""
    server = bind(socket_platform, Echo())
    sock = peers.datagram_socket()

    def converse() -> list[bytes]:
        answers = []
        for number in range(100):
            sock.sendto(b"%d" % number, server.address)
            answers.append(sock.recv(100))
        return answers

    worker = peers.work(converse)
    socket_platform.turn_until(worker.done)
    assert worker.result() == [b"%d" % number for number in range(100)]
    assert server.machine.received[0] == (b"0", sock.getsockname())


def test_a_burst_of_a_thousand(platform: Platform) -> None:
    """All arrive, once and in order, though they are more than one tick may send or receive."""
    server, client = bind(platform, Echo(), receive_buffer=ROOM), bind(platform, receive_buffer=ROOM)
    datagrams = [b"%d" % number for number in range(1000)]
    client.say(*datagrams, to=server.address)
    platform.turn_until(lambda: len(client.machine.received) == 1000)
    assert server.machine.data == datagrams
    assert client.machine.data == datagrams
    assert client.link.statistics.sent == server.link.statistics.received == 1000


def test_a_burst_from_a_foreign_socket(socket_platform: Platform, peers: Peers) -> None:
    """What has come while nobody looked."""
    server = bind(socket_platform, Echo(), receive_buffer=ROOM)
    sock = peers.datagram_socket(receive_buffer=ROOM)
    datagrams = [b"%d" % number for number in range(burst())]
    for data in datagrams:
        sock.sendto(data, server.address)
    worker = peers.work(lambda: [sock.recv(100) for _ in datagrams])
    socket_platform.turn_until(worker.done)
    assert worker.result() == datagrams


def test_the_order_of_sends_to_several(platform: Platform) -> None:
    """Datagrams of different sizes for different peers; each peer gets its own in order."""
    peers = [bind(platform, receive_buffer=ROOM) for _ in range(3)]
    sender = bind(platform)
    expected: list[list[bytes]] = [[], [], []]
    for number in range(300):
        data = b"%d" % number * (1 + number % 5 // 2)
        which = (number // 7) % 3
        expected[which].append(data)
        sender.say(data, to=peers[which].address)
    platform.turn_until(lambda: sum(len(peer.machine.received) for peer in peers) == 300)
    assert [peer.machine.data for peer in peers] == expected


@pytest.mark.parametrize("size", [1, 1200, 1472, 9000])
def test_equal_datagrams_in_a_row_stay_apart(platform: Platform, size: int) -> None:
    """Also where the kernel cuts them out of one piece; the last one is shorter."""
    receiver, sender = bind(platform, receive_buffer=ROOM), bind(platform)
    datagrams = [bytes([number]) * size for number in range(100)] + [b"x" * (size // 2)]
    sender.say(*datagrams, to=receiver.address)
    platform.turn_until(lambda: len(receiver.machine.received) == 101)
    assert receiver.machine.data == datagrams


def test_empty_datagrams(platform: Platform) -> None:
    """They are datagrams like others, and end nothing."""
    server, client = bind(platform, Echo()), bind(platform)
    client.say(b"", b"", b"x", b"", to=server.address)
    platform.turn_until(lambda: len(client.machine.received) == 4)
    assert client.machine.data == [b"", b"", b"x", b""]
    assert server.machine.data == [b"", b"", b"x", b""]


def test_the_largest_datagram(platform: Platform) -> None:
    if platform.largest_datagram < LARGEST:
        pytest.skip(f"this system sends {platform.largest_datagram} bytes at most unless told otherwise")
    server, client = bind(platform, Echo()), bind(platform)
    data = bytes(range(256)) * 256
    client.say(data[:LARGEST], to=server.address)
    platform.turn_until(lambda: client.machine.received)
    assert client.machine.data == [data[:LARGEST]]


def test_too_large_to_send(platform: Platform) -> None:
    """It is reported with whom it was for, counted, and does not keep the others."""
    receiver, sender = bind(platform), bind(platform)
    sender.say(b"before", bytes(LARGEST + 1), b"after", to=receiver.address)
    platform.turn_until(lambda: len(receiver.machine.received) == 2)
    assert receiver.machine.data == [b"before", b"after"]
    ((error, address),) = sender.machine.errors
    assert isinstance(error, MessageTooLarge)
    assert address == receiver.address
    assert error in sender.handler.events
    statistics = sender.link.statistics
    assert (statistics.sent, statistics.dropped, statistics.errors) == (2, 1, 1)


def test_too_large_to_receive(platform: Platform) -> None:
    """It is reported with who sent it and with the limit; nothing of it is delivered."""
    receiver, sender = bind(platform, max_datagram_size=100), bind(platform)
    sender.say(b"x" * 100, b"y" * 101, b"z", to=receiver.address)
    platform.turn_until(lambda: len(receiver.machine.received) == 2)
    assert receiver.machine.data == [b"x" * 100, b"z"]
    ((error, address),) = receiver.machine.errors
    assert isinstance(error, MessageTooLarge)
    assert "max_datagram_size is 100" in str(error)
    assert address == sender.address
    assert receiver.link.statistics.truncated == 1
    assert receiver.link.statistics.received == 2


def test_a_destination_that_is_no_address(platform: Platform) -> None:
    """Names are not looked up behind the machine's back: that could take seconds."""
    receiver, sender = bind(platform), bind(platform)
    sender.say(b"x", to=("no-such-host.invalid", 7))
    sender.say(b"y", to=receiver.address)
    platform.turn_until(lambda: receiver.machine.received)
    ((error, address),) = sender.machine.errors
    assert isinstance(error, AddressNotAvailable)
    assert address == ("no-such-host.invalid", 7)


def test_a_destination_without_a_port(socket_platform: Platform) -> None:
    end = bind(socket_platform)
    end.say(b"x", to=(end.address[0], 0))
    end.say(b"x", to=(end.address[0], 70_000))
    socket_platform.turn_until(lambda: len(end.machine.errors) == 2)
    assert {type(error) for error, _ in end.machine.errors} == {AddressNotAvailable}


# -- ports ----------------------------------------------------------------------------------------------


def test_port_zero_takes_a_free_port(platform: Platform) -> None:
    first, second = bind(platform), bind(platform)
    assert first.address[1] != second.address[1]
    assert first.link.local_address.scheme == "udp"
    assert min(first.address[1], second.address[1]) > 0


def test_an_address_in_use(platform: Platform) -> None:
    """Not once it is free again."""
    first = bind(platform)
    with pytest.raises(AddressInUse):
        bind(platform, at=first.link.local_address)
    first.link.close()
    platform.turn_until(lambda: first.handler.closed)
    again = bind(platform, at=first.link.local_address)
    assert again.address == first.address


def test_an_address_that_is_shared(platform: Platform) -> None:
    first = bind(platform, reuse_address=True)
    second = bind(platform, at=first.link.local_address, reuse_address=True)
    sender = bind(platform)
    sender.say(b"x", to=first.address)
    platform.turn_until(lambda: first.machine.received or second.machine.received)
    assert len(first.machine.received) + len(second.machine.received) == 1


def test_a_port_that_is_shared(platform: Platform) -> None:
    """The senders are spread, and each keeps the socket it got."""
    if not platform.has_reuse_port:
        pytest.skip("this system does not spread datagrams over the sockets of a port")
    first = bind(platform, reuse_port=True)
    second = bind(platform, at=first.link.local_address, reuse_port=True)
    senders = [bind(platform) for _ in range(40)]
    for _ in range(2):
        for sender in senders:
            sender.say(b"x", to=first.address)
    platform.turn_until(lambda: len(first.machine.received) + len(second.machine.received) == 80)
    heard = [{source for _, source in end.machine.received} for end in (first, second)]
    assert all(heard)
    assert not heard[0] & heard[1]


def test_an_address_of_somebody_else(platform: Platform) -> None:
    if platform.sockets and _can_be_bound("203.0.113.7"):
        pytest.skip("this system lets sockets be bound to addresses that it does not have, as Wine does")
    with pytest.raises(AddressNotAvailable):
        bind(platform, at=Address("203.0.113.7", 0, "udp"))


def _can_be_bound(host: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((host, 0))
        except OSError:
            return False
        return True


def test_a_path_is_no_address(platform: Platform) -> None:
    with pytest.raises(ValueError, match="udp://host:port"):
        bind(platform, at=Address.parse("unix:///run/some.sock"))


# -- machines and handlers -----------------------------------------------------------------------------


def test_a_deadline(platform: Platform) -> None:
    """The machine is told the time, and what it then says is sent."""

    class Reminding(Talk):
        def handle_timeout(self, now: float) -> None:
            super().handle_timeout(now)
            self.say(b"it is time", to=receiver.address)

    receiver = bind(platform)
    machine = Reminding()
    machine.due = due = platform.driver.now() + 0.02
    bind(platform, machine)
    platform.turn_until(lambda: receiver.machine.received)
    assert len(machine.told) == 1
    assert machine.told[0] >= due


def test_actions(platform: Platform) -> None:
    handler = Hearing()
    end = bind(platform, handler=handler)
    end.machine.actions.append(Action(1))
    end.link.wake()
    platform.turn_until(lambda: handler.actions)
    end.machine.complete(1, Outcome("done"), platform.driver.now())
    assert end.machine.outcomes == ["done"]


@pytest.mark.parametrize("method", ["receive_datagrams", "take_events", "take_actions", "take_datagrams"])
def test_a_machine_that_raises(platform: Platform, method: str) -> None:
    """It is reported, and the socket goes on: one bad datagram must not take it from the others."""
    end = bind(platform, Broken(method))
    sender = bind(platform)
    for data in (b"bad", b"good"):
        sender.say(data, to=end.address)
        platform.turn_until(lambda data=data: sender.link.statistics.sent == (2 if data == b"good" else 1))
    platform.turn_until(lambda: (b"good", sender.address) in end.machine.received)
    platform.turn_until(lambda: platform.errors)
    assert [str(error) for error in platform.take_errors()] == [method]
    assert not end.link.closed


def test_a_machine_that_raises_at_an_error(platform: Platform) -> None:
    """What else it wanted sent is sent."""
    receiver = bind(platform)
    end = bind(platform, Broken("receive_error"))
    end.say(b"x", bytes(LARGEST + 1), b"y", to=receiver.address)
    platform.turn_until(lambda: len(receiver.machine.received) == 2)
    assert [str(error) for error in platform.take_errors()] == ["receive_error"]


def test_a_machine_whose_deadline_stands_still(platform: Platform) -> None:
    """It would spin for ever: its socket is closed, and the handler hears why."""

    class Stuck(Talk):
        def handle_timeout(self, now: float) -> None:
            pass

    machine = Stuck()
    machine.due = platform.driver.now()
    end = bind(platform, machine)
    platform.turn_until(lambda: end.handler.closed)
    (error,) = platform.take_errors()
    assert end.handler.closed == [error]
    assert end.link.closed


@pytest.mark.parametrize("call", ["on_events", "on_actions"])
def test_a_handler_that_raises(platform: Platform, call: str) -> None:
    faults = [Fault(call)]

    def fail_once(_: Any) -> None:
        if faults:
            raise faults.pop()

    end = bind(platform, Echo(), handler=Hearing(**{call: fail_once}))
    end.machine.actions.append(Action(1))
    client = bind(platform)
    for number in (1, 2):
        client.say(b"x", to=end.address)
        platform.turn_until(lambda number=number: len(client.machine.received) == number)
    assert [str(error) for error in platform.take_errors()] == [call]


def test_a_handler_that_raises_at_the_end(platform: Platform) -> None:
    def fail(_: Any) -> None:
        raise Fault("on_closed")

    end = bind(platform, handler=Hearing(on_closed=fail))
    end.link.close()
    platform.turn_until(lambda: platform.errors)
    assert [str(error) for error in platform.take_errors()] == ["on_closed"]


# -- closing ------------------------------------------------------------------------------------------


def test_close(platform: Platform) -> None:
    """The handler hears of it, once; nothing arrives any more, and nothing is sent."""
    end, other = bind(platform), bind(platform)
    end.say(b"too late", to=other.address)
    end.link.close()
    end.link.close()
    assert end.link.closed
    assert end.handler.closed == []
    platform.turn_until(lambda: end.handler.closed)
    end.link.wake()
    end.machine.due = platform.driver.now()
    platform.turn_until(in_time(platform.driver, 0.005))
    assert end.handler.closed == [None]
    assert end.machine.told == []
    assert other.machine.received == []


def test_close_while_receiving(platform: Platform) -> None:
    """A handler closes its socket in the middle of what has come."""
    handler = Hearing(on_events=lambda _: end.link.close())
    end = bind(platform, handler=handler, receive_buffer=ROOM)
    sender = bind(platform)
    sender.say(*[b"x"] * 500, to=end.address)
    platform.turn_until(lambda: handler.closed)
    heard = len(handler.events)
    assert heard
    platform.turn_until(lambda: sender.link.statistics.sent == 500)
    assert handler.closed == [None]
    assert len([event for event in handler.events if isinstance(event, tuple)]) == heard


def test_close_of_another_while_receiving(platform: Platform) -> None:
    """Both have something to read in the same tick; the one that is closed hears nothing more."""
    ends: list[Any] = []

    def close_the_other(mine: int) -> Any:
        return lambda _: ends[1 - mine].link.close()

    ends += [bind(platform, handler=Hearing(on_events=close_the_other(mine))) for mine in (0, 1)]
    sender = bind(platform)
    for end in ends:
        sender.say(b"x", to=end.address)
    platform.turn_until(lambda: ends[0].handler.closed or ends[1].handler.closed)
    platform.turn_until(in_time(platform.driver, 0.005))
    assert sorted(len(end.handler.events) for end in ends) == [0, 1]


def test_the_driver_closes(platform: Platform) -> None:
    end = bind(platform)
    platform.driver.close()
    if not end.handler.closed:  # a loop that somebody else runs tells it in its next iteration
        platform.close()
    assert end.handler.closed == [None]
    with pytest.raises(RuntimeError, match="closed"):
        bind(platform)


def test_many_sockets_opened_and_closed(platform: Platform) -> None:
    """Nothing is left behind, which the fixture checks."""
    for _ in range(20):
        ends = [bind(platform, Echo()) for _ in range(10)]
        for end in ends[1:]:
            ends[0].say(b"x", to=end.address)
        platform.turn_until(lambda ends=ends: len(ends[0].machine.received) >= 9)
        for end in ends:
            end.link.close()
        platform.turn_until(lambda ends=ends: all(end.handler.closed for end in ends))


def test_a_port_is_bound_again(platform: Platform) -> None:
    """A peer goes on talking to the address, and the new socket there hears it."""
    client, server = bind(platform), bind(platform, Echo())
    address = server.link.local_address
    for number in range(3):
        client.say(b"%d" % number, to=server.address)
        platform.turn_until(lambda number=number: client.machine.data[-1:] == [b"%d" % number])
        server.link.close()
        platform.turn_until(lambda: server.handler.closed)  # noqa: B023 - called at once
        server = bind(platform, Echo(), at=address)
    assert client.machine.data == [b"0", b"1", b"2"]


# -- fairness -------------------------------------------------------------------------------------------


def test_a_flooded_socket_does_not_starve_the_others(socket_platform: Platform, peers: Peers) -> None:
    """What one socket receives in a tick is capped."""
    heard_by_then: list[int] = []
    flooded = bind(socket_platform, receive_buffer=ROOM)
    quiet = bind(
        socket_platform,
        handler=Hearing(on_events=lambda _: heard_by_then.append(len(flooded.machine.received))),
    )
    sock = peers.datagram_socket()
    count = burst()
    for _ in range(count):
        sock.sendto(b"flood", flooded.address)
    sock.sendto(b"quiet", quiet.address)
    socket_platform.turn_until(lambda: heard_by_then and len(flooded.machine.received) == count)
    assert heard_by_then[0] <= BATCH * RECEIVES_PER_TICK + 1  # one more by what it was woken with


def test_a_flooding_socket_does_not_starve_the_others(socket_platform: Platform) -> None:
    """A machine that always has something to send. (A simulated node would never rest.)"""

    class Endless(Talk):
        stopped = False

        def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, Any]]:
            return [] if self.stopped else [(b"x", nobody)] * limit

    nobody = bind(socket_platform).address
    flooding = bind(socket_platform, Endless())
    client, server = bind(socket_platform), bind(socket_platform, Echo())
    client.say(b"hello", to=server.address)
    socket_platform.turn_until(lambda: client.machine.received)
    assert flooding.link.statistics.sent
    flooding.machine.stopped = True


# -- what a socket that is full does ------------------------------------------------------------------


def _full_soon(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, peers: Peers
) -> tuple[End, socket.socket]:
    if platform.reads_given_sockets is None or not hasattr(socket, "AF_UNIX"):
        pytest.skip("the driver opens its sockets itself, and the loopback never refuses a datagram")
    return bind_to_a_pair(platform, monkeypatch, peers)


def test_what_the_kernel_does_not_take_waits(
    socket_platform: Platform, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of a batch waits in the link, and everything else in the machine; none is lost."""
    end, far = _full_soon(socket_platform, monkeypatch, peers)
    datagrams = [b"%d" % number for number in range(2000)]
    end.say(*datagrams, to=("peer", 1))
    socket_platform.turn_until(lambda: end.link.statistics.sent)
    socket_platform.turn_until(in_time(socket_platform.driver, 0.005))
    assert end.link.statistics.sent < 1900
    left = len(end.machine._output)
    assert left >= 2000 - end.link.statistics.sent - BATCH
    worker = peers.work(lambda: [far.recv(100) for _ in datagrams])
    socket_platform.turn_until(worker.done)
    assert worker.result() == datagrams
    assert end.link.statistics.dropped == 0


def test_what_waits_when_the_socket_is_closed_is_counted(
    socket_platform: Platform, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    end, _ = _full_soon(socket_platform, monkeypatch, peers)
    end.say(*[b"x"] * 2000, to=("peer", 1))
    socket_platform.turn_until(lambda: end.link.statistics.sent)
    socket_platform.turn_until(in_time(socket_platform.driver, 0.005))
    end.link.close()
    statistics = end.link.statistics
    assert statistics.sent + statistics.dropped + len(end.machine._output) == 2000
    assert 0 < statistics.dropped <= BATCH


# -- forgetting nothing -----------------------------------------------------------------------------


def test_replies_to_many_peers(platform: Platform) -> None:
    server = bind(platform, Echo(), receive_buffer=ROOM)
    clients = [bind(platform) for _ in range(40)]
    datagrams = [b"%d" % number for number in range(6)]
    for client in clients:
        client.say(*datagrams, to=server.address)
    platform.turn_until(lambda: all(len(client.machine.received) == 6 for client in clients))
    assert all(client.machine.data == datagrams for client in clients)


def test_errors_do_not_stop_the_rest(platform: Platform) -> None:
    """Datagrams for a port where nobody is bound, between others: those all arrive."""
    receiver, sender = bind(platform, receive_buffer=ROOM), bind(platform)
    nobody = closed_port(platform)
    for number in range(200):
        sender.say(b"lost", to=nobody)
        sender.say(b"%d" % number, to=receiver.address)
    platform.turn_until(lambda: len(receiver.machine.received) == 200)
    assert receiver.machine.data == [b"%d" % number for number in range(200)]
