"""ZeroMQ with MessagePack on uvloop: the same ROUTER and DEALER, behind a call one can await."""

from __future__ import annotations

import argparse
import asyncio

import msgpack
import uvloop
import zmq
import zmq.asyncio

from benchmarks.contestants.rpc.load import Load, Outcome, parse_role, report, run
from benchmarks.contestants.rpc.pyzmq_router import HIGH_WATER_MARK
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
            _, message_id, _, (a, b) = msgpack.unpackb(request, use_list=False)
            await socket.send_multipart((client, pack((1, message_id, None, a + b))))


class Client:
    """Matches replies with the calls that wait for them."""

    def __init__(self, socket: zmq.asyncio.Socket) -> None:
        self.socket = socket
        self.pack = msgpack.Packer().pack
        self.pending: dict[int, asyncio.Future[float]] = {}
        self.last_id = 0

    async def call(self, method: str, *params: float) -> float:
        self.last_id = message_id = (self.last_id + 1) & 0xFFFFFFFF
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.pending[message_id] = future
        await self.socket.send(self.pack((0, message_id, method, params)))
        return await future

    async def read_replies(self) -> None:
        while True:
            _, message_id, _, result = msgpack.unpackb(await self.socket.recv(), use_list=False)
            self.pending.pop(message_id).set_result(result)


async def load_server(host: str, port: int, load: Load) -> Outcome:
    with zmq.asyncio.Context() as context, open_socket(context, zmq.DEALER) as socket:
        socket.connect(f"tcp://{host}:{port}")
        client = Client(socket)
        reader = asyncio.create_task(client.read_replies())
        outcome = await run(lambda a, b: client.call("calculator.add", a, b), load)
        reader.cancel()
        return outcome


def main() -> None:
    role = parse_role(argparse.ArgumentParser(description=__doc__))
    if role.load is None:
        uvloop.run(serve())
    else:
        report(uvloop.run(load_server(role.host, role.port, role.load)))


if __name__ == "__main__":
    main()
