"""Room for connections that have come and cannot be used yet, because their handshake is under way.

There is room for so many. While it lasts, everybody has all the time that the handshake itself allows.
When it is used up nobody else is let in, and whoever came first has to make room as soon as it has
taken `patience`. So those who never get on keep others out for that long at most, and a crowd of those
who do get on waits, and loses nobody.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MAX_ARRIVALS = 256
"""A handshake of TLS takes some 50 KiB, so these take 13 MiB."""

PATIENCE = 1.0
"""Seconds: enough for a handshake's two or three round trips across the world, without a loss."""


class Arrivals(Generic[K]):
    """Who has come, in that order.

    Args:
        max_arrivals: How many there is room for.
        patience: Seconds that each may take when there is no room; see above.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(self, max_arrivals: int = MAX_ARRIVALS, patience: float = PATIENCE) -> None:
        if max_arrivals < 1:
            raise ValueError(f"there is room for {max_arrivals} arrivals; it must be 1 or more")
        if not patience > 0:
            raise ValueError(f"patience is {patience} s; it must be more than 0")
        self.max_arrivals = max_arrivals
        self.patience = patience
        self._came: dict[K, float] = {}

    def add(self, one: K, now: float) -> None:
        """Somebody has come. There may be a few too many of them: whoever was let in is here."""
        self._came[one] = now

    def discard(self, one: K) -> bool:
        """Somebody has got on, or gone; gives whether it was here."""
        return self._came.pop(one, None) is not None

    @property
    def full(self) -> bool:
        """Whether nobody else is to be let in."""
        return len(self._came) >= self.max_arrivals

    def deadline(self) -> float | None:
        """When to ask for `overdue`; None while there is room. Pure."""
        return next(iter(self._came.values())) + self.patience if self.full else None

    def overdue(self, now: float) -> list[K]:
        """Take out who has to make room now; nobody before the deadline."""
        ended: list[K] = []
        while self.full:
            first = next(iter(self._came))
            if self._came[first] + self.patience > now:
                break
            del self._came[first]
            ended.append(first)
        return ended

    def __len__(self) -> int:
        return len(self._came)

    def __iter__(self) -> Iterator[K]:
        return iter(self._came)

    def __contains__(self, one: object) -> bool:
        return one in self._came
