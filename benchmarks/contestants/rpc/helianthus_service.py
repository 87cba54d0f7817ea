"""Helianthus' RPC as its users write it: a service, a server, a client, on any driver."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import helianthus
from benchmarks.contestants.rpc.load import Load, be
from benchmarks.contestants.rpc.program import parse_role
from benchmarks.contestants.serving import LOOPBACK, announce


class Calculator(helianthus.Service):
    @helianthus.method
    def add(self, a: float, b: float) -> float:
        return a + b

    @helianthus.method
    def mirror(self, data: bytes) -> bytes:
        return data

    @helianthus.method
    async def count(self, n: int) -> AsyncIterator[int]:
        for item in range(n):
            yield item

    @helianthus.method
    async def total(self, items: AsyncIterator[int]) -> int:
        result = 0
        async for item in items:
            result += item
        return result

    @helianthus.method
    async def echo_items(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item


async def serve() -> None:
    server = helianthus.Server([Calculator()])
    await server.listen(f"tcp://{LOOPBACK}:0")
    announce(LOOPBACK, server.addresses[0].port)
    await server.serve_forever()


class Client:
    def __init__(self, client: Any) -> None:
        self._stream = client.stream
        self.add: Callable[[float, float], Awaitable[float]] = partial(client.call, "calculator.add")
        self.mirror: Callable[[bytes], Awaitable[bytes]] = partial(client.call, "calculator.mirror")

    def count(self, n: int) -> AsyncIterator[int]:
        return cast("AsyncIterator[int]", self._stream("calculator.count", n))

    async def total(self, items: Iterable[int]) -> int:
        async with self._stream("calculator.total") as stream:
            for item in items:
                await stream.send(item)
            return cast(int, await stream.result())

    async def echo_items(self, items: Iterable[int], take: Callable[[int], None]) -> None:
        async with self._stream("calculator.echo_items") as stream:

            async def send() -> None:
                for item in items:
                    await stream.send(item)
                await stream.end()

            sending = asyncio.create_task(send())
            async for item in stream:
                take(item)
            await sending


@asynccontextmanager
async def connect(host: str, port: int, _: Load) -> AsyncIterator[Client]:
    async with helianthus.connect(f"tcp://{host}:{port}") as client:
        yield Client(client)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", required=True)
    role = parse_role(parser)
    be(role, serve, connect, partial(helianthus.run, driver=role.options.driver))


if __name__ == "__main__":
    main()
