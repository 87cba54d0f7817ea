"""Layers between a machine and the driver: TLS and the PROXY header.

The layers are machines, and the driver knows nothing of them. What is shown here is that it treats
them as it must: order, ends, pauses, deadlines and files come out right with a layer in between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machines import BulkMachine, DeadlineMachine, EchoMachine, Ended, Taken, TalkingMachine
from pairs import End, connect, pair
from peers import Peers, reset
from platforms import Platform
from recording import Accepting, RecordingHandler, in_time
from self_signed import NAME, SelfSigned

from helianthus.drivers.errors import ConnectionReset
from helianthus.protocols.machine import Buffer, Closing, ConnectionFailed
from helianthus.protocols.proxy_header import (
    BadProxyHeader,
    ProxyHeader,
    ProxyHeaderLayer,
    ProxyHeaderReceived,
    encode_proxy_header,
)
from helianthus.protocols.tls import (
    TlsEstablished,
    TlsHandshakeAbandoned,
    TlsHandshakeFailed,
    TlsLayer,
    TlsTruncated,
)

BULK = 4 * 1024 * 1024
PIECE = 100_000
CONTENT = hashlib.shake_128(b"a file").digest(300_000)


class Over:
    """What is said below a layer: something before it, and an end that the layer has not asked for."""

    def __init__(self, layer: Any, *before: bytes) -> None:
        self._layer = layer
        self._before: list[Buffer] = list(before)
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    @property
    def closing(self) -> Closing:
        return Closing.FULL if self.cut else self._layer.closing

    def take_data(self) -> list[Buffer]:
        before, self._before = self._before, []
        return [*before, *self._layer.take_data()]


class Answering(TalkingMachine):
    """Has the last word: it answers the end of what it hears, and ends as well."""

    def receive_eof(self, now: float) -> None:
        super().receive_eof(now)
        self.say(b"%d bytes, " % len(self.received))
        self.say(b"goodbye")
        self.closing = Closing.FULL


def failures(handler: RecordingHandler) -> list[Exception]:
    return [event.error for event in handler.events if isinstance(event, ConnectionFailed)]


# -- TLS --------------------------------------------------------------------------------------------


class Secured:
    """Makes layers with a certificate for a platform."""

    def __init__(self, platform: Platform, certificate: SelfSigned) -> None:
        self._platform = platform
        self._certificate = certificate

    def client(self, child: Any, **options: Any) -> TlsLayer[Any]:
        context, now = self._certificate.client, self._platform.driver.now()
        return TlsLayer(child, context, now, server_side=False, server_name=NAME, **options)

    def server(self, child: Any, **options: Any) -> TlsLayer[Any]:
        now = self._platform.driver.now()
        return TlsLayer(child, self._certificate.server, now, server_side=True, **options)

    def pair(
        self, near: Any, far: Any, *, over: Callable[[Any], Any] = lambda layer: layer, **handlers: Any
    ) -> tuple[End, End]:
        """Both ends of a connection, each with its child as the machine; the handshake may go on."""
        ends = pair(self._platform, over(self.client(near)), self.server(far), **handlers)
        for end, child in zip(ends, (near, far), strict=True):
            end.machine = child
        return ends


@pytest.fixture
def secured(platform: Platform, certificate: SelfSigned) -> Secured:
    return Secured(platform, certificate)


def offering(handler: RecordingHandler, events: list[Any]) -> None:
    """Offer the next piece of the machine in the layer whenever the last one was taken."""
    if Taken() in events:
        handler.reactions["machine"].offer()
        handler.link.wake()


def bulk(total: int, seed: int) -> tuple[BulkMachine, RecordingHandler]:
    machine = BulkMachine(total, PIECE, seed)
    return machine, RecordingHandler(on_events=offering, machine=machine)  # type: ignore[arg-type]


def test_tls_echo(platform: Platform, secured: Secured) -> None:
    """What is said before the handshake is over waits for it, and what comes after goes at once."""
    client, server = secured.pair(TalkingMachine(b"sunflower"), EchoMachine())
    platform.turn_until(lambda: client.machine.received == b"sunflower")
    client.say(b" seeds")
    platform.turn_until(lambda: client.machine.received == b"sunflower seeds")
    for end in (client, server):
        assert isinstance(end.handler.events[0], TlsEstablished)
        assert end.handler.events[0].version == "TLSv1.3"
    assert client.handler.events[0].verified


def test_tls_half_close(platform: Platform, secured: Secured) -> None:
    """One direction ends, and the other has something to say still."""
    client, server = secured.pair(TalkingMachine(CONTENT), Answering())
    client.machine.closing = Closing.HALF
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert server.machine.received == CONTENT
    assert client.machine.received == b"300000 bytes, goodbye"
    assert client.machine.ended
    assert client.handler.error is server.handler.error is None


def test_tls_large_transfers_both_ways(platform: Platform, secured: Secured) -> None:
    near, near_handler = bulk(BULK, seed=1)
    far, far_handler = bulk(BULK, seed=2)
    ends = secured.pair(near, far, client_handler=near_handler, server_handler=far_handler)
    for end in ends:
        end.machine.offer()
        end.link.wake()
    platform.turn_until(lambda: near_handler.closed and far_handler.closed)
    for sender, receiver in ((near, far), (far, near)):
        assert sender.sent == receiver.received == BULK
        assert sender.checksum_sent == receiver.checksum_received
        assert receiver.ended
    assert near_handler.error is far_handler.error is None


def test_tls_a_child_that_wants_no_more(platform: Platform, secured: Secured) -> None:
    """It is fed nothing, and when it wants some again it gets all of it and then the end."""
    server = TalkingMachine()
    client, far = secured.pair(TalkingMachine(), server)
    client.say(b"first")
    platform.turn_until(lambda: server.received == b"first")

    def enough(data: Any, now: float) -> None:
        TalkingMachine.receive_data(server, data, now)
        server.wants_read = False

    server.receive_data = enough  # type: ignore[method-assign]
    client.machine.say(CONTENT)
    client.machine.closing = Closing.HALF
    client.link.wake()
    while not server.ended:
        receipts = server.receipts
        platform.turn_until(in_time(platform.driver, 0.002))
        assert server.receipts <= receipts + 1, "it was fed after it had stopped wanting to read"
        assert not server.ended or len(server.received) == 5 + len(CONTENT), "the end came too early"
        server.wants_read = True
        far.link.wake()
    assert server.received == b"first" + CONTENT


def test_tls_a_stream_that_is_cut_off(platform: Platform, secured: Secured) -> None:
    """The transport's end is none of the stream if the peer has not signed it."""
    client, server = secured.pair(TalkingMachine(CONTENT), TalkingMachine(), over=Over)
    platform.turn_until(lambda: server.machine.received == CONTENT)
    client.link.machine.cut = True  # type: ignore[attr-defined]
    client.link.wake()
    platform.turn_until(lambda: server.handler.closed)
    (error,) = failures(server.handler)
    assert isinstance(error, TlsTruncated)
    assert not server.machine.ended
    assert server.machine.lost[0] is error
    platform.turn_until(lambda: client.handler.closed)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16" + bytes(70_000)], ids=len
)
def test_tls_handshake_with_garbage(platform: Platform, secured: Secured, garbage: bytes) -> None:
    """It fails on either side, with a reason; whoever speaks something else hears an alert, or the end."""
    client, server = pair(platform, TalkingMachine(garbage), secured.server(EchoMachine()))
    platform.turn_until(lambda: client.handler.closed or client.machine.ended)
    platform.turn_until(lambda: failures(server.handler))
    assert isinstance(failures(server.handler)[0], TlsHandshakeFailed)
    assert client.machine.received[:1] in (b"", b"\x15")

    client, server = pair(platform, secured.client(TalkingMachine(b"secret")), TalkingMachine(garbage))
    platform.turn_until(lambda: failures(client.handler))
    assert isinstance(failures(client.handler)[0], TlsHandshakeFailed)
    assert b"secret" not in server.machine.received


