"""Two TLS layers, each with a child that does as it is told, a virtual clock and bytes carried by hand."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from certificates import Pair
from layer_child import LayerChild

from helianthus.protocols.machine import Buffer, Closing, ConnectionFailed
from helianthus.protocols.tls import TlsEstablished, TlsLayer, TlsSessionReceived

Cut = Callable[[bytes], list[bytes]]


class Child(LayerChild):
    """A stream machine that says what it is told to and remembers what it hears.

    Attributes:
        heard: All bytes so far.
        pieces: How many inputs they came in.
        ended: The peer's stream has ended in good order.
        lost: How the connection was lost, or None.
    """

    def __init__(self, *, echoes: bool = False) -> None:
        super().__init__()
        self.heard = bytearray()
        self.pieces = 0
        self.ended = False
        self.lost: list[Exception | None] = []
        self.closing = Closing.OPEN
        self.wants_read = True
        self._echoes = echoes
        self._output: list[Buffer] = []

    def say(self, *data: bytes) -> None:
        self._output.extend(data)

    def receive_data(self, data: Buffer, now: float) -> None:
        self.told.append(now)
        self.pieces += 1
        self.heard += data
        self.events.append(f"{len(data)} bytes")
        if self._echoes:
            self.say(bytes(data))

    def receive_eof(self, now: float) -> None:
        assert not self.ended
        assert not self.lost
        self.ended = True
        if self._echoes:
            self.closing = Closing.HALF

    def connection_lost(self, error: Exception | None, now: float) -> None:
        self.lost.append(error)
        self.events.append("lost")

    def take_data(self) -> list[Buffer]:
        taken, self._output = self._output, []
        return taken


class End:
    """One layer as a driver sees it.

    Attributes:
        events: All events so far.
        sent: Bytes so far.
        wire: What was sent and has not been carried.
        half_closed: Whether our direction has ended.
        closed: How the link has ended: FULL or ABORT.
    """

    def __init__(self, layer: TlsLayer[Any], child: Child) -> None:
        self.layer = layer
        self.child = child
        self.events: list[Any] = []
        self.sent = 0
        self.wire = bytearray()
        self.half_closed = False
        self.closed: Closing | None = None
        self.eof_seen = False

    def settle(self) -> None:
        """As a link does it at the end of a tick."""
        if self.closed is not None:
            return
        layer = self.layer
        self.child.actions += layer.take_actions()
        data = b"".join(layer.take_data())
        assert not (data and self.half_closed), "it sends after it has closed its half"
        self.wire += data
        self.sent += len(data)
        closing = layer.closing
        if closing is Closing.HALF:
            self.half_closed = True
        elif closing is not Closing.OPEN:
            self.half_closed = True
            self.closed = closing
        self.events += layer.take_events()

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def established(self) -> TlsEstablished:
        (event,) = self.of(TlsEstablished)
        return event

    @property
    def failure(self) -> Exception:
        (event,) = self.of(ConnectionFailed)
        assert self.events[-1] is event
        return event.error  # type: ignore[no-any-return]

    @property
    def session(self) -> Any:
        (event,) = self.of(TlsSessionReceived)
        return event.session


def whole(data: bytes) -> list[bytes]:
    return [data]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


class TlsPair:
    """A client and a server.

    Attributes:
        now: Monotonic seconds; only tests move it.
    """

    def __init__(
        self,
        client: ssl.SSLContext,
        server: ssl.SSLContext,
        *,
        server_name: str = "node.example",
        session: Any = None,
        client_child: Child | None = None,
        server_child: Child | None = None,
        cut: Cut = whole,
        **options: Any,
    ) -> None:
        self.now = 1000.0
        self.cut = cut
        near, far = client_child or Child(), server_child or Child()
        self.client = End(
            TlsLayer(
                near,
                client,
                self.now,
                server_side=False,
                server_name=server_name,
                session=session,
                **options,
            ),
            near,
        )
        self.server = End(TlsLayer(far, server, self.now, server_side=True, **options), far)

    @property
    def ends(self) -> tuple[End, End]:
        return self.client, self.server

    def carry(self, source: End, target: End, limit: int | None = None) -> bool:
        """Carry what one end has sent, or the first bytes of it; gives whether anything was there."""
        source.settle()
        data = bytes(source.wire[:limit])
        del source.wire[: len(data)]
        for piece in self.cut(data):
            self.give(target, piece)
        ended = source.half_closed and not source.wire and not target.eof_seen
        if ended:
            target.eof_seen = True
            if target.closed is None:
                target.layer.receive_eof(self.now)
        target.settle()
        return bool(data) or ended

    def give(self, target: End, data: bytes) -> None:
        """Give bytes to an end from a buffer that is used again, as drivers do."""
        buffer = bytearray(data)
        if target.closed is None:
            target.layer.receive_data(memoryview(buffer), self.now)
        buffer[:] = bytes(len(buffer))

    def run(self) -> TlsPair:
        """Carry bytes both ways, and let deadlines come that are due, until nothing moves."""
        for _ in range(10_000):
            moved = self.carry(self.client, self.server)
            moved |= self.carry(self.server, self.client)
            moved |= self.tell_time()
            if not moved:
                return self
        raise AssertionError("they never come to rest")

    def tell_time(self) -> bool:
        """Call those whose deadline has come."""
        told = False
        for end in self.ends:
            deadline = end.layer.deadline()
            if end.closed is None and deadline is not None and deadline <= self.now:
                end.layer.handle_timeout(self.now)
                later = end.layer.deadline()
                assert later is None or later > self.now
                end.settle()
                told = True
        return told

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tell_time()


def server_context(pair: Pair, client_ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(ca: Path | None, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca is not None:
        context.load_verify_locations(ca)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context
