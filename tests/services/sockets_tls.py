"""Sockets joined over TLS, with the certificates of `tls_node`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from tls_node import LOCAL, Certificates

from helianthus import ClientTls, ServerTls
from helianthus.sockets import ByteStreamLimits, TcpSocket, connect, listen


@contextlib.asynccontextmanager
async def tls_pair(
    certificates: Certificates,
    *,
    server: ServerTls | None = None,
    client: ClientTls | None = None,
    limits: ByteStreamLimits | None = None,
) -> AsyncIterator[tuple[TcpSocket, TcpSocket]]:
    """Both ends of an encrypted connection; the first is the one that connected."""
    tls = server or certificates.server()
    async with await listen(LOCAL, tls=tls, limits=limits) as listener:
        url = str(listener.address)
        near = await connect(url, tls=client or certificates.client(), limits=limits)
        far = await listener.accept()
    async with near, far:
        yield near, far
