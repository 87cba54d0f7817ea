"""Links and listeners of a simulated node."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from ...protocols.machine import Buffer, StreamMachine
from ..address import Address
from ..base import Accept, LinkHandler, Listener
from ..buffers import BufferPool
from ..lease import Lease
from ..pump import Link
from .stream import Endpoint

if TYPE_CHECKING:
    from .driver import SimDriver

E = TypeVar("E")

BACKLOG = 4096
"""Connections that a node's system holds for a listener that has paused; as the real drivers ask for."""


class SimLink(Link[E]):
    """A link over one end of a simulated connection."""

    __slots__ = ("_endpoint", "_queue", "_queued", "_ready", "_sim")

    def __init__(
        self, driver: SimDriver, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(driver, machine, handler, peer_address)
        self._sim = driver
        self._endpoint: Endpoint | None = None
        self._ready = False
        self._queue: deque[memoryview] = deque()
        self._queued = 0

    @property
    def unsent(self) -> int:
        """Bytes that wait for room in the sending system's buffer."""
        return self._queued

    def connecting_on(self, endpoint: Endpoint) -> None:
        """The connection is made; the handler hears of it in the node's next slice."""
        self._endpoint = endpoint

    def failed_to_connect(self, error: Exception) -> None:
        """The attempt to connect is over."""
        self._lost(error)

    def ready(self) -> None:
        """Look at the endpoint, within the node's slice: something has come or drained."""
        endpoint = self._endpoint
        if endpoint is None or self.closed:
            return
        if not self._ready:
            self._ready = True
            self._connected(endpoint.local_address, endpoint.peer_address)
        if endpoint.drained:
            endpoint.drained = False
            self._send_queue(endpoint)
            if self._queued <= self._low:
                self._drained()
        self._read(endpoint)
        if endpoint.error is not None:
            self._lost(endpoint.error)

    def _read(self, endpoint: Endpoint) -> None:
        """Give the machine what has come, from a buffer that is used again for everybody.

        So a machine that keeps a view of its input meets other bytes in it, as it would on the
        native drivers.
        """
        arrived = endpoint.arrived
        buffer = self._sim.receive_buffer
        while arrived and self._reading and not self.closed:
            data = endpoint.take(len(buffer))
            if arrived and self._sim.network.rng.random() < 0.5 and len(data) < len(buffer):
                data += endpoint.take(len(buffer) - len(data))
            if self._leasing:
                self._received_lease(_leased(self._sim.buffers, data))
                continue
            buffer[: len(data)] = data
            self._received(buffer[: len(data)])
        if endpoint.eof and not arrived and self._reading and not self.closed:
            self._received_eof()

    def _resume_reading(self) -> None:
        if self._endpoint is not None:
            self._endpoint.note()

    def _send(self, buffers: list[Buffer]) -> None:
        endpoint = self._endpoint
        if endpoint is None:
            return
        data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        room = endpoint.pipe.room
        self.writes += 1
        if len(data) <= room and not self._queued:
            self.bytes_out += len(data)
            endpoint.pipe.write(data)
            return
        self.partial_writes += 1
        self._queue.append(memoryview(bytes(data)))
        self._queued += len(data)
        self._send_queue(endpoint)
        if self._queued:
            self._left_over()

    def _send_queue(self, endpoint: Endpoint) -> None:
        """Hand on what the sending system has room for."""
        queue = self._queue
        before = self._queued
        while queue:
            room = endpoint.pipe.room
            if not room:
                endpoint.wants_room = True
                break
            first = queue[0]
            if len(first) > room:
                queue[0] = first[room:]
                first = first[:room]
            else:
                queue.popleft()
            self._queued -= len(first)
            self.bytes_out += len(first)
            endpoint.pipe.write(first)
        if self._queued < before:
            self._progress_at = self._driver.now()

    def _shut_down_writing(self) -> None:
        if self._endpoint is not None:
            self._endpoint.pipe.finish()

    def _close_transport(self, *, reset: bool) -> None:
        self._queue.clear()
        self._queued = 0
        endpoint, self._endpoint = self._endpoint, None
        self._sim.forget_link(self)
        if endpoint is not None:
            endpoint.close(reset=reset)
            endpoint.link = None


def _leased(pool: BufferPool, data: Buffer) -> Lease:
    """Put what has come into memory of the pool, as the native drivers have the kernel do."""
    lease = pool.lease(len(data))
    lease.view[:] = data
    return lease


class SimListener(Listener):
    """Accepts connections to one port of a simulated node.

    Attributes:
        driver: The node's life that it listens for.
    """

    def __init__(self, driver: SimDriver, address: Address, accept: Accept) -> None:
        self.address = address
        self.driver = driver
        self._accept = accept
        self._closed = False
        self._paused = False
        self._held: list[Endpoint] = []  # in the system's queue, while accepting is paused

    def adopt(self, endpoint: Endpoint) -> None:
        """Give a connection that has been made a machine and a handler."""
        if self._closed or (self._paused and len(self._held) >= BACKLOG):
            endpoint.close(reset=True)
            return
        if self._paused:
            self._held.append(endpoint)
            return
        try:
            machine, handler = self._accept(endpoint.peer_address)
        except Exception as error:  # noqa: BLE001 - one connection's fault must not stop the listener
            self.driver.on_error(error)
            endpoint.close(reset=True)
            return
        link: SimLink[Any] = SimLink(self.driver, machine, handler, endpoint.peer_address)
        self.driver.remember_link(link)
        endpoint.link = link
        link.connecting_on(endpoint)

    def pause(self) -> None:
        """Accept no more for now; see `Listener.pause`."""
        self._paused = True

    def resume(self) -> None:
        """Accept again; see `Listener.resume`."""
        self._paused = False
        held, self._held = self._held, []
        for endpoint in held:
            endpoint.listener = self
            endpoint.note()

    def close(self) -> None:
        """Stop accepting; see `Listener.close`."""
        if not self._closed:
            self._closed = True
            self.driver.forget_listener(self)
            for endpoint in self._held:
                endpoint.close(reset=True)
            self._held.clear()
