"""Accepting connections in somebody else's event loop."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from .address import Address
from .asyncio_link import AsyncioLink
from .base import Accept, Listener
from .errors import from_os_error
from .socket_link import (
    ACCEPT_PAUSE,
    ACCEPTS_PER_TICK,
    OUT_OF_FILES,
    address_text,
    keep_alive,
    listening_socket,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task

    from .asyncio import AsyncioDriver


class AsyncioListener(Listener):
    """Accepts connections when the loop says that there are some.

    Not through `loop.create_server`: the standard one loses connections that arrive while it is being
    closed, and reports running out of file descriptors once for every place in its backlog; uvloop's
    turns those away for whom there is no descriptor.
    """

    def __init__(self, driver: AsyncioDriver, address: Address, accept: Accept) -> None:
        self._driver = driver
        self._loop = driver.loop
        self._accept = accept
        self._closed = False
        self._task: Task[None] | None = None
        self._socket = listening_socket(address)
        host, port = self._socket.getsockname()[:2]
        self.address = Address(host, port, address.scheme)
        driver.listener_begun(self)
        self._start()

    def _start(self) -> None:
        if self._closed:
            return
        try:
            self._driver.watch(self._socket, self._ready)
        except NotImplementedError:  # Windows' proactor loop: it completes, and knows no readiness
            self._task = self._driver.start_task(self._accept_by_completion())

    def _ready(self) -> None:
        """Accept what waits."""
        for _ in range(ACCEPTS_PER_TICK):
            if self._closed:
                return
            try:
                sock, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in OUT_OF_FILES:  # the connection was reset before it was accepted
                    continue
                self._report(from_os_error(error, str(self.address)))
                self._loop.remove_reader(self._socket)
                self._driver.call_at(self._driver.now() + ACCEPT_PAUSE, self._start)
                return
            self._adopt(sock, address_text(peer))

    async def _accept_by_completion(self) -> None:
        """Accept until cancelled."""
        while not self._closed:
            try:
                sock, peer = await self._loop.sock_accept(self._socket)
            except OSError as error:
                self._report(from_os_error(error, str(self.address)))
                await asyncio.sleep(ACCEPT_PAUSE)
            else:
                self._adopt(sock, address_text(peer))

    def _adopt(self, sock: socket.socket, peer: str) -> None:
        """Give an accepted connection a machine, a handler and a transport."""
        sock.setblocking(False)
        keep_alive(sock)
        try:
            machine, handler = self._accept(peer)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not stop the listener
            self._report(error)
            sock.close()
            return
        link = AsyncioLink(self._driver, machine, handler, peer)
        link.connect_with(self._driver.start_task(_take_up(self._loop, sock, link)), sock)
        if self._driver.closed:  # by `accept`, when there was no link to abort yet
            link.abort()

    def _report(self, error: Exception) -> None:
        self._driver.on_error(error)
        self._driver.stop_waiting()

    def forget_loop(self) -> None:
        """In a forked child: the loop is the parent's; only our copy of the socket is ours."""
        self._closed = True
        self._socket.close()

    def close(self) -> None:
        """Stop accepting; see `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        self._driver.listener_gone(self)
        if self._task is not None and not self._loop.is_closed():
            self._task.add_done_callback(lambda _: self._socket.close())  # the loop still works on it
            self._task.cancel()
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._socket.close()


async def _take_up(loop: AbstractEventLoop, sock: socket.socket, link: AsyncioLink[Any]) -> None:
    """Give an accepted connection's socket to a transport, and that to the link."""
    try:
        await loop.connect_accepted_socket(lambda: link, sock)
    except OSError as error:
        link.failed_to_connect(from_os_error(error, link.peer_address))
    except asyncio.CancelledError:
        link.abort()  # has done so already, unless it is the loop that ends its tasks
        raise
    except Exception as error:  # noqa: BLE001 - nobody awaits this
        link.failed(error)
