"""Echo with an `asyncio.Protocol`, on the standard event loop or on uvloop's."""

from __future__ import annotations

import argparse
import asyncio
import ssl
from typing import cast

from benchmarks.contestants.serving import LOOPBACK, announce, bound_lifetime


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


async def serve(tls: ssl.SSLContext | None) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, LOOPBACK, 0, ssl=tls)
    announce(*server.sockets[0].getsockname())
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], required=True)
    parser.add_argument("--lifetime", type=int, required=True)
    parser.add_argument("--tls", action="store_true")
    arguments = parser.parse_args()
    bound_lifetime(arguments.lifetime)
    tls = None
    if arguments.tls:
        from benchmarks.contestants.tls.certificate import server_context

        tls = server_context()
    if arguments.loop == "uvloop":
        import uvloop

        uvloop.run(serve(tls))
    else:
        asyncio.run(serve(tls))


if __name__ == "__main__":
    main()
