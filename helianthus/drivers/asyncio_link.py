"""Links over asyncio's transports, and attempts to connect them."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..protocols.machine import Buffer, StreamMachine
from .address import Address
from .base import LinkHandler
from .connect_attempt import meets_itself, refused
from .errors import ConnectionReset, TransportError, from_os_error
from .names import Candidate, literal_candidate
from .pump import Link
from .resetting import reset_when_closed
from .socket_link import address_text, set_tcp_options
from .unix_socket import Patience, is_unix, try_to_connect, unix_name, unix_text

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task, Transport

    from .asyncio import AsyncioDriver

E = TypeVar("E")

_JOIN_BELOW = 4096  # bytes: buffers smaller than this on average cost less joined than gathered


class AsyncioLink(Link[E], asyncio.BufferedProtocol):
    """A link over an asyncio transport, and the protocol of that transport."""

    __slots__ = ("_connecting", "_loop_driver", "_stuck_at", "_transport")

    def __init__(
        self, driver: AsyncioDriver, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(driver, machine, handler, peer_address)
        self._loop_driver = driver
        self._transport: Transport | None = None
        self._connecting: Task[None] | None = None
        self._stuck_at: int | None = None  # bytes left when the transport last could not take all
        driver.link_begun(self)

    @property
    def unsent(self) -> int:
        """Bytes that wait in the transport."""
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size()

    def connect_with(self, task: Task[None], sock: socket.socket | None = None) -> None:
        """Cancel `task`, which connects the link, when the link is aborted before it has done so.

        Args:
            task: Begins to connect, or takes up an accepted connection.
            sock: The accepted connection; closed if the task is cancelled before it has begun.
        """
        self._connecting = task
        task.add_done_callback(lambda _: self._connect_ended(sock))

    def _connect_ended(self, sock: socket.socket | None) -> None:
        self._connecting = None
        if sock is not None and self._transport is None:
            sock.close()
        if self._transport is None or self.closed:  # then the loop need not tell us any more
            self._loop_driver.link_gone(self)

    def forget_transport(self) -> None:
        """In a forked child: the transport belongs to the parent."""
        self._transport = None

    def failed_to_connect(self, error: Exception) -> None:
        """The attempt to connect is over."""
        self._lost(error)

    def failed(self, error: Exception) -> None:
        """An exception that nobody foresaw ended the attempt to connect."""
        self._fault(error)

    # -- asyncio.BufferedProtocol ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        self._transport = made = cast("Transport", transport)
        if self.closed:  # aborted while the loop was busy connecting
            made.abort()
            return
        made.set_write_buffer_limits(high=self._high, low=self._low)
        local, peer = made.get_extra_info("sockname"), made.get_extra_info("peername")
        if is_unix(made.get_extra_info("socket")):
            self._ready(unix_text(local or ""), self.peer_address)
        elif not local or not peer:
            self._lost(ConnectionReset("the peer has gone already", address=self.peer_address))
        else:
            self._ready(address_text(local), address_text(peer))

    def _ready(self, local_address: str, peer_address: str) -> None:
        self._connected(local_address, peer_address)
        if not self._reading:
            self._loop_driver.soon(self._pause_reading)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read into: one place for all links, as it is handled before the next read."""
        return self._loop_driver.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the peer."""
        data = self._loop_driver.receive_buffer[:nbytes]
        if not self._reading:  # uvloop reads once before it can be paused
            self._held += data
        elif self._leasing:
            lease = self._driver.buffers.lease(nbytes)
            lease.view[:] = data
            self._received_lease(lease)
        else:
            self._received(data)

    def eof_received(self) -> bool:
        """The peer ended its direction; ours stays open."""
        self._received_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The loop has freed the transport."""
        self._transport = None
        self._loop_driver.link_gone(self)
        if exc is None or isinstance(exc, OSError):
            self._lost(exc and from_os_error(exc, self.peer_address))
        else:
            self._fault(exc)

    def pause_writing(self) -> None:
        """The transport has not taken all; what it has left over it keeps."""
        self.partial_writes += 1
        self._stuck_at = self._transport.get_write_buffer_size() if self._transport is not None else 0
        self._left_over()

    def resume_writing(self) -> None:
        """The transport has taken all."""
        self._stuck_at = None
        self._drained()

    # -- the platform's part of a link ----------------------------------------------------------------

    def _send(self, buffers: list[Buffer]) -> None:
        transport = self._transport
        if transport is None:
            return  # lost, and about to be told so
        self.writes += 1
        if len(buffers) == 1:
            self.bytes_out += len(buffers[0])
            transport.write(buffers[0])
        else:
            total = sum(map(len, buffers))
            self.bytes_out += total
            if total < _JOIN_BELOW * len(buffers):
                transport.write(b"".join(buffers))
            else:
                transport.writelines(buffers)
        if self._high and self._write_timer is None and self.unsent:
            self._watch_progress()  # the loop tells only of what is above the high watermark

    def _set_limits(self, high: int, low: int) -> None:
        self._high, self._low = high, low
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=high, low=low)

    def _check_progress(self) -> None:
        """Look whether the transport's buffer has shrunk since the last look, one deadline ago.

        A peer is therefore dropped between one and two write deadlines after it took its last byte.
        """
        unsent = self.unsent
        if unsent != self._stuck_at:
            self._stuck_at = unsent
            self._progress_at = self._driver.now()
        super()._check_progress()

    def _shut_down_writing(self) -> None:
        if self._transport is not None:
            try:
                self._transport.write_eof()
            except OSError as error:  # the peer has reset the connection, and the loop is yet to notice
                self._lost(from_os_error(error, self.peer_address))

    def _close_transport(self, *, reset: bool) -> None:
        self._stuck_at = None
        if self._transport is not None:
            if not self._loop_driver.loop.is_closed():
                sock = self._transport.get_extra_info("socket")
                if reset and sock is not None:
                    reset_when_closed(sock)
                self._transport.abort()
        elif self._connecting is not None:
            self._connecting.cancel()
        self._loop_driver.stop_waiting()

    def _pause_reading(self) -> None:
        if self._transport is not None and not self._reading:
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()


