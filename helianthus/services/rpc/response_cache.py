"""Middleware that answers equal calls with the result of the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from ...protocols.rpc import Flow
from .call_digest import call_digest
from .middleware import Middleware, Request, Response


@attrs.frozen
class _Entry:
    response: Response
    expires: float


class ResponseCache(Middleware):
    """Remembers results of methods for a while; errors and streams are never remembered.

    Two calls are equal if method and parameters are. `meta` is not compared: leave out methods whose
    result depends on who calls. A result is handed out many times, so methods must not change it
    later.

    Args:
        methods: Seconds for which results of a method are good, by its full name.
        max_entries: Results that are remembered; the one that was stored first goes first.
    """

    order = 300

    def __init__(self, methods: Mapping[str, float], *, max_entries: int = 1000) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries must be 1 or more, got {max_entries}")
        self._methods = dict(methods)
        self._max_entries = max_entries
        self._entries: dict[tuple[str, bytes], _Entry] = {}

    def applies(self, method: str) -> bool:
        """Only the methods that were named."""
        return method in self._methods

    def before(self, request: Request) -> Response | None:
        """Answer from memory, where that is fresh."""
        if request.flow is not Flow.UNARY or request.notification:
            return None
        key = _key(request)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= request.started:
            del self._entries[key]
            return None
        return Response(entry.response.result)

    def after(self, request: Request, response: Response) -> None:
        """Remember a result."""
        if response.error is not None or request.flow is not Flow.UNARY or request.notification:
            return
        expires = request.started + response.elapsed + self._methods[request.method]
        self._entries[_key(request)] = _Entry(Response(response.result), expires)
        if len(self._entries) > self._max_entries:
            del self._entries[next(iter(self._entries))]

    def forget(self, methods: Iterable[str] | None = None) -> None:
        """Forget all results, or those of some methods from now on."""
        if methods is None:
            self._entries.clear()
            return
        forgotten = set(methods)
        for key in [key for key in self._entries if key[0] in forgotten]:
            del self._entries[key]


def _key(request: Request) -> tuple[str, bytes]:
    return request.method, call_digest(request.method, request.params)
