"""`helianthus.sockets`, on any driver."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import helianthus
from benchmarks.contestants.serving import LOOPBACK, announce
from benchmarks.contestants.sockets.program import Stream, Ways, run_program, serve_stream
from helianthus.sockets import TcpSocket, connect, listen


def stream_of(sock: TcpSocket) -> Stream:
    return Ways(sock.send_all, sock.recv, sock.recv_exactly, sock.send_eof)


async def handle(sock: TcpSocket) -> None:
    async with sock:
        await serve_stream(stream_of(sock))


async def serve(given: argparse.Namespace) -> None:
    async with await listen(f"tcp://{LOOPBACK}:0") as listener, asyncio.TaskGroup() as tasks:
        announce(LOOPBACK, listener.address.port)
        async for sock in listener:
            tasks.create_task(handle(sock))


async def open_stream(host: str, port: int) -> tuple[Stream, Callable[[], Awaitable[object]]]:
    sock = await connect(f"tcp://{host}:{port}")
    return stream_of(sock), sock.close


def run_loop(given: argparse.Namespace, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    if given.driver == "asyncio":  # the adapter on the standard loop
        return asyncio.run(main())
    return helianthus.run(main(), driver=given.driver)


if __name__ == "__main__":
    run_program(__doc__, serve, open_stream, run_loop, "driver")
