"""Puts TLS around the machine of a connection."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from ...drivers.address import Address
from ...protocols.machine import StreamMachine
from ...protocols.tls import TlsLayer
from .contexts import client_context, server_context
from .options import ClientTls, ServerTls
from .sessions import SessionCache

E = TypeVar("E")


class ServerSecurity:
    """What is made of a server's options for one service.

    Args:
        tls: The options.
        make: Makes the context; a function of the module's, because `ServerTls.made` knows it again.

    Raises:
        TlsFilesUnusable: A file is not what it should be.
    """

    def __init__(self, tls: ServerTls, make: Callable[[ServerTls], ssl.SSLContext] = server_context) -> None:
        self._tls = tls
        self._make = make
        tls.made(make)

    def around(self, child: StreamMachine[E], now: float) -> TlsLayer[E]:
        """A layer for a connection that was accepted, with the files as they were read last."""
        return TlsLayer(
            child,
            self._tls.made(self._make),
            now,
            server_side=True,
            handshake_timeout=self._tls.handshake_timeout,
            require_close_notify=self._tls.require_close_notify,
        )


class ClientSecurity:
    """What is made of a client's options for one service; as `ServerSecurity`."""

    def __init__(self, tls: ClientTls, make: Callable[[ClientTls], ssl.SSLContext] = client_context) -> None:
        self._tls = tls
        self._make = make
        tls.made(make)

    def around(
        self, child: StreamMachine[E], server: Address, now: float
    ) -> tuple[TlsLayer[E], Callable[[Any], None]]:
        """A layer for a connection that is to be made.

        Args:
            child: What is said in it.
            server: As the user has named it, before the name was looked up.
            now: Monotonic seconds.

        Returns:
            The layer, and what is to be given the session of each `TlsSessionReceived`.
        """
        tls = self._tls
        context, cache = tls.made(self._make), tls.made(_new_cache)
        name = tls.server_name or server.host
        key = (self._make, name, server.host, server.port)
        layer = TlsLayer(
            child,
            context,
            now,
            server_side=False,
            server_name=name,
            session=cache.get(key) if tls.resume else None,
            handshake_timeout=tls.handshake_timeout,
            require_close_notify=tls.require_close_notify,
        )
        return layer, functools.partial(cache.keep, key)


def _new_cache(tls: ClientTls) -> SessionCache:
    """Sessions belong to a context, and go with it."""
    return SessionCache()
