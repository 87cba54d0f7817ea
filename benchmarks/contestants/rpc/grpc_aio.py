"""gRPC's asyncio API on uvloop, with generic handlers: two packed doubles stand in for a protobuf message.

A `struct` costs less than protobuf would, so nothing but gRPC itself is measured.
"""

from __future__ import annotations

import argparse
import struct
from typing import Any, cast

import grpc
import uvloop

from benchmarks.contestants.rpc.load import Load, Outcome, parse_role, report, run
from benchmarks.contestants.serving import LOOPBACK, announce

SERVICE = "Calculator"
METHOD = "Add"
REQUEST = struct.Struct("<dd")
RESPONSE = struct.Struct("<d")


async def add(request: tuple[float, float], _: object) -> float:
    a, b = request
    return a + b


def encode_request(request: tuple[float, float]) -> bytes:
    return REQUEST.pack(*request)


def decode_request(data: bytes) -> tuple[float, float]:
    return cast("tuple[float, float]", REQUEST.unpack(data))


def encode_response(response: float) -> bytes:
    return RESPONSE.pack(response)


def decode_response(data: bytes) -> float:
    return cast(float, RESPONSE.unpack(data)[0])


async def serve() -> None:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        cast(Any, add), request_deserializer=decode_request, response_serializer=encode_response
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    announce(LOOPBACK, port)
    await server.wait_for_termination()


async def load_server(host: str, port: int, load: Load) -> Outcome:
    async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
        add = channel.unary_unary(
            f"/{SERVICE}/{METHOD}", request_serializer=encode_request, response_deserializer=decode_response
        )
        return await run(lambda a, b: add((a, b)), load)


def main() -> None:
    role = parse_role(argparse.ArgumentParser(description=__doc__))
    if role.load is None:
        uvloop.run(serve())
    else:
        report(uvloop.run(load_server(role.host, role.port, role.load)))


if __name__ == "__main__":
    main()
