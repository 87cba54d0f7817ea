"""Helianthus' RPC as its users write it: a service, a server, a client, on any driver."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import helianthus
from benchmarks.contestants.rpc.load import be
from benchmarks.contestants.rpc.program import Load, parse_role
from benchmarks.contestants.serving import LOOPBACK, announce

DEADLINE = 30.0
"""Seconds; no call comes near it."""


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


class Counting(helianthus.Middleware):
    """As little as a middleware can do with a call on its way in and out."""

    def __init__(self) -> None:
        self.begun = 0
        self.failed = 0

    def before(self, request: helianthus.Request) -> None:
        self.begun += 1

    def after(self, request: helianthus.Request, response: helianthus.Response) -> None:
        self.failed += response.error is not None


async def serve(policies: Collection[str]) -> None:
    server = helianthus.Server([Calculator()], middleware=[Counting()] if "server" in policies else [])
    await server.listen(f"tcp://{LOOPBACK}:0")
    announce(LOOPBACK, server.addresses[0].port)
    await server.serve_forever()


class Client:
    def __init__(self, client: Any, timeout: float | None) -> None:
        options = {} if timeout is None else {"timeout": timeout}
        self._stream = client.stream
        self.add: Callable[[float, float], Awaitable[float]] = partial(
            client.call, "calculator.add", **options
        )
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
async def connect(policies: Collection[str], host: str, port: int, _: Load) -> AsyncIterator[Client]:
    middleware = [Counting()] if "client" in policies else []
    async with helianthus.connect(f"tcp://{host}:{port}", middleware=middleware) as client:
        yield Client(client, DEADLINE if "deadline" in policies else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--policy", action="append", default=[], choices=["deadline", "server", "client"])
    role = parse_role(parser)
    policies = role.options.policy
    run = partial(helianthus.run, driver=role.options.driver)
    be(role, partial(serve, policies), partial(connect, policies), run)


if __name__ == "__main__":
    main()
