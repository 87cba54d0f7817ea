"""Stops further attempts while too much fails, so that they do not bury a server that is struggling.

Source: gRPC proposal A6, "Throttling Retry Attempts and Hedged RPCs".
"""

from __future__ import annotations

import math

_SCALE = 1000
"""Tokens are counted in thousandths, as integers: gRPC reads three decimals of `tokenRatio`."""


class RetryThrottle:
    """A bucket of tokens for all calls of a client.

    Every failed attempt that its policy could repeat takes a token, and so does one for which the
    server asks not to be called again; every success gives back `token_ratio` of one. While half of
    the tokens or fewer are left, there are no retries and no hedges.

    Args:
        max_tokens: How many there are in the beginning, and at most; from 1 to 1000.
        token_ratio: What a success gives back; 0.001 or more. With 0.1, one attempt in ten may be
            a retry in the long run.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(self, max_tokens: float = 10, token_ratio: float = 0.1) -> None:
        if not 1 <= max_tokens <= 1000:
            raise ValueError(f"max_tokens is {max_tokens}; it must be from 1 to 1000")
        if not 1 / _SCALE <= token_ratio < math.inf:
            raise ValueError(f"token_ratio is {token_ratio}; it must be 0.001 or more, and finite")
        self._maximum = self._count = round(max_tokens * _SCALE)
        self._gain = round(token_ratio * _SCALE)

    @property
    def tokens(self) -> float:
        """How many are left."""
        return self._count / _SCALE

    @property
    def allows(self) -> bool:
        """Whether there may be retries and hedges now."""
        return 2 * self._count > self._maximum

    def failed(self) -> None:
        """An attempt failed in a way that counts."""
        self._count = max(0, self._count - _SCALE)

    def succeeded(self) -> None:
        """An attempt had a result."""
        self._count = min(self._maximum, self._count + self._gain)
