"""Accepting connections as sockets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from ...drivers.address import Address
from ...drivers.base import Driver, Listener
from ...drivers.choose import running_driver
from ...drivers.errors import TransportError
from ...protocols.byte_stream import ByteStreamLimits
from ...protocols.machine import StreamMachine
from ...protocols.policies.arrivals import MAX_ARRIVALS
from ...protocols.tls import TlsHandshakeAbandoned
from ..cancel import CancelToken
from ..handshake_room import HandshakeRoom
from ..listener_layers import ListenerLayers
from ..proxy_trust import proxy_trust
from ..tls import ServerTls
from ..tls.by_address import server_security
from .accepting import AcceptingListener, Port
from .connection import Connection
from .name_lookup import addresses_of
from .schemes import SOCKET_SCHEMES
from .tcp_socket import TcpSocket
from .waiting import bound_of, check_bounds

DEFAULT_BACKLOG = 128
"""Connections that may wait to be accepted: what systems long took for enough (SOMAXCONN), and bytes
of so many peers that nobody may ever look at are a few MiB."""

_log = logging.getLogger("helianthus.sockets")


class TcpListener(AcceptingListener[TcpSocket]):
    """Accepts connections at an address; made by `listen`.

    Any number of tasks may accept at the same time, each connection goes to one of them. Use it as an
    async context manager, and iterate over it for the connections; the iteration ends when the
    listener is closed.

    An `accept` that is given up loses no connection: it is there for the next one.
    """

    __slots__ = ()

    _port: _Port

    def __init__(self, port: _Port) -> None:
        self._port = port

    async def accept(self, *, timeout: float | None = None, cancel: CancelToken | None = None) -> TcpSocket:
        """Take the next connection, as soon as there is one; an encrypted one when its handshake is done.

        Raises:
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
            SocketClosed: The listener has been closed.
        """
        connection = await self._port.take(timeout, cancel)
        self._port.look_at_backlog()
        return TcpSocket(connection)


class _Port(Port[Connection]):
    """What is behind a listener: the driver's one, and the connections that have come."""

    def __init__(
        self,
        driver: Driver,
        backlog: int,
        limits: ByteStreamLimits | None,
        layers: ListenerLayers,
        max_handshakes: int,
    ) -> None:
        super().__init__(driver)
        self._backlog = backlog
        self._limits = limits
        self._layers = layers
        self._layered = layers.any
        self._listener: Listener | None = None
        self._opening: HandshakeRoom[Connection] = HandshakeRoom(
            max_handshakes, lambda connection: connection.peer_address, self.look_at_backlog, _log
        )

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._listener is not None
        return self._listener.address

    def close(self) -> None:
        """See `TcpListener.close`."""
        if self.closed:
            return
        self.closed = True  # first: what is ended below is no longer looked at
        if self._listener is not None:
            self._listener.close()
        self._opening.abort_all()
        for connection in self._waiting:
            connection.abort()
        self._end_accepting()

    # -- from the driver -----------------------------------------------------------------------------

    def open_at(self, address: Address) -> None:
        """Begin to listen; raises as `Driver.listen`."""
        self._listener = self.driver.listen(address, self._adopt)

    def _adopt(self, peer: str) -> tuple[StreamMachine[Any], Connection]:
        now = self.driver.now()
        connection = _Accepted(self, self.driver, f"socket from {peer}", self._limits)
        connection.awaits_tls = self._layers.security is not None
        connection.awaits_proxy_header = self._layers.proxy is not None
        machine = self._layers.around(connection.stream, now, peer)
        self._opening.add(connection, self.driver)
        self.look_at_backlog()
        return machine, connection

    def usable(self, connection: Connection) -> None:
        """An accepted connection can be used."""
        if not self._opening.discard(connection) or self.closed:
            connection.abort()
            return
        self._offer(connection, direct=asyncio.current_task() is None)
        if self._layered:
            self.look_at_backlog()

    def unusable(self, connection: Connection, error: Exception) -> None:
        """An accepted connection cannot be used; it has ended, or is about to."""
        gone = isinstance(error, TlsHandshakeAbandoned | TransportError)
        if connection in self._opening and not self.closed and not gone:
            _log.info("%s: %s", connection.peer_address, error)

    def ended(self, connection: Connection) -> None:
        """An accepted connection has ended; perhaps before it could be used."""
        if self._opening.discard(connection):
            self.look_at_backlog()

    def look_at_backlog(self) -> None:
        """Leave further connections to the system while enough of them are here."""
        listener, opening = self._listener, self._opening
        if listener is None or self.closed:
            return
        here = len(self._waiting) + (0 if self._layered else len(opening))
        if here >= self._backlog or opening.full:
            listener.pause()
        else:
            listener.resume()


