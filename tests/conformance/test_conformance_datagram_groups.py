"""Datagrams to many: groups and broadcast; and IPv6 with its zones; on every driver."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
from datagrams import WINE_FORGETS, Echo, End, bind, closed_port, url
from platforms import Platform, under_wine
from recording import in_time

from helianthus.drivers.address import Address
from helianthus.drivers.datagram_options import MulticastGroup
from helianthus.drivers.errors import (
    AddressInUse,
    AddressNotAvailable,
    ConnectionRefused,
    PermissionDenied,
    TransportError,
)
from helianthus.drivers.multicast import interface_number

GROUP, OTHER_GROUP = "239.255.71.7", "239.255.71.8"  # of the local scope (RFC 2365, section 6.1)
GROUP_V6 = "ff02::7107"
LOOPBACK = "127.0.0.1"


def anywhere(port: int = 0) -> Address:
    return Address("0.0.0.0", port, "udp")


def quiet_for_a_moment(platform: Platform) -> None:
    """Let what was sent arrive, if it is going to."""
    platform.turn_until(in_time(platform.driver, 0.005))


# -- groups -------------------------------------------------------------------------------------------


def join(platform: Platform, *groups: str, port: int = 0) -> End:
    joined = [MulticastGroup(group, LOOPBACK) for group in groups]
    return bind(platform, at=anywhere(port), groups=joined, reuse_address=True)


def test_a_group(platform: Platform) -> None:
    """Each member gets one, those at the same port too; nobody else."""
    first = join(platform, GROUP)
    port = first.address[1]
    second, both = join(platform, GROUP, port=port), join(platform, OTHER_GROUP, GROUP, port=port)
    other, none = join(platform, OTHER_GROUP, port=port), join(platform, port=port)
    sender = bind(platform, multicast_interface=LOOPBACK)
    sender.say(b"to the group", to=(GROUP, port))
    platform.turn_until(lambda: all(end.machine.received for end in (first, second, both)))
    quiet_for_a_moment(platform)
    assert [len(end.machine.received) for end in (first, second, both)] == [1, 1, 1]
    if not under_wine():  # where a socket hears of every group that anybody has joined
        assert other.machine.received == none.machine.received == []
    ((data, source),) = first.machine.received
    assert data == b"to the group"
    assert source[1] == sender.address[1]


def test_a_member_answers(platform: Platform) -> None:
    joined = [MulticastGroup(GROUP, LOOPBACK)]
    member = bind(platform, Echo(), at=anywhere(), groups=joined)
    sender = bind(platform, multicast_interface=LOOPBACK)
    sender.say(b"who is there?", to=(GROUP, member.address[1]))
    platform.turn_until(lambda: sender.machine.received)
    assert sender.machine.data == [b"who is there?"]


def test_a_group_within_this_machine(platform: Platform) -> None:
    """A datagram that may pass no router, and leave no machine, reaches its members here."""
    member = join(platform, GROUP)
    sender = bind(platform, multicast_interface=LOOPBACK, multicast_loop=True, multicast_ttl=0)
    sender.say(b"here", to=(GROUP, member.address[1]))
    platform.turn_until(lambda: member.machine.received)
    assert member.machine.data == [b"here"]


def test_a_group_that_is_not_to_hear_this_machine(platform: Platform) -> None:
    """Real systems leave a copy out; what goes over the loopback interface comes from there."""
    silent = bind(platform, multicast_interface=LOOPBACK, multicast_loop=False)
    if not platform.sockets:
        member = join(platform, GROUP)
        silent.say(b"not here", to=(GROUP, member.address[1]))
        platform.turn_until(lambda: silent.link.statistics.sent)
        quiet_for_a_moment(platform)
        assert member.machine.received == []
    elif hasattr(silent.link, "sock"):
        assert not silent.link.sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP)


def test_an_interface_by_its_name(socket_platform: Platform) -> None:
    """Or by its number."""
    if under_wine():
        pytest.skip("Wine knows the interface of a group by its address only")
    name = _loopback_interface()
    number = str(interface_number(name))
    for interface in (name, number):
        joined = [MulticastGroup(GROUP, interface)]
        member = bind(socket_platform, at=anywhere(), groups=joined)
        sender = bind(socket_platform, multicast_interface=interface)
        sender.say(b"x", to=(GROUP, member.address[1]))
        socket_platform.turn_until(lambda member=member: member.machine.received)


def test_an_interface_that_does_not_exist(socket_platform: Platform) -> None:
    for options in (
        {"groups": [MulticastGroup(GROUP, "nowhere0")]},
        {"multicast_interface": "nowhere0"},
    ):
        with pytest.raises(TransportError, match="nowhere0"):
            bind(socket_platform, at=anywhere(), **options)
    with pytest.raises(TransportError, match=GROUP):
        bind(socket_platform, at=anywhere(), groups=[MulticastGroup(GROUP, "203.0.113.7")])


def test_a_group_of_ipv6(socket_platform: Platform) -> None:
    interface = _multicast_interface_v6()
    if not interface:
        pytest.skip("no interface of this machine takes multicast by IPv6")
    joined = [MulticastGroup(GROUP_V6, interface)]
    member = bind(socket_platform, at=Address("::", 0, "udp"), groups=joined)
    options: dict[str, Any] = {"multicast_interface": interface, "multicast_ttl": 0}  # stays here
    sender = bind(socket_platform, at=Address("::", 0, "udp"), **options)
    sender.say(b"six", to=(GROUP_V6, member.address[1]))
    socket_platform.turn_until(lambda: member.machine.received)
    ((_, (host, port)),) = member.machine.received
    assert port == sender.address[1]
    if host.startswith("fe80:"):
        assert "%" in host
    member.say(b"answer", to=(host, port))
    socket_platform.turn_until(lambda: sender.machine.received)
    assert sender.machine.data == [b"answer"]


# -- broadcast ----------------------------------------------------------------------------------------


def test_broadcast(platform: Platform) -> None:
    """Reaches every socket of the port; only those may send who have said so."""
    host = platform.broadcast_host
    if host is None:
        pytest.skip("this system has no broadcast address on the loopback interface")
    first = bind(platform, at=anywhere(), reuse_address=True)
    second = bind(platform, at=anywhere(first.address[1]), reuse_address=True)
    shy, crier = bind(platform), bind(platform, broadcast=True)
    shy.say(b"may not", to=(host, first.address[1]))
    platform.turn_until(lambda: shy.machine.errors)
    ((error, address),) = shy.machine.errors
    assert isinstance(error, PermissionDenied)
    assert address == (host, first.address[1])
    crier.say(b"to all", to=(host, first.address[1]))
    platform.turn_until(lambda: first.machine.received and second.machine.received)
    assert first.machine.data == second.machine.data == [b"to all"]


# -- IPv6 ---------------------------------------------------------------------------------------------


@pytest.fixture
def _ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


def loopback_v6(port: int = 0) -> Address:
    return Address("::1", port, "udp")


@pytest.mark.usefixtures("_ipv6")
def test_ipv6(platform: Platform) -> None:
    server = bind(platform, Echo(), at=loopback_v6())
    for options in ({}, {"peer": url(server.address)}):
        client = bind(platform, at=loopback_v6(), **options)
        client.say(b"six", to=server.address)
        platform.turn_until(lambda client=client: client.machine.received)
        assert client.machine.received == [(b"six", server.address)]
        assert server.machine.received[-1] == (b"six", client.address)
    assert server.address[0] == "::1"


@pytest.mark.usefixtures("_ipv6")
def test_nobody_is_bound_there_by_ipv6(socket_platform: Platform) -> None:
    if not socket_platform.hears_of_nobody:
        pytest.skip(WINE_FORGETS)
    closing = bind(socket_platform, at=loopback_v6())
    nobody = closing.address
    closing.link.close()
    client = bind(socket_platform, at=loopback_v6(), peer=url(nobody))
    client.say(b"x", to=nobody)
    socket_platform.turn_until(lambda: client.machine.errors)
    error, address = client.machine.errors[0]
    assert isinstance(error, ConnectionRefused)
    assert address == nobody


@pytest.mark.usefixtures("_ipv6")
def test_both_families_on_one_socket(socket_platform: Platform) -> None:
    """IPv4 peers appear under their IPv4 addresses, and are reached by them."""
    server = bind(socket_platform, Echo(), at=Address("::", 0, "udp"), v6only=False)
    port = server.address[1]
    four, six = bind(socket_platform), bind(socket_platform, at=loopback_v6())
    four.say(b"four", to=("127.0.0.1", port))
    six.say(b"six", to=("::1", port))
    socket_platform.turn_until(lambda: four.machine.received and six.machine.received)
    assert sorted(server.machine.received) == [(b"four", four.address), (b"six", six.address)]
    if socket_platform.names_whom_errors_are_about:
        nobody = closed_port(socket_platform)
        server.say(b"x", to=nobody)
        socket_platform.turn_until(lambda: server.machine.errors)
        assert server.machine.errors[0][1] == nobody


@pytest.mark.usefixtures("_ipv6")
def test_both_families_without_an_address(socket_platform: Platform) -> None:
    server = bind(socket_platform, at=Address("", 0, "udp"), v6only=False)
    assert server.address[0] == "::"
    assert bind(socket_platform, at=Address("", 0, "udp")).address[0] == "0.0.0.0"


@pytest.mark.usefixtures("_ipv6")
def test_families_apart(socket_platform: Platform) -> None:
    """Unless told otherwise an IPv6 socket leaves the port to IPv4, and cannot reach it."""
    six = bind(socket_platform, at=Address("::", 0, "udp"))
    four = bind(socket_platform, at=anywhere(six.address[1]))
    six.say(b"x", to=("127.0.0.1", four.address[1]))
    four.say(b"x", to=("::1", six.address[1]))
    socket_platform.turn_until(lambda: six.machine.errors and four.machine.errors)
    for end in (six, four):
        assert isinstance(end.machine.errors[0][0], AddressNotAvailable)
    with pytest.raises(AddressInUse):
        bind(socket_platform, at=Address("::", six.address[1], "udp"), v6only=False)


@pytest.mark.usefixtures("_ipv6")
def test_zones(socket_platform: Platform) -> None:
    """An address of the link is written with its zone, and can be answered so."""
    host = _link_local_address()
    if not host:
        pytest.skip("no interface of this machine has an address of the link")
    server = bind(socket_platform, Echo(), at=Address(host, 0, "udp"))
    assert "%" in server.address[0]
    for options in ({}, {"peer": Address(server.address[0], server.address[1], "udp")}):
        client = bind(socket_platform, at=Address(host, 0, "udp"), **options)
        client.say(b"near", to=server.address)
        socket_platform.turn_until(lambda client=client: client.machine.received)
        assert client.machine.received == [(b"near", server.address)]
        assert server.machine.received[-1] == (b"near", client.address)


# -- what this machine has ---------------------------------------------------------------------------


def _loopback_interface() -> str:
    for _, name in socket.if_nameindex():
        if name in ("lo", "lo0") or name.startswith("loopback"):
            return name
    pytest.skip("the loopback interface has no name that is known")


def _multicast_interface_v6() -> str:
    """An interface on which a group of IPv6 reaches this machine itself."""
    for number, name in socket.if_nameindex():
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock,
        ):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 0)
            sock.sendto(b"", (GROUP_V6, 9))
            return name
    return ""


def _link_local_address() -> str:
    with contextlib.suppress(OSError), open("/proc/net/if_inet6", encoding="ascii") as table:
        for line in table:
            digits, number, _, scope, *_ = line.split()
            if scope == "20":  # IPV6_ADDR_LINKLOCAL
                host = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
                return f"{host}%{int(number, 16)}"
    return ""
