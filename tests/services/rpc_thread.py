"""A server in a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rpc_bench import Ground, url_of

from helianthus import Peer, Server, ServerTls, Service
from helianthus.drivers.asyncio import AsyncioDriver
from helianthus.drivers.choose import running_driver

T = TypeVar("T")


class ThreadedServer:
    """Serves until it is closed.

    Attributes:
        errors: What was reported to `on_error`.
        connected: Peers, in the order in which they connected.
    """

    def __init__(
        self,
        ground: Ground,
        *services: Service,
        url: str = "tcp://127.0.0.1:0",
        tls: ServerTls | None = None,
        **options: Any,
    ) -> None:
        self.errors: list[tuple[str, Exception]] = []
        self.connected: list[Peer] = []
        self._ground = ground
        self._services = services
        self._tls = tls
        self._options = options
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(url,), name="server")
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    def _run(self, url: str) -> None:
        try:
            with asyncio.Runner(loop_factory=self._ground.new_loop) as runner:
                runner.run(self._serve(url))
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._started.set()

    async def _serve(self, url: str) -> None:
        self.loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        async with Server(self._services, **self._options) as self.server:
            self.server.on_error(lambda peer, name, error: self.errors.append((name, error)))
            self.server.on_connect(self.connected.append)
            await self.server.listen(url, tls=self._tls)
            self.url = url_of(self.server)
            self._started.set()
            await self._over.wait()
        driver = running_driver()
        if isinstance(driver, AsyncioDriver):
            driver.close()
            await driver.wait_closed()

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the server's loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds, as the server's loop sees it."""

        async def wait() -> None:
            async with asyncio.timeout(20):
                while not condition():
                    await asyncio.sleep(0.001)

        self.run(wait)

    def close(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._over.set)
            self._thread.join()

    def __enter__(self) -> ThreadedServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
