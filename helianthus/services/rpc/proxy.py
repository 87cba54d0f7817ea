"""A service of the peer's that reads like an object."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from .service import declared_method

if TYPE_CHECKING:
    from .blocking import BlockingClient, BlockingStream
    from .client import Client
    from .stream import StreamCall


class ServiceProxy:
    """Turns `proxy.add(2, 3)` into a call of "service.add".

    Args:
        client: Makes the calls.
        name: The service's name.
        declaration: A class that declares the methods. Those that it declares as async generators,
            or to return an `AsyncIterator`, become streams; one that it serves under another name
            is called by that; a name that it lacks is an `AttributeError`.
    """

    def __init__(self, client: Client, name: str, declaration: type | None = None) -> None:
        self._client = client
        self._name = name
        self._declaration = declaration

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        streams = False
        if self._declaration is not None:
            name, streams = declared_method(self._declaration, name)
        method = ProxyMethod(self._client, f"{self._name}.{name}")
        return method.stream if streams else method


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


class BlockingProxy:
    """The same for a blocking client: `proxy.add(2, 3)` returns the result.

    Args:
        client: Makes the calls.
        name: The service's name.
        declaration: A class that declares the methods; its generators, and what it declares to
            return an `Iterator`, become streams.
    """

    def __init__(self, client: BlockingClient, name: str, declaration: type | None = None) -> None:
        self._client = client
        self._name = name
        self._declaration = declaration

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        streams = False
        if self._declaration is not None:
            name, streams = declared_method(self._declaration, name)
        method = BlockingProxyMethod(self._client, f"{self._name}.{name}")
        return method.stream if streams else method


class BlockingProxyMethod:
    """One method: call it, or `stream` or `notify` it. Keywords are as for `BlockingClient.call`."""

    def __init__(self, client: BlockingClient, name: str) -> None:
        self._client = client
        self._name = name

    def __call__(self, *params: Any, **keywords: Any) -> Any:
        """Call it and return its result."""
        return self._client.call(self._name, *params, **keywords)

    def stream(self, *params: Any, **keywords: Any) -> BlockingStream:
        """Call it with stream items."""
        return self._client.stream(self._name, *params, **keywords)

    def notify(self, *params: Any, **keywords: Any) -> None:
        """Call it without wanting an answer."""
        self._client.notify(self._name, *params, **keywords)
