"""What bounds the operations of the code that runs: scopes, and the calls that are being served.

Both stand in one context variable, so that there is one deadline to look at and one token. A scope
inside another, or inside a method that is being served, has whichever deadline comes first. Tasks that
are made within a scope are within it, too, as asyncio copies the context for them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, TypeVar

from ..protocols.timeouts import check_timeout
from .cancel import CancelToken, clock_time

T = TypeVar("T")


class Bounds:
    """What operations inherit.

    Attributes:
        deadline: Seconds of the driver's clock at which they are given up, or None.
        token: Cancels them, or None.
    """

    __slots__ = ()

    deadline: float | None
    token: CancelToken | None = None


_current: ContextVar[object] = ContextVar("helianthus_bounds", default=None)

# Not the variable itself is given out, because CPython looks methods of imported objects up anew for every
# call, and each served call needs two of these.
raw_bounds = _current.get
"""What bounds the running code, the innermost: None, a `Bounds`, or what `make_bounds_of` was told of."""
enter_bounds = _current.set
"""Have something bound the running code; gives a token for `leave_bounds`."""
leave_bounds = _current.reset
"""Undo what has given this token."""

_makers: dict[type, Callable[[Any], Bounds]] = {}


def make_bounds_of(kind: type[T], make: Callable[[T], Bounds]) -> None:
    """Allow things of another type to bound code, of which a `Bounds` is made where one is looked at."""
    _makers[kind] = make


def bounds_here() -> Bounds | None:
    """What bounds the running code, or None."""
    found = raw_bounds()
    if found is None or isinstance(found, Bounds):
        return found
    return _makers[found.__class__](found)


class CancelScope(Bounds):
    """A block in which every operation is bounded; see `cancel_scope`.

    Attributes:
        deadline: Seconds of the loop's clock at which operations in it are given up, or None; the
            earliest of its own and those around it. It counts from the beginning of the block.
        token: What cancels the operations in it: `cancel()`, the token it was given, the end of a
            scope around it.
    """

    __slots__ = ("_entered", "_given", "_own", "_timeout", "deadline", "outer", "token")

    token: CancelToken

    def __init__(self, timeout: float | None, cancel: CancelToken | None) -> None:
        check_timeout(timeout)
        self._timeout = timeout
        self._given = cancel
        self._own = CancelToken()
        self._entered: Token[object] | None = None
        self.outer: Bounds | None = None
        """What bounds the block itself."""
        self.deadline: float | None = None
        self.token = self._own

    def __enter__(self) -> CancelScope:
        if self._entered is not None:
            raise RuntimeError("a scope can be entered once; make another")
        # The clock first: it makes the loop's driver where there is none yet, and what that serves
        # later is not to be in this scope.
        now = clock_time()
        self.outer = outer = bounds_here()
        self.deadline = None if self._timeout is None else now + self._timeout
        sources = [self._own]
        if self._given is not None:
            sources.append(self._given)
        if outer is not None:
            self.deadline = earliest(self.deadline, outer.deadline)
            if outer.token is not None:
                sources.append(outer.token)
        if len(sources) > 1:
            self.token = CancelToken.linked(*sources)
        self._entered = enter_bounds(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._entered is not None:
            leave_bounds(self._entered)

    def cancel(self, reason: str = "cancelled by its scope") -> None:
        """End every operation in the scope, and refuse those that begin later."""
        self._own.cancel(reason)

    @property
    def cancelled(self) -> bool:
        """Whether its token is cancelled."""
        return self.token.cancelled

    @property
    def expired(self) -> bool:
        """Whether its time is up."""
        return self.deadline is not None and clock_time() >= self.deadline

    def remaining(self) -> float | None:
        """Seconds until the deadline, not less than 0; or None."""
        return None if self.deadline is None else max(0.0, self.deadline - clock_time())


def cancel_scope(*, timeout: float | None = None, cancel: CancelToken | None = None) -> CancelScope:
    """Bound every operation of a block: of sockets, and calls.

        with helianthus.cancel_scope(timeout=5.0) as scope:
            await sock.send_all(request)
            answer = await sock.recv_until(b"\\n")

    An operation whose time is up, or that is cancelled, raises what it raises for a timeout or a
    token of its own; the scope itself catches nothing. It does not bound what is not Helianthus':
    for `asyncio.sleep` and the like there is `asyncio.timeout`.

    Args:
        timeout: Seconds for all of them together.
        cancel: Cancels all of them.

    Raises:
        ValueError: The timeout is no number of seconds, or less than 0.
    """
    return CancelScope(timeout, cancel)


def earliest(a: float | None, b: float | None) -> float | None:
    """The earlier of two times, either of which may be missing."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def joined(cancel: CancelToken | None) -> CancelToken | None:
    """A token that an operation was given, together with that of what bounds the running code."""
    bounds = bounds_here()
    if bounds is None or bounds.token is None:
        return cancel
    if cancel is None:
        return bounds.token
    return CancelToken.linked(cancel, bounds.token)
