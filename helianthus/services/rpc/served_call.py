"""A request on its way through the middleware of its method, and back.

Requests for methods without middleware never meet this file.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ...protocols.rpc import Flow, NotificationReceived, RequestReceived
from .errors import error_of
from .middleware import Chain, Request, Response

if TYPE_CHECKING:
    from .service import ServedMethod
    from .serving import Serving


class ServedCall:
    """One request, from its coming to its answer.

    Attributes:
        msgid: Names it on the connection; None for a notification.
        method: What it calls.
        request: What the middleware sees.
        chain: The middleware.
    """

    __slots__ = ("_entered", "_serving", "chain", "method", "msgid", "request")

    def __init__(
        self,
        serving: Serving,
        event: RequestReceived | NotificationReceived,
        method: ServedMethod,
        chain: Chain,
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
        self.method = method
        self.chain = chain
        self._serving = serving
        self._entered = 0

    def begin(self) -> None:
        """Go through the middleware, and then run the method."""
        request, method = self.request, self.method
        self._entered, response = self.chain.enter(request)
        if response is not None:
            self.finish(response)
            return
        try:
            method.check(request.params)
            self._serving.begin_run(self.msgid, method, request.params, request.meta, request.deadline, self)
        except Exception as failure:  # noqa: BLE001 - every request is answered
            self._serving.report(self.msgid, method.name, failure)
            self.finish(Response(error=error_of(method.name, failure)))

    def around(self, run: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """Run the method, with what waits before and after it."""
        return self.chain.around(self.request, run) if self.chain.waits else run()

    def finish(self, response: Response) -> None:
        """The method has ended, or the middleware has answered for it."""
        request, serving = self.request, self._serving
        response.elapsed = serving.peer.now() - request.started
        try:
            self.chain.leave(self._entered, request, response)
        except Exception as error:  # noqa: BLE001 - the answer says so, too
            serving.report(self.msgid, self.method.name, error)
        if self.msgid is not None:
            serving.answer(self.msgid, self.method.name, response.result, response.error)
