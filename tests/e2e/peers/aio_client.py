"""Calls a node with aio-msgpack-rpc, and prints what came of it as JSON: HOST PORT NAME."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aio_msgpack_rpc
from aio_msgpack_rpc.error import RPCResponseError


async def main(host: str, port: str, name: str) -> None:
    reader, writer = await asyncio.open_connection(host, int(port))
    client = aio_msgpack_rpc.Client(reader, writer, response_timeout=20)
    results: dict[str, Any] = {
        "add": await client.call("calculator.add", 2, 3),
        "echo": await client.call("calculator.echo", {"a": [1, -1, 2**40, 1.5, None, True, "ü" * 300]}),
        "bytes": await client.call("calculator.echo", b"\x00\xff" * 500_000) == b"\x00\xff" * 500_000,
        "many": await asyncio.gather(*(client.call("calculator.add", i, 1) for i in range(500))),
    }
    for method in ("calculator.fail", "calculator.nothing", "calculator.count"):
        try:
            await client.call(method)
        except RPCResponseError as error:
            results[method] = error.args[0]
    await client.notify("guestbook.sign", name)
    results["signed"] = await client.call("guestbook.signed", name)
    client.close()
    await writer.wait_closed()
    print(json.dumps(results))


asyncio.run(main(*sys.argv[1:]))
