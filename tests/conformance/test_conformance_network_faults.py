"""What networks do: errors of every kind while connecting, silence, resets in the midst of things."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from machines import EchoMachine, TalkingMachine
from pairs import connect, pair
from peers import Peers, read_exactly, reset
from platforms import Platform
from recording import Accepting, RecordingHandler, in_time

from helianthus.drivers.address import Address
from helianthus.drivers.errors import (
    ConnectionRefused,
    ConnectionReset,
    PermissionDenied,
    TimedOut,
    TransportError,
    Unreachable,
)

VISITORS = 120


# -- connecting ----------------------------------------------------------------------------------------


class Unlucky(socket.socket):
    """Connects, and then learns that it has failed: at once or, like most, later."""

    code = 0
    at_once = False

    def connect(self, address: Any) -> None:
        if self.at_once:
            raise OSError(self.code, os.strerror(self.code))
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        return self.code if self.at_once else super().connect_ex(address)

    def getsockopt(self, *arguments: Any) -> Any:
        if arguments[:2] == (socket.SOL_SOCKET, socket.SO_ERROR):
            return self.code
        return super().getsockopt(*arguments)


@pytest.mark.parametrize("at_once", [False, True], ids=["later", "at_once"])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ETIMEDOUT, TimedOut),
        (errno.ENETUNREACH, Unreachable),
        (errno.EHOSTUNREACH, Unreachable),
        (errno.ECONNREFUSED, ConnectionRefused),
        (errno.ECONNRESET, ConnectionReset),
        (errno.EACCES, PermissionDenied),
    ],
    ids=["timed_out", "no_route", "no_host", "refused", "reset", "forbidden"],
)
def test_connect_that_fails(
    socket_platform: Platform,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    kind: type[TransportError],
    at_once: bool,
) -> None:
    """Whatever the system says, it is one of ours, with the system's code; the handler hears it once."""
    if not socket_platform.connects_in_python:
        pytest.skip("its library connects by itself, and cannot be told to fail")
    listener = socket_platform.driver.listen(socket_platform.address(), Accepting(EchoMachine))
    machine, handler = TalkingMachine(), RecordingHandler()
    with monkeypatch.context() as patched:
        patched.setattr(Unlucky, "code", code)
        patched.setattr(Unlucky, "at_once", at_once)
        patched.setattr(socket, "socket", Unlucky)
        socket_platform.driver.connect(listener.address, machine, handler)
        socket_platform.turn_until(lambda: handler.closed)
    assert handler.journal == ["on_closed"]
    assert type(handler.error) is kind
    assert handler.error.errno == code
    assert machine.lost == [handler.error]
    listener.close()


def test_connect_that_no_route_leads_to(socket_platform: Platform) -> None:
    """A real one: TCP does not connect to a broadcast address, and no packet leaves the machine."""
    handler = RecordingHandler()
    socket_platform.driver.connect(Address("127.255.255.255", 9), TalkingMachine(), handler)
    socket_platform.turn_until(lambda: handler.closed)
    assert handler.journal == ["on_closed"]
    # systems differ in what they say
    assert isinstance(handler.error, Unreachable if sys.platform == "linux" else TransportError)
    assert handler.error.errno is not None


@pytest.fixture
def silent(peers: Peers) -> Iterator[Address]:
    """Where connections are neither accepted nor refused: as many wait as the system lets."""
    if sys.platform == "win32":
        pytest.skip("Windows refuses those for whom a listener has no room")
    listening = peers.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    address = Address(*listening.getsockname())
    for _ in range(20):
        waiting = peers.socket()
        waiting.settimeout(0.1)
        try:
            waiting.connect((address.host, address.port))
        except TimeoutError:
            yield address
            return
    pytest.skip("this system's listeners always have room")


