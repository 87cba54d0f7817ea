"""Connecting: it succeeds, fails with a reason, or is given up."""

from __future__ import annotations

import contextlib
import importlib
import socket
from collections.abc import Callable
from typing import Any

import pytest
from machines import EchoMachine, TalkingMachine
from pairs import connect, pair, socket_of
from peers import PATIENCE, Peers, read_exactly
from platforms import Platform
from recording import Accepting, RecordingHandler, in_time

from helianthus.drivers.address import Address
from helianthus.drivers.errors import AddressNotAvailable, ConnectionRefused, TransportError


def nobody_listens(platform: Platform) -> Address:
    """An address where somebody has listened until just now."""
    listener = platform.driver.listen(platform.address(), Accepting(EchoMachine))
    platform.turn_until(in_time(platform.driver, 0.005))
    listener.close()
    platform.turn_until(in_time(platform.driver, 0.005))
    return listener.address


def test_connect(platform: Platform) -> None:
    """Both ends become ready and know each other's addresses."""
    accepting = Accepting(EchoMachine)
    listener = platform.driver.listen(platform.address(), accepting)
    end = connect(platform, listener, TalkingMachine())
    assert not end.handler.journal, "the handler was called before connect() had returned"
    platform.turn_until(lambda: end.handler.ready and accepting.handlers and accepting.handlers[0].ready)
    near, far = end.link, accepting.handlers[0].link
    assert far is not None
    assert near.local_address == far.peer_address == accepting.peers[0]
    assert near.peer_address.endswith(f":{listener.address.port}")
    assert far.local_address.endswith(f":{listener.address.port}")
    listener.close()


class Prompt(socket.socket):
    """Connects within the call itself, as systems may do when the peer is on the same machine."""

    def connect(self, address: Any) -> None:
        self.setblocking(True)
        try:
            super().connect(address)
        finally:
            self.setblocking(False)

    def connect_ex(self, address: Any) -> int:
        self.setblocking(True)
        try:
            return super().connect_ex(address)
        finally:
            self.setblocking(False)


def test_connect_that_succeeds_at_once(
    socket_platform: Platform, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler still hears of it from a later tick, and what the peer says first is read."""
    sock, address = peers.listen()
    monkeypatch.setattr(socket, "socket", Prompt)
    machine, handler = TalkingMachine(b"from the driver"), RecordingHandler()
    socket_platform.driver.connect(address, machine, handler)
    assert not handler.journal, "the handler was called before connect() had returned"
    accepting = peers.work(peers.accept, sock)
    socket_platform.turn_until(accepting.done)
    peer = accepting.result()
    peer.sendall(b"from the peer")
    reading = peers.work(read_exactly, peer, len(b"from the driver"))
    socket_platform.turn_until(lambda: machine.received == b"from the peer" and reading.done())
    assert reading.result() == b"from the driver"
    assert handler.journal[0] == "on_ready"
    assert handler.journal.count("on_ready") == 1
    peer.sendall(b", again")
    socket_platform.turn_until(lambda: machine.received == b"from the peer, again")


def test_connect_that_is_refused_at_once(socket_platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails as one does that is refused later."""
    address = nobody_listens(socket_platform)
    monkeypatch.setattr(socket, "socket", Prompt)
    handler = RecordingHandler()
    socket_platform.driver.connect(address, TalkingMachine(), handler)
    assert not handler.journal, "the handler was called before connect() had returned"
    socket_platform.turn_until(lambda: handler.closed)
    assert handler.journal == ["on_closed"]
    assert isinstance(handler.error, ConnectionRefused)


def test_connect_by_name(platform: Platform) -> None:
    """A name is looked up without blocking the driver."""
    accepting = Accepting(EchoMachine)
    listener = platform.driver.listen(platform.address(), accepting)
    end_machine, handler = TalkingMachine(b"x"), RecordingHandler()
    platform.driver.connect(Address("localhost", listener.address.port), end_machine, handler)
    platform.turn_until(lambda: end_machine.received == b"x")
    listener.close()


def test_connect_refused(platform: Platform) -> None:
    """The handler hears `on_closed(ConnectionRefused)` and nothing else; so does the machine."""
    machine, handler = TalkingMachine(), RecordingHandler()
    address = nobody_listens(platform)
    link = platform.driver.connect(address, machine, handler)
    platform.turn_until(lambda: handler.closed)
    assert handler.journal == ["on_closed"]
    assert isinstance(handler.error, ConnectionRefused)
    assert machine.lost == [handler.error]
    assert link.closed
    assert str(address.port) in str(handler.error)


def test_connect_refused_keeps_the_platforms_code(socket_platform: Platform) -> None:
    """Whatever the loop makes of the error, its number survives."""
    handler = RecordingHandler()
    socket_platform.driver.connect(nobody_listens(socket_platform), TalkingMachine(), handler)
    socket_platform.turn_until(lambda: handler.closed)
    assert isinstance(handler.error, ConnectionRefused)
    assert handler.error.errno is not None


def test_ipv6(socket_platform: Platform) -> None:
    """An address by itself, and both ends as they are told."""
    try:
        listener = socket_platform.driver.listen(Address("::1", 0), Accepting(EchoMachine))
    except TransportError:
        pytest.skip("no IPv6 here")
    machine, handler = TalkingMachine(b"x"), RecordingHandler()
    link = socket_platform.driver.connect(listener.address, machine, handler)
    socket_platform.turn_until(lambda: machine.received == b"x")
    assert link.peer_address == f"[::1]:{listener.address.port}"
    assert link.local_address.startswith("[::1]:")
    listener.close()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a name with spaces.invalid"])
def test_a_name_that_cannot_be_resolved(platform: Platform, host: str) -> None:
    """An unknown name is a fault of the address, told to the handler like any other."""
    machine, handler = TalkingMachine(), RecordingHandler()
    platform.driver.connect(Address(host, 4242), machine, handler)
    platform.turn_until(lambda: handler.closed)
    assert handler.journal == ["on_closed"]
    assert isinstance(handler.error, AddressNotAvailable)


def names_have(platform: Platform, monkeypatch: pytest.MonkeyPatch, *addresses: Address) -> None:
    """Let every name stand for these addresses; what looks like an address stands for itself."""

    def found(host: str, port: int) -> list[object]:
        meant = addresses if host.endswith(".example") else [Address(host, port)]
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address.host, address.port)) for address in meant
        ]

    async def getaddrinfo(_: object, host: str, port: int, **__: object) -> list[object]:
        return found(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: found(host, port))
    loop = getattr(platform.driver, "loop", None)
    if loop is not None:
        monkeypatch.setattr(type(loop), "getaddrinfo", getaddrinfo)


