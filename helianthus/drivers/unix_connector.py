"""Connecting to a Unix-domain socket over a reactor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .address import Address
from .errors import from_os_error
from .native import READ
from .unix_socket import Patience, try_to_connect, unix_name

if TYPE_CHECKING:
    from .reactor import Reactor
    from .socket_link import SocketLink


class UnixConnector:
    """One attempt to connect; it is repeated while the listener's backlog is full."""

    def __init__(self, reactor: Reactor, address: Address, link: SocketLink[Any]) -> None:
        self._reactor = reactor
        self._address = address
        self._link = link
        self._patience = Patience(reactor.now())

    def start(self) -> None:
        """Begin; the link hears the end of it from within a later tick."""
        self._reactor.post(self._try)

    def _try(self) -> None:
        link, reactor = self._link, self._reactor
        if link.closed:
            return
        try:
            sock = try_to_connect(unix_name(self._address))
            if sock is None:
                now = reactor.now()
                reactor.call_at(now + self._patience.next_delay(now), self._try)
                return
        except OSError as error:
            link.failed_to_connect(from_os_error(error, str(self._address)))
            return
        link.connecting_on(sock)
        reactor.watch(link, READ)
        link.open_on(sock)
