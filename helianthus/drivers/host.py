"""A machine without a transport, and what it shares with every link: deadlines, actions, events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from ..protocols.errors import LocalProtocolError
from ..protocols.machine import Machine
from .timers import Timer

if TYPE_CHECKING:
    from .base import Driver, HostHandler

E = TypeVar("E")


class Host(Generic[E]):
    """Gives one machine its deadlines, actions and events; the base of every link.

    Attributes:
        machine: The machine; give it commands, then call `wake()`.
        woken: Whether it is to be settled; `wake()` does nothing then.
    """

    __slots__ = ("__weakref__", "_driver", "_handler", "_let_go", "_timer", "machine", "woken")

    machine: Machine[E]

    def __init__(self, driver: Driver, machine: Machine[E], handler: HostHandler[E]) -> None:
        self.machine = machine
        self._handler = handler
        self._driver = driver
        self.woken = False
        self._let_go = False
        self._timer: Timer | None = None

    def wake(self) -> None:
        """Have what commands caused carried out at the end of this tick."""
        if not self.woken:
            self.woken = True
            self._driver._settle_soon(self)

    def close(self) -> None:
        """Let go of the machine: no deadline, action or event of it is served any more."""
        self._let_go = True
        self.woken = True  # never settled again
        self._disarm()

    def settle(self) -> bool:
        """Drain the machine; called by the driver. Gives whether the handler was called."""
        if self._let_go:
            return False
        self.woken = False
        called = False
        try:
            called = self._hand_over_actions()
            self._arm()
            called = self._hand_over_events() or called
        except Exception as error:  # noqa: BLE001 - reported; the other machines go on
            self._driver.on_error(error)
            return True
        return called

    def _hand_over_actions(self) -> bool:
        actions = self.machine.take_actions()
        if not actions:
            return False
        self._handler.on_actions(actions)
        return True

    def _hand_over_events(self) -> bool:
        events = self.machine.take_events()
        if not events:
            return False
        self._handler.on_events(events)
        return True

    def _arm(self) -> None:
        """Make sure that a timer fires no later than the machine's deadline.

        A timer that is too early is left alone and re-armed when it fires, so that a deadline
        that moves back with every message costs no heap operation.
        """
        deadline = self.machine.deadline()
        timer = self._timer
        if deadline is None or (timer is not None and timer.when <= deadline):
            return
        if timer is not None:
            timer.cancel()
        self._timer = self._driver.call_at(deadline, self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self._tell_time()
        except Exception as error:  # noqa: BLE001 - reported, and only this machine ends
            self._fault(error)
            return
        self.wake()

    def _tell_time(self) -> None:
        machine = self.machine
        deadline = machine.deadline()
        now = self._driver.now()
        if deadline is not None and deadline <= now:
            machine.handle_timeout(now)
            self._check_deadline_moved(now)

    def _fault(self, error: Exception) -> None:
        """The machine is broken: report it, and serve it no more."""
        self._driver.on_error(error)
        self.close()

    def _check_deadline_moved(self, now: float) -> None:
        deadline = self.machine.deadline()
        if deadline is not None and deadline <= now:
            raise LocalProtocolError(
                f"{type(self.machine).__name__}.handle_timeout({now}) left the deadline at {deadline}; "
                "a machine's deadline must be later than the time it was told"
            )
