"""Middleware that counts calls by a label of the user's choice."""

from __future__ import annotations

from collections.abc import Callable

from ...protocols.rpc import StatisticsTable
from .middleware import Middleware, Request, Response


def by_method(request: Request) -> str:
    """Count by method."""
    return request.method


class CallMetrics(Middleware):
    """Counts calls, errors and durations as `Server.statistics` does, by label.

    Servers and clients count calls by method anyway. This is for other labels, a tenant in `meta`
    for example, and for durations that include what other middleware does.

    Args:
        label: Gives the label of a request.
        max_labels: How many are counted by themselves; all others share the label "".

    Attributes:
        table: What was counted.
    """

    order = 200

    def __init__(self, label: Callable[[Request], str] = by_method, *, max_labels: int = 1000) -> None:
        self.table = StatisticsTable(max_labels)
        self._label = label

    def after(self, request: Request, response: Response) -> None:
        """Count it."""
        self.table.of(self._label(request)).ended(response.elapsed, response.code)
