"""Room for the connections of a listener whose handshake is under way, and how it is made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, Protocol, TypeVar

from ..drivers.base import Driver
from ..drivers.timers import Timer
from ..protocols.policies.arrivals import Arrivals


class _Arriving(Hashable, Protocol):
    def abort(self) -> None:
        """End at once."""


K = TypeVar("K", bound=_Arriving)


class HandshakeRoom(Generic[K]):
    """Ends those who keep others out when there is no room left; see `Arrivals`.

    Who pauses the listeners meanwhile is the owner, who looks at `full`.

    Args:
        max_handshakes: How many there is room for.
        address_of: What one is called in the log.
        room_made: Told when some have been ended.
        log: Where that is written.

    Attributes:
        arrivals: Who is here.

    Raises:
        ValueError: `max_handshakes` is less than 1.
    """

    def __init__(
        self,
        max_handshakes: int,
        address_of: Callable[[K], str],
        room_made: Callable[[], None],
        log: logging.Logger,
    ) -> None:
        self.arrivals: Arrivals[K] = Arrivals(max_handshakes)
        self._address_of = address_of
        self._room_made = room_made
        self._log = log
        self._timer: Timer | None = None

    @property
    def full(self) -> bool:
        """Whether nobody else is to be let in."""
        return self.arrivals.full

    def __len__(self) -> int:
        return len(self.arrivals)

    def __iter__(self) -> Iterator[K]:
        return iter(self.arrivals)

    def __contains__(self, one: object) -> bool:
        return one in self.arrivals

    def add(self, one: K, driver: Driver) -> None:
        """Somebody has come."""
        self.arrivals.add(one, driver.now())
        self._set_timer(driver)

    def discard(self, one: K) -> bool:
        """Somebody has got on, or gone; gives whether it was here."""
        return self.arrivals.discard(one)

    def abort_all(self) -> None:
        """The listener is closed: nobody who is here will get on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for one in list(self.arrivals):
            one.abort()

    def _set_timer(self, driver: Driver) -> None:
        deadline = self.arrivals.deadline()
        if deadline is not None and self._timer is None:
            self._timer = driver.call_at(deadline, lambda: self._make_room(driver))

    def _make_room(self, driver: Driver) -> None:
        self._timer = None
        for one in self.arrivals.overdue(driver.now()):
            self._log.info(
                "%s was ended after %g s: %d handshakes are under way (max_handshakes), and others wait",
                self._address_of(one),
                self.arrivals.patience,
                self.arrivals.max_arrivals,
            )
            one.abort()
        self._room_made()
        self._set_timer(driver)
