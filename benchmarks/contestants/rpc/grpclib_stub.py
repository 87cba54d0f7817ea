"""grpclib on uvloop, with hand-written stubs: `struct` stands in for protobuf, as for grpc.aio."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import uvloop
from grpclib import client, server
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase

from benchmarks.contestants.rpc.load import run_program
from benchmarks.contestants.rpc.program import Load
from benchmarks.contestants.serving import LOOPBACK, announce

SERVICE = "Calculator"


class Codec(CodecBase):
    """Packs a message as its "type", a `Struct`, has it; None leaves bytes as they are."""

    __content_subtype__ = "struct"

    def encode(self, message: Any, message_type: struct.Struct | None) -> bytes:
        if message_type is None:
            return cast(bytes, message)
        return message_type.pack(*message) if message.__class__ is tuple else message_type.pack(message)

    def decode(self, data: bytes, message_type: struct.Struct | None) -> Any:
        if message_type is None:
            return data
        values = message_type.unpack(data)
        return values if len(values) > 1 else values[0]


PAIR: Any = struct.Struct("<dd")
NUMBER: Any = struct.Struct("<d")
ITEM: Any = struct.Struct("<q")
BYTES: Any = None


class Calculator:
    async def add(self, stream: server.Stream[Any, Any]) -> None:
        a, b = await stream.recv_message()
        await stream.send_message(a + b)

    async def mirror(self, stream: server.Stream[Any, Any]) -> None:
        await stream.send_message(await stream.recv_message())

    async def count(self, stream: server.Stream[Any, Any]) -> None:
        for item in range(await stream.recv_message()):
            await stream.send_message(item)

    async def total(self, stream: server.Stream[Any, Any]) -> None:
        result = 0
        async for item in stream:
            result += item
        await stream.send_message(result)

    async def echo_items(self, stream: server.Stream[Any, Any]) -> None:
        async for item in stream:
            await stream.send_message(item)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/{SERVICE}/Add": Handler(self.add, Cardinality.UNARY_UNARY, PAIR, NUMBER),
            f"/{SERVICE}/Mirror": Handler(self.mirror, Cardinality.UNARY_UNARY, BYTES, BYTES),
            f"/{SERVICE}/Count": Handler(self.count, Cardinality.UNARY_STREAM, ITEM, ITEM),
            f"/{SERVICE}/Total": Handler(self.total, Cardinality.STREAM_UNARY, ITEM, ITEM),
            f"/{SERVICE}/EchoItems": Handler(self.echo_items, Cardinality.STREAM_STREAM, ITEM, ITEM),
        }


async def serve() -> None:
    served = server.Server([Calculator()], codec=Codec())
    await served.start(LOOPBACK, 0)
    listening = served._server  # no public way to the port that 0 became
    assert listening is not None
    announce(*listening.sockets[0].getsockname())
    await served.wait_closed()


class Client:
    def __init__(self, channel: client.Channel) -> None:
        add = client.UnaryUnaryMethod(channel, f"/{SERVICE}/Add", PAIR, NUMBER)
        self.add = lambda a, b: add((a, b))
        self.mirror = client.UnaryUnaryMethod(channel, f"/{SERVICE}/Mirror", BYTES, BYTES)
        self._count = client.UnaryStreamMethod(channel, f"/{SERVICE}/Count", ITEM, ITEM)
        self._total = client.StreamUnaryMethod(channel, f"/{SERVICE}/Total", ITEM, ITEM)
        self._echo_items = client.StreamStreamMethod(channel, f"/{SERVICE}/EchoItems", ITEM, ITEM)

    async def count(self, n: int) -> AsyncIterator[int]:
        async with self._count.open() as stream:
            await stream.send_message(n, end=True)
            async for item in stream:
                yield item

    async def total(self, items: Iterable[int]) -> int:
        async with self._total.open() as stream:
            for item in items:
                await stream.send_message(item)
            await stream.end()
            return cast(int, await stream.recv_message())

    async def echo_items(self, items: Iterable[int], take: Callable[[int], None]) -> None:
        async with self._echo_items.open() as stream:
            await stream.send_request()

            async def send() -> None:
                for item in items:
                    await stream.send_message(item)
                await stream.end()

            sending = asyncio.create_task(send())
            async for item in stream:
                take(item)
            await sending


@asynccontextmanager
async def connect(host: str, port: int, _: Load) -> AsyncIterator[Client]:
    async with client.Channel(host, port, codec=Codec()) as channel:
        yield Client(channel)


if __name__ == "__main__":
    run_program(__doc__, serve, connect, uvloop.run)
