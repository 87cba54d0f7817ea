"""What is looked at before a call begins: its token, its deadline, its parameters; and why one cannot."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from ...protocols.errors import LocalProtocolError
from ...protocols.rpc import (
    CallFailed,
    ExtensionsMissing,
    OversizedMessage,
    Params,
    ResponseReceived,
    RpcEvent,
    RpcSession,
    StatusCode,
)
from ...protocols.timeouts import check_timeout
from ..cancel import CancelToken
from ..waiter import Waiter
from .errors import RpcError


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


def no_time(method: str, timeout: float) -> RpcError:
    """The error of a call whose timeout is not more than 0.

    Raises:
        ValueError: It is none.
    """
    check_timeout(timeout)
    return expired(method)


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


def refusal(session: RpcSession, error: LocalProtocolError, *, answered: bool) -> RpcError:
    """Say in terms of a call why the session refused a command.

    Args:
        session: Which refused.
        error: What it said.
        answered: Whether the peer has answered a call, see `is_answer`; one that has says hello no more.
    """
    if session.refuses_calls:
        return RpcError(StatusCode.UNAVAILABLE, session.refuses_calls, maybe_executed=False)
    code = StatusCode.INTERNAL
    at_a_limit = error.__cause__ is None and "max_" in str(error)  # not of what cannot be encoded
    if isinstance(error, OversizedMessage) or at_a_limit:
        code = StatusCode.RESOURCE_EXHAUSTED
    elif isinstance(error, ExtensionsMissing):
        known = answered or session.peer is not None
        code = StatusCode.UNIMPLEMENTED if known else StatusCode.UNAVAILABLE
    return RpcError(code, str(error), maybe_executed=False)


def is_answer(event: RpcEvent) -> bool:
    """Whether an event is the peer's answer to a call, and not the session's own verdict."""
    if isinstance(event, CallFailed):
        return event.code is not StatusCode.DEADLINE_EXCEEDED and event.code is not StatusCode.UNAVAILABLE
    return isinstance(event, ResponseReceived)
