"""Cancelling operations from outside of the task that awaits them.

A token has callbacks only while operations that were given it are under way. A linked token is heard
of by those it is linked to, and a token with a deadline has a timer, only as long as that is so: tokens
may be made for each request and forgotten, and leave nothing behind at a token that lives on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ..drivers.base import Driver
from ..drivers.choose import running_driver
from ..drivers.timers import Timer
from ..protocols.timeouts import check_time, check_timeout


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

    @staticmethod
    def linked(*tokens: CancelToken) -> CancelToken:
        """Make a token that is cancelled when any of several is, with its reason, or by itself."""
        return _LinkedToken(tokens)

    @staticmethod
    def after(seconds: float) -> CancelToken:
        """Make a token that is cancelled when so much time has passed, or before.

        Raises:
            ValueError: That is no number of seconds, or less than 0.
        """
        if seconds is None:
            raise ValueError("seconds must be a number, 0 or more, not None")
        check_timeout(seconds, "seconds")
        return _DeadlineToken(clock_time() + seconds, f"{seconds:g} s have passed")

    @staticmethod
    def at(when: float) -> CancelToken:
        """Make a token that is cancelled at a time, or before.

        Args:
            when: Seconds of the running loop's clock, `loop.time()`; without a loop, of
                `time.monotonic()`.

        Raises:
            ValueError: It is no number.
        """
        check_time(when)
        return _DeadlineToken(when, f"its time, {when:g}, has come")

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` has been called."""
        return self._cancelled

    @property
    def deadline(self) -> float | None:
        """When time will cancel it, in seconds of the same clock as for `at`; or None."""
        return None

    def cancel(self, reason: str = "cancelled by its token") -> None:
        """End every operation that was given this token; repeated calls do nothing."""
        if self._cancelled:
            return
        self._cancelled = True
        self.reason = reason
        for callback in list(self._callbacks):
            if callback in self._callbacks:  # else one before it has removed it
                self.remove_callback(callback)
                callback()

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when the token is cancelled; at once if it is already."""
        if self.cancelled:
            callback()
        else:
            self._callbacks[callback] = None

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Undo `add_callback`; an unknown callback is ignored."""
        self._callbacks.pop(callback, None)


class _LinkedToken(CancelToken):
    """Cancelled when any of its sources is; heard of by them while it has callbacks itself."""

    def __init__(self, sources: tuple[CancelToken, ...]) -> None:
        super().__init__()
        self._sources = sources

    @property
    def cancelled(self) -> bool:
        if not self._cancelled:
            self._look_at_sources()
        return self._cancelled

    @property
    def deadline(self) -> float | None:
        deadlines = [source.deadline for source in self._sources]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def add_callback(self, callback: Callable[[], None]) -> None:
        first = not self._callbacks
        super().add_callback(callback)
        if first:
            for source in self._sources:
                if self._callbacks:  # else a source was cancelled just now, and so is this
                    source.add_callback(self._look_at_sources)

    def remove_callback(self, callback: Callable[[], None]) -> None:
        had_some = bool(self._callbacks)
        super().remove_callback(callback)
        if had_some and not self._callbacks:
            for source in self._sources:
                source.remove_callback(self._look_at_sources)

    def _look_at_sources(self) -> None:
        for source in self._sources:
            if source.cancelled:
                self.cancel(source.reason)
                return


class _DeadlineToken(CancelToken):
    """Cancelled when its time has come; has a timer while it has callbacks."""

    def __init__(self, when: float, reason: str) -> None:
        super().__init__()
        self._when = when
        self._late = reason
        self._timer: Timer | None = None

    @property
    def cancelled(self) -> bool:
        if not self._cancelled and clock_time() >= self._when:
            self.cancel(self._late)
        return self._cancelled

    @property
    def deadline(self) -> float | None:
        return self._when

    def add_callback(self, callback: Callable[[], None]) -> None:
        super().add_callback(callback)
        if self._callbacks and self._timer is None and (driver := driver_here()) is not None:
            self._timer = driver.call_at(self._when, self._time_has_come)

    def remove_callback(self, callback: Callable[[], None]) -> None:
        super().remove_callback(callback)
        if not self._callbacks and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_has_come(self) -> None:
        self._timer = None
        self.cancel(self._late)


def driver_here() -> Driver | None:
    """The driver of the running loop, or None outside of one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return None
    return running_driver()


def clock_time() -> float:
    """Seconds of the clock by which timeouts are measured here."""
    driver = driver_here()
    return time.monotonic() if driver is None else driver.now()
