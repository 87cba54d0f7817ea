"""Echo with an `asyncio.DatagramProtocol`, on the standard event loop or on uvloop's."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, cast

from benchmarks.contestants.serving import LOOPBACK, announce, bound_lifetime


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Echo, local_addr=(LOOPBACK, 0))
    announce(*transport.get_extra_info("sockname"))
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], required=True)
    parser.add_argument("--lifetime", type=int, required=True)
    arguments = parser.parse_args()
    bound_lifetime(arguments.lifetime)
    if arguments.loop == "uvloop":
        import uvloop

        uvloop.run(serve())
    else:
        asyncio.run(serve())


if __name__ == "__main__":
    main()
