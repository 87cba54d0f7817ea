"""What is looked at before a call begins: its token, its deadline and its parameters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ...protocols.rpc import Params, StatusCode
from .cancel import CancelToken
from .errors import RpcError
from .waiter import Waiter


async def wait_or_cancel(waiter: Waiter, cancel: CancelToken | None) -> None:
    """Await something before a call has begun; raises CANCELLED when the token is cancelled."""
    if cancel is None:
        await waiter
        return

    def wake() -> None:
        waiter.finish(None, None, direct=False)

    cancel.add_callback(wake)
    try:
        await waiter
    finally:
        cancel.remove_callback(wake)
    check_cancel(cancel)


async def await_room(
    queues: Iterable[OrderedDict[Waiter, None]], waiter: Waiter, cancel: CancelToken | None
) -> None:
    """Wait in several queues for whichever is served first; raises as `wait_or_cancel`.

    Whoever gives up leaves them all: else they would grow with every deadline that passes.
    """
    joined = list(queues)
    for queue in joined:
        queue[waiter] = None
    try:
        await wait_or_cancel(waiter, cancel)
    finally:
        for queue in joined:
            queue.pop(waiter, None)


def check_cancel(cancel: CancelToken | None) -> None:
    """Raise CANCELLED where the token has been cancelled before the call began."""
    if cancel is not None and cancel.cancelled:
        raise RpcError(StatusCode.CANCELLED, cancel.reason, maybe_executed=False)


def expired(what: str) -> RpcError:
    """The error of a call whose deadline passed before it was sent."""
    return RpcError(
        StatusCode.DEADLINE_EXCEEDED, f"{what}: the deadline passed before it was sent", maybe_executed=False
    )


def join_params(method: str, params: tuple[Any, ...], keywords: dict[str, Any]) -> Params:
    """Parameters as the wire has them: an array, or a map."""
    if not keywords:
        return params
    if params:
        raise TypeError(f"{method}: give parameters by position or by keyword, not both")
    return keywords
