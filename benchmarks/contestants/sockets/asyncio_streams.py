"""asyncio's own streams, on the standard loop or on uvloop."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from benchmarks.contestants.serving import LOOPBACK, announce
from benchmarks.contestants.sockets.program import Stream, Ways, run_program, serve_stream


def stream_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Stream:
    async def send(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    async def end() -> None:
        writer.write_eof()

    return Ways(send, reader.read, reader.readexactly, end)


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await serve_stream(stream_of(reader, writer))
    writer.close()
    await writer.wait_closed()


async def serve(given: argparse.Namespace) -> None:
    server = await asyncio.start_server(handle, LOOPBACK, 0)
    announce(*server.sockets[0].getsockname())
    await server.serve_forever()


async def open_stream(host: str, port: int) -> tuple[Stream, Callable[[], Awaitable[object]]]:
    reader, writer = await asyncio.open_connection(host, port)

    async def close() -> None:
        writer.close()
        await writer.wait_closed()

    return stream_of(reader, writer), close


def run_loop(given: argparse.Namespace, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    if given.loop == "uvloop":
        import uvloop

        return uvloop.run(main())
    return asyncio.run(main())


if __name__ == "__main__":
    run_program(__doc__, serve, open_stream, run_loop, "loop")
