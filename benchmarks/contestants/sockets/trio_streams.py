"""trio's socket streams."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import trio

from benchmarks.contestants.serving import LOOPBACK, announce
from benchmarks.contestants.sockets.program import Stream, Ways, run_program, serve_stream


def stream_of(stream: trio.SocketStream) -> Stream:
    left = bytearray()  # trio has no way to receive so many bytes: this is how one does it

    async def receive_exactly(size: int) -> bytes:
        while len(left) < size:
            left.extend(await stream.receive_some(64 * 1024))
        data = bytes(left[:size])
        del left[:size]
        return data

    async def receive(limit: int) -> bytes:
        if left:
            return await receive_exactly(min(len(left), limit))
        return await stream.receive_some(limit)

    return Ways(stream.send_all, receive, receive_exactly, stream.send_eof)


async def handle(stream: trio.SocketStream) -> None:
    await serve_stream(stream_of(stream))


async def serve(given: argparse.Namespace) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    announce(*listener.socket.getsockname())
    await trio.serve_listeners(handle, [listener])


async def open_stream(host: str, port: int) -> tuple[Stream, Callable[[], Awaitable[object]]]:
    stream = await trio.open_tcp_stream(host, port)
    return stream_of(stream), stream.aclose


def run_loop(given: argparse.Namespace, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return trio.run(functools.partial(main))


if __name__ == "__main__":
    run_program(__doc__, serve, open_stream, run_loop)
