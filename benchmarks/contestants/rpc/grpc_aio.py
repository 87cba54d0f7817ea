"""gRPC's asyncio API on uvloop, with generic handlers: `struct` stands in for protobuf.

It costs less than protobuf would, so nothing but gRPC itself is measured, and no compiler of
.proto files is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import grpc
import uvloop

from benchmarks.contestants.rpc.connections import Room
from benchmarks.contestants.rpc.load import be
from benchmarks.contestants.rpc.program import Load, parse_role
from benchmarks.contestants.serving import LOOPBACK, announce

ROOM = Room(most=1000, why="with more of them busy at once, its calls end CANCELLED")

DEADLINE = 30.0
"""Seconds; no call comes near it."""

SERVICE = "Calculator"
PAIR = struct.Struct("<dd")
NUMBER = struct.Struct("<d")
ITEM = struct.Struct("<q")


def encode_pair(pair: tuple[float, float]) -> bytes:
    return PAIR.pack(*pair)


def decode_pair(data: bytes) -> tuple[float, float]:
    return cast("tuple[float, float]", PAIR.unpack(data))


def decode_number(data: bytes) -> float:
    return cast(float, NUMBER.unpack(data)[0])


def decode_item(data: bytes) -> int:
    return cast(int, ITEM.unpack(data)[0])


async def add(request: tuple[float, float], _: object) -> float:
    a, b = request
    return a + b


async def mirror(request: bytes, _: object) -> bytes:
    return request


async def count(n: int, _: object) -> AsyncIterator[int]:
    for item in range(n):
        yield item


async def total(items: AsyncIterator[int], _: object) -> int:
    result = 0
    async for item in items:
        result += item
    return result


async def echo_items(items: AsyncIterator[int], _: object) -> AsyncIterator[int]:
    async for item in items:
        yield item


def handlers() -> dict[str, Any]:
    items: Any = {"request_deserializer": decode_item, "response_serializer": ITEM.pack}
    return {
        "Add": grpc.unary_unary_rpc_method_handler(
            cast(Any, add), request_deserializer=decode_pair, response_serializer=NUMBER.pack
        ),
        "Mirror": grpc.unary_unary_rpc_method_handler(cast(Any, mirror)),
        "Count": grpc.unary_stream_rpc_method_handler(cast(Any, count), **items),
        "Total": grpc.stream_unary_rpc_method_handler(cast(Any, total), **items),
        "EchoItems": grpc.stream_stream_rpc_method_handler(cast(Any, echo_items), **items),
    }


class Counting(grpc.aio.ServerInterceptor):
    """As little as an interceptor can do with a call."""

    def __init__(self) -> None:
        self.begun = 0

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        self.begun += 1
        return await continuation(details)


async def serve(policies: Collection[str]) -> None:
    server = grpc.aio.server(interceptors=[Counting()] if "server" in policies else [])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers()),))
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    announce(LOOPBACK, port)
    await server.wait_for_termination()


class Client:
    def __init__(self, channel: grpc.aio.Channel, timeout: float | None) -> None:
        items: Any = {"request_serializer": ITEM.pack, "response_deserializer": decode_item}
        add = channel.unary_unary(
            f"/{SERVICE}/Add", request_serializer=encode_pair, response_deserializer=decode_number
        )
        self.add = lambda a, b: add((a, b), timeout=timeout)
        self.mirror = channel.unary_unary(f"/{SERVICE}/Mirror")
        self.count = channel.unary_stream(f"/{SERVICE}/Count", **items)
        self._total = channel.stream_unary(f"/{SERVICE}/Total", **items)
        self._echo_items = channel.stream_stream(f"/{SERVICE}/EchoItems", **items)

    async def total(self, items: Iterable[int]) -> int:
        call = self._total()
        for item in items:
            await call.write(item)
        await call.done_writing()
        return cast(int, await call)

    async def echo_items(self, items: Iterable[int], take: Callable[[int], None]) -> None:
        call = self._echo_items()

        async def send() -> None:
            for item in items:
                await call.write(item)
            await call.done_writing()

        sending = asyncio.create_task(send())
        async for item in call:
            take(item)
        await sending


@asynccontextmanager
async def connect(policies: Collection[str], host: str, port: int, _: Load) -> AsyncIterator[Client]:
    own_connection = [("grpc.use_local_subchannel_pool", 1)]  # else all channels share one
    async with grpc.aio.insecure_channel(f"{host}:{port}", options=own_connection) as channel:
        yield Client(channel, DEADLINE if "deadline" in policies else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", action="append", default=[], choices=["deadline", "server"])
    role = parse_role(parser)
    policies = role.options.policy
    be(role, partial(serve, policies), partial(connect, policies), uvloop.run, ROOM)


if __name__ == "__main__":
    main()
