"""The floor: the least MessagePack-RPC can cost over uvloop.

No limits, no errors, no cancellation, no deadlines, no back pressure, no reconnecting: a careful
hand-written pair for one job. What a library costs on top of it is what its features cost.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import msgpack
import uvloop

from benchmarks.contestants.rpc.load import Load, Outcome, parse_role, report, run
from benchmarks.contestants.serving import LOOPBACK, announce


def add(a: float, b: float) -> float:
    return a + b


METHODS: dict[str, Callable[..., object]] = {"calculator.add": add}


class Connection(asyncio.Protocol):
    """What both ends have: a streaming unpacker and a packer that gathers a tick's messages."""

    def __init__(self) -> None:
        self.unpacker = msgpack.Unpacker(use_list=False)
        self.packer = msgpack.Packer(autoreset=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def flush(self) -> None:
        self.transport.write(self.packer.bytes())
        self.packer.reset()


class Server(Connection):
    def data_received(self, data: bytes) -> None:
        self.unpacker.feed(data)
        pack = self.packer.pack
        for _, message_id, method, params in self.unpacker:
            pack((1, message_id, None, METHODS[method](*params)))
        self.flush()


class Client(Connection):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.pending: dict[int, asyncio.Future[float]] = {}
        self.last_id = 0
        self.flushing = False

    def call(self, method: str, *params: float) -> Awaitable[float]:
        self.last_id = message_id = (self.last_id + 1) & 0xFFFFFFFF
        self.packer.pack((0, message_id, method, params))
        self.pending[message_id] = future = self.loop.create_future()
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self.flush)
        return future

    def flush(self) -> None:
        self.flushing = False
        super().flush()

    def data_received(self, data: bytes) -> None:
        self.unpacker.feed(data)
        take = self.pending.pop
        for _, message_id, _, result in self.unpacker:
            take(message_id).set_result(result)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Server, LOOPBACK, 0)
    announce(*server.sockets[0].getsockname())
    await server.serve_forever()


async def load_server(host: str, port: int, load: Load) -> Outcome:
    _, client = await asyncio.get_running_loop().create_connection(Client, host, port)
    return await run(lambda a, b: client.call("calculator.add", a, b), load)


def main() -> None:
    role = parse_role(argparse.ArgumentParser(description=__doc__))
    if role.load is None:
        uvloop.run(serve())
    else:
        report(uvloop.run(load_server(role.host, role.port, role.load)))


if __name__ == "__main__":
    main()
