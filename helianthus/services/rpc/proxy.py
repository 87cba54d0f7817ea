"""A service of the peer's that reads like an object."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client
    from .stream import StreamCall


class ServiceProxy:
    """Turns `proxy.add(2, 3)` into a call of "service.add".

    Args:
        client: Makes the calls.
        name: The service's name.
        declaration: A class that declares the methods. Its async generators become streams, and a
            name that it lacks is an `AttributeError`.
    """

    def __init__(self, client: Client, name: str, declaration: type | None = None) -> None:
        self._client = client
        self._name = name
        self._declaration = declaration

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        method = ProxyMethod(self._client, f"{self._name}.{name}")
        if self._declaration is None:
            return method
        declared = getattr(self._declaration, name, None)
        if declared is None:
            raise AttributeError(f"{self._declaration.__name__} declares no method {name!r}")
        return method.stream if inspect.isasyncgenfunction(declared) else method


class ProxyMethod:
    """One method: call it, or `stream` or `notify` it. Keywords are as for `Client.call`."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name

    def __call__(self, *params: Any, **keywords: Any) -> Coroutine[Any, Any, Any]:
        """Call it; await what is returned for its result."""
        return self._client.call(self._name, *params, **keywords)

    def stream(self, *params: Any, **keywords: Any) -> StreamCall:
        """Call it with stream items."""
        return self._client.stream(self._name, *params, **keywords)

    async def notify(self, *params: Any, **keywords: Any) -> None:
        """Call it without wanting an answer."""
        await self._client.notify(self._name, *params, **keywords)
