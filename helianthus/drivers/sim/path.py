"""The way from one node to another: latency, bandwidth, loss, and whether it is open at all.

Each direction is a path of its own, so that partitions and slow links can be one-way.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import attrs

from .clock import NANOSECONDS, to_ns

if TYPE_CHECKING:
    from .schedule import Schedule

LATENCY = (0.0005, 0.005)
"""Seconds from node to node unless the world or the link says otherwise: one data centre."""

LOOPBACK: dict[str, Any] = {
    "latency": (10e-6, 50e-6),
    "bandwidth": None,
    "loss": 0.0,
    "duplicate": 0.0,
    "reorder": 0.0,
    "splitting": 0.0,
}
"""What the path from a node to itself is like, whatever the world's defaults are."""

SEGMENT = 1460
"""Bytes of a segment where bandwidth is limited: an Ethernet frame less 40 bytes of headers.
Without a limit a segment carries all that there is to send, as with segmentation offload."""

QUEUED = 0.25
"""Seconds that what one stream has under way takes a line of limited bandwidth, at most."""

LOSS_DELAY = 0.2
"""Seconds that the loss of one segment costs a stream: Linux' shortest retransmission timeout
(TCP_RTO_MIN)."""


def _latency(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0 <= low <= high:
        raise ValueError(f"latency must be (shortest, longest) seconds, not {value}")
    return float(low), float(high)


def _probability(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be a probability from 0 to 1, not {value}")


def _positive(_: object, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and value <= 0:
        raise ValueError(f"{attribute.name} must be more than zero, not {value}")


@attrs.frozen(kw_only=True)
class LinkSettings:
    """What a path is like; probabilities are from 0 to 1.

    Attributes:
        latency: Shortest and longest seconds from end to end; every segment draws its own.
        bandwidth: Bytes per second, or None for no limit.
        loss: Probability that a datagram vanishes, or that a segment is late by `LOSS_DELAY`.
        duplicate: Probability that a datagram arrives twice.
        reorder: Probability that a datagram is held up, so that later ones overtake it.
        splitting: Probability that what is sent at once is cut into several segments.
        send_buffer: Bytes of a stream that the sending system holds before the sender must wait.
        window: Bytes of a stream that may be under way or unread at the receiver.
    """

    latency: tuple[float, float] = attrs.field(default=LATENCY, converter=_latency)
    bandwidth: float | None = attrs.field(default=None, validator=_positive)
    loss: float = attrs.field(default=0.0, validator=_probability)
    duplicate: float = attrs.field(default=0.0, validator=_probability)
    reorder: float = attrs.field(default=0.0, validator=_probability)
    splitting: float = attrs.field(default=0.25, validator=_probability)
    send_buffer: int = attrs.field(default=64 * 1024, validator=_positive)
    window: int = attrs.field(default=64 * 1024, validator=_positive)


class Line:
    """Something that passes so many bytes a second, one after the other."""

    __slots__ = ("_free_at", "rate")

    def __init__(self, rate: float | None = None) -> None:
        self.rate = rate
        self._free_at = 0

    def pass_through(self, ns: int, size: int) -> int:
        """When `size` bytes that come at a time have passed."""
        if self.rate is None:
            return ns
        self._free_at = max(ns, self._free_at) + round(size / self.rate * NANOSECONDS)
        return self._free_at


class Path:
    """One direction between two nodes.

    Attributes:
        source: Name of the node that sends.
        target: Name of the node that receives.
        blocked: Everything that sets out or arrives is lost.
        delay: Seconds added to every latency: a spike.
        datagrams_arrive_after: Nanoseconds; datagrams that keep their order arrive no earlier.
    """

    __slots__ = (
        "_line",
        "_lines",
        "_low",
        "_rng",
        "_schedule",
        "_settings",
        "_spread",
        "blocked",
        "datagrams_arrive_after",
        "delay",
        "source",
        "target",
    )

    def __init__(
        self,
        schedule: Schedule,
        rng: random.Random,
        source: str,
        target: str,
        settings: LinkSettings,
        lines: tuple[Line, Line],
    ) -> None:
        self._schedule = schedule
        self._rng = rng
        self.source = source
        self.target = target
        self.blocked = False
        self.delay = 0.0
        self.datagrams_arrive_after = 0
        self._line = Line()
        self._lines = (lines[0], self._line, lines[1])
        self.settings = settings

    @property
    def settings(self) -> LinkSettings:
        """What the path is like."""
        return self._settings

    @settings.setter
    def settings(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._low, high = map(to_ns, settings.latency)
        self._spread = high - self._low
        self._line.rate = settings.bandwidth

    @property
    def segment_limit(self) -> int:
        """Bytes of the longest segment."""
        return self._settings.window if self._rate is None else SEGMENT

    @property
    def window(self) -> int:
        """Bytes of one stream that may be under way or unread.

        Less where bandwidth is limited, so that a line which is fast again is not kept slow by what
        was queued for it before: real senders keep such queues short as well.
        """
        window = self._settings.window
        rate = self._rate
        return window if rate is None else min(window, max(2 * SEGMENT, int(rate * QUEUED)))

    @property
    def _rate(self) -> float | None:
        """Bytes per second of the slowest line, or None."""
        first, second, third = self._lines
        if first.rate is second.rate is third.rate is None:
            return None
        return min(line.rate for line in self._lines if line.rate is not None)

    def arrival(self, size: int) -> int:
        """When a segment of `size` bytes that is sent now arrives, unless the path is blocked."""
        arrival = self.datagram_arrival(size)
        if self._settings.loss and self._rng.random() < self._settings.loss:
            arrival += to_ns(LOSS_DELAY)
        return arrival

    def datagram_arrival(self, size: int) -> int:
        """When a datagram of `size` bytes that is sent now arrives, unless it is lost."""
        ns = self._schedule.ns
        for line in self._lines:
            if line.rate is not None:
                ns = line.pass_through(ns, size)
        if self._spread:
            ns += int(self._rng.random() * self._spread)
        if self.delay:
            ns += to_ns(self.delay)
        return ns + self._low
