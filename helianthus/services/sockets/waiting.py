"""How an operation waits: for something to happen, no longer than it may, and not once it is cancelled.

What happens is only told, never handed over: an operation that is woken looks for itself. So nothing
is lost with one that is cancelled between being woken and going on.
"""

from __future__ import annotations

import asyncio
import enum

from ...drivers.base import Driver
from ...protocols.timeouts import check_timeout
from ..cancel import CancelToken
from ..scope import bounds_here, earliest, joined
from ..waiter import Waiter
from .errors import OperationCancelled, OperationTimedOut


class Woken(enum.Enum):
    """Why an operation goes on."""

    BY_EVENT = "by an event"
    BY_TIME = "by time"
    BY_TOKEN = "by a token"


class Bound:
    """How long one operation may take, and what cancels it; see `bound_of`.

    Attributes:
        deadline: Driver time in seconds, or None.
        token: What cancels it, or None.
    """

    __slots__ = ("_began", "deadline", "token")

    def __init__(self, began: float, deadline: float | None, token: CancelToken | None) -> None:
        self._began = began
        self.deadline = deadline
        self.token = token

    def check(self, what: str, woken: Woken, *, queued: int = 0, address: str = "") -> None:
        """Raise what ends an operation that has not got what it waited for, unless it was woken for it.

        Raises:
            OperationTimedOut: Its time is up.
            OperationCancelled: Its token was cancelled.
        """
        if woken is Woken.BY_TIME and self.deadline is not None:
            seconds = max(0.0, self.deadline - self._began)
            raise OperationTimedOut(
                f"{what} did not end within {seconds:g} s", queued=queued, address=address
            )
        if woken is Woken.BY_TOKEN and self.token is not None:
            raise _cancelled(what, self.token, queued)

    async def wait(self, driver: Driver, waiter: Waiter) -> Woken:
        """Wait until somebody finishes the waiter with `Woken.BY_EVENT`, or until the bound is reached."""

        def time_is_up() -> None:
            waiter.finish(Woken.BY_TIME, None, direct=asyncio.current_task() is None)

        def cancelled() -> None:
            waiter.finish(Woken.BY_TOKEN, None, direct=False)

        timer = None if self.deadline is None else driver.call_at(self.deadline, time_is_up)
        if self.token is not None:
            self.token.add_callback(cancelled)
        try:
            woken: Woken = await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if self.token is not None:
                self.token.remove_callback(cancelled)
        return woken


_UNBOUNDED = Bound(0.0, None, None)


def bound_of(driver: Driver, timeout: float | None, cancel: CancelToken | None) -> Bound:
    """The bound of an operation that begins now: its own, and those of the scopes around it.

    Raises:
        ValueError: The timeout is no number of seconds, or less than 0.
    """
    scope = bounds_here()
    if scope is None and timeout is None and cancel is None:
        return _UNBOUNDED
    check_timeout(timeout)
    now = driver.now()
    deadline = None if timeout is None else now + timeout
    if scope is not None:
        deadline = earliest(deadline, scope.deadline)
    return Bound(now, deadline, joined(cancel))


def check_bounds(driver: Driver, what: str, timeout: float | None, cancel: CancelToken | None) -> None:
    """Refuse an operation that is over before it has begun, or whose timeout is none.

    A `timeout` of 0 is no reason: it asks for what can be done at once.

    Raises:
        OperationCancelled: Its token, or that of a scope around it, has been cancelled.
        OperationTimedOut: The time of a scope around it is up.
        ValueError: The timeout is no number of seconds, or less than 0.
    """
    check_timeout(timeout)
    if cancel is not None and cancel.cancelled:
        raise _cancelled(what, cancel, 0)
    scope = bounds_here()
    if scope is None:
        return
    if scope.token is not None and scope.token.cancelled:
        raise _cancelled(what, scope.token, 0)
    if scope.deadline is not None and scope.deadline <= driver.now():
        raise OperationTimedOut(f"{what} was not begun: the time of the scope around it is up")


def _cancelled(what: str, token: CancelToken, queued: int) -> OperationCancelled:
    return OperationCancelled(f"{what} was cancelled: {token.reason}", reason=token.reason, queued=queued)
