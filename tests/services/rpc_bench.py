"""Where the tests of the RPC services run: the simulator and every real driver.

A scenario is an `async def` that takes a `Bench`. It serves and connects through the bench, which
closes everything at the end and then looks for what was left behind: tasks, errors that nobody
expected, exceptions that reached the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import select
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from helianthus import Client, Peer, Server, ServerTls, Service
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

SOON = 0.2 if sys.platform == "win32" else 0.02
"""Seconds of a deadline that is to pass, but not before the call has reached the method. Windows may be
Wine, where a system call takes a hundred times as long."""

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

    async def serve(
        self,
        *services: Service,
        url: str = LOCAL,
        listen: dict[str, Any] | None = None,
        tls: ServerTls | None = None,
        **options: Any,
    ) -> Server:
        """Serve at an address; the server is closed after all clients that connect to it.

        `listen` has what is told to `Server.listen`, `tls` too, and `options` what to the server.
        """
        server = Server(services, **options)
        server.on_error(lambda peer, method, error: self.errors.append((method, error)))
        server.on_connect(self.connected.append)
        server.on_disconnect(lambda peer, error: self.disconnected.append((peer, error)))
        await server.listen(url, tls=tls, **(listen or {}))
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
    left = {task for task in asyncio.all_tasks() - before if not _accepts_for_asyncio(task)}
    if isinstance(driver, AsyncioDriver):
        left -= driver._tasks  # its own way to accept and to connect
        driver.close()
        await driver.wait_closed()
    assert left == set(), "tasks were left behind"


def _accepts_for_asyncio(task: asyncio.Task[Any]) -> bool:
    """Whether Windows' proactor made a task for an accept of its own; it ends after its server."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("IocpProactor.accept.")


def under_wine() -> bool:
    """Whether what claims to be Windows is Wine, which has faults of its own."""
    if sys.platform != "win32":
        return False
    import ctypes

    return hasattr(ctypes.windll.ntdll, "wine_get_version")


class Ground:
    """One kind of driver."""

    name = ""
    everywhere = True
    """Whether all tests run on it; otherwise those of `ON_DOUBLES` only."""
    resets = True
    """Whether the peer of an aborted connection hears that it was reset, and not its end."""

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


class Kqueue(Ground):
    """The native reactor of macOS and the BSDs under a standard asyncio loop; on Linux, on its double."""

    name = "kqueue"
    everywhere = hasattr(select, "kqueue")

    @classmethod
    def missing(cls) -> str:
        return "" if _kqueue_system() is not None else "neither kqueue nor Linux, where its double works"

    def new_loop(self) -> asyncio.AbstractEventLoop:
        from helianthus.drivers.kqueue import KqueueReactor

        return asyncio.SelectorEventLoop(KqueueReactor(system=_kqueue_system()))


@functools.cache
def _kqueue_system() -> Any:
    """The module to take a kqueue from: `select`, or on Linux the double of tests/drivers, or None."""
    if hasattr(select, "kqueue"):
        return select
    if sys.platform != "linux":
        return None
    double = Path(__file__).parent.parent / "drivers" / "kqueue_double.py"
    spec = importlib.util.spec_from_file_location("kqueue_double", double)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Iocp(Ground):
    """The native driver of Windows behind a standard asyncio loop."""

    name = "iocp"
    resets = not under_wine()  # which tells some resets as ends

    @classmethod
    def missing(cls) -> str:
        return "" if sys.platform == "win32" else "IOCP exists on Windows only"

    def new_loop(self) -> asyncio.AbstractEventLoop:
        from helianthus.drivers.iocp import new_loop

        return new_loop()


class Proactor(Ground):
    """The adapter inside the loop that asyncio makes on Windows."""

    name = "proactor"
    resets = not under_wine()
    missing = Iocp.missing

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.ProactorEventLoop()


class Standard(Ground):
    """The adapter inside the standard loop."""

    name = "asyncio"
    resets = not under_wine()


class Uvloop(Ground):
    """The adapter inside uvloop."""

    name = "uvloop"

    @classmethod
    def missing(cls) -> str:
        return "" if uvloop_installed() else "uvloop is not installed"

    def new_loop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        return uvloop.new_event_loop()


REAL: list[type[Ground]] = [Epoll, Kqueue, Iocp, Standard, Proactor, Uvloop]
GROUNDS: list[type[Ground]] = [Simulated, *REAL]

ON_DOUBLES = frozenset(
    {
        "test_dtls_sockets",
        "test_rpc_answers",
        "test_rpc_bad_clients",
        "test_rpc_cancellation",
        "test_rpc_deadlines",
        "test_rpc_drain",
        "test_rpc_lost_connections",
        "test_rpc_plain_peers",
        "test_rpc_proxy",
        "test_rpc_proxy_header",
        "test_rpc_push",
        "test_rpc_racing",
        "test_rpc_reconnect",
        "test_rpc_server",
        "test_rpc_slow_clients",
        "test_rpc_streams",
        "test_rpc_unix",
        "test_sockets_bounds",
        "test_sockets_datagrams",
        "test_sockets_files",
        "test_sockets_foreign",
        "test_sockets_listeners",
        "test_sockets_streams",
        "test_sockets_tls",
        "test_sockets_tls_foreign",
        "test_tls_calls",
        "test_tls_faults",
        "test_tls_foreign",
    }
)
"""Modules that run on the double of a driver, too: where it matters what the driver does with sockets,
ends, pauses and faults. With `--doubles-everywhere` all modules do."""
