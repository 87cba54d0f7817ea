"""Attempts of one call, one after the other.

Source: gRPC proposal A6, https://github.com/grpc/proposal/blob/master/A6-client-retries.md, with the
jitter that it has had since 2024.
"""

from __future__ import annotations

import enum
import math
from random import Random

import attrs

from ..errors import LocalProtocolError
from ..rpc.status import StatusCode
from .failure import DO_NOT_RETRY, AttemptFailure, check_seconds, retryable
from .throttle import RetryThrottle

MAX_ATTEMPTS = 5
"""More attempts than that help nobody; gRPC's limit."""

JITTER = 0.2
"""Share of a delay by which it varies either way, so that clients do not come back in step; gRPC's."""


def check_attempts(instance: object, attribute: attrs.Attribute[int], value: int) -> None:
    """An attrs validator: how many attempts a call may have."""
    if value.__class__ is not int or not 2 <= value <= MAX_ATTEMPTS:
        raise ValueError(f"{attribute.name} is {value}; it must be a whole number from 2 to {MAX_ATTEMPTS}")


@attrs.frozen
class RetryPolicy:
    """When a call that has failed is made again; the defaults are those of gRPC's example.

    The n-th retry comes after `min(initial * multiplier ** (n - 1), maximum)` seconds, 20 % more or less.

    Attributes:
        max_attempts: From 2 to 5, the first one included.
        initial: Seconds before the first retry.
        maximum: Seconds that a delay has at most, before jitter.
        multiplier: Growth from one delay to the next; more than 0.
        codes: After which errors. A code that the method itself may answer with says that it is
            safe to run it again.
    """

    max_attempts: int = attrs.field(default=4, validator=check_attempts)
    initial: float = attrs.field(default=0.1, validator=check_seconds)
    maximum: float = attrs.field(default=1.0, validator=check_seconds)
    multiplier: float = attrs.field(default=2.0)
    codes: frozenset[StatusCode] = attrs.field(
        default=frozenset({StatusCode.UNAVAILABLE}), converter=retryable
    )

    @multiplier.validator
    def _check_multiplier(self, attribute: attrs.Attribute[float], value: float) -> None:
        if not 0 < value < math.inf:
            raise ValueError(f"multiplier is {value}; it must be more than 0, and finite")

    @codes.validator
    def _check_codes(self, attribute: attrs.Attribute[object], value: frozenset[StatusCode]) -> None:
        if not value:
            raise ValueError("codes is empty: name the status codes after which to call again")

    def delay(self, retry: int, rng: Random) -> float:
        """Seconds before the n-th retry, counted from 1."""
        try:
            grown = self.initial * self.multiplier ** (retry - 1)
        except OverflowError:
            grown = math.inf
        return min(grown, self.maximum) * rng.uniform(1 - JITTER, 1 + JITTER)


class RetryState(enum.Enum):
    """Where a call is."""

    IDLE = "idle"
    """No attempt has begun."""
    RUNNING = "running"
    """An attempt is under way."""
    WAITING = "waiting"
    """An attempt has failed; the next one is to begin."""
    OVER = "over"
    """The call has ended."""


class RetryInput(enum.Enum):
    """What moves a call from one state to another."""

    BEGIN = "an attempt begins"
    FAILURE = "it fails, and there is another"
    END = "it ends, and the call with it"


RETRY_TRANSITIONS: dict[tuple[RetryState, RetryInput], RetryState] = {
    (RetryState.IDLE, RetryInput.BEGIN): RetryState.RUNNING,
    (RetryState.RUNNING, RetryInput.FAILURE): RetryState.WAITING,
    (RetryState.RUNNING, RetryInput.END): RetryState.OVER,
    (RetryState.WAITING, RetryInput.BEGIN): RetryState.RUNNING,
}
"""Every move there is; anything else is a mistake of the caller's."""


class Retry:
    """Decides after each attempt of one call whether there is another, and when.

    Args:
        policy: None where only what surely never ran is repeated.
        throttle: Of all calls of the client; None for none.
        rng: Where the jitter comes from.
        deadline: Monotonic seconds at which the whole call ends, or None. A retry that could not
            begin before it is not waited for.
    """

    def __init__(
        self,
        policy: RetryPolicy | None,
        throttle: RetryThrottle | None,
        rng: Random,
        deadline: float | None = None,
    ) -> None:
        self.state = RetryState.IDLE
        self.previous_attempts = 0
        """Attempts that have failed; one that was repeated because it never ran is not counted."""
        self._policy = policy
        self._throttle = throttle
        self._rng = rng
        self._deadline = deadline
        self._delays = 0  # since the beginning, or since the server named one itself
        self._may_repeat = True  # once, what had left and never ran
        self._committed = False

    def begin(self) -> None:
        """An attempt begins.

        Raises:
            LocalProtocolError: One is under way, or the call is over.
        """
        self._move(RetryInput.BEGIN)

    def commit(self) -> None:
        """The response has begun, or the request cannot be made again: this attempt is the last."""
        self._committed = True

    def succeeded(self) -> None:
        """The attempt has a result.

        Raises:
            LocalProtocolError: None is under way.
        """
        self._move(RetryInput.END)
        if self._throttle is not None:
            self._throttle.succeeded()

    def failed(self, failure: AttemptFailure, now: float) -> float | None:
        """The attempt has failed.

        Args:
            failure: How.
            now: Monotonic seconds.

        Returns:
            Seconds until the next attempt, or None where there is none: the failure is the call's.

        Raises:
            LocalProtocolError: None is under way.
        """
        if self.state is not RetryState.RUNNING:
            raise LocalProtocolError(f"no attempt is under way; the call is {self.state.value}")
        delay = self._next_delay(failure)
        if delay is not None and self._deadline is not None and now + delay >= self._deadline:
            delay = None
        self._move(RetryInput.END if delay is None else RetryInput.FAILURE)
        return delay

    def _next_delay(self, failure: AttemptFailure) -> float | None:
        if failure.never_ran and (self._may_repeat or failure.never_left) and not self._committed:
            self._may_repeat = self._may_repeat and failure.never_left
            return 0.0
        self.previous_attempts += 1
        policy = self._policy
        if policy is None:
            return None
        push_back = failure.push_back
        listed = failure.code in policy.codes
        if self._throttle is not None and (listed or push_back == DO_NOT_RETRY):
            self._throttle.failed()
        if not listed or push_back == DO_NOT_RETRY or self._committed:
            return None
        if self.previous_attempts >= policy.max_attempts:
            return None
        if self._throttle is not None and not self._throttle.allows:
            return None
        if push_back is not None:
            self._delays = 0
            return push_back
        self._delays += 1
        return policy.delay(self._delays, self._rng)

    def _move(self, cause: RetryInput) -> None:
        state = RETRY_TRANSITIONS.get((self.state, cause))
        if state is None:
            raise LocalProtocolError(f"{cause.value}: not while the call is {self.state.value}")
        self.state = state
