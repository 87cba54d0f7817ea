"""What a server tells of itself: `node.services`, `node.describe` and `node.stats`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ...protocols.rpc import StatusCode
from .errors import RpcError
from .server_statistics import ServerStatistics
from .service import Service, method, methods_of


class Reflection(Service):
    """What this node serves."""

    name = "node"

    def __init__(self, services: Sequence[Service], statistics: Callable[[], ServerStatistics]) -> None:
        self._services = [*services, self]
        self._statistics = statistics

    @method
    def services(self) -> list[dict[str, Any]]:
        """The services of this node, each with its methods' full names."""
        return [
            {
                "name": service.name,
                "doc": _doc(service),
                "methods": [served.name for served in methods_of(service)],
            }
            for service in sorted(self._services, key=_name)
        ]

    @method
    def describe(self, service: str) -> dict[str, Any]:
        """One service: its methods, their parameters, types and documentation."""
        found = next((one for one in self._services if one.name == service), None)
        if found is None:
            known = ", ".join(sorted(map(_name, self._services)))
            raise RpcError(StatusCode.NOT_FOUND, f"this node has no service {service!r}; it has {known}")
        return {
            "name": service,
            "doc": _doc(found),
            "methods": [served.describe() for served in methods_of(found)],
        }

    @method
    def stats(self) -> dict[str, Any]:
        """Calls so far, by method, and by method and connected peer. Durations are in seconds."""
        return self._statistics().summary()


def _name(service: Service) -> str:
    return service.name


def _doc(service: Service) -> str:
    """The docstring of the service's own class, not the one it would inherit."""
    return inspect.cleandoc(type(service).__doc__ or "")
