"""What sockets do only on some systems, or seldom: played by a socket that follows a script."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from helianthus.drivers import socket_datagrams
from helianthus.drivers.address import Address
from helianthus.drivers.asyncio import AsyncioDriver
from helianthus.drivers.datagram_addresses import KEPT, DatagramAddresses
from helianthus.drivers.datagram_options import DatagramOptions
from helianthus.drivers.datagram_socket import OpenSocket
from helianthus.drivers.error_queue import take_errors
from helianthus.drivers.errors import (
    AddressNotAvailable,
    ConnectionRefused,
    MessageTooLarge,
    TransportError,
    Unreachable,
)
from helianthus.drivers.socket_datagrams import SocketDatagramLink
from helianthus.protocols.machine import Action, Outcome

PEER = ("10.0.0.1", 7)


class Machine:
    """Sends what it is told to, and notes what it hears of."""

    def __init__(self) -> None:
        self.output: list[tuple[bytes, Any]] = []
        self.errors: list[tuple[OSError, Any]] = []
        self.received: list[Any] = []

    def receive_datagrams(self, batch: Any, now: float) -> None:
        self.received += batch

    def receive_error(self, error: OSError, address: Any, now: float) -> None:
        self.errors.append((error, address))

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, Any]]:
        taken, self.output = self.output[:limit], self.output[limit:]
        return taken

    def deadline(self) -> float | None:
        return None

    def handle_timeout(self, now: float) -> None:
        pass

    def take_events(self) -> list[Any]:
        return []

    def take_actions(self) -> list[Action]:
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        raise AssertionError("there are no actions")

    def on_events(self, events: list[Any]) -> None:
        pass

    def on_actions(self, actions: list[Action]) -> None:
        pass

    def on_closed(self, error: Exception | None) -> None:
        self.closed = error


class Scripted:
    """A socket whose calls come to what the script says, and then succeed.

    Attributes:
        sent: What was sent, as ("one" or "run", …).
    """

    family = socket.AF_INET

    def __init__(self, *script: int | None, knows_segments: bool = False) -> None:
        self._script = list(script)
        self._knows_segments = knows_segments
        self.sent: list[tuple[str, Any]] = []

    def _act(self, kind: str, what: Any) -> None:
        code = self._script.pop(0) if self._script else None
        if code is not None:
            raise OSError(code, "scripted")
        self.sent.append((kind, what))

    def send(self, data: bytes) -> int:
        self._act("one", data)
        return len(data)

    def sendto(self, data: bytes, address: Any) -> int:
        self._act("one", data)
        return len(data)

    def sendmsg(self, buffers: Any, control: Any, flags: int, address: Any) -> int:
        self._act("run", list(buffers))
        return sum(map(len, buffers))

    def recv(self, size: int) -> bytes:
        self._act("receive", size)
        raise BlockingIOError

    recvfrom = recv

    def getsockopt(self, level: int, name: int) -> int:
        if not self._knows_segments:
            raise OSError(errno.ENOPROTOOPT, "unknown")
        return 0

    def recvmsg(self, *_: Any) -> Any:
        raise BlockingIOError

    def close(self) -> None:
        pass


class PlainLink(SocketDatagramLink[Any]):
    """The part that is the same everywhere, with nobody to watch the socket.

    Attributes:
        waits: How often it has asked to be told of room.
    """

    waits = 0

    def _wait_for_room(self) -> None:
        self.waits += 1

    def _close_transport(self) -> None:
        pass


Make = Callable[..., tuple[PlainLink, Machine]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a link over a scripted socket."""
    driver = AsyncioDriver()

    def link(sock: Scripted, *, connected: bool = False) -> tuple[PlainLink, Machine]:
        machine = Machine()
        options = DatagramOptions(peer=Address(*PEER, "udp") if connected else None)
        addresses = DatagramAddresses(socket.AF_INET)
        opened = OpenSocket(sock, Address("10.0.0.9", 9, "udp"), PEER if connected else None, addresses)  # type: ignore[arg-type]
        return PlainLink(driver, machine, machine, opened, options), machine

    yield link
    driver.close()


# -- errors of earlier datagrams ------------------------------------------------------------------


def test_the_report_of_an_earlier_datagram_costs_no_other(make: Make) -> None:
    """Where there is no queue of errors, a connected socket fails once with it, and is tried again."""
    sock = Scripted(errno.ECONNREFUSED)
    link, machine = make(sock, connected=True)
    machine.output.append((b"x", PEER))
    link.settle()
    assert sock.sent == [("one", b"x")]
    ((error, address),) = machine.errors
    assert isinstance(error, ConnectionRefused)
    assert address == PEER
    assert (link.statistics.sent, link.statistics.dropped, link.statistics.errors) == (1, 0, 1)


