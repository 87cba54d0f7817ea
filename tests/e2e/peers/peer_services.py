"""What the node under test serves to foreign clients."""

from __future__ import annotations

from typing import Any

import helianthus


class Calculator(helianthus.Service):
    """Something to call."""

    @helianthus.method
    def add(self, a: float, b: float) -> float:
        return a + b

    @helianthus.method
    def echo(self, value: Any) -> Any:
        return value

    @helianthus.method
    async def fail(self) -> None:
        raise helianthus.RpcError(helianthus.StatusCode.NOT_FOUND, "there is none", {"looked": ["here"]})

    @helianthus.method
    async def count(self, n: int) -> Any:
        for i in range(n):
            yield i


class Guestbook(helianthus.Service):
    """Something that remembers, and calls back."""

    def __init__(self) -> None:
        self._names: list[str] = []

    @helianthus.method
    def sign(self, name: str) -> None:
        self._names.append(name)

    @helianthus.method
    def signed(self, name: str) -> int:
        """How often a name stands there."""
        return self._names.count(name)

    @helianthus.method
    async def ask(self, method: str, value: Any, context: helianthus.CallContext) -> Any:
        """Call a method of the caller's, and return what it returned."""
        return await context.peer.call(method, value, timeout=10.0)

    @helianthus.method
    def tell(self, method: str, value: Any, context: helianthus.CallContext) -> None:
        """Notify the caller."""
        context.peer.notify(method, value)
