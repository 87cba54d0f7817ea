"""Sockets in the hands of somebody who means no good, and a client that looks on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgpack
from rpc_bench import Bench
from rpc_raw import HELLO

from helianthus import Client, Server


class BadClient:
    """A raw TCP connection, driven by the running loop.

    Args:
        server: Whom to connect to.
        receive_buffer: Bytes that the kernel may hold for us, or None for its own choice.
    """

    def __init__(self, server: Server, *, receive_buffer: int | None = None) -> None:
        address = server.addresses[0]
        self._address = (address.host, address.port)
        self._loop = asyncio.get_running_loop()
        self._unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=2**31 - 1)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.setblocking(False)

    async def connect(self) -> BadClient:
        await self._loop.sock_connect(self.sock, self._address)
        return self

    async def send(self, data: bytes) -> None:
        """Send bytes; a server that has had enough may have closed meanwhile."""
        with contextlib.suppress(ConnectionError):
            await self._loop.sock_sendall(self.sock, data)

    async def say(self, *messages: Any) -> None:
        """Send messages."""
        await self.send(b"".join(msgpack.packb(message) for message in messages))

    async def hear(self) -> Any:
        """The next message; raises `EOFError` where the server has ended the connection."""
        while True:
            for message in self._unpacker:
                return message
            try:
                data = await self._loop.sock_recv(self.sock, 65536)
            except ConnectionError:
                data = b""
            if not data:
                raise EOFError
            self._unpacker.feed(data)

    async def hear_all(self) -> list[Any]:
        """Messages up to the end of the connection."""
        heard = []
        with contextlib.suppress(EOFError):
            while True:
                heard.append(await self.hear())
        return heard

    def end(self) -> None:
        """End our direction."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection off."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.sock.close()

    async def __aenter__(self) -> BadClient:
        return await self.connect()

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()


async def with_extensions(client: BadClient) -> None:
    """Exchange hellos."""
    await client.say(HELLO)
    assert await client.hear() == HELLO


class Witness:
    """A decent client that calls all the time.

    Attributes:
        calls: Answers it got so far, each checked.
    """

    def __init__(self, client: Client) -> None:
        self.calls = 0
        self._client = client

    async def work(self) -> None:
        while True:
            assert await self._client.call("probe.add", self.calls, 1, timeout=20) == self.calls + 1
            self.calls += 1
            await asyncio.sleep(0.0005)

    async def more(self, calls: int = 3) -> None:
        """Wait until it got that many answers more."""
        wanted = self.calls + calls
        while self.calls < wanted:
            await asyncio.sleep(0.0005)


@contextlib.asynccontextmanager
async def witnessed(bench: Bench, server: Server) -> AsyncIterator[Witness]:
    """Have somebody else be served during the block, and to its end, on one and the same connection."""
    client = await bench.client(server)
    witness = Witness(client)
    working = asyncio.ensure_future(witness.work())

    def fail_early(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            bystander.cancel()

    bystander = asyncio.current_task()
    assert bystander is not None
    working.add_done_callback(fail_early)
    try:
        await witness.more()
        peer = client._peer
        yield witness
        await witness.more()
        assert client._peer is peer, "the witness had to connect again"
    finally:
        working.remove_done_callback(fail_early)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
