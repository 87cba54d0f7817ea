"""A node behind TLS, and the certificates of those who talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from certificates import Authority, Pair

from helianthus import CallContext, ClientTls, ServerTls, Service, method

LOCAL = "tls://127.0.0.1:0"


class Probe(Service):
    """Something to call."""

    name = "probe"

    @method
    def add(self, a: int, b: int) -> int:
        return a + b

    @method
    def echo(self, value: Any) -> Any:
        return value

    @method
    def who(self, context: CallContext) -> str:
        return context.identity.name if context.identity is not None else "nobody"

    @method
    async def later(self, value: str) -> str:
        await asyncio.sleep(0.001)
        return value

    @method
    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i


class Certificates:
    """An authority, a node and its clients.

    Attributes:
        authority: Signs all of them.
        node: Valid for 127.0.0.1 and localhost.
        alice: A client.
    """

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.node = self.authority.issue("node", "127.0.0.1", "::1", "localhost", "node.example")
        self.alice = self.authority.issue("alice", uris=["spiffe://cluster/alice"])

    def server(self, **options: Any) -> ServerTls:
        return server_tls(self.node, **options)

    def client(self, pair: Pair | None = None, **options: Any) -> ClientTls:
        options.setdefault("ca", self.authority.file)
        if pair is not None:
            options.update(certificate=pair.certificate, key=pair.key)
        return ClientTls(**options)


def server_tls(pair: Pair, **options: Any) -> ServerTls:
    return ServerTls(pair.certificate, pair.key, **options)
