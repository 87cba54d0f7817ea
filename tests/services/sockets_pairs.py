"""Two sockets joined through the running driver, and peers that are Python's own sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from rpc_bench import LOCAL

from helianthus.drivers.address import Address
from helianthus.sockets import ByteStreamLimits, TcpListener, TcpSocket, connect, listen

TINY = ByteStreamLimits(high_water=64, low_water=16, max_queued_output=64)


@contextlib.asynccontextmanager
async def pair(
    limits: ByteStreamLimits | None = None, *, accepted: ByteStreamLimits | None = None
) -> AsyncIterator[tuple[TcpSocket, TcpSocket]]:
    """Both ends of a connection; the first is the one that connected."""
    async with await listen(LOCAL, limits=accepted or limits) as listener:
        near = await connect(str(listener.address), limits=limits)
        far = await listener.accept()
    async with near, far:
        yield near, far


class Foreign:
    """Both ends of a connection, of which one is Python's own socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.sock, data)

    async def receive(self, size: int) -> bytes:
        """So many bytes, or as many as there are until the end."""
        data = b""
        while len(data) < size:
            more = await self._loop.sock_recv(self.sock, size - len(data))
            if not more:
                break
            data += more
        return data

    async def at_end(self) -> bool:
        return await self._loop.sock_recv(self.sock, 1) == b""

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()


def raw_socket(*, receive_buffer: int | None = None) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    return sock


async def foreign_client(listener: TcpListener, *, receive_buffer: int | None = None) -> Foreign:
    """One of Python's sockets, connected to a listener."""
    sock = raw_socket(receive_buffer=receive_buffer)
    address: Address = listener.address
    await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
    return Foreign(sock)


@contextlib.asynccontextmanager
async def with_foreign(
    limits: ByteStreamLimits | None = None, *, receive_buffer: int | None = None
) -> AsyncIterator[tuple[TcpSocket, Foreign]]:
    """A socket and, at its other end, one of Python's own."""
    async with await listen(LOCAL, limits=limits) as listener:
        peer = await foreign_client(listener, receive_buffer=receive_buffer)
        sock = await listener.accept()
    async with sock:
        try:
            yield sock, peer
        finally:
            peer.sock.close()
