"""Keep-alive pings and the patience with the peer's, after gRPC's proposal A8.

Source: https://github.com/grpc/proposal/blob/master/A8-client-side-keepalive.md
"""

from __future__ import annotations

import math

from .limits import KeepAlive

_CLOCK_TOLERANCE = 0.01
"""How much earlier than its interval a ping may come. The clocks of two machines do not run at the
same speed (NTP corrects by up to 500 parts in a million), and whoever pings exactly as often as the
other side allows must not be punished for that."""


class PingSender:
    """Decides when a silent connection is pinged, and when it is given up.

    Anything the peer sends is a sign of life, not only the answer to the ping.
    """

    def __init__(self, settings: KeepAlive, now: float) -> None:
        self._settings = settings
        self._waiting = False  # for a sign of life, after a ping
        self._due = now + settings.time  # the next ping, or the end of the patience after one

    def heard(self, now: float) -> None:
        """The peer has sent something."""
        self._due = now + self._settings.time
        self._waiting = False

    def became_busy(self, now: float) -> None:
        """The first call is in flight: silence before it was no concern."""
        if not self._settings.without_calls and not self._waiting:
            self._due = now + self._settings.time

    def deadline(self, busy: bool) -> float | None:
        """When `due` or `gave_up` will be true, or None."""
        if self._waiting or ((busy or self._settings.without_calls) and self._settings.time != math.inf):
            return self._due
        return None

    def gave_up(self, now: float) -> bool:
        """Whether the peer has been silent for too long after a ping."""
        return self._waiting and now >= self._due

    def due(self, now: float, busy: bool) -> bool:
        """Whether to send a ping now; true once, until the peer is heard again."""
        if self._waiting or (when := self.deadline(busy)) is None or now < when:
            return False
        self._waiting = True
        self._due = now + self._settings.timeout
        return True


class PingJudge:
    """Counts the peer's pings that come too early."""

    def __init__(self, settings: KeepAlive) -> None:
        self._settings = settings
        self._last: float | None = None
        self._strikes = 0

    def replied(self) -> None:
        """Replies were sent: pings around them are no nuisance."""
        self._last = None
        self._strikes = 0

    def too_many(self, now: float, *, busy: bool) -> bool:
        """Take note of a ping; true where it was one too many."""
        settings = self._settings
        apart = settings.min_interval if busy or settings.without_calls else settings.min_interval_idle
        if self._last is not None and now - self._last < apart * (1 - _CLOCK_TOLERANCE):
            self._strikes += 1
        self._last = now
        return self._strikes > settings.max_strikes
