"""A call on its way out through the middleware of a client, and its response on the way back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ...protocols.rpc import Flow, Params, StatusCode
from .errors import RpcError
from .middleware import Chain, Middleware, Request, Response, chain_for

_MAX_METHODS = 1000
"""Chains that a client remembers; its own code names the methods, but may make names up."""


class ClientMiddleware:
    """The middleware of a client, put in order once for each method.

    Args:
        middleware: In any order.
        now: The driver's time.
        blocking: Whether nobody could wait in an `around`.

    Raises:
        TypeError: A middleware that waits, for a client that blocks.
    """

    def __init__(
        self, middleware: Sequence[Middleware], now: Callable[[], float], *, blocking: bool = False
    ) -> None:
        waiting = [one for one in middleware if blocking and Chain([one]).waits]
        if waiting:
            raise TypeError(
                f"{waiting[0]!r} overrides `around`, and a blocking client has no event loop to wait in"
            )
        self._middleware = middleware
        self._now = now
        self._chains: dict[str, Chain | None] = {}

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return bool(self._middleware)

    def begin(
        self, method: str, params: Params, timeout: float | None, meta: dict[str, Any] | None, flow: Flow
    ) -> OutgoingCall | None:
        """Prepare a call; None where no middleware applies to it."""
        if not self._middleware:
            return None
        chains = self._chains
        if method not in chains:
            if len(chains) >= _MAX_METHODS:
                chains.clear()
            chains[method] = chain_for(method, self._middleware)
        chain = chains[method]
        if chain is None:
            return None
        now = self._now()
        deadline = None if timeout is None else now + timeout
        return OutgoingCall(
            chain, Request(method, params, dict(meta or {}), now, deadline, flow=flow), self._now
        )


class OutgoingCall:
    """One call of a client.

    Attributes:
        chain: The middleware that applies.
        request: What it sees, and what is sent.
    """

    __slots__ = ("_entered", "_now", "chain", "request")

    def __init__(self, chain: Chain, request: Request, now: Callable[[], float]) -> None:
        self.chain = chain
        self.request = request
        self._now = now
        self._entered = 0

    def enter(self) -> Response | None:
        """Begin; the response, if the call ends here."""
        self._entered, response = self.chain.enter(self.request)
        return response

    def leave(self, response: Response) -> Response:
        """The call has ended; gives the response as its caller is to have it."""
        response.elapsed = self._now() - self.request.started
        self.chain.leave(self._entered, self.request, response)
        return response

    async def run(self, send: Callable[[Request], Awaitable[Any]]) -> Any:
        """Make the call, by `send` if nobody has ended it before.

        Raises:
            RpcError: It ended without a result.
        """
        response = self.enter()
        if response is None:
            request, chain = self.request, self.chain
            try:
                waited = chain.around(request, lambda: send(request)) if chain.waits else send(request)
                response = Response(await waited)
            except BaseException as failure:  # noqa: BLE001 - raised again where it is no response
                response = self._failed(failure)
        return result_of(self.leave(response))

    def run_now(self, send: Callable[[Request], Any]) -> Any:
        """The same for a client that has no event loop."""
        response = self.enter()
        if response is None:
            try:
                response = Response(send(self.request))
            except BaseException as failure:  # noqa: BLE001 - raised again where it is no response
                response = self._failed(failure)
        return result_of(self.leave(response))

    def _failed(self, failure: BaseException) -> Response:
        """The response for an `RpcError`; all else goes on upwards, once the middleware knows."""
        if isinstance(failure, RpcError):
            return Response(error=failure)
        gone = f"the call of {self.request.method} ended with {failure!r}"
        self.leave(Response(error=RpcError(StatusCode.CANCELLED, gone)))
        raise failure


def result_of(response: Response) -> Any:
    """The result of a response; raises its error."""
    if response.error is not None:
        raise response.error
    return response.result
