"""How long to wait before connecting again: exponential back-off with jitter.

The numbers and the formula are those of gRPC's connection back-off protocol,
https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md, with one difference: the first
retry comes at once. A connection that worked until now mostly breaks for a reason that is over
already, such as a restarted server, a load balancer's idle timeout or a network change, and a
second of waiting would be felt. Only when that retry fails too does the waiting begin.

gRPC counts its delays from the start of an attempt, so that the time an attempt took is part of
the wait. A caller who wants the same subtracts it.
"""

from __future__ import annotations

import math
from random import Random

INITIAL_DELAY = 1.0
"""Seconds; gRPC's INITIAL_BACKOFF."""

MULTIPLIER = 1.6
"""By which the delay grows with each failure; gRPC's MULTIPLIER."""

MAX_DELAY = 120.0
"""Seconds, before jitter; gRPC's MAX_BACKOFF."""

JITTER = 0.2
"""Share of a delay by which it varies either way, so that clients which lost the same server do
not come back in step; gRPC's JITTER."""


class Backoff:
    """The delays between attempts to connect: 0, then about 1, 1.6, 2.56 … 120, 120 seconds.

    Args:
        rng: Where the jitter comes from; seed it to get the same delays again.
        initial: Seconds before the second retry; more than 0.
        multiplier: Growth from one delay to the next; at least 1.
        maximum: Seconds that a delay has at most before jitter; at least `initial`.
        jitter: Share of a delay by which it varies either way, from 0 to 1.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(
        self,
        rng: Random,
        *,
        initial: float = INITIAL_DELAY,
        multiplier: float = MULTIPLIER,
        maximum: float = MAX_DELAY,
        jitter: float = JITTER,
    ) -> None:
        if not 0 < initial <= maximum < math.inf:
            raise ValueError(
                f"initial is {initial} s and maximum {maximum} s; "
                "initial must be more than 0, and maximum finite and no less than initial"
            )
        if not 1 <= multiplier < math.inf:
            raise ValueError(f"multiplier is {multiplier}; it must be 1 or more, and finite")
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter is {jitter}; it must be a share from 0 to 1")
        self._rng = rng
        self._initial = initial
        self._multiplier = multiplier
        self._maximum = maximum
        self._jitter = jitter
        self._delay = 0.0

    def next_delay(self) -> float:
        """Count a failed attempt.

        Returns:
            Seconds to wait before the next attempt: 0.0 after `reset()` or at the beginning, at
            most `maximum * (1 + jitter)` ever.
        """
        delay = self._delay
        if not delay:
            self._delay = self._initial
            return 0.0
        self._delay = min(delay * self._multiplier, self._maximum)
        return delay + self._rng.uniform(-self._jitter, self._jitter) * delay

    def reset(self) -> None:
        """Start over: the connection works. Best called when the peer has answered something.

        A connect that succeeds proves little: a proxy accepts for a server that is down.
        """
        self._delay = 0.0
