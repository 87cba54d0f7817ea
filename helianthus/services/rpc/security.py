"""TLS for RPC: what it calls itself."""

from __future__ import annotations

import ssl

from ...drivers.address import Address
from ..tls import ClientTls, ServerTls, by_address
from ..tls.contexts import client_context, server_context
from ..tls.layers import ClientSecurity, ServerSecurity

RPC_ALPN = ("helianthus/1",)
"""What RPC calls itself in ALPN, unless `alpn` says otherwise. Peers without ALPN are served all the same."""


def server_security(address: Address, tls: ServerTls | None) -> ServerSecurity | None:
    """What a listener at this address puts around its sessions; None where it is not encrypted.

    Raises:
        ValueError: The address does not go with `tls`.
        TlsFilesUnusable: A file is not what it should be.
    """
    return by_address.server_security(address, tls, _server_context)


def client_security(tls: ClientTls | None) -> ClientSecurity | None:
    """What a client puts around its sessions with those addresses that are encrypted.

    Raises:
        TlsFilesUnusable: A file is not what it should be.
    """
    return None if tls is None else ClientSecurity(tls, _client_context)


def _server_context(tls: ServerTls) -> ssl.SSLContext:
    return server_context(tls, RPC_ALPN)


def _client_context(tls: ClientTls) -> ssl.SSLContext:
    return client_context(tls, RPC_ALPN)
