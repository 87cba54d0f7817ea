"""How often something may happen, on average, with bursts.

A bucket holds tokens up to its size and is filled at a steady rate; whatever happens takes one.

Source: the token bucket of RFC 2697 and RFC 6585 (429, which names the time to wait).
"""

from __future__ import annotations

from collections.abc import Hashable

import attrs
from attrs.validators import ge, gt


@attrs.frozen
class Rate:
    """How often something may happen.

    Attributes:
        per_second: On average.
        burst: At once, after a quiet time.
    """

    per_second: float = attrs.field(validator=gt(0))
    burst: int = attrs.field(default=1, validator=ge(1))


class TokenBuckets:
    """One bucket for each of a bounded number of keys.

    Beyond that the one that was used longest ago is forgotten: it is the likeliest to be full again,
    and then as good as a new one.

    Args:
        rate: Of each key.
        max_keys: How many are remembered.
    """

    def __init__(self, rate: Rate, max_keys: int = 10_000) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be 1 or more, got {max_keys}")
        self.rate = rate
        self._max_keys = max_keys
        # When a bucket will be full. One number is enough: its tokens are `burst` less those that
        # come in until then. In the order of use.
        self._full_at: dict[Hashable, float] = {}

    def take(self, key: Hashable, now: float) -> float:
        """Take a token.

        Returns:
            0, or the seconds until there is one; then none was taken.
        """
        rate, full_at = self.rate, self._full_at
        interval = 1 / rate.per_second
        filled = max(full_at.get(key, now), now) + interval
        wait = filled - now - rate.burst * interval
        if wait > 1e-9 * interval:  # more than what rounding makes of nothing
            return wait
        full_at.pop(key, None)
        full_at[key] = filled
        if len(full_at) > self._max_keys:
            del full_at[next(iter(full_at))]
        return 0.0

    def __len__(self) -> int:
        return len(self._full_at)