async def connect(loop: AbstractEventLoop, address: Address, link: AsyncioLink[Any]) -> None:
    """Connect a link to the first of a name's addresses that answers."""
    await asyncio.sleep(0)  # an eager task would tell the handler before `connect` has returned
    try:
        if address.local:
            await open_on(loop, await _connect_unix(address), link)
            return
        candidates = await look_up(loop, address)
        failure: OSError = TransportError("the name has no address")
        for family, sockaddr in candidates:
            try:
                await open_on(loop, await _connect_tcp(loop, family, sockaddr), link)
                return
            except OSError as error:
                failure = error
        link.failed_to_connect(from_os_error(failure, str(address)))
    except OSError as error:
        link.failed_to_connect(from_os_error(error, str(address)))
    except asyncio.CancelledError:
        link.abort()  # has done so already, unless it is the loop that ends its tasks
        raise
    except Exception as error:  # noqa: BLE001 - nobody awaits this
        link.failed(error)


async def open_on(loop: AbstractEventLoop, sock: socket.socket, link: AsyncioLink[Any]) -> None:
    """Give a connected socket to a transport, and that to the link.

    Whichever end has connected: uvloop's `create_connection` leaves the socket to the garbage collector,
    and with it what has its descriptor by then, if the transport is closed before it goes on.
    """
    await loop.connect_accepted_socket(lambda: link, sock)


async def _connect_tcp(loop: AbstractEventLoop, family: socket.AddressFamily, sockaddr: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, sockaddr)
        if meets_itself(sock):
            raise refused()
        set_tcp_options(sock)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_unix(address: Address) -> socket.socket:
    """Connect to a path; not through the loop, which takes a full backlog for success."""
    name = unix_name(address)
    patience = Patience(time.monotonic())
    while (sock := try_to_connect(name)) is None:
        await asyncio.sleep(patience.next_delay(time.monotonic()))
    return sock


async def look_up(loop: AbstractEventLoop, address: Address) -> list[Candidate]:
    """What a name stands for; raises `OSError` where the loop cannot find out."""
    literal = literal_candidate(address.host, address.port)
    if literal is not None:
        return [literal]
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]
