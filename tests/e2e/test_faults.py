"""Servers that die or freeze, as real processes, and what their clients make of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from commands import DRIVERS, EXAMPLES, helianthus_command, needs_signals
from processes import LISTENING, Running

import helianthus
from helianthus import Client, KeepAlive, RpcError, StatusCode

pytestmark = needs_signals

PATIENCE = 60.0


class Process:
    """`helianthus serve`, which can be killed and started again at the same address."""

    def __init__(self) -> None:
        self.url = "tcp://127.0.0.1:0"
        self.running: Running

    def start(self) -> None:
        command, environment = helianthus_command()
        arguments = [*command, "serve", str(EXAMPLES / "node.toml"), "--listen", self.url]
        self.running = Running(arguments, env=environment)
        self.url = self.running.wait_for_line(LISTENING)

    def signal(self, number: int) -> None:
        os.kill(self.running.process.pid, number)


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    process.start()
    yield process
    process.running.kill()


@asynccontextmanager
async def connected(url: str, **options: object) -> AsyncIterator[Client]:
    async with asyncio.timeout(PATIENCE), helianthus.connect(url, **options) as client:
        yield client


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_server_that_is_killed_in_the_middle_of_a_stream(process: Process, driver: str) -> None:
    async def scenario() -> None:
        async with connected(process.url) as client:
            stream = client.stream("calculator.count", 10**9)
            for expected in range(1, 101):
                assert await anext(stream) == expected
            process.signal(signal.SIGKILL)
            with pytest.raises(RpcError) as caught:
                async for _ in stream:
                    pass
            assert caught.value.code is StatusCode.UNAVAILABLE
            assert caught.value.maybe_executed
            process.running.kill()
            process.start()
            await until_answered(client)

    helianthus.run(scenario(), driver=driver)


async def until_answered(client: Client) -> None:
    """Call until the client has found the server again."""
    while True:
        try:
            assert await client.call("calculator.add", 2, 3) == 5
            return
        except RpcError as error:
            assert error.code is StatusCode.UNAVAILABLE
            assert not error.maybe_executed
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_frozen_server_is_found_by_keep_alive(process: Process, driver: str) -> None:
    async def scenario() -> None:
        async with connected(process.url, keep_alive=KeepAlive(time=0.2, timeout=0.3)) as client:
            assert await client.call("calculator.add", 2, 3) == 5
            process.signal(signal.SIGSTOP)
            try:
                with pytest.raises(RpcError) as caught:
                    await client.call("calculator.add", 2, 3)
            finally:
                process.signal(signal.SIGCONT)
            assert caught.value.code is StatusCode.UNAVAILABLE
            assert "keep-alive ping" in caught.value.message
            assert caught.value.maybe_executed
            await until_answered(client)

    helianthus.run(scenario(), driver=driver)
