"""What a method can know of the call it is serving, and what calls it makes inherit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from ...protocols.auth import Identity
from ..scope import Bounds, CancelScope, bounds_here, make_bounds_of
from .middleware import Request

if TYPE_CHECKING:
    from ...protocols.rpc import RequestReceived
    from .peer import Peer

_TRACE_KEYS = ("traceparent", "tracestate")  # https://www.w3.org/TR/trace-context/


@attrs.define
class CallContext(Bounds):
    """The call being served. A method asks for it with a parameter annotated `CallContext`.

    Attributes:
        method: The full name that was called.
        peer: The caller's end of the connection; call its methods to push to it.
        deadline: Driver time in seconds at which the caller gives up, or None.
        meta: What the caller sent along, such as `traceparent`.
        identity: Who calls, where the server asks for that; None for somebody who is not known.
    """

    method: str
    peer: Peer
    deadline: float | None
    meta: dict[str, Any]
    identity: Identity | None = None

    def remaining(self) -> float | None:
        """Seconds until the deadline, or None."""
        return None if self.deadline is None else self.deadline - self.peer.now()


def current_call() -> CallContext | None:
    """The call that the running code serves, or None outside of a method."""
    return _call_of(bounds_here())


def inherit(now: float, timeout: float | None, meta: dict[str, Any] | None) -> tuple[float | None, Any]:
    """Bound a call by what bounds the running code, and pass on the trace of the call being served."""
    bounds = bounds_here()
    if bounds is None:
        return timeout, meta
    if bounds.deadline is not None:
        remaining = max(0.0, bounds.deadline - now)
        timeout = remaining if timeout is None else min(timeout, remaining)
    context = _call_of(bounds)
    if context is None:
        return timeout, meta
    trace = {key: context.meta[key] for key in _TRACE_KEYS if key in context.meta}
    return timeout, ({**trace, **meta} if meta else trace or None)


def _call_of(bounds: Bounds | None) -> CallContext | None:
    """The call being served that is around some scopes, if any."""
    while isinstance(bounds, CancelScope):
        bounds = bounds.outer
    return bounds if isinstance(bounds, CallContext) else None


# Of a plain function, `current` holds only what there is already.


def _of_plain(call: tuple[Peer, RequestReceived]) -> CallContext:
    peer, event = call
    return CallContext(event.method, peer, event.deadline, event.meta or {}, peer.identity)


def _of_request(call: Request) -> CallContext:
    assert call.peer is not None  # a server's middleware has seen it
    return CallContext(call.method, call.peer, call.deadline, call.meta, call.identity)


make_bounds_of(tuple, _of_plain)
make_bounds_of(Request, _of_request)