class _Accepted(Connection):
    """A connection that a listener is to hear of."""

    def __init__(self, port: _Port, driver: Driver, label: str, limits: ByteStreamLimits | None) -> None:
        super().__init__(driver, label, limits)
        self._port = port

    def usable(self) -> None:
        """The connection can be used."""
        super().usable()
        self._port.usable(self)

    def unusable(self, error: Exception) -> None:
        """It never can be."""
        super().unusable(error)
        self._port.unusable(self, error)

    def on_closed(self, error: Exception | None) -> None:
        """The link has ended."""
        super().on_closed(error)
        self._port.ended(self)


async def listen(
    url: str,
    *,
    tls: ServerTls | None = None,
    proxy: bool = False,
    proxy_from: Iterable[str] = (),
    backlog: int = DEFAULT_BACKLOG,
    max_handshakes: int = MAX_ARRIVALS,
    timeout: float | None = None,
    cancel: CancelToken | None = None,
    driver: Driver | None = None,
    limits: ByteStreamLimits | None = None,
) -> TcpListener:
    """Begin to listen at an address.

    Args:
        url: Such as `tcp://127.0.0.1:7` or `tls://127.0.0.1:7`; port 0 takes any free port. A name
            stands for the first of its addresses that this machine has.
        tls: How connections to a `tls://` address are encrypted. Its files are read at once.
        proxy: Whether every connection begins with a PROXY header, which tells who the peer is. One
            without is ended.
        proxy_from: Whose headers are believed, such as "10.0.0.0/8" or "unix"; others' connections are
            ended. Without any, everybody who can connect can claim to be anybody.
        backlog: Connections that may wait for `accept`; further ones wait in the system, as many as it
            allows.
        max_handshakes: Connections whose TLS handshake, or PROXY header, may be under way besides. When
            there are so many, those that have taken longer than a second are ended to make room.
        timeout: Seconds that looking up a name may take.
        cancel: A token that can cancel that.
        driver: By default the running loop's.
        limits: Of each socket.

    Raises:
        ValueError: The URL is none or does not go with `tls`, the backlog or `max_handshakes` is less
            than 1, or `proxy_from` is wrong.
        TlsFilesUnusable: A certificate or key is not what it should be.
        TransportError: Such as `AddressInUse`.
        OperationTimedOut: Its time was up.
        OperationCancelled: It was cancelled by a token.
    """
    if backlog < 1:
        raise ValueError(f"listen: the backlog is {backlog}; it must be 1 or more")
    if max_handshakes < 1:
        raise ValueError(f"listen: max_handshakes is {max_handshakes}; it must be 1 or more")
    address = Address.parse(url, SOCKET_SCHEMES)
    layers = ListenerLayers(server_security(address, tls), proxy_trust(proxy, proxy_from))
    driver = driver or running_driver()
    what = f"listening at {address}"
    check_bounds(driver, what, timeout, cancel)
    found = await addresses_of(driver, address, what, bound_of(driver, timeout, cancel))
    port = _Port(driver, backlog, limits, layers, max_handshakes)
    port.open_at_first(found)
    return TcpListener(port)
