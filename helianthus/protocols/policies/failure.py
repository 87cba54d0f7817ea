"""How an attempt of a call failed, as far as it matters to whether there is another.

A server can push back: it names the seconds after which the caller may try again, or asks it not to
try at all. Here that is `retry_after` in the details of its error.

Source: gRPC proposal A6, "Pushback" and "Transparent Retries".
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from ..rpc.status import StatusCode

MAX_RETRY_AFTER = 2**31 / 1000
"""Seconds that a server may ask for; gRPC's push-back is a signed 32-bit number of milliseconds."""

DO_NOT_RETRY = -1.0
"""What `AttemptFailure.push_back` gives where the server wants no further attempt."""


@attrs.define
class AttemptFailure:
    """Why an attempt ended without a result.

    Attributes:
        code: Of the error.
        details: Of the error: whatever the peer sent.
        maybe_executed: False where the method surely has not begun to run.
        sent: False where the request never left this side.
    """

    code: StatusCode
    details: Any = None
    maybe_executed: bool = True
    sent: bool = True

    @property
    def never_ran(self) -> bool:
        """Whether the request was lost on its way, so that another attempt at once can do no harm.

        One for which the server named a time has reached it.
        """
        return self.code is StatusCode.UNAVAILABLE and not self.maybe_executed and self.push_back is None

    @property
    def never_left(self) -> bool:
        """Whether the server cannot even have heard of the request: it may be sent any number of times."""
        return self.never_ran and not self.sent

    @property
    def push_back(self) -> float | None:
        """Seconds until the next attempt, `DO_NOT_RETRY`, or None where the server says nothing.

        What cannot be read, or is more than `MAX_RETRY_AFTER`, asks for no further attempt.
        """
        if self.details.__class__ is not dict or "retry_after" not in self.details:
            return None
        seconds = self.details["retry_after"]
        if seconds.__class__ not in (int, float) or not 0 <= seconds <= MAX_RETRY_AFTER:
            return DO_NOT_RETRY
        return float(seconds)


def retryable(codes: Any) -> frozenset[StatusCode]:
    """Status codes for a policy, given in any collection.

    Raises:
        ValueError: OK is among them, or something that is no status code.
    """
    wanted = frozenset(map(StatusCode, codes))
    if StatusCode.OK in wanted:
        raise ValueError("OK is no code of a failure")
    return wanted


def check_seconds(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    """An attrs validator: a finite number of seconds, 0 or more."""
    if not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} is {value} s; it must be 0 or more, and finite")
