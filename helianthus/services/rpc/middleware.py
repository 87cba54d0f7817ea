"""What stands between a call and its method, on either end.

A middleware sees each call twice: `before` it goes on and `after` it has ended. Both are plain
functions, so that a plain method is still served without a task. Only a middleware that overrides
`around`, because it has to wait for something, makes a task of every call.

Those of a server or a client are put in order once for each method that is served or called. A
method to which none applies is called as if there were none at all.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from ...protocols.auth import Identity
from ...protocols.rpc import Flow, StatusCode
from .errors import RpcError

if TYPE_CHECKING:
    from .peer import Peer

Proceed: TypeAlias = Callable[[], Awaitable[Any]]
"""Goes on with a call; gives its result, None for one with stream items, or raises its error."""


@attrs.define
class Request:
    """A call as a middleware sees it.

    What a client's middleware writes into `params` and `meta` is what is sent; what a server's
    writes there is what the method gets.

    Attributes:
        method: The full name.
        params: By position as a list or tuple, by keyword as a dict.
        meta: What the caller sends along, such as `traceparent`.
        started: Driver time in seconds at which this end began with the call.
        deadline: Driver time in seconds at which the caller gives up, or None.
        peer: At a server, whoever calls; None at a client, which may not be connected yet.
        flow: Which ends send stream items.
        notification: Whether nobody waits for an answer.
        identity: At a server with authentication, who calls; None for somebody who is not known.
    """

    method: str
    params: Any
    meta: dict[str, Any]
    started: float
    deadline: float | None = None
    peer: Peer | None = None
    flow: Flow = Flow.UNARY
    notification: bool = False
    identity: Identity | None = None


@attrs.define
class Response:
    """How a call ended.

    Attributes:
        result: What the method returned; None where there is an error, or were stream items.
        error: Why there is no result, or None.
        elapsed: Seconds from `Request.started` until the end.
    """

    result: Any = None
    error: RpcError | None = None
    elapsed: float = 0.0

    @property
    def code(self) -> StatusCode:
        """OK, or the error's code."""
        return StatusCode.OK if self.error is None else self.error.code


class Middleware:
    """Override what you need; the rest costs nothing.

    Attributes:
        order: Those with a lower number stand further out: they see requests first, and responses
            last. The ones of the library have 10 (authentication), 50 (rate limit), 100 (logging),
            200 (metrics) and 300 (cache).
    """

    order: int = 100

    def applies(self, method: str) -> bool:
        """Whether calls of a method are to be seen; asked once for each full name."""
        return True

    def before(self, request: Request) -> Response | None:
        """A call begins.

        Returns:
            None to go on; a response to end the call with it. What stands further in, and the
            method, then never hear of the call.

        Raises:
            RpcError: To end the call with it.
        """
        return None

    def after(self, request: Request, response: Response) -> None:
        """A call has ended that this middleware let through; it may change the response."""

    def sending(self, request: Request, item: Any) -> Any:
        """An item is about to be sent on a stream; returns what to send."""
        return item

    def received(self, request: Request, item: Any) -> Any:
        """An item of a stream has come; returns what the reader is to get."""
        return item

    async def around(self, request: Request, proceed: Proceed) -> Any:
        """The whole of a call, for a middleware that has to wait; most need only the above.

        It runs inside of all that `before` and `after` do.

        Returns:
            The result of the call; that of a call with stream items is not looked at.

        Raises:
            RpcError: To end the call with it.
        """
        return await proceed()


class Chain:
    """The middleware of one method, put in order.

    Attributes:
        waits: Whether one of them overrides `around`.
        sees_items: Whether one of them overrides `sending` or `received`.
    """

    def __init__(self, ordered: list[Middleware]) -> None:
        layers = [one for one in ordered if _overrides(one, "before", "after")]
        self._before = [one.before for one in layers]
        self._after = [one.after for one in reversed(layers)]
        self._around = [one.around for one in ordered if _overrides(one, "around")]
        self._sending = [one.sending for one in ordered if _overrides(one, "sending")]
        self._received = [one.received for one in ordered if _overrides(one, "received")]
        self.waits = bool(self._around)
        self.sees_items = bool(self._sending or self._received)

    def enter(self, request: Request) -> tuple[int, Response | None]:
        """A call begins.

        Returns:
            How many let it through, for `leave`, and the response of the one that ended it, if any.

        Raises:
            Exception: One of them failed; those that had let the call through know that it has ended.
        """
        entered = 0
        for before in self._before:
            try:
                response = before(request)
            except RpcError as error:
                response = Response(error=error)
            except Exception as error:
                failed = RpcError(
                    StatusCode.INTERNAL, f"the middleware failed: {error!r}", maybe_executed=False
                )
                self.leave(entered, request, Response(error=failed))
                raise
            if response is not None:
                return entered, response
            entered += 1
        return entered, None

    def leave(self, entered: int, request: Request, response: Response) -> None:
        """A call has ended: tell those that let it through, the innermost first.

        All of them are told. Where one raises something else than `RpcError`, the first of these
        exceptions is raised in the end.
        """
        fault: Exception | None = None
        told = self._after
        if entered < len(told):
            told = told[len(told) - entered :]
        for after in told:
            try:
                after(request, response)
            except RpcError as error:
                response.result, response.error = None, error
            except Exception as error:  # noqa: BLE001 - raised below
                fault = fault or error
                failed = RpcError(StatusCode.INTERNAL, f"the middleware failed: {error!r}")
                response.result, response.error = None, failed
        if fault is not None:
            raise fault

    def sending(self, request: Request, item: Any) -> Any:
        """What to send for an item."""
        for sending in reversed(self._sending):
            item = sending(request, item)
        return item

    def received(self, request: Request, item: Any) -> Any:
        """What to hand on for an item that has come."""
        for received in self._received:
            item = received(request, item)
        return item

    async def around(self, request: Request, proceed: Proceed) -> Any:
        """Go through those that wait, and then on with the call."""
        for around in reversed(self._around):
            proceed = functools.partial(around, request, proceed)
        return await proceed()


def chain_for(method: str, middleware: Iterable[Middleware]) -> Chain | None:
    """What applies to a method, or None where nothing does."""
    applying = [one for one in middleware if one.applies(method)]
    return Chain(sorted(applying, key=_order)) if applying else None


def _order(middleware: Middleware) -> int:
    return middleware.order


def _overrides(middleware: Middleware, *hooks: str) -> bool:
    return any(getattr(type(middleware), hook) is not getattr(Middleware, hook) for hook in hooks)
