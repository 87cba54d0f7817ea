"""Cancelling what a driver does from another thread, or from a signal handler."""

from __future__ import annotations

from collections.abc import Callable

from ...drivers.base import Driver
from ...drivers.timers import Timer
from ..cancel import CancelToken, clock_time


class CancelRelay(CancelToken):
    """A token whose callbacks come in the driver's turn, whichever thread or signal handler cancels it.

    One that time cancels has its timers at this driver, since there may be no other that turns.
    """

    def __init__(self, token: CancelToken, driver: Driver) -> None:
        super().__init__()
        self._token = token
        self._driver = driver
        self._relayed: dict[Callable[[], None], Callable[[], None]] = {}
        self._timers: dict[Callable[[], None], Timer] = {}
        self.reason = token.reason

    @property
    def cancelled(self) -> bool:
        """Whether the relayed token has been cancelled."""
        if self._token.cancelled:
            self.reason = self._token.reason
        return self._token.cancelled

    @property
    def deadline(self) -> float | None:
        """When time cancels the relayed token."""
        return self._token.deadline

    def add_callback(self, callback: Callable[[], None]) -> None:
        """As `CancelToken.add_callback`, but in the driver's turn."""

        def in_turn() -> None:
            if self.cancelled:
                callback()

        def relayed() -> None:
            self._driver.post(in_turn)

        self._relayed[callback] = relayed
        self._token.add_callback(relayed)
        deadline = self._token.deadline
        if deadline is not None:
            due = self._driver.now() + deadline - clock_time()
            self._timers[callback] = self._driver.call_at(due, in_turn)
        if self._token.cancelled:  # by another thread, just now: twice is better than never
            relayed()

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """As `CancelToken.remove_callback`."""
        relayed = self._relayed.pop(callback, None)
        if relayed is not None:
            self._token.remove_callback(relayed)
        timer = self._timers.pop(callback, None)
        if timer is not None:
            timer.cancel()
