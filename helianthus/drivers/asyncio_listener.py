"""Accepting connections in somebody else's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from .address import Address
from .asyncio_link import AsyncioLink, open_on
from .base import Accept, Listener
from .errors import from_os_error
from .shortage import ACCEPT_PAUSE, SHORTAGES, Shortage
from .socket_link import address_text, listening_socket, set_tcp_options
from .unix_socket import is_unix, peer_text

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

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
        self._paused = False
        self._shortage = Shortage()
        self._socket, self.address, self._file = listening_socket(address)
        driver.listener_begun(self)
        self._start()

    def _start(self) -> None:
        if not self._closed and not self._paused:
            self._driver.watch(self._socket, self._ready)

    def _stop(self) -> None:
        self._loop.remove_reader(self._socket)

    def _ready(self) -> None:
        """Accept what waits."""
        for _ in range(self._driver.fairness.accepts_per_tick):
            if self._closed or self._paused:
                return
            try:
                sock, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in SHORTAGES:  # the connection was reset before it was accepted
                    continue
                self._report_shortage(error)
                self._stop()
                self._driver.call_at(self._driver.now() + ACCEPT_PAUSE, self._start)
                return
            self._adopt(sock, peer)

    def _adopt(self, sock: socket.socket, peer: Any) -> None:
        """Give an accepted connection a machine, a handler and a transport."""
        sock.setblocking(False)
        if is_unix(sock):
            text = peer_text(sock)
        else:
            text = address_text(peer)
            with contextlib.suppress(OSError):  # on macOS, where the peer has gone: the link will find that
                set_tcp_options(sock)
        try:
            machine, handler = self._accept(text)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not stop the listener
            self._report(error)
            sock.close()
            return
        link = self._driver.new_link(machine, handler, text)
        link.connect_with(self._driver.start_task(_take_up(self._loop, sock, link)), sock)
        if self._driver.closed:  # by `accept`, when there was no link to abort yet
            link.abort()

    def _report_shortage(self, error: OSError) -> None:
        report = self._shortage.failed(error, self.address, self._driver.now())
        if report is not None:
            self._report(report)

    def _report(self, error: Exception) -> None:
        self._driver.on_error(error)
        self._driver.stop_waiting()

    def forget_loop(self) -> None:
        """In a forked child: the loop is the parent's; only our copy of the socket is ours."""
        self._closed = True
        self._socket.close()

    def pause(self) -> None:
        """Accept no more for now; see `Listener.pause`."""
        if not self._paused and not self._closed:
            self._paused = True
            self._stop()

    def resume(self) -> None:
        """Accept again; see `Listener.resume`."""
        if not self._paused or self._closed:
            return
        self._paused = False
        self._start()

    def close(self) -> None:
        """Stop accepting; see `Listener.close`."""
        if self._closed:
            return
        self._closed = True
        if self._file is not None:
            self._file.remove()
        self._driver.listener_gone(self)
        if not self._loop.is_closed():
            self._stop()
        self._socket.close()


async def _take_up(loop: AbstractEventLoop, sock: socket.socket, link: AsyncioLink[Any]) -> None:
    """Pump an accepted connection."""
    try:
        await open_on(loop, sock, link)
    except OSError as error:
        link.failed_to_connect(from_os_error(error, link.peer_address))
    except asyncio.CancelledError:
        link.abort()  # has done so already, unless it is the loop that ends its tasks
        raise
    except Exception as error:  # noqa: BLE001 - nobody awaits this
        link.failed(error)