def test_what_fails_twice_failed_by_itself(make: Make) -> None:
    sock = Scripted(errno.ECONNREFUSED, errno.ENETUNREACH)
    link, machine = make(sock, connected=True)
    machine.output += [(b"x", PEER), (b"y", PEER)]
    link.settle()
    assert sock.sent == [("one", b"y")]
    assert [type(error) for error, _ in machine.errors] == [ConnectionRefused, Unreachable]
    assert (link.statistics.sent, link.statistics.dropped) == (1, 1)


def test_a_socket_without_a_peer_is_not_tried_again_for_nothing(make: Make) -> None:
    """Nothing was waiting, so it is this datagram that cannot be sent."""
    sock = Scripted(errno.ENETUNREACH)
    link, machine = make(sock)
    machine.output += [(b"x", PEER), (b"y", PEER)]
    link.settle()
    assert sock.sent == [("one", b"y")]
    assert [(type(error), address) for error, address in machine.errors] == [(Unreachable, PEER)]


def test_no_room_after_an_error(make: Make) -> None:
    """The datagram waits, and is not lost."""
    sock = Scripted(errno.ECONNREFUSED, errno.EAGAIN)
    link, machine = make(sock, connected=True)
    machine.output += [(b"x", PEER), (b"y", PEER)]
    link.settle()
    assert sock.sent == []
    assert link.waits == 1
    link._writable()
    assert [data for _, data in sock.sent] == [b"x", b"y"]
    assert link.statistics.dropped == 0


def test_buffers_that_are_full_on_the_bsds(make: Make) -> None:
    """They say so instead of waiting; the datagram is lost, counted and reported."""
    sock = Scripted(errno.ENOBUFS)
    link, machine = make(sock)
    machine.output += [(b"x", PEER), (b"y", PEER)]
    link.settle()
    assert [data for _, data in sock.sent] == [b"y"]
    assert link.statistics.dropped == 1
    assert isinstance(machine.errors[0][0], TransportError)
    assert machine.errors[0][0].errno == errno.ENOBUFS


@pytest.mark.parametrize("connected", [False, True])
def test_a_socket_that_is_broken_is_closed(make: Make, connected: bool) -> None:
    link, machine = make(Scripted(errno.EBADF), connected=connected)
    machine.output += [(b"x", PEER), (b"y", PEER)]
    link.settle()
    assert link.closed
    assert link.statistics.dropped == 2
    link.settle()
    assert isinstance(machine.closed, TransportError)


def test_a_socket_that_breaks_while_it_is_read(make: Make) -> None:
    link, machine = make(Scripted(errno.EBADF))
    assert not link._read()
    assert link.closed
    assert machine.errors == []


def test_errors_while_reading_do_not_stop_the_reading(make: Make) -> None:
    link, machine = make(Scripted(errno.ECONNREFUSED, errno.EHOSTUNREACH), connected=True)
    assert not link._read()
    assert [(type(error), address) for error, address in machine.errors] == [
        (ConnectionRefused, PEER),
        (Unreachable, PEER),
    ]


@pytest.mark.parametrize("code", [10054, 1234])
def test_windows_says_reset_where_nobody_is_bound(code: int) -> None:
    error = socket_datagrams.failure_of_a_datagram(OSError(code, "reset"), PEER)
    assert isinstance(error, ConnectionRefused)
    assert str(error) == "10.0.0.1:7: nobody is bound there"
    assert error.errno == code


# -- runs --------------------------------------------------------------------------------------------

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux cuts runs of datagrams")


@needs_linux
def test_runs_are_sent_at_once(make: Make) -> None:
    """Of one size and for one destination; the last may be shorter, and an empty one is none."""
    sock = Scripted(knows_segments=True)
    link, machine = make(sock)
    other = ("10.0.0.2", 7)
    to_peer = [b"aa", b"bb", b"cc", b"d", b"ee", b"ff"]
    machine.output += [(data, PEER) for data in to_peer]
    machine.output += [(b"gg", other), (b"hh", other), (b"", other), (b"ii", PEER)]
    link.settle()
    assert sock.sent == [
        ("run", [b"aa", b"bb", b"cc", b"d"]),
        ("run", [b"ee", b"ff"]),
        ("run", [b"gg", b"hh"]),
        ("one", b""),
        ("one", b"ii"),
    ]
    assert link.statistics.sent == 10