def test_tls_handshake_with_nobody(platform: Platform, secured: Secured) -> None:
    """One that says nothing, and one that leaves at once."""
    layer = secured.server(TalkingMachine(), handshake_timeout=0.02)
    client, server = pair(platform, TalkingMachine(), layer)
    platform.turn_until(lambda: failures(server.handler))
    assert "handshake_timeout (0.02 s)" in str(failures(server.handler)[0])
    platform.turn_until(lambda: client.machine.ended)

    leaving = TalkingMachine()
    leaving.closing = Closing.FULL
    accepting = Accepting(lambda: secured.server(TalkingMachine()))
    listener = platform.driver.listen(platform.address(), accepting)
    connect(platform, listener, leaving)
    platform.turn_until(lambda: accepting.handlers and accepting.handlers[0].closed)
    assert isinstance(failures(accepting.handlers[0])[0], TlsHandshakeAbandoned)
    listener.close()


def test_tls_deadlines_of_the_child(platform: Platform, secured: Secured) -> None:
    machine = DeadlineMachine(due := platform.driver.now() + 0.03)
    client, _ = secured.pair(machine, EchoMachine())
    platform.turn_until(lambda: Ended() in client.handler.events)
    deadline, told = machine.told[-1]
    assert deadline == due
    assert told >= due


def test_tls_files(platform: Platform, secured: Secured, tmp_path: Path) -> None:
    """They are encrypted as all that is said, and keep their place in it."""
    client, server = secured.pair(TalkingMachine(b"before "), TalkingMachine())
    platform.turn_until(lambda: server.machine.received == b"before ")
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        transfer = client.link.send_file(file)
        client.say(b" after")
        platform.turn_until(lambda: server.machine.received.endswith(b" after"))
        assert transfer.done
    assert server.machine.received == b"before " + CONTENT + b" after"


