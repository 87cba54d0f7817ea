"""Ends of a connection that speak MessagePack and nothing more, on any driver."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack

from helianthus import RpcLimits, Server
from helianthus.drivers.address import Address
from helianthus.drivers.base import Driver, Listener
from helianthus.drivers.choose import running_driver
from helianthus.drivers.pump import Link
from helianthus.protocols.machine import Action, Buffer, Closing, Outcome

REQUEST, RESPONSE, NOTIFICATION, CANCEL, ITEM, END, CREDIT, PING, GOAWAY = range(9)

HELLO = [
    NOTIFICATION,
    "helianthus.hello",
    [{"version": 1, "credit": RpcLimits().stream_window, "codecs": ["json"]}],
]


class RawMachine:
    """Bytes in are kept, bytes out are what was said."""

    def __init__(self) -> None:
        self.wants_read = True
        self.closing = Closing.OPEN
        self.output: list[Buffer] = []
        self.events: list[bytes | None] = []

    def deadline(self) -> float | None:
        return None

    def handle_timeout(self, now: float) -> None: ...

    def take_events(self) -> list[bytes | None]:
        events, self.events = self.events, []
        return events

    def take_actions(self) -> list[Action]:
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None: ...

    def receive_data(self, data: Buffer, now: float) -> None:
        self.events.append(bytes(data))

    def receive_eof(self, now: float) -> None:
        self.events.append(None)

    def connection_lost(self, error: Exception | None, now: float) -> None: ...

    def take_data(self) -> list[Buffer]:
        output, self.output = self.output, []
        return output


class RawEnd:
    """A connection to send anything on, and to look at what comes.

    Attributes:
        heard: Messages that have come and were not taken by `hear`.
        eof: Whether the peer has ended its direction.
        closed: Whether the connection has ended.
        error: How it ended.
    """

    def __init__(self) -> None:
        self.machine = RawMachine()
        self.link: Link[Any] | None = None
        self.heard: deque[Any] = deque()
        self.eof = False
        self.closed = False
        self.error: Exception | None = None
        self._unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=2**30)
        self._changed = asyncio.Event()

    # -- LinkHandler ------------------------------------------------------------------------------------

    def on_ready(self, link: Link[Any]) -> None:
        self.link = link
        self._changed.set()

    def on_events(self, events: list[bytes | None]) -> None:
        for event in events:
            if event is None:
                self.eof = True
            else:
                self._unpacker.feed(event)
                self.heard.extend(self._unpacker)
        self._changed.set()

    def on_actions(self, actions: list[Action]) -> None: ...

    def on_writable(self) -> None: ...

    def on_closed(self, error: Exception | None) -> None:
        self.closed = True
        self.error = error
        self._changed.set()

    # -- for tests ----------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.machine.output.append(data)
        if self.link is not None:
            self.link.wake()

    def say(self, *messages: Any) -> None:
        """Send messages."""
        self.send(b"".join(msgpack.packb(message) for message in messages))

    def end(self) -> None:
        """End our direction."""
        self.machine.closing = Closing.HALF
        if self.link is not None:
            self.link.wake()

    def finish(self) -> None:
        """Close in good order."""
        self.machine.closing = Closing.FULL
        if self.link is not None:
            self.link.wake()

    def abort(self) -> None:
        """Break the connection."""
        if self.link is not None:
            self.link.abort()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something about this end holds."""
        while not condition():
            assert not self.closed, f"the connection has ended: {self.error}"
            self._changed.clear()
            await self._changed.wait()

    async def hear(self) -> Any:
        """The next message."""
        await self.until(lambda: self.heard)
        return self.heard.popleft()

    async def hear_end(self) -> None:
        """Wait until the peer has ended the connection."""
        while not self.eof and not self.closed:
            self._changed.clear()
            await self._changed.wait()


async def raw_client(to: Server | Address, driver: Driver | None = None) -> RawEnd:
    """Connect."""
    address = to.addresses[0] if isinstance(to, Server) else to
    end = RawEnd()
    (driver or running_driver()).connect(address, end.machine, end)
    await end.until(lambda: end.link)
    return end


class RawServer:
    """Accepts connections, and leaves all the rest to the test.

    Attributes:
        ends: Connections, in the order in which they came.
    """

    def __init__(self, address: Address | None = None) -> None:
        self.ends: list[RawEnd] = []
        self._arrived = asyncio.Event()
        self.listener: Listener = running_driver().listen(address or Address("127.0.0.1", 0), self._accept)

    @property
    def address(self) -> Address:
        return self.listener.address

    @property
    def url(self) -> str:
        return str(self.address)

    def _accept(self, peer: str) -> tuple[RawMachine, RawEnd]:
        end = RawEnd()
        self.ends.append(end)
        self._arrived.set()
        return end.machine, end

    async def accepted(self, number: int = 1) -> RawEnd:
        """Wait for the connection of that number, counted from one."""
        while len(self.ends) < number:
            self._arrived.clear()
            await self._arrived.wait()
        end = self.ends[number - 1]
        await end.until(lambda: end.link)
        return end

    def close(self) -> None:
        self.listener.close()
        for end in self.ends:
            end.abort()
