"""The simplest machines there are, and coroutines on top of them, for tests of the simulator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from helianthus.drivers.address import Address
from helianthus.drivers.base import Driver, Listener
from helianthus.drivers.choose import running_driver
from helianthus.drivers.pump import Link
from helianthus.protocols.machine import Action, Buffer, Closing, DatagramAddress, Outcome

PORT = 7070
"""Where the tests' servers listen."""


class QuietMachine:
    """What machines have in common that never act, and that want nothing of the clock."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def deadline(self) -> float | None:
        return None

    def handle_timeout(self, now: float) -> None:
        pass

    def take_events(self) -> list[Any]:
        events, self.events = self.events, []
        return events

    def take_actions(self) -> list[Action]:
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        raise AssertionError("no action was ever given")


class ByteMachine(QuietMachine):
    """Bytes in are events, None is the end of the stream; bytes out are what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.output: list[Buffer] = []
        self.wants_read = True
        self.closing = Closing.OPEN
        self.kept: list[Buffer] = []

    def receive_data(self, data: Buffer, now: float) -> None:
        self.kept.append(data)
        self.events.append(bytes(data))

    def receive_eof(self, now: float) -> None:
        self.events.append(None)

    def connection_lost(self, error: Exception | None, now: float) -> None:
        pass

    def take_data(self) -> list[Buffer]:
        output, self.output = self.output, []
        return output


class Stream:
    """Both a handler and what a coroutine reads from and writes to."""

    def __init__(self) -> None:
        self.machine = ByteMachine()
        self.link: Link[Any] | None = None
        self.received = bytearray()
        self.chunks: list[bytes] = []
        self.eof = False
        self.closed = False
        self.error: Exception | None = None
        self.loops: list[asyncio.AbstractEventLoop] = []
        self._changed = asyncio.Event()

    # -- LinkHandler ----------------------------------------------------------------------------

    def on_ready(self, link: Link[Any]) -> None:
        self.link = link
        self._note()

    def on_events(self, events: list[Any]) -> None:
        for event in events:
            if event is None:
                self.eof = True
            else:
                self.received += event
                self.chunks.append(event)
        self._note()

    def on_actions(self, actions: list[Action]) -> None:
        raise AssertionError("no action was ever given")

    def on_writable(self) -> None:
        self._note()

    def on_closed(self, error: Exception | None) -> None:
        self.closed = True
        self.error = error
        self._note()

    def _note(self) -> None:
        self.loops.append(asyncio.get_running_loop())  # raises outside of a node's slice
        self._changed.set()

    # -- commands -------------------------------------------------------------------------------

    def say(self, data: bytes) -> None:
        self.machine.output.append(data)
        self.wake()

    def end(self, closing: Closing = Closing.FULL) -> None:
        self.machine.closing = closing
        self.wake()

    def read(self, wanted: bool) -> None:
        self.machine.wants_read = wanted
        self.wake()

    def wake(self) -> None:
        if self.link is not None:
            self.link.wake()

    # -- for coroutines -----------------------------------------------------------------------

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds; raises the link's error if it ends before."""
        while not condition():
            if self.closed:
                raise self.error or EOFError("the link has closed")
            self._changed.clear()
            await self._changed.wait()

    async def take(self, size: int) -> bytes:
        await self.until(lambda: len(self.received) >= size)
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    async def wait_closed(self) -> None:
        while not self.closed:
            self._changed.clear()
            await self._changed.wait()


def call(driver: Driver, host: str, port: int = PORT) -> Stream:
    """Begin to connect."""
    stream = Stream()
    driver.connect(Address(host, port), stream.machine, stream)
    return stream


async def connect(host: str, port: int = PORT) -> Stream:
    """Connect, from within a node."""
    stream = call(running_driver(), host, port)
    await stream.until(lambda: stream.link)
    return stream


def listen(driver: Driver, host: str = "0.0.0.0", port: int = PORT) -> tuple[Listener, list[Stream]]:
    """Listen; connections are added to the list as they come."""
    streams: list[Stream] = []

    def accept(peer: str) -> tuple[ByteMachine, Stream]:
        stream = Stream()
        streams.append(stream)
        return stream.machine, stream

    return driver.listen(Address(host, port), accept), streams


async def serve(handle: Callable[[Stream], Awaitable[None]], port: int = PORT) -> None:
    """Serve each connection in a task of its own, for ever."""
    tasks: set[asyncio.Task[None]] = set()

    async def guarded(stream: Stream) -> None:
        with contextlib.suppress(OSError, EOFError):
            await handle(stream)

    def accept(peer: str) -> tuple[ByteMachine, Stream]:
        stream = Stream()
        task = asyncio.get_running_loop().create_task(guarded(stream))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return stream.machine, stream

    running_driver().listen(Address("0.0.0.0", port), accept)
    await asyncio.Event().wait()


async def echo(stream: Stream) -> None:
    """Say back what comes."""
    while True:
        await stream.until(lambda: stream.received or stream.eof)
        if stream.received:
            stream.say(bytes(stream.received))
            stream.received.clear()
        elif stream.eof:
            stream.end()
            await stream.wait_closed()
            return


async def serve_echo() -> None:
    """An echo server, as a function that a node can spawn."""
    await serve(echo)


class DatagramTalk(QuietMachine):
    """A datagram machine and its handler in one."""

    def __init__(self) -> None:
        super().__init__()
        self.output: list[tuple[bytes, DatagramAddress]] = []
        self.received: list[tuple[bytes, DatagramAddress]] = []
        self.batches: list[int] = []
        self.errors: list[tuple[OSError, DatagramAddress | None]] = []
        self.closed: list[Exception | None] = []

    def receive_datagrams(self, batch: Sequence[tuple[Buffer, DatagramAddress]], now: float) -> None:
        self.batches.append(len(batch))
        self.events.extend((bytes(data), source) for data, source in batch)

    def receive_error(self, error: OSError, address: DatagramAddress | None, now: float) -> None:
        self.errors.append((error, address))

    def take_datagrams(self, limit: int = 64) -> list[tuple[bytes, DatagramAddress]]:
        taken, self.output = self.output[:limit], self.output[limit:]
        return taken

    def on_events(self, events: list[Any]) -> None:
        self.received.extend(events)

    def on_actions(self, actions: list[Action]) -> None:
        raise AssertionError("no action was ever given")

    def on_closed(self, error: Exception | None) -> None:
        self.closed.append(error)
