"""What the adapter does on loops that the conformance suite cannot run on here."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from helianthus.drivers.address import Address
from helianthus.drivers.asyncio import AsyncioDriver
from helianthus.protocols.machine import Closing


class Echo:
    """Machine and handler in one."""

    wants_read = True

    def __init__(self, *output: bytes) -> None:
        self.closing = Closing.OPEN
        self.output = list(output)
        self.received = b""
        self.link: Any = None
        self.closed = False

    def deadline(self) -> None:
        return None

    def take_data(self) -> list[bytes]:
        output, self.output = self.output, []
        return output

    def take_actions(self) -> list[Any]:
        return []

    take_events = take_actions

    def receive_data(self, data: Any, now: float) -> None:
        self.received += data
        if self.link is not None and self.link.local_address == self.serving:
            self.output.append(bytes(data))

    serving = ""

    def receive_eof(self, now: float) -> None:
        self.closing = Closing.FULL

    def connection_lost(self, error: Exception | None, now: float) -> None:
        pass

    def on_ready(self, link: Any) -> None:
        self.link = link

    def on_writable(self) -> None:
        pass

    def on_closed(self, error: Exception | None) -> None:
        self.closed = True


def test_a_loop_that_is_given_is_not_closed() -> None:
    """It can be turned by `poll` while nobody runs it, and is its owner's to close."""
    loop = asyncio.SelectorEventLoop()
    driver = AsyncioDriver(loop)
    rung: list[int] = []
    driver.call_at(driver.now() + 0.01, lambda: rung.append(1))
    while not rung:
        driver.poll(30.0)
    driver.close()
    assert driver.closed
    assert not loop.is_closed()
    loop.run_until_complete(driver.wait_closed())
    loop.close()


def test_a_driver_whose_loop_was_closed_first() -> None:
    """Its handlers still hear of the end."""
    loop = asyncio.SelectorEventLoop()
    driver = AsyncioDriver(loop)
    peer = socket.create_server(("127.0.0.1", 0))
    client = Echo()
    driver.connect(Address(*peer.getsockname()), client, client)
    while client.link is None:
        driver.poll(30.0)
    transport = client.link._transport
    loop.close()
    driver.close()
    assert client.closed
    driver.post(lambda: None)
    with pytest.raises(RuntimeError, match="closed"):
        driver.poll(0.0)
    # The loop's owner has left the socket open, for which asyncio would warn when it is collected.
    transport._sock.close()
    transport._sock = None
    peer.close()


def test_an_eager_loop_calls_no_handler_before_connect_returns() -> None:
    """With asyncio's eager tasks, work begins as soon as it is given to the loop."""
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("eager tasks came with Python 3.12")

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        driver = AsyncioDriver()
        client = Echo()
        link = driver.connect(Address("127.0.0.1", 0), client, client)  # nobody can listen at port 0
        assert not client.closed
        async with asyncio.timeout(30):
            while not client.closed:
                await asyncio.sleep(0.001)
        assert link.closed
        driver.close()
        await driver.wait_closed()

    asyncio.run(main())
