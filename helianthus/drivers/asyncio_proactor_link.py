"""Links over the transports of Windows' proactor loop."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from ..protocols.machine import Buffer, StreamMachine
from .asyncio import AsyncioDriver
from .asyncio_link import AsyncioLink
from .base import LinkHandler
from .write_piece import next_piece

E = TypeVar("E")


class ProactorLink(AsyncioLink[E]):
    """A link that gives its transport one piece at a time.

    The transport makes one operation of all that it has, and does not tell how far that has come: a
    peer that takes something, but not all of it within the write deadline, would be dropped.
    """

    __slots__ = ("_queue", "_queued")

    def __init__(
        self, driver: AsyncioDriver, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(driver, machine, handler, peer_address)
        self._queue: list[memoryview] = []
        self._queued = 0

    @property
    def unsent(self) -> int:
        """Bytes that wait, here and in the transport."""
        return self._queued + super().unsent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there; it is to say when it has taken all."""
        super().connection_made(transport)
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=0)

    def pause_writing(self) -> None:
        """The transport has not taken all; what it has left over it keeps."""
        self.partial_writes += 1
        self._stuck_at = super().unsent

    def resume_writing(self) -> None:
        """The transport has taken all that it was given."""
        self._stuck_at = None
        self._progress_at = self._driver.now()
        self._write_on()
        if self.unsent <= self._low and not self.closed:
            self._drained()

    def _send(self, buffers: list[Buffer]) -> None:
        self._queue.extend(memoryview(buffer) for buffer in buffers if len(buffer))
        self._queued += sum(map(len, buffers))
        self._write_on()
        if self.unsent:
            self._left_over()

    def _write_on(self) -> None:
        while self._queue and self._stuck_at is None and self._transport is not None:
            piece = next_piece(self._queue)
            self._queued -= len(piece)
            self.writes += 1
            self.bytes_out += len(piece)
            self._transport.write(piece)  # it calls `pause_writing` unless it takes all at once

    def _set_limits(self, high: int, low: int) -> None:
        self._high, self._low = high, low
        if not self._clogged and self.unsent > high:
            self._left_over()

    def _close_transport(self, *, reset: bool) -> None:
        self._queue.clear()
        self._queued = 0
        transport = self._transport
        super()._close_transport(reset=reset)
        if reset and transport is not None:
            # The transport would end the stream before it closes the socket, and the peer hear of that
            # first. The loop's own operations have been cancelled; it finds the socket closed.
            sock = getattr(transport.get_extra_info("socket"), "_sock", None)
            if sock is not None:
                sock.close()