def test_every_address_of_a_name_is_tried(socket_platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address that answers wins; the last one's failure is what is told."""
    listener = socket_platform.driver.listen(socket_platform.address(), Accepting(EchoMachine))
    closed = nobody_listens(socket_platform)

    names_have(socket_platform, monkeypatch, closed, listener.address)
    machine, handler = TalkingMachine(b"x"), RecordingHandler()
    socket_platform.driver.connect(Address("two.example", 1), machine, handler)
    socket_platform.turn_until(lambda: machine.received == b"x")

    names_have(socket_platform, monkeypatch, closed, closed)
    refused = RecordingHandler()
    socket_platform.driver.connect(Address("two.example", 1), TalkingMachine(), refused)
    socket_platform.turn_until(lambda: refused.closed)
    assert isinstance(refused.error, ConnectionRefused)
    assert refused.error.errno is not None

    names_have(socket_platform, monkeypatch)
    nowhere = RecordingHandler()
    socket_platform.driver.connect(Address("none.example", 1), TalkingMachine(), nowhere)
    socket_platform.turn_until(lambda: nowhere.closed)
    assert isinstance(nowhere.error, TransportError)
    listener.close()


def test_abort_while_connecting(platform: Platform) -> None:
    """Giving up ends the link with one `on_closed`; the other side sees at most an empty visit."""
    accepting = Accepting(EchoMachine)
    listener = platform.driver.listen(platform.address(), accepting)
    end = connect(platform, listener, TalkingMachine(b"never sent"))
    link = platform.driver.connect(listener.address, TalkingMachine(b"never sent"), RecordingHandler())
    handler = link._handler
    link.abort()
    assert link.closed
    platform.turn_until(lambda: handler.closed)
    assert handler.journal == ["on_closed"]
    assert handler.error is None
    platform.turn_until(lambda: end.handler.ready)
    platform.turn_until(in_time(platform.driver, 0.02))
    assert handler.journal == ["on_closed"]
    assert len(accepting) <= 2
    listener.close()


def test_abort_at_every_moment_of_connecting(platform: Platform) -> None:
    """However far the attempt has come, it ends once and leaves nothing open."""
    listener = platform.driver.listen(platform.address(), Accepting(EchoMachine))
    handlers = []
    for turns in range(8):
        handler = RecordingHandler()
        link = platform.driver.connect(listener.address, TalkingMachine(), handler)
        for _ in range(turns):
            platform.turn(0.0)
        link.abort()
        handlers.append(handler)
    platform.turn_until(lambda: all(handler.closed for handler in handlers))
    assert all(handler.error is None for handler in handlers)
    listener.close()


def test_abort_while_the_name_is_looked_up(socket_platform: Platform, peers: Peers) -> None:
    """The answer that comes afterwards finds nobody."""
    handler = RecordingHandler()
    link = socket_platform.driver.connect(Address("localhost", 1), TalkingMachine(), handler)
    link.abort()
    socket_platform.turn_until(lambda: handler.closed)
    socket_platform.turn_until(in_time(socket_platform.driver, 0.05))
    assert handler.journal == ["on_closed"]
    assert handler.error is None


@pytest.mark.parametrize("turns", range(5))
def test_a_peer_that_speaks_first_and_at_once(socket_platform: Platform, peers: Peers, turns: int) -> None:
    """Data that is there before we know of the connection is not overlooked."""
    listening, address = peers.listen()
    machine, handler = TalkingMachine(), RecordingHandler()
    socket_platform.driver.connect(address, machine, handler)
    peer: list[socket.socket] = []

    def greet() -> None:
        peer.append(peers.accept(listening))
        peer[0].sendall(b"welcome")
        peer[0].shutdown(socket.SHUT_WR)

    for _ in range(turns):  # with some number of them, it has begun to connect and knows no more yet
        socket_platform.turn(0.0)
    if turns:
        listening.settimeout(0.01)
        with contextlib.suppress(TimeoutError):
            greet()
    if not peer:
        listening.settimeout(PATIENCE)
        socket_platform.turn_until(peers.work(greet).done)
    socket_platform.turn_until(lambda: machine.ended)
    assert machine.received == b"welcome"
    assert handler.journal[0] == "on_ready"


def test_wake_before_the_link_is_connected(platform: Platform) -> None:
    """It is not an error; what was commanded is sent when the link is there."""
    listener = platform.driver.listen(platform.address(), Accepting(EchoMachine))
    machine, handler = TalkingMachine(), RecordingHandler()
    link = platform.driver.connect(listener.address, machine, handler)
    machine.say(b"early")
    link.wake()
    platform.turn_until(lambda: machine.received == b"early")
    listener.close()


def test_no_link_to_itself(socket_platform: Platform) -> None:
    """A connection that TCP lets meet itself, at a port nobody listens at, is refused."""
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    address = Address(*probe.getsockname())
    probe.close()
    for _ in range(20):  # the kernel may give the connecting end that very port
        handler = RecordingHandler()
        socket_platform.driver.connect(address, TalkingMachine(), handler)
        socket_platform.turn_until(lambda asked=handler: asked.closed)
        assert isinstance(handler.error, ConnectionRefused)


class MeetsItself(socket.socket):
    """Connects to a port of this machine from that very port."""

    own: tuple[str, int]

    def connect(self, address: Any) -> None:
        self._take(address)
        super().connect(address)

    def connect_ex(self, address: Any) -> int:
        self._take(address)
        return super().connect_ex(address)

    def _take(self, address: Any) -> None:
        if address == self.own:
            self.bind(address)


def bind_local(own: tuple[str, int]) -> Callable[[int, int], None]:
    """What binds a socket before Windows connects it: to the system's choice, but here to this one."""

    def bind(descriptor: int, family: int) -> None:
        sock = socket.socket(socket.AddressFamily(family), socket.SOCK_STREAM, fileno=descriptor)
        try:
            sock.bind(own)
        finally:
            sock.detach()

    return bind


def test_the_next_address_is_tried_after_meeting_itself(
    socket_platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may choose the very port that is connected to, where nobody listens."""
    listener = socket_platform.driver.listen(
        socket_platform.address(), Accepting(lambda: TalkingMachine(b"welcome"))
    )
    closed = nobody_listens(socket_platform)
    names_have(socket_platform, monkeypatch, closed, listener.address)
    monkeypatch.setattr(MeetsItself, "own", (closed.host, closed.port), raising=False)
    monkeypatch.setattr(socket, "socket", MeetsItself)
    if socket_platform.completes:
        windows = importlib.import_module("_overlapped")
        chosen = iter([bind_local(MeetsItself.own), windows.BindLocal])
        monkeypatch.setattr(windows, "BindLocal", lambda *arguments: next(chosen)(*arguments))
    machine = TalkingMachine()
    socket_platform.driver.connect(Address("two.example", 1), machine, RecordingHandler())
    socket_platform.turn_until(lambda: machine.received == b"welcome")
    listener.close()


@pytest.mark.parametrize(
    ("level", "option"),
    [(socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.SOL_SOCKET, socket.SO_KEEPALIVE)],
    ids=["nodelay", "keepalive"],
)
def test_options_of_both_ends(socket_platform: Platform, level: int, option: int) -> None:
    """Nagle's algorithm holds no small frames back, and the system finds peers that have vanished.

    Not every protocol has pings of its own.
    """
    client, server = pair(socket_platform, TalkingMachine(), TalkingMachine())
    assert socket_of(client.link).getsockopt(level, option)
    assert socket_of(server.link).getsockopt(level, option)
    client.link.abort()
    server.link.abort()
