"""Helianthus' RPC as its users write it: a service, a server, a client, on any driver."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import helianthus
from benchmarks.cases import PAYLOAD
from benchmarks.contestants.rpc.load import be
from benchmarks.contestants.rpc.program import Load, parse_role
from benchmarks.contestants.serving import LOOPBACK, announce

DEADLINE = 30.0
"""Seconds; no call comes near it."""


class Calculator(helianthus.Service):
    def __init__(self) -> None:
        self._offered = 0

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
    async def flood(self, total: int, seconds: float) -> AsyncIterator[bytes]:
        """So many bytes in large items, evenly over so many seconds."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        payload = bytes(PAYLOAD)
        for sent in range(0, total, PAYLOAD):
            early = started + seconds * sent / total - loop.time()
            if early > 0:
                await asyncio.sleep(early)
            yield payload
            self._offered = sent + PAYLOAD

    @helianthus.method
    def offered(self) -> int:
        """Bytes of the flood that its producer has got rid of."""
        return self._offered

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


async def serve(policies: Collection[str], unix: bool, slow_consumer: str) -> None:
    server = helianthus.Server(
        [Calculator()],
        middleware=[Counting()] if "server" in policies else [],
        slow_consumer=slow_consumer,
    )
    host = f"@helianthus-benchmark-{os.getpid()}" if unix else LOOPBACK
    address = await server.listen(url(host, 0))
    announce(host, address.port)
    await server.serve_forever()


def url(host: str, port: int) -> str:
    """Where to listen or connect: a host that begins with @ is an abstract name of a Unix socket."""
    return f"unix:///{host}" if host.startswith("@") else f"tcp://{host}:{port}"


class Client:
    def __init__(self, client: Any, timeout: float | None) -> None:
        options = {} if timeout is None else {"timeout": timeout}
        self._stream = client.stream
        self.add: Callable[[float, float], Awaitable[float]] = partial(
            client.call, "calculator.add", **options
        )
        self.offered: Callable[[], Awaitable[int]] = partial(client.call, "calculator.offered")
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
    async with helianthus.connect(url(host, port), middleware=middleware) as client:
        yield Client(client, DEADLINE if "deadline" in policies else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", required=True)
    parser.add_argument("--policy", action="append", default=[], choices=["deadline", "server", "client"])
    parser.add_argument("--unix", action="store_true", help="a Unix-domain socket in place of TCP")
    parser.add_argument("--slow-consumer", default="block", choices=["block", "drop-oldest"])
    role = parse_role(parser)
    policies, options = role.options.policy, role.options
    run = partial(helianthus.run, driver=options.driver)
    be(role, partial(serve, policies, options.unix, options.slow_consumer), partial(connect, policies), run)


if __name__ == "__main__":
    main()
