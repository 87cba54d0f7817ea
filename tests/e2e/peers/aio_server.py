"""Serves methods with aio-msgpack-rpc until it is ended; prints where."""

from __future__ import annotations

import asyncio
from typing import Any

import aio_msgpack_rpc


class Methods:
    """What can be called."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def add(self, a: float, b: float) -> float:
        return a + b

    def echo(self, value: Any) -> Any:
        return value

    def fail(self) -> None:
        raise ValueError("it does not work")

    async def never(self) -> None:
        await asyncio.Event().wait()

    def sign(self, name: str) -> None:
        self._names.append(name)

    def signed(self, name: str) -> int:
        return self._names.count(name)


async def main() -> None:
    server = await asyncio.start_server(aio_msgpack_rpc.Server(Methods()), "127.0.0.1", 0)
    print(f"listening on tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


asyncio.run(main())
