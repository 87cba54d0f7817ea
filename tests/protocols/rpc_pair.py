"""Sessions without a network: one that talks with a script, and two that talk with each other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgpack

from helianthus.protocols.machine import Buffer, Closing
from helianthus.protocols.rpc import (
    NO_KEEP_ALIVE,
    HelloReceived,
    KeepAlive,
    RpcEvent,
    RpcLimits,
    RpcSession,
)

E = TypeVar("E")

Message = list[Any]
Split = Callable[[bytes], Iterator[bytes]]

WINDOW = RpcLimits().stream_window
HELLO: Message = [2, "helianthus.hello", [{"version": 1, "credit": WINDOW}]]
"""What a session with default limits says of itself."""


def pack(*messages: Any) -> bytes:
    """Messages as bytes, encoded apart from the session's own encoder."""
    return b"".join(msgpack.packb(message) for message in messages)


def unpack(data: bytes) -> list[Any]:
    """The messages in `data`, which must end with the end of one."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=len(data) or 1)
    unpacker.feed(data)
    messages: list[Any] = []
    end = 0
    for message in unpacker:
        messages.append(message)
        end = unpacker.tell()
    assert end == len(data), "the session sent part of a message"
    return messages


def whole(data: bytes) -> Iterator[bytes]:
    """All of it at once."""
    if data:
        yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    """One byte after another."""
    for place in range(len(data)):
        yield data[place : place + 1]


def at_random(rng: random.Random) -> Split:
    """Pieces of one to forty bytes."""

    def split(data: bytes) -> Iterator[bytes]:
        place = 0
        while place < len(data):
            size = rng.randint(1, 40)
            yield data[place : place + size]
            place += size

    return split


def join(buffers: Iterable[Buffer]) -> bytes:
    return b"".join(bytes(buffer) for buffer in buffers)


class Talk:
    """One session, and a peer that says what the test tells it to.

    Args:
        initiator: Whether the session opened the connection.
        extended: Whether the peer understands the extensions; the hellos are exchanged already.
        split: How what the peer says is cut into pieces.
        keep_alive: None for no pings.
        options: For `RpcSession`.
    """

    def __init__(
        self,
        *,
        initiator: bool = True,
        extended: bool = True,
        split: Split = whole,
        limits: RpcLimits | None = None,
        keep_alive: KeepAlive | None = NO_KEEP_ALIVE,
        credit: int = WINDOW,
        **options: Any,
    ) -> None:
        self.now = 100.0
        self.session = RpcSession(
            self.now, initiator=initiator, limits=limits, keep_alive=keep_alive, **options
        )
        self._split = split
        if extended:
            self.hear([2, "helianthus.hello", [{"version": 1, "credit": credit}]])
            assert self.events() == [HelloReceived(1, credit)]
        self.said()

    def hear(self, *messages: Any) -> None:
        """The peer sends messages."""
        self.hear_bytes(pack(*messages))

    def hear_bytes(self, data: bytes) -> None:
        """The peer sends bytes."""
        for piece in self._split(data):
            self.session.receive_data(piece, self.now)

    def said(self) -> list[Any]:
        """What the session has sent since the last time."""
        return unpack(join(self.session.take_data()))

    def events(self) -> list[RpcEvent]:
        """What the session has told since the last time."""
        return self.session.take_events()

    def event(self, kind: type[E]) -> E:
        """The only event, which must be of this kind."""
        (event,) = self.events()
        assert isinstance(event, kind)
        return event

    def call(self, method: str = "m", params: Any = (), **options: Any) -> int:
        """Begin a call of the session's."""
        return self.session.call(method, params, self.now, **options)

    def sent_call(self, method: str = "m", params: Any = (), **options: Any) -> int:
        """Begin a call of the session's, which the transport takes."""
        msgid = self.call(method, params, **options)
        self.said()
        return msgid

    def wait(self, seconds: float) -> None:
        """Time passes without anything else; the session is told of it as a driver would."""
        self.now += seconds
        self.session.handle_timeout(self.now)
        due = self.session.deadline()
        assert due is None or due > self.now

    def end(self) -> None:
        """The peer ends its stream."""
        self.session.receive_eof(self.now)

    def lose(self, error: Exception | None = None) -> None:
        """The transport goes away."""
        self.session.connection_lost(error, self.now)


class Pair:
    """Two sessions joined by a wire, on one clock.

    Args:
        split: How bytes are cut on their way.
        client: Options of the session that opened the connection.
        server: Options of the other.
    """

    def __init__(
        self,
        *,
        split: Split = whole,
        client: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
    ) -> None:
        self.now = 0.0
        defaults: dict[str, Any] = {"keep_alive": NO_KEEP_ALIVE}
        self.client = RpcSession(self.now, initiator=True, **{**defaults, **(client or {})})
        self.server = RpcSession(self.now, initiator=False, **{**defaults, **(server or {})})
        self._split = split
        self._ended: list[RpcSession] = []

    def other(self, session: RpcSession) -> RpcSession:
        return self.server if session is self.client else self.client

    def deliver(self, session: RpcSession) -> bool:
        """Carry what a session has to say to the other, also its end; false where there was nothing."""
        data = join(session.take_data())
        for piece in self._split(data):
            self.other(session).receive_data(piece, self.now)
        if session.closing is Closing.FULL and session not in self._ended:
            self._ended.append(session)
            self.other(session).receive_eof(self.now)
            return True
        return bool(data)

    def pump(self) -> None:
        """Carry bytes until neither side has anything to say."""
        while self.deliver(self.client) or self.deliver(self.server):
            pass

    def greet(self) -> Pair:
        """Exchange hellos."""
        self.pump()
        assert [type(event) for event in self.client.take_events()] == [HelloReceived]
        assert [type(event) for event in self.server.take_events()] == [HelloReceived]
        return self

    def call(self, method: str = "m", params: Any = (), **options: Any) -> int:
        """Begin a call of the client's."""
        return self.client.call(method, params, self.now, **options)

    def wait(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline on the way."""
        end = self.now + seconds
        while True:
            deadlines = [self.client.deadline(), self.server.deadline()]
            due = min((when for when in deadlines if when is not None), default=end)
            self.now = min(max(due, self.now), end)
            for session in (self.client, self.server):
                session.handle_timeout(self.now)
                left = session.deadline()
                assert left is None or left > self.now
            self.pump()
            if self.now >= end:
                return
