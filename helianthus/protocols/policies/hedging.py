"""Attempts of one call side by side: whichever has a result first gives it to the call.

The first attempt begins at once and another after each delay, as long as none has a result. One that
fails, but not fatally, brings the next one forward. A fatal failure ends the call.

Source: gRPC proposal A6, "Hedging Policy".
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from ..errors import LocalProtocolError
from ..machine import Action, Outcome
from ..rpc.status import StatusCode
from .failure import DO_NOT_RETRY, AttemptFailure, check_seconds, retryable
from .retry import check_attempts
from .throttle import RetryThrottle


@attrs.frozen
class HedgingPolicy:
    """When a call is made again although it has not failed; only for methods that may run twice.

    Attributes:
        max_attempts: From 2 to 5, the first one included.
        delay: Seconds from one attempt to the next; 0 to begin all of them at once.
        non_fatal_codes: Errors that leave the other attempts alone.
    """

    max_attempts: int = attrs.field(default=2, validator=check_attempts)
    delay: float = attrs.field(default=0.5, validator=check_seconds)
    non_fatal_codes: frozenset[StatusCode] = attrs.field(
        default=frozenset({StatusCode.UNAVAILABLE}), converter=retryable
    )


@attrs.define
class AttemptStarted:
    """An attempt is to be made.

    Attributes:
        number: From 0; as many began before it. One that never ran is started once more by this.
    """

    number: int


@attrs.define
class AttemptCancelled:
    """An attempt that is under way is to be given up."""

    number: int


@attrs.define
class HedgingEnded:
    """The call is to end as one of its attempts has. The last event.

    Attributes:
        number: Of the attempt.
    """

    number: int


HedgingEvent: TypeAlias = AttemptStarted | AttemptCancelled | HedgingEnded


class Hedging:
    """A machine that says when to begin and to give up the attempts of one call.

    Args:
        policy: When.
        throttle: Of all calls of the client; None for none.
        now: Monotonic seconds: the first attempt begins.
        deadline: When the whole call ends, or None. No attempt begins from then on.
    """

    def __init__(
        self,
        policy: HedgingPolicy,
        throttle: RetryThrottle | None,
        now: float,
        deadline: float | None = None,
    ) -> None:
        self._policy = policy
        self._throttle = throttle
        self._call_deadline = deadline
        self._events: list[HedgingEvent] = []
        self._running: dict[int, None] = {}  # in the order of their numbers
        self._begun = 0
        self._next: float | None = now
        self._may_repeat = True  # once, what had left and never ran
        self._last_failed = 0
        self._over = False
        self._begin_due(now)

    @property
    def running(self) -> int:
        """Attempts that are under way."""
        return len(self._running)

    # -- what became of attempts ------------------------------------------------------------------------

    def succeeded(self, number: int, now: float) -> None:
        """An attempt has a result: the call has ended.

        Raises:
            LocalProtocolError: It is not under way.
        """
        self._take(number)
        if self._throttle is not None:
            self._throttle.succeeded()
        self._end(number)

    def failed(self, number: int, failure: AttemptFailure, now: float) -> None:
        """An attempt has failed.

        Raises:
            LocalProtocolError: It is not under way.
        """
        self._take(number)
        self._last_failed = number
        if failure.never_ran and (self._may_repeat or failure.never_left) and not self._expired(now):
            self._may_repeat = self._may_repeat and failure.never_left
            self._begin(number)
            return
        push_back = failure.push_back
        fatal = failure.code not in self._policy.non_fatal_codes
        if self._throttle is not None and (not fatal or push_back == DO_NOT_RETRY):
            self._throttle.failed()
        if fatal:
            self._end(number)
            return
        if push_back == DO_NOT_RETRY:
            self._next = None
        elif self._next is not None:
            self._plan(now + (push_back or 0.0))
            self._begin_due(now)
        self._end_if_nothing_follows()

    # -- Machine ------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When the next attempt begins."""
        return self._next

    def handle_timeout(self, now: float) -> None:
        """Begin what is due."""
        self._begin_due(now)
        self._end_if_nothing_follows()

    def take_events(self) -> list[HedgingEvent]:
        """What to do."""
        events, self._events = self._events, []
        return events

    def take_actions(self) -> list[Action]:
        """There are none."""
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """There are no actions to complete."""
        raise LocalProtocolError(f"there is no action {action_id}")

    # -- inside ---------------------------------------------------------------------------------------------

    def _take(self, number: int) -> None:
        if number not in self._running:
            raise LocalProtocolError(f"attempt {number} is not under way")
        del self._running[number]

    def _begin(self, number: int) -> None:
        self._running[number] = None
        self._events.append(AttemptStarted(number))

    def _begin_due(self, now: float) -> None:
        while self._next is not None and self._next <= now:
            if self._begun and (self._throttled or self._expired(now)):
                self._next = None
                return
            self._begin(self._begun)
            self._begun += 1
            self._plan(now + self._policy.delay)

    def _plan(self, when: float) -> None:
        """Say when the next attempt begins, if there is to be one."""
        self._next = when if self._begun < self._policy.max_attempts and not self._expired(when) else None

    def _end_if_nothing_follows(self) -> None:
        if not self._running and self._next is None and not self._over:
            self._end(self._last_failed)

    def _end(self, number: int) -> None:
        """The call ends as an attempt has; the others are given up."""
        self._events.extend(map(AttemptCancelled, self._running))
        self._running.clear()
        self._next = None
        self._over = True
        self._events.append(HedgingEnded(number))

    @property
    def _throttled(self) -> bool:
        return self._throttle is not None and not self._throttle.allows

    def _expired(self, when: float) -> bool:
        return self._call_deadline is not None and when >= self._call_deadline
