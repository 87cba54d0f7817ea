"""A service of the peer's that reads like an object."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from .service import declared_method

if TYPE_CHECKING:
    from .blocking import BlockingClient, BlockingStream
    from .client import Client
    from .stream import StreamCall


_OPTIONS = {"timeout", "cancel", "meta"}  # of the call, not of the method


def _by_name(
    method: str, positional: Sequence[str] | None, params: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give all parameters by keyword where some are and the others' names are known.

    Raises:
        TypeError: A parameter is given twice, or too many are given by position.
    """
    if not params or positional is None or not keywords.keys() - _OPTIONS:
        return params, keywords
    if len(params) > len(positional):
        raise TypeError(f"{method} takes {len(positional)} parameters by position, got {len(params)}")
    named = dict(zip(positional, params, strict=False))
    if twice := named.keys() & keywords.keys():
        raise TypeError(f"{method} got more than one value for {', '.join(sorted(twice))}")
    return (), {**named, **keywords}


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
        streams, positional = False, None
        if self._declaration is not None:
            name, streams, positional = declared_method(self._declaration, name)
        method = ProxyMethod(self._client, f"{self._name}.{name}", positional)
        return method.stream if streams else method


class ProxyMethod:
    """One method: call it, or `stream` or `notify` it. Keywords are as for `Client.call`."""

    def __init__(self, client: Client, name: str, positional: Sequence[str] | None) -> None:
        self._client = client
        self._name = name
        self._positional = positional

    def __call__(self, *params: Any, **keywords: Any) -> Coroutine[Any, Any, Any]:
        """Call it; await what is returned for its result."""
        params, keywords = _by_name(self._name, self._positional, params, keywords)
        return self._client.call(self._name, *params, **keywords)

    def stream(self, *params: Any, **keywords: Any) -> StreamCall:
        """Call it with stream items."""
        params, keywords = _by_name(self._name, self._positional, params, keywords)
        return self._client.stream(self._name, *params, **keywords)

    async def notify(self, *params: Any, **keywords: Any) -> None:
        """Call it without wanting an answer."""
        params, keywords = _by_name(self._name, self._positional, params, keywords)
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
        streams, positional = False, None
        if self._declaration is not None:
            name, streams, positional = declared_method(self._declaration, name)
        method = BlockingProxyMethod(self._client, f"{self._name}.{name}", positional)
        return method.stream if streams else method


class BlockingProxyMethod:
    """One method: call it, or `stream` or `notify` it. Keywords are as for `BlockingClient.call`."""

    def __init__(self, client: BlockingClient, name: str, positional: Sequence[str] | None) -> None:
        self._client = client
        self._name = name
        self._positional = positional

    def __call__(self, *params: Any, **keywords: Any) -> Any:
        """Call it and return its result."""
        params, keywords = _by_name(self._name, self._positional, params, keywords)
        return self._client.call(self._name, *params, **keywords)

    def stream(self, *params: Any, **keywords: Any) -> BlockingStream:
        """Call it with stream items."""
        params, keywords = _by_name(self._name, self._positional, params, keywords)
        return self._client.stream(self._name, *params, **keywords)

    def notify(self, *params: Any, **keywords: Any) -> None:
        """Call it without wanting an answer."""
        params, keywords = _by_name(self._name, self._positional, params, keywords)
        self._client.notify(self._name, *params, **keywords)
