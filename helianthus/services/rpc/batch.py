"""Many calls in one round trip.

The wire needs no message for that: requests that are begun in the same turn of the driver leave in
one piece, and so do the answers of plain functions. Each of them succeeds or fails by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from .call import Call
from .errors import RpcError


async def gather_calls(
    begin: Callable[..., Coroutine[Any, Any, Any]], calls: Iterable[Sequence[Any]]
) -> list[Any]:
    """Begin calls in one turn, and wait for all of them.

    Args:
        begin: Begins one.
        calls: Method and parameters of each.

    Returns:
        The result of each, or its `RpcError`, in their order.
    """
    begun: list[Call | asyncio.Task[Any]] = []
    outcomes: list[Any] = []
    try:
        for method, *params in calls:
            call = begin(method, *params)
            begun.append(call if isinstance(call, Call) else asyncio.ensure_future(call))
        for waited in begun:
            try:
                outcomes.append(await waited)
            except RpcError as error:
                outcomes.append(error)
    finally:  # whoever waited has been cancelled, or a call is no call
        for waited in begun[len(outcomes) :]:
            if isinstance(waited, Call):
                waited.give_up("the batch was cancelled")
            else:
                waited.cancel()
    return outcomes
