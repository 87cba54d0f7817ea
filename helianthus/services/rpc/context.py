"""What a method can know of the call it is serving, and what calls it makes inherit."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import attrs

from ...protocols.auth import Identity

if TYPE_CHECKING:
    from .peer import Peer

_TRACE_KEYS = ("traceparent", "tracestate")  # https://www.w3.org/TR/trace-context/


@attrs.define
class CallContext:
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


serving: ContextVar[CallContext | None] = ContextVar("helianthus_call", default=None)
"""The call that the running code serves."""


plain: ContextVar[tuple[Peer, str] | None] = ContextVar("helianthus_plain_call", default=None)
"""The same of a plain function that was called without meta: peer and method. It has nothing to
inherit, and its `CallContext` is made only where one is asked for."""


def current_call() -> CallContext | None:
    """The call that the running code serves, or None outside of a method."""
    call = plain.get()
    if call is not None:
        peer, method = call
        return CallContext(method, peer, None, {}, peer.identity)
    return serving.get()


def inherit(now: float, timeout: float | None, meta: dict[str, Any] | None) -> tuple[float | None, Any]:
    """Bound a nested call by the deadline of the call being served, and pass its trace on."""
    context = serving.get()
    if context is None:
        return timeout, meta
    if context.deadline is not None:
        remaining = max(0.0, context.deadline - now)
        timeout = remaining if timeout is None else min(timeout, remaining)
    trace = {key: context.meta[key] for key in _TRACE_KEYS if key in context.meta}
    return timeout, ({**trace, **meta} if meta else trace or None)
