"""A request on its way to its method, and back: through the middleware, and the gate of the server.

Requests for plain functions without middleware never meet this file, unless they may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Any

from ...protocols.rpc import Flow, NotificationReceived, RequestReceived
from ..scope import enter_bounds, leave_bounds
from .errors import error_of
from .middleware import Chain, Request, Response

if TYPE_CHECKING:
    from .gate import Gate
    from .service import ServedMethod
    from .serving import Serving


def run_through(serving: Serving, method: ServedMethod, chain: Chain, event: RequestReceived) -> Any:
    """Run a simple method with its middleware, all at once; gives its result.

    Raises:
        RpcError: What the caller is to be told in place of a result.
    """
    peer = serving.peer
    now = peer.now
    request = Request(
        event.method,
        event.params,
        event.meta or {},
        now(),
        event.deadline,
        peer,
        event.flow,
        False,
        peer.identity,
    )
    entered, response = chain.enter(request)
    if response is None:
        try:
            params, check = request.params, method.check
            check(params)
            token = enter_bounds(request)
            try:
                response = Response(
                    method.function(*params) if params.__class__ is list else method.call_by_name(params)
                )
            finally:
                leave_bounds(token)
        except Exception as failure:  # noqa: BLE001 - it becomes the answer
            serving.report(event.msgid, event.method, failure)
            response = Response(error=error_of(event.method, failure))
    response.elapsed = now() - request.started
    try:
        chain.leave(entered, request, response)
    except Exception as failure:  # noqa: BLE001 - the answer says so, too
        serving.report(event.msgid, event.method, failure)
    if response.error is not None:
        raise response.error
    return response.result


class ServedCall:
    """One request, from its coming to its answer.

    Attributes:
        msgid: Names it on the connection; None for a notification, and once it has been answered.
        method: What it calls.
        request: What the middleware sees.
        chain: The middleware, or None.
        task: Of the method, once it runs as one.
        ticket: Names it at the gate.
        has_permit: Whether it counts as running there.
        key: Under which its outcome will be remembered, or None.
        awaited_key: That of the attempt whose outcome it waits for, or None.
    """

    __slots__ = (
        "_entered",
        "_gate",
        "_serving",
        "awaited_key",
        "chain",
        "has_permit",
        "key",
        "method",
        "msgid",
        "request",
        "task",
        "ticket",
    )

    def __init__(
        self,
        serving: Serving,
        event: RequestReceived | NotificationReceived,
        method: ServedMethod,
        gate: Gate | None,
    ) -> None:
        peer = serving.peer
        if isinstance(event, RequestReceived):
            self.msgid: int | None = event.msgid
            deadline, flow = event.deadline, event.flow
        else:
            self.msgid, deadline, flow = None, None, Flow.UNARY
        self.request = Request(
            event.method, event.params, event.meta or {}, peer.now(), deadline, peer, flow, self.msgid is None
        )
        self.request.identity = peer.identity
        self.method = method
        self.chain = method.chain
        self.task: asyncio.Task[None] | None = None
        self.ticket = 0
        self.has_permit = False
        self.key: Hashable | None = None
        self.awaited_key: Hashable | None = None
        self._gate = gate
        self._serving = serving
        self._entered = 0

    @property
    def client(self) -> Hashable:
        """Whose calls count together: those of somebody who is known, or of a connection."""
        identity = self.request.identity
        return identity.name if identity is not None else self._serving.peer

    @property
    def identity(self) -> str:
        """Whose idempotency keys it shares; all who are not known share theirs."""
        identity = self.request.identity
        return identity.name if identity is not None else ""

    def begin(self) -> None:
        """Go through the middleware, and then to the gate."""
        if self.chain is not None:
            self._entered, response = self.chain.enter(self.request)
            if response is not None:
                self.finish(response)
                return
        try:
            self.method.check(self.request.params)
            if self._gate is None:
                self.run()
            else:
                self._serving.at_gate(self)
                self._gate.enter(self)
        except Exception as failure:  # noqa: BLE001 - every request is answered
            self.fail(failure)

    def run(self) -> None:
        """Run the method."""
        request = self.request
        try:
            self._serving.begin_run(
                self.msgid, self.method, request.params, request.meta, request.deadline, self
            )
        except Exception as failure:  # noqa: BLE001 - every request is answered
            self.fail(failure)

    def run_later(self) -> None:
        """Run the method, with a permit that it had to wait for."""
        self.has_permit = True
        self.run()
        self._serving.peer.wake()

    def around(self, run: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """Run the method, with what waits before and after it."""
        chain = self.chain
        return chain.around(self.request, run) if chain is not None and chain.waits else run()

    def sending(self, item: Any) -> Any:
        """What to send for a stream item."""
        chain = self.chain
        return chain.sending(self.request, item) if chain is not None and chain.sees_items else item

    def received(self, item: Any) -> Any:
        """What the method gets for a stream item."""
        chain = self.chain
        return chain.received(self.request, item) if chain is not None and chain.sees_items else item

    def fail(self, failure: BaseException) -> None:
        """The method let something out, or could not begin."""
        self._serving.report(self.msgid, self.method.name, failure)
        self.finish(Response(error=error_of(self.method.name, failure)))

    def finish(self, response: Response) -> None:
        """The method has ended, or somebody has answered for it."""
        request, serving, outcome = self.request, self._serving, response
        response.elapsed = serving.peer.now() - request.started
        if self.chain is not None:
            outcome = Response(response.result, response.error)  # as it was before the middleware saw it
            try:
                self.chain.leave(self._entered, request, response)
            except Exception as error:  # noqa: BLE001 - the answer says so, too
                serving.report(self.msgid, self.method.name, error)
        sent = 0
        if self.msgid is not None:
            sent = serving.answer(self.msgid, self.method.name, response.result, response.error)
        if self._gate is not None:
            self._gate.leave(self, outcome, sent)

    def finish_later(self, response: Response) -> None:
        """The same, in another turn than that in which the request came."""
        self.finish(response)
        self._serving.peer.wake()

    def cancel_detached(self) -> None:
        """Stop a method that runs on although its connection has ended."""
        if self.msgid is None and self.task is not None:
            self.task.cancel()
