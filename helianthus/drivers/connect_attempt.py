"""Connecting to a name on the native drivers: its addresses are tried in turn, until one answers."""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Generic, Protocol, TypeVar

from .address import Address
from .base import Driver
from .errors import TransportError, from_os_error
from .names import Candidate, literal_candidate


class _Connecting(Protocol):
    """A link that is to be connected."""

    @property
    def closed(self) -> bool:
        """Whether it has been aborted meanwhile."""

    def failed_to_connect(self, error: Exception) -> None:
        """No address has answered."""


D = TypeVar("D", bound=Driver)
L = TypeVar("L", bound=_Connecting)


class ConnectAttempt(ABC, Generic[D, L]):
    """One attempt: resolves the name, then tries its addresses in turn.

    A subclass begins with an address in `_try`, and calls `_failed` where it does not answer.
    """

    def __init__(self, driver: D, address: Address, link: L) -> None:
        self._driver = driver
        self._link = link
        self._address = address
        self._candidates: deque[Candidate] = deque()
        self._error: OSError = TransportError("the name has no address")

    def start(self) -> None:
        """Begin; the link hears the end of it from within a later tick."""
        self._driver.resolve(self._address, self._resolved)

    @abstractmethod
    def _try(self, family: socket.AddressFamily, sockaddr: Any) -> None:
        """Begin to connect to one address; an `OSError` leads on to the next."""

    def _failed(self, error: OSError) -> None:
        """An address has not answered: go on to the next."""
        self._error = error
        self._try_next()

    def _resolved(self, found: list[Address] | None, error: Exception | None) -> None:
        if isinstance(error, OSError):
            self._error = error
        candidates = (literal_candidate(address.host, address.port) for address in found or ())
        self._candidates.extend(candidate for candidate in candidates if candidate is not None)
        self._try_next()

    def _try_next(self) -> None:
        link = self._link
        while self._candidates and not link.closed:
            try:
                self._try(*self._candidates.popleft())
                return
            except OSError as error:
                self._error = error
        if not link.closed:
            link.failed_to_connect(from_os_error(self._error, str(self._address)))


def refused() -> OSError:
    """What systems say where nobody listens, for a connection that met itself."""
    return OSError(errno.ECONNREFUSED, "nobody listens there")


def meets_itself(sock: socket.socket) -> bool:
    """Whether both ends of a new connection are one.

    The system chooses a port for the connecting end. Where that is the very one that it connects to,
    on this machine and with nobody listening, TCP takes it for a simultaneous open (RFC 9293, 3.5).
    """
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False  # the peer has gone already, as the link will find
