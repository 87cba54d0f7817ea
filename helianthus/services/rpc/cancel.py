"""Cancelling operations from outside of the task that awaits them."""

from __future__ import annotations

from collections.abc import Callable


class CancelToken:
    """Given to operations as `cancel=`; `cancel()` ends all of them. It stays cancelled.

    Operations of a `BlockingClient` may be cancelled from another thread or a signal handler,
    others from within their event loop only.

    Attributes:
        reason: What `cancel` was given.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._cancelled = False
        self._callbacks: dict[Callable[[], None], None] = {}

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` has been called."""
        return self._cancelled

    def cancel(self, reason: str = "cancelled by its token") -> None:
        """End every operation that was given this token; repeated calls do nothing."""
        if self._cancelled:
            return
        self._cancelled = True
        self.reason = reason
        callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks:
            callback()

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the token is cancelled; at once if it is already."""
        if self._cancelled:
            callback()
        else:
            self._callbacks[callback] = None

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_callback`; an unknown callback is ignored."""
        self._callbacks.pop(callback, None)
