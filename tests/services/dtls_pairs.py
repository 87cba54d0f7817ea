"""Two DTLS sockets joined through the running driver."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import pytest
from certificates import Authority, Pair

pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed: no DTLS")

from helianthus import ClientTls, ServerTls
from helianthus.dtls import DtlsListener, DtlsSocket, connect, listen

LOCAL = "dtls://127.0.0.1:0"


@cache
def authority() -> Authority:
    return Authority.of_this_process()


@cache
def pair_of(name: str, *hosts: str) -> Pair:
    return authority().issue(name, *hosts, ecdsa=True)


def server_tls(**options: Any) -> ServerTls:
    pair = pair_of("server", "127.0.0.1", "localhost", "::1", "server", "node")
    return ServerTls(pair.certificate, pair.key, **options)


def client_tls(**options: Any) -> ClientTls:
    return ClientTls(authority().file, **options)


@contextlib.asynccontextmanager
async def pair(
    url: str = LOCAL, *, server: ServerTls | None = None, client: ClientTls | None = None, **options: Any
) -> AsyncIterator[tuple[DtlsSocket, DtlsSocket, DtlsListener]]:
    """Both ends of an association, the one that connected first, and the listener."""
    async with await listen(url, tls=server or server_tls(), **options) as listener:
        near = await connect(str(listener.address), tls=client or client_tls(), timeout=10, **options)
        far = await listener.accept(timeout=10)
        async with near, far:
            yield near, far, listener
