"""A service of the peer's that reads like an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .service import declared_method, service_name


class Caller(Protocol):
    """A client of either kind, or a view of one."""

    def call(self, method: str, /, *params: Any, **keywords: Any) -> Any:
        """Call a method."""

    def stream(self, method: str, /, *params: Any, **keywords: Any) -> Any:
        """Call it with stream items."""

    def notify(self, method: str, /, *params: Any, **keywords: Any) -> Any:
        """Call it without wanting an answer."""


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
        client: Makes the calls; what its methods return, the proxy's return.
        name: The service's name.
        declaration: A class that declares the methods. Those that it declares as generators, or to
            return an iterator, become streams; one that it serves under another name is called by
            that; a name that it lacks is an `AttributeError`.
    """

    def __init__(self, client: Caller, name: str, declaration: type | None = None) -> None:
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
    """One method: call it, or `stream` or `notify` it. Keywords are as for the client's `call`."""

    def __init__(self, client: Caller, name: str, positional: Sequence[str] | None) -> None:
        self._client = client
        self._name = name
        self._positional = positional

    def __call__(self, *params: Any, **keywords: Any) -> Any:
        """Call it; gives the result, or of an async client what to await for it."""
        params, keywords = _by_name(self._name, self._positional, params, keywords)
        return self._client.call(self._name, *params, **keywords)

    def stream(self, *params: Any, **keywords: Any) -> Any:
        """Call it with stream items."""
        params, keywords = _by_name(self._name, self._positional, params, keywords)
        return self._client.stream(self._name, *params, **keywords)

    def notify(self, *params: Any, **keywords: Any) -> Any:
        """Call it without wanting an answer."""
        params, keywords = _by_name(self._name, self._positional, params, keywords)
        return self._client.notify(self._name, *params, **keywords)


def proxy_of(client: Caller, service: str | type) -> Any:
    """What `service` of a client returns: of a name or of a class that declares the methods."""
    if isinstance(service, str):
        return ServiceProxy(client, service)
    return ServiceProxy(client, service_name(service), service)
