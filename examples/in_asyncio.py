"""An RPC server as a part of an ordinary asyncio program.

`Server` finds the loop that runs, whoever made it, and shares it with the rest of the program:
here with a ticker, and with a little web server that asyncio itself provides.

    python examples/in_asyncio.py
    curl http://127.0.0.1:8080
    helianthus call tcp://127.0.0.1:7070 ticker.ticks
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from urllib.parse import urlsplit

import helianthus


class Ticker(helianthus.Service):
    """Counts seconds, more or less."""

    def __init__(self) -> None:
        self._ticks = 0

    async def run(self) -> None:
        """Tick for ever; not marked as a method, so nobody can call it from outside."""
        while True:
            await asyncio.sleep(1)
            self._ticks += 1

    @helianthus.method
    def ticks(self) -> int:
        """How often it has ticked."""
        return self._ticks


async def answer_http(ticker: Ticker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        await reader.readuntil(b"\r\n\r\n")
        body = f"{ticker.ticks()} ticks\n".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
    writer.close()


async def main(listen: str, http: str, seconds: float) -> None:
    ticker = Ticker()
    web_address = urlsplit(http)
    web = await asyncio.start_server(
        lambda reader, writer: answer_http(ticker, reader, writer), web_address.hostname, web_address.port
    )
    port = web.sockets[0].getsockname()[1]
    async with helianthus.Server([ticker]) as server, web:
        print(f"listening on {await server.listen(listen)}", flush=True)
        print(f"listening on http://{web_address.hostname}:{port}", flush=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds or None), asyncio.TaskGroup() as group:
                group.create_task(ticker.run())
                group.create_task(web.serve_forever())
                group.create_task(server.serve_forever())
    print(f"the end; ticks: {ticker.ticks()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An asyncio program that can be called.")
    parser.add_argument("--listen", default="tcp://127.0.0.1:7070", help="default: %(default)s")
    parser.add_argument("--http", default="http://127.0.0.1:8080", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0, help="end then; 0 goes on until Ctrl-C")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(options.listen, options.http, options.seconds))