def test_connect_that_nobody_answers(socket_platform: Platform, silent: Address) -> None:
    """It stays open until somebody gives it up, with the reason he gives; others go on meanwhile."""
    machine, handler = TalkingMachine(), RecordingHandler()
    link = socket_platform.driver.connect(silent, machine, handler)
    client, _ = pair(socket_platform, TalkingMachine(b"x"), EchoMachine())
    socket_platform.turn_until(lambda: client.machine.received == b"x")
    assert not handler.journal
    reason = TimedOut("nobody answered in time", address=str(silent))
    link.abort(reason)
    socket_platform.turn_until(lambda: handler.closed)
    assert handler.journal == ["on_closed"]
    assert handler.error is reason
    assert machine.lost == [reason]


# -- resets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "paused"])
def test_a_reset_while_both_ends_stream(socket_platform: Platform, peers: Peers, reading: bool) -> None:
    """With output queued and input under way: one `on_closed`, nothing queued, neighbours unharmed."""
    accepting = Accepting(lambda: TalkingMachine(bytes(socket_platform.bulk)))
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    neighbour, _ = pair(socket_platform, TalkingMachine(), EchoMachine())
    peer = peers.dial(listener.address)
    socket_platform.turn_until(lambda: accepting.handlers and accepting.handlers[0].ready)
    link, machine = accepting.handlers[0].link, accepting.machines[0]
    assert link is not None
    socket_platform.turn_until(lambda: link.unsent > 0)
    machine.wants_read = reading
    link.wake()
    peers.work(peer.sendall, bytes(100_000))
    if reading:
        socket_platform.turn_until(lambda: machine.received)
    else:
        socket_platform.turn_until(in_time(socket_platform.driver, 0.01))
    reset(peer)
    socket_platform.turn_until(lambda: accepting.handlers[0].closed)
    assert isinstance(accepting.handlers[0].error, ConnectionReset)
    assert accepting.handlers[0].journal.count("on_closed") == 1
    assert machine.lost == [accepting.handlers[0].error]
    assert link.unsent == 0
    neighbour.say(b"x")
    socket_platform.turn_until(lambda: neighbour.machine.received == b"x")
    listener.close()


def test_a_burst_in_which_every_other_visitor_resets(socket_platform: Platform, peers: Peers) -> None:
    """All at once, before any is accepted: those who stay are served, and so is who comes next."""
    accepting = Accepting(EchoMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    visitors = [peers.dial(listener.address) for _ in range(VISITORS)]
    for visitor in visitors[::2]:
        visitor.sendall(b"half a fr")
        reset(visitor)
    staying = visitors[1::2]

    def ask_all() -> list[bytes]:
        for number, visitor in enumerate(staying):
            visitor.sendall(b"%03d" % number)
        return [read_exactly(visitor, 3) for visitor in staying]

    asking = peers.work(ask_all)
    socket_platform.turn_until(asking.done)
    assert asking.result() == [b"%03d" % number for number in range(len(staying))]
    socket_platform.turn_until(
        lambda: sum(not handler.closed for handler in accepting.handlers) == len(staying)
    )
    for handler in accepting.handlers:
        assert handler.error is None or isinstance(handler.error, ConnectionReset)
    last = connect(socket_platform, listener, TalkingMachine(b"x"))
    socket_platform.turn_until(lambda: last.machine.received == b"x")
    listener.close()


def test_half_closed_and_then_reset(socket_platform: Platform, peers: Peers) -> None:
    """An end of stream in good order does not hide the loss that follows it."""
    accepting = Accepting(TalkingMachine)
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    peer = peers.dial(listener.address)
    peer.sendall(b"question")
    peer.shutdown(socket.SHUT_WR)
    socket_platform.turn_until(lambda: accepting.machines and accepting.machines[0].ended)
    assert accepting.machines[0].received == b"question"
    reset(peer)
    accepting.machines[0].say(bytes(1 << 20))
    link = accepting.handlers[0].link
    assert link is not None
    link.wake()
    socket_platform.turn_until(lambda: accepting.handlers[0].closed)
    assert isinstance(accepting.handlers[0].error, ConnectionReset)
    listener.close()