def test_tls_with_a_foreign_peer(socket_platform: Platform, peers: Peers, certificate: SelfSigned) -> None:
    """Python's own sockets, whose every message comes in a piece of its own."""
    secured = Secured(socket_platform, certificate)
    accepting = Accepting(lambda: secured.server(EchoMachine()))
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    raw = peers.dial(listener.address)

    def talk() -> bytes:
        heard = bytearray()
        with certificate.client.wrap_socket(raw, server_hostname=NAME) as sock:
            peers.keep(sock)
            for start in range(0, len(CONTENT), 50_000):
                sock.sendall(CONTENT[start : start + 50_000])
                while len(heard) < min(start + 50_000, len(CONTENT)):
                    heard += sock.recv(1 << 16)
            sock.unwrap()
        return bytes(heard)

    talking = peers.work(talk)
    socket_platform.turn_until(talking.done)
    assert talking.result() == CONTENT
    socket_platform.turn_until(lambda: accepting.handlers[0].closed)
    assert accepting.handlers[0].error is None
    listener.close()


def test_tls_with_a_foreign_peer_that_resets(
    socket_platform: Platform, peers: Peers, certificate: SelfSigned
) -> None:
    secured = Secured(socket_platform, certificate)
    accepting = Accepting(lambda: secured.server(EchoMachine()))
    listener = socket_platform.driver.listen(socket_platform.address(), accepting)
    raw = peers.dial(listener.address)

    def talk() -> bytes:
        sock = certificate.client.wrap_socket(raw, server_hostname=NAME)
        sock.sendall(b"hello")
        answer = sock.recv(100)
        reset(sock)
        return answer

    talking = peers.work(talk)
    socket_platform.turn_until(talking.done)
    assert talking.result() == b"hello"
    socket_platform.turn_until(lambda: accepting.handlers[0].closed)
    assert isinstance(accepting.handlers[0].error, ConnectionReset)
    listener.close()


# -- the PROXY header -------------------------------------------------------------------------------


HEADER = ProxyHeader.between(("192.0.2.1", 56324), ("192.0.2.2", 443))
HEADERS = [
    encode_proxy_header(ProxyHeader.between(("192.0.2.1", 56324), ("192.0.2.2", 443), version=1)),
    encode_proxy_header(HEADER),
]
versions = pytest.mark.parametrize("header", HEADERS, ids=["version-1", "version-2"])


def announced(platform: Platform, *said: bytes, child: Any = None, **options: Any) -> tuple[End, End]:
    """One that connects and says something, and one that waits for a header."""
    child = child or EchoMachine()
    layer = ProxyHeaderLayer(child, platform.driver.now(), **options)
    return pair(platform, TalkingMachine(*said), layer)


def told_by(handler: RecordingHandler) -> ProxyHeader:
    first = handler.events[0]
    assert isinstance(first, ProxyHeaderReceived), first
    return first.header


@versions
def test_proxy_header_and_data_in_one_read(platform: Platform, header: bytes) -> None:
    client, server = announced(platform, header + b"and data")
    platform.turn_until(lambda: client.machine.received == b"and data")
    assert told_by(server.handler).source == HEADER.source
    client.say(b", and more")
    platform.turn_until(lambda: client.machine.received == b"and data, and more")
    client.machine.closing = Closing.HALF
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert client.handler.error is server.handler.error is None


@versions
def test_proxy_header_that_trickles_in(platform: Platform, header: bytes) -> None:
    client, server = announced(platform)
    for number in range(len(header)):
        assert not server.handler.events
        client.say(header[number : number + 1])
        platform.turn_until(lambda came=number: server.link.bytes_in > came)
    assert told_by(server.handler).destination == HEADER.destination
    client.say(b"data")
    platform.turn_until(lambda: client.machine.received == b"data")


@versions
def test_proxy_header_that_is_cut_off(platform: Platform, header: bytes) -> None:
    client, server = announced(platform, header[:-1])
    client.machine.closing = Closing.HALF
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert isinstance(failures(server.handler)[0], BadProxyHeader)
    assert not client.machine.received


def test_proxy_header_that_is_wrong(platform: Platform) -> None:
    """What follows it is not served, and the connection ends."""
    client, server = announced(platform, b"PROXY TCP9 here there 1 2\r\n" + b"data")
    platform.turn_until(lambda: client.machine.ended)
    assert isinstance(failures(server.handler)[0], BadProxyHeader)
    assert not client.machine.received


def test_proxy_header_that_does_not_come(platform: Platform) -> None:
    """Nor is one who has to speak first heard before it."""
    client, server = announced(platform, child=TalkingMachine(b"welcome"), header_timeout=0.02)
    platform.turn_until(lambda: client.machine.ended)
    assert "header_timeout (0.02 s)" in str(failures(server.handler)[0])
    assert not client.machine.received


@versions
def test_proxy_header_before_tls(platform: Platform, secured: Secured, header: bytes) -> None:
    """In plain text, and in one read with the beginning of the handshake."""
    talking = TalkingMachine(b"secret")
    layer = ProxyHeaderLayer(secured.server(EchoMachine()), platform.driver.now())
    client, server = pair(platform, Over(secured.client(talking), header), layer)
    platform.turn_until(lambda: talking.received == b"secret")
    assert told_by(server.handler).source == HEADER.source
    assert isinstance(server.handler.events[1], TlsEstablished)
    talking.closing = Closing.HALF
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert talking.ended
    assert client.handler.error is server.handler.error is None
