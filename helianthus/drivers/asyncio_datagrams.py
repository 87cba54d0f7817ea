"""Datagram links inside an asyncio loop.

The loop only says when the socket is ready; the link reads and writes it itself. asyncio's own
datagram transports do not say to whom a datagram could not be sent, what came back, or that one was
cut, and each loop has its own limits and its own queue.

Windows' proactor loop knows no readiness. There a task receives one datagram, and the link then reads
what else has come.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from ..protocols.machine import DatagramMachine
from .datagram_options import LARGEST_PAYLOAD, DatagramOptions
from .datagram_socket import OpenSocket
from .errors import ConnectionRefused
from .socket_datagrams import SocketDatagramLink

if TYPE_CHECKING:
    from asyncio import Task

    from .asyncio import AsyncioDriver
    from .base import DatagramHandler

E = TypeVar("E")

_TRY_AGAIN = 0.001
"""Seconds until a socket that took no more is tried again in a loop that knows no readiness."""


class AsyncioDatagramLink(SocketDatagramLink[E]):
    """A datagram link whose socket an asyncio loop watches, level-triggered."""

    __slots__ = ("_loop_driver", "_task", "_waits_for_room")

    def __init__(
        self,
        driver: AsyncioDriver,
        machine: DatagramMachine[E],
        handler: DatagramHandler[E],
        opened: OpenSocket,
        options: DatagramOptions,
    ) -> None:
        super().__init__(driver, machine, handler, opened, options)
        self._loop_driver = driver
        self._waits_for_room = False
        self._task: Task[None] | None = None  # in a loop that knows no readiness
        try:
            driver.watch(self._socket, self._ready)
        except NotImplementedError:
            self._task = driver.start_task(self._receive_by_completion())
        driver.datagram_link_begun(self)

    def _ready(self) -> None:
        """Read what has come."""
        if self._let_go:
            return
        statistics = self.statistics
        received, errors = statistics.received, statistics.errors
        self._read()
        if statistics.received == received and not self._let_go:
            self._receive_errors()  # else the loop would go on saying that the socket is ready
        if (statistics.errors != errors or statistics.received == received) and not self._let_go:
            self._watch_again()

    def _watch_again(self) -> None:
        """Have the loop watch the socket anew.

        After an error uvloop tells of it once and then watches the socket no more, without a word.
        """
        driver = self._loop_driver
        driver.loop.remove_reader(self._socket)
        driver.loop.remove_writer(self._socket)
        driver.watch(self._socket, self._ready)
        if self._waits_for_room:
            driver.watch_for_room(self._socket, self._room)

    async def _receive_by_completion(self) -> None:
        """Receive until cancelled."""
        await asyncio.sleep(0)  # an eager task would tell the machine before `bind` has returned
        loop = self._loop_driver.loop
        while not self._let_go:
            try:
                data, source = await loop.sock_recvfrom(self._socket, LARGEST_PAYLOAD + 1)
            except OSError as error:
                self._receive_failed(error)
                await asyncio.sleep(0)
                continue
            if source is None:  # so the loop says that nobody was bound where an earlier one went
                self._received_error(ConnectionRefused("nobody is bound there"), self.peer_address)
            else:
                self._received([(data, self.peer_address or self._addresses.from_socket(source))])
            if not self._let_go and self._read():
                await asyncio.sleep(0)

    def _wait_for_room(self) -> None:
        if self._waits_for_room:
            return
        self._waits_for_room = True
        driver = self._loop_driver
        if self._task is None:
            driver.watch_for_room(self._socket, self._room)
        else:
            driver.call_at(driver.now() + _TRY_AGAIN, self._room)

    def _room(self) -> None:
        self._waits_for_room = False
        if self._let_go:
            return
        if self._task is None:
            self._loop_driver.loop.remove_writer(self._socket)
        self._writable()

    def forget_loop(self) -> None:
        """In a forked child: the loop is the parent's; only our copy of the socket is ours."""
        self._let_go = True
        self._socket.close()

    def _close_transport(self) -> None:
        driver = self._loop_driver
        driver.datagram_link_gone(self)
        loop = driver.loop
        if self._task is not None:
            self._task.cancel()  # which takes back at once what the system is still to do
        elif not loop.is_closed():
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
        self._socket.close()
