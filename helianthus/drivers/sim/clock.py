"""Virtual time: whole nanoseconds for the world, a drifting float clock for each node.

The world counts nanoseconds in an integer, so that no rounding accumulates and equal times are
equal on every machine. A node reads seconds from a clock of its own, with its own zero and rate.
"""

from __future__ import annotations

NANOSECONDS = 1_000_000_000
"""Nanoseconds in a second."""

FAR_FUTURE = 1e9
"""Seconds (32 years) after which a time counts as never; `float("inf")` is a common deadline."""


def to_ns(seconds: float) -> int:
    """World seconds as the nearest whole nanosecond."""
    return round(seconds * NANOSECONDS)


class NodeClock:
    """Translates between the world's nanoseconds and one node's seconds."""

    __slots__ = ("_offset", "_rate")

    def __init__(self, drift: float = 0.0, offset: float = 0.0) -> None:
        """Make a clock that shows `offset + (1 + drift) * world seconds`.

        Args:
            drift: Seconds gained per second; crystal clocks have up to about 50e-6 either way.
            offset: What the clock shows at the beginning of the world, in seconds.
        """
        if not drift > -1.0:
            raise ValueError(f"a clock with a drift of {drift} would stand still or run backwards")
        self._offset = offset
        self._rate = 1.0 + drift

    def seconds(self, ns: int) -> float:
        """What the clock shows at a time of the world."""
        return self._offset + ns / NANOSECONDS * self._rate

    def nearest(self, seconds: float) -> int | None:
        """The world's time at which the clock shows `seconds`, or None if that is never."""
        world = (seconds - self._offset) / self._rate
        return to_ns(world) if world < FAR_FUTURE else None

    def not_before(self, seconds: float) -> int | None:
        """The first time of the world at which the clock shows at least `seconds`, nearly."""
        ns = self.nearest(seconds)
        if ns is None:
            return None
        step = 1
        while self.seconds(ns) < seconds:  # doubling: a great offset has a coarse last digit
            ns += step
            step *= 2
        return ns
