"""aiohttp on uvloop: JSON over HTTP/1.1 posts, raw bodies for payloads, a WebSocket for streams.

HTTP/1.1 has one request under way on a connection, so there are as many connections as calls in flight.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, WSMsgType, web

from benchmarks.contestants.rpc.load import run_program
from benchmarks.contestants.rpc.program import Load
from benchmarks.contestants.serving import LOOPBACK, announce

END = "end"
"""The message that ends one side's items of a stream."""


async def add(request: web.Request) -> web.Response:
    a, b = await request.json()
    return web.json_response(a + b)


async def mirror(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def streams(request: web.Request) -> web.WebSocketResponse:
    """The streams of one client, one after the other."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            break
        method, n = json.loads(message.data)
        if method == "count":
            for item in range(n):
                await socket.send_json(item)
            await socket.send_json(END)
        elif method == "total":
            result = 0
            while (item := await socket.receive_json()) != END:
                result += item
            await socket.send_json(result)
        else:
            while (item := await socket.receive_json()) != END:
                await socket.send_json(item)
            await socket.send_json(END)
    return socket


async def serve() -> None:
    app = web.Application()
    app.add_routes([web.post("/add", add), web.post("/mirror", mirror), web.get("/streams", streams)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    announce(*runner.addresses[0])
    await asyncio.Event().wait()


class Client:
    def __init__(self, session: ClientSession, base: str) -> None:
        self.session = session
        self.add_url = f"{base}/add"
        self.mirror_url = f"{base}/mirror"
        self.streams_url = f"{base}/streams"
        self._socket: Any = None

    async def add(self, a: float, b: float) -> float:
        async with self.session.post(self.add_url, json=[a, b]) as response:
            return cast(float, await response.json())

    async def mirror(self, data: bytes) -> bytes:
        async with self.session.post(self.mirror_url, data=data) as response:
            return await response.read()

    async def open(self, method: str, n: int = 0) -> Any:
        if self._socket is None:
            self._socket = await self.session.ws_connect(self.streams_url)
        await self._socket.send_json([method, n])
        return self._socket

    async def count(self, n: int) -> AsyncIterator[int]:
        socket = await self.open("count", n)
        while (item := await socket.receive_json()) != END:
            yield item

    async def total(self, items: Iterable[int]) -> int:
        socket = await self.open("total")
        for item in items:
            await socket.send_json(item)
        await socket.send_json(END)
        return cast(int, await socket.receive_json())

    async def echo_items(self, items: Iterable[int], take: Callable[[int], None]) -> None:
        socket = await self.open("echo_items")

        async def send() -> None:
            for item in items:
                await socket.send_json(item)
            await socket.send_json(END)

        sending = asyncio.create_task(send())
        while (item := await socket.receive_json()) != END:
            take(item)
        await sending


@asynccontextmanager
async def connect(host: str, port: int, load: Load) -> AsyncIterator[Client]:
    session = ClientSession(
        connector=TCPConnector(limit=load.in_flight),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None),
    )
    async with session:
        yield Client(session, f"http://{host}:{port}")


if __name__ == "__main__":
    run_program(__doc__, serve, connect, uvloop.run)
