"""The blocking client looks names up in the caller's thread."""

from __future__ import annotations

import asyncio
import threading

import helianthus


class Calculator(helianthus.Service):
    @helianthus.method
    def add(self, a: int, b: int) -> int:
        return a + b


def test_a_name_is_looked_up_without_a_thread() -> None:
    announced: list[int] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with helianthus.Server([Calculator()]) as server:
            announced.append((await server.listen("tcp://127.0.0.1:0")).port)
            ready.set()
            await asyncio.to_thread(stop.wait)

    serving = threading.Thread(target=lambda: asyncio.run(serve()))
    serving.start()
    try:
        assert ready.wait(30)
        before = set(threading.enumerate())
        with helianthus.connect_sync(f"tcp://localhost:{announced[0]}") as client:
            assert client.call("calculator.add", 2, 3, timeout=30) == 5
            assert not [
                thread for thread in set(threading.enumerate()) - before if "helianthus" in thread.name
            ]
    finally:
        stop.set()
        serving.join()
