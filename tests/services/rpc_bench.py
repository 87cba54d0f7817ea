"""Where the tests of the RPC services run: the simulator and every real driver.

A scenario is an `async def` that takes a `Bench`. It serves and connects through the bench, which
closes everything at the end and then looks for what was left behind: tasks, errors that nobody
expected, exceptions that reached the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from helianthus import Client, Peer, Server, Service
from helianthus.drivers.address import Address
from helianthus.drivers.asyncio import AsyncioDriver, uvloop_installed
from helianthus.drivers.base import Driver
from helianthus.drivers.choose import running_driver
from helianthus.sim import run_in_simulation

LOCAL = "tcp://127.0.0.1:0"
"""Any free port; the simulator knows the address too."""

PATIENCE = 30.0
"""Seconds of the driver's clock until a scenario has failed; on an idle machine none takes one."""

SEEDS = range(3)
"""The simulator runs each scenario with these: each cuts the streams of bytes at other places."""

LOOK_AGAIN = 0.001
"""Seconds between two looks at a condition that nothing announces."""


class Bench:
    """What a scenario works with.

    Attributes:
        driver: The running driver.
        errors: What servers reported to `on_error`, as (method, error); a scenario takes out what it
            expects.
        connected: Peers that have connected to any server, in order.
        disconnected: How connections to any server have ended.
    """

    def __init__(self) -> None:
        self.driver: Driver = running_driver()
        self.errors: list[tuple[str, Exception]] = []
        self.connected: list[Peer] = []
        self.disconnected: list[tuple[Peer, Exception | None]] = []
        self._opened = contextlib.AsyncExitStack()

    async def serve(self, *services: Service, url: str = LOCAL, **options: Any) -> Server:
        """Serve at an address; the server is closed after all clients that connect to it."""
        server = Server(services, **options)
        server.on_error(lambda peer, method, error: self.errors.append((method, error)))
        server.on_connect(self.connected.append)
        server.on_disconnect(lambda peer, error: self.disconnected.append((peer, error)))
        await server.listen(url)
        await self._opened.enter_async_context(server)
        return server

    async def client(self, to: Server | Address | str, *services: Service, **options: Any) -> Client:
        """A client of a server; it connects at once."""
        client = Client(url_of(to), services, **options)
        return await self._opened.enter_async_context(client)

    async def pair(self, *services: Service, **options: Any) -> Client:
        """A client of a new server."""
        return await self.client(await self.serve(*services, **options))

    def at_the_end(self, close: Callable[[], object]) -> None:
        """Have something closed when the scenario has ended."""
        self._opened.callback(close)

    async def closing(self, thing: Any) -> Any:
        """Enter an async context manager, and leave it when the scenario has ended."""
        return await self._opened.enter_async_context(thing)

    async def close(self) -> None:
        await self._opened.aclose()

    def take_errors(self) -> list[tuple[str, Exception]]:
        """What servers have reported since the last call."""
        taken, self.errors = self.errors, []
        return taken


Scenario = Callable[[Bench], Awaitable[None]]


def url_of(to: Server | Address | str) -> str:
    """Where a server can be reached."""
    return str(to.addresses[0] if isinstance(to, Server) else to)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what nothing announces; the bench's patience bounds it."""
    while not condition():
        await asyncio.sleep(LOOK_AGAIN)


async def run_scenario(scenario: Scenario, patience: float) -> None:
    """Run a scenario in the running loop, and look for what it leaves behind."""
    faults: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    driver = running_driver()
    driver.on_error = faults.append
    before = asyncio.all_tasks()
    bench = Bench()
    try:
        try:
            async with asyncio.timeout(patience):
                await scenario(bench)
        finally:
            async with asyncio.timeout(patience):
                await bench.close()
    finally:
        if faults:
            print("reported to the driver or the loop:", faults, file=sys.stderr)
    assert faults == []
    assert bench.errors == [], "a server reported something that the scenario did not expect"
    left = asyncio.all_tasks() - before
    if isinstance(driver, AsyncioDriver):
        left -= driver._tasks  # its own way to accept and to connect
        driver.close()
        await driver.wait_closed()
    assert left == set(), "tasks were left behind"


class Ground:
    """One kind of driver."""

    name = ""

    @classmethod
    def missing(cls) -> str:
        """Why it does not exist here, or nothing."""
        return ""

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop()

    def __call__(self, scenario: Scenario, *, patience: float = PATIENCE) -> None:
        """Run a scenario."""
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            runner.run(run_scenario(scenario, patience))


class Simulated(Ground):
    """One node of a simulated world that calls itself, with several seeds."""

    name = "sim"

    def __call__(self, scenario: Scenario, *, patience: float = PATIENCE) -> None:
        for seed in SEEDS:
            run_in_simulation(run_scenario(scenario, patience), seed)


class Epoll(Ground):
    """The native reactor under a standard asyncio loop."""

    name = "epoll"

    @classmethod
    def missing(cls) -> str:
        return "" if sys.platform == "linux" else "epoll exists on Linux only"

    def new_loop(self) -> asyncio.AbstractEventLoop:
        from helianthus.drivers.epoll import EpollReactor

        return asyncio.SelectorEventLoop(EpollReactor())


class Standard(Ground):
    """The adapter inside the standard loop."""

    name = "asyncio"


class Uvloop(Ground):
    """The adapter inside uvloop."""

    name = "uvloop"

    @classmethod
    def missing(cls) -> str:
        return "" if uvloop_installed() else "uvloop is not installed"

    def new_loop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        return uvloop.new_event_loop()


REAL: list[type[Ground]] = [Epoll, Standard, Uvloop]
GROUNDS: list[type[Ground]] = [Simulated, *REAL]
