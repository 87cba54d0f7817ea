"""The floor: the least MessagePack-RPC can cost over uvloop.

No limits, no errors, no cancellation, no deadlines, no back pressure, no reconnecting: a careful
hand-written pair for one job. What a library costs on top of it is what its features cost.
A stream has no credit, so either end writes all of its items at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import msgpack
import uvloop

from benchmarks.contestants.rpc.load import run_program
from benchmarks.contestants.rpc.program import Load
from benchmarks.contestants.serving import LOOPBACK, announce


def add(a: float, b: float) -> float:
    return a + b


def mirror(data: bytes) -> bytes:
    return data


METHODS: dict[str, Callable[..., object]] = {"calculator.add": add}
LARGE: dict[str, Callable[..., object]] = {"calculator.mirror": mirror}
"""Methods whose answers are written one by one: joined, they would only be copied once more."""

REQUEST, RESPONSE, ITEM, END = 0, 1, 4, 5


class Connection(asyncio.BufferedProtocol):
    """What both ends have: a streaming unpacker and a packer that gathers a tick's messages."""

    received = memoryview(bytearray(256 * 1024))
    """One buffer for all connections, since each takes what it gets at once."""

    def __init__(self) -> None:
        self.unpacker = msgpack.Unpacker(use_list=False)
        self.packer = msgpack.Packer(autoreset=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def get_buffer(self, _: int) -> memoryview:
        return self.received

    def flush(self) -> None:
        data = self.packer.bytes()
        if data:
            self.transport.write(data)
            self.packer.reset()


class Server(Connection):
    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[int, int] = {}

    def buffer_updated(self, size: int) -> None:
        self.unpacker.feed(self.received[:size])
        pack, totals = self.packer.pack, self.totals
        for kind, message_id, method, params in self.unpacker:
            if kind == ITEM:
                if message_id in totals:
                    totals[message_id] += params
                else:
                    pack((ITEM, message_id, None, params))
            elif kind == END:
                pack((RESPONSE, message_id, None, totals.pop(message_id, None)))
            elif method in METHODS:
                pack((RESPONSE, message_id, None, METHODS[method](*params)))
            elif method in LARGE:
                pack((RESPONSE, message_id, None, LARGE[method](*params)))
                self.flush()
            elif method == "calculator.count":
                for item in range(params[0]):
                    pack((ITEM, message_id, None, item))
                pack((RESPONSE, message_id, None, None))
            elif method == "calculator.total":
                totals[message_id] = 0
        self.flush()


class Stream:
    """Items that have arrived, and whether they have ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.items: list[int] = []
        self.ended = False
        self.more = loop.create_future()

    def wake(self) -> None:
        if not self.more.done():
            self.more.set_result(None)

    async def __aiter__(self) -> AsyncIterator[int]:
        while True:
            await self.more
            self.more = self.loop.create_future()
            items, self.items = self.items, []
            for item in items:
                yield item
            if self.ended and not self.items:
                return


class Client(Connection):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.pending: dict[int, asyncio.Future[Any]] = {}
        self.streams: dict[int, Stream] = {}
        self.last_id = 0
        self.flushing = False

    def call(self, method: str, *params: object) -> Awaitable[Any]:
        self.last_id = message_id = (self.last_id + 1) & 0xFFFFFFFF
        self.packer.pack((REQUEST, message_id, method, params))
        self.pending[message_id] = future = self.loop.create_future()
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self.flush)
        return future

    def add(self, a: float, b: float) -> Awaitable[float]:
        return self.call("calculator.add", a, b)

    def mirror(self, data: bytes) -> Awaitable[bytes]:
        answer = self.call("calculator.mirror", data)
        self.flush()
        return answer

    def open(self, method: str, *params: object) -> tuple[int, Stream]:
        result = self.call(method, *params)
        stream = self.streams[self.last_id] = Stream(self.loop)

        def end(_: object) -> None:
            stream.ended = True
            stream.wake()

        cast("asyncio.Future[Any]", result).add_done_callback(end)
        return self.last_id, stream

    def send(self, message_id: int, items: Iterable[int]) -> None:
        for item in items:
            self.packer.pack((ITEM, message_id, None, item))
        self.packer.pack((END, message_id, None, None))

    def count(self, n: int) -> AsyncIterator[int]:
        return aiter(self.open("calculator.count", n)[1])

    async def total(self, items: Iterable[int]) -> int:
        answer = self.call("calculator.total")
        self.send(self.last_id, items)
        return cast(int, await answer)

    async def echo_items(self, items: Iterable[int], take: Callable[[int], None]) -> None:
        message_id, stream = self.open("calculator.echo_items")
        self.send(message_id, items)
        async for item in stream:
            take(item)

    def flush(self) -> None:
        self.flushing = False
        super().flush()

    def buffer_updated(self, size: int) -> None:
        self.unpacker.feed(self.received[:size])
        take, streams = self.pending.pop, self.streams
        for kind, message_id, _, result in self.unpacker:
            if kind == ITEM:
                stream = streams[message_id]
                stream.items.append(result)
                stream.wake()
            else:
                take(message_id).set_result(result)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, LOOPBACK, 0)
    announce(*server.sockets[0].getsockname())
    await server.serve_forever()


@asynccontextmanager
async def connect(host: str, port: int, _: Load) -> AsyncIterator[Client]:
    transport, client = await asyncio.get_running_loop().create_connection(Client, host, port)
    yield client
    transport.close()


if __name__ == "__main__":
    run_program(__doc__, serve, connect, uvloop.run)
