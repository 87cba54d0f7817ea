"""ZeroMQ with MessagePack on uvloop: the same ROUTER and DEALER, behind a call one can await."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgpack
import uvloop
import zmq
import zmq.asyncio

from benchmarks.contestants.rpc.connections import Room
from benchmarks.contestants.rpc.load import run_program
from benchmarks.contestants.rpc.program import Load
from benchmarks.contestants.rpc.pyzmq_router import HIGH_WATER_MARK, METHODS
from benchmarks.contestants.serving import LOOPBACK, announce


def open_socket(context: zmq.asyncio.Context, kind: int) -> zmq.asyncio.Socket:
    socket = context.socket(kind)
    socket.set_hwm(HIGH_WATER_MARK)
    socket.linger = 0
    return socket


async def serve() -> None:
    with zmq.asyncio.Context() as context, open_socket(context, zmq.ROUTER) as socket:
        port = socket.bind_to_random_port(f"tcp://{LOOPBACK}")
        announce(LOOPBACK, port)
        pack = msgpack.Packer().pack
        while True:
            client, request = await socket.recv_multipart()
            _, message_id, method, params = msgpack.unpackb(request, use_list=False)
            await socket.send_multipart((client, pack((1, message_id, None, METHODS[method](*params)))))


class Client:
    """Matches replies with the calls that wait for them."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self.socket = socket
        self.pack = msgpack.Packer().pack
        self.pending: dict[int, asyncio.Future[Any]] = {}
        self.last_id = 0

    async def call(self, method: str, *params: object) -> Any:
        self.last_id = message_id = (self.last_id + 1) & 0xFFFFFFFF
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pending[message_id] = future
        await self.socket.send(self.pack((0, message_id, method, params)))
        return await future

    async def add(self, a: float, b: float) -> float:
        return cast(float, await self.call("calculator.add", a, b))

    async def mirror(self, data: bytes) -> bytes:
        return cast(bytes, await self.call("calculator.mirror", data))

    async def read_replies(self) -> None:
        while True:
            _, message_id, _, result = msgpack.unpackb(await self.socket.recv(), use_list=False)
            self.pending.pop(message_id).set_result(result)


FILES_EACH = 2
"""Descriptors of a socket in the client: its connection, and the signal that something has come."""

SHARED: list[zmq.asyncio.Context] = []
"""The context of all sockets of a client: each has threads of its own."""


@asynccontextmanager
async def connect(host: str, port: int, load: Load) -> AsyncIterator[Client]:
    if not SHARED:
        SHARED.append(zmq.asyncio.Context())
        SHARED[0].set(zmq.MAX_SOCKETS, load.connections + 100)
    with open_socket(SHARED[0], zmq.DEALER) as socket:
        socket.connect(f"tcp://{host}:{port}")
        client = Client(socket)
        reader = asyncio.create_task(client.read_replies())
        yield client
        reader.cancel()


if __name__ == "__main__":
    run_program(__doc__, serve, connect, uvloop.run, Room(files_each=FILES_EACH))