@needs_linux
def test_runs_have_the_lengths_that_the_kernel_takes(make: Make) -> None:
    sock = Scripted(knows_segments=True)
    link, machine = make(sock)
    machine.output += [(b"x" * 1400, PEER)] * 64 + [(b"y" * 2000, PEER)] * 2
    link.settle()
    link.settle()
    runs = [len(what) for kind, what in sock.sent if kind == "run"]
    assert max(runs) * 1400 <= 65_507
    assert sum(runs) == 64
    assert [kind for kind, _ in sock.sent[-2:]] == ["one", "one"]


@needs_linux
@pytest.mark.parametrize(("code", "again"), [(errno.EINVAL, True), (errno.EIO, False), (errno.EAGAIN, True)])
def test_a_run_that_is_refused_goes_one_by_one(make: Make, code: int, again: bool) -> None:
    """Larger than the route allows, for a network card without checksums, or with too little room."""
    sock = Scripted(code, knows_segments=True)
    link, machine = make(sock)
    machine.output += [(b"xx", PEER)] * 2
    link.settle()
    assert [kind for kind, _ in sock.sent] == ["one", "one"]
    machine.output += [(b"x", PEER)] * 2
    link.settle()
    assert [kind for kind, _ in sock.sent[2:]] == (["run"] if again else ["one", "one"])
    assert machine.errors == []


# -- addresses ---------------------------------------------------------------------------------------


def test_what_is_remembered_is_bounded() -> None:
    addresses = DatagramAddresses(socket.AF_INET6)
    for port in range(1, KEPT + 10):
        addresses.to_socket(("::1", port))
        addresses.from_socket(("::1", port, 0, 0))
    assert len(addresses.known) <= KEPT
    assert len(addresses._from_socket) <= KEPT


@pytest.mark.parametrize("address", [("host", 7), ("10.0.0.1", 0), ("10.0.0.1", 65_536), ("::1", 7)])
def test_what_a_socket_of_ipv4_cannot_reach(address: tuple[str, int]) -> None:
    addresses = DatagramAddresses(socket.AF_INET)
    with pytest.raises(AddressNotAvailable):
        addresses.to_socket(address)
    assert not addresses.known


def test_ipv4_on_a_socket_of_both() -> None:
    addresses = DatagramAddresses(socket.AF_INET6, v6only=False)
    assert addresses.to_socket(("10.0.0.1", 7))[:2] == ("::ffff:10.0.0.1", 7)
    assert addresses.from_socket(("::ffff:10.0.0.1", 7, 0, 0)) == ("10.0.0.1", 7)
    assert addresses.from_socket(("fe80::1", 7, 0, 3)) == ("fe80::1%3", 7)


# -- Linux' queue of errors -----------------------------------------------------------------------


class Queue:
    """A socket with errors in its queue: each an errno, an origin, a type, a code and a number."""

    def __init__(self, *errors: tuple[int, int, int, int, int]) -> None:
        self._errors = list(errors)

    def recvmsg(self, *_: Any) -> Any:
        if not self._errors:
            raise BlockingIOError
        code, origin, kind, icmp_code, info = self._errors.pop(0)
        data = struct.pack("@IBBBBII", code, origin, kind, icmp_code, 0, info, 0)
        return b"", [(socket.IPPROTO_IP, 11, data), (socket.SOL_SOCKET, 1, b"")], 0, PEER


@needs_linux
def test_errors_of_the_network() -> None:
    """Each with its reason and whom it is about; what the system found itself is left out."""
    queue = Queue(
        (errno.ECONNREFUSED, 2, 3, 3, 0),
        (errno.EMSGSIZE, 1, 0, 0, 1400),
        (errno.EMSGSIZE, 2, 3, 4, 1280),
        (errno.EHOSTUNREACH, 3, 1, 3, 0),
    )
    errors = take_errors(queue, DatagramAddresses(socket.AF_INET))  # type: ignore[arg-type]
    assert [type(error) for error, _ in errors] == [ConnectionRefused, MessageTooLarge, Unreachable]
    assert {address for _, address in errors} == {PEER}
    assert str(errors[0][0]) == "10.0.0.1:7: nobody is bound there (ICMP type 3, code 3)"
    assert "1280 bytes at most (ICMP type 3, code 4)" in str(errors[1][0])
    assert "ICMPv6 type 1, code 3" in str(errors[2][0])
