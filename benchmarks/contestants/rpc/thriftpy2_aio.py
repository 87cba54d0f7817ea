"""thriftpy2's asyncio client and server on uvloop, with the binary protocol; the IDL is read at the start.

One call is under way on a connection, so there are as many connections as calls in flight.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import thriftpy2
import uvloop
from thriftpy2.contrib.aio.processor import TAsyncProcessor
from thriftpy2.contrib.aio.protocol.binary import TAsyncBinaryProtocolFactory
from thriftpy2.contrib.aio.rpc import make_client
from thriftpy2.contrib.aio.server import TAsyncServer
from thriftpy2.contrib.aio.socket import StreamHandler
from thriftpy2.contrib.aio.transport.buffered import TAsyncBufferedTransportFactory

from benchmarks.contestants.rpc.load import run_program
from benchmarks.contestants.rpc.program import Load
from benchmarks.contestants.serving import LOOPBACK, announce

CALCULATOR: Any = thriftpy2.load_fp(
    io.StringIO("service Calculator { double add(1: double a, 2: double b) binary mirror(1: binary data) }"),
    "calculator_thrift",
).Calculator


class Handler:
    async def add(self, a: float, b: float) -> float:
        return a + b

    async def mirror(self, data: bytes) -> bytes:
        return data


async def serve() -> None:
    # `make_server` runs a loop itself and tells no port; this is what it puts together.
    served = TAsyncServer(
        TAsyncProcessor(CALCULATOR, Handler()),
        None,
        itrans_factory=TAsyncBufferedTransportFactory(),
        iprot_factory=TAsyncBinaryProtocolFactory(decode_response=False),
    )

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await served.handle(StreamHandler(reader, writer))

    server = await asyncio.start_server(handle, LOOPBACK, 0)
    announce(*server.sockets[0].getsockname())
    await server.serve_forever()


class Client:
    """Has a connection for each call that is under way."""

    def __init__(self, connections: deque[Any]) -> None:
        self._free = connections

    async def add(self, a: float, b: float) -> float:
        connection = self._free.popleft()
        answer = await connection.add(a, b)
        self._free.append(connection)
        return cast(float, answer)

    async def mirror(self, data: bytes) -> bytes:
        connection = self._free.popleft()
        answer = await connection.mirror(data)
        self._free.append(connection)
        return cast(bytes, answer)


@asynccontextmanager
async def connect(host: str, port: int, load: Load) -> AsyncIterator[Client]:
    async with AsyncExitStack() as stack:
        connections: deque[Any] = deque()
        for _ in range(load.in_flight):
            connection = await make_client(
                CALCULATOR,
                host,
                port,
                proto_factory=TAsyncBinaryProtocolFactory(decode_response=False),
                timeout=None,
            )
            stack.callback(connection.close)
            connections.append(connection)
        yield Client(connections)


if __name__ == "__main__":
    run_program(__doc__, serve, connect, uvloop.run)
