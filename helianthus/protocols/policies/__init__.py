"""Rules for calls, as machines: who may run when, how often, and how often again."""

from .admission import (
    Admission,
    AdmissionEvent,
    AdmissionLimits,
    Admitted,
    ConcurrencyLimit,
    Refused,
    Shed,
    Verdict,
)
from .failure import DO_NOT_RETRY, MAX_RETRY_AFTER, AttemptFailure
from .hedging import (
    AttemptCancelled,
    AttemptStarted,
    Hedging,
    HedgingEnded,
    HedgingEvent,
    HedgingPolicy,
)
from .idempotency import Attempt, IdempotencyCache, IdempotencyLimits, Known, Rejected
from .retry import RETRY_TRANSITIONS, Retry, RetryInput, RetryPolicy, RetryState
from .throttle import RetryThrottle
from .token_bucket import Rate, TokenBuckets

__all__ = [
    "DO_NOT_RETRY",
    "MAX_RETRY_AFTER",
    "RETRY_TRANSITIONS",
    "Admission",
    "AdmissionEvent",
    "AdmissionLimits",
    "Admitted",
    "Attempt",
    "AttemptCancelled",
    "AttemptFailure",
    "AttemptStarted",
    "ConcurrencyLimit",
    "Hedging",
    "HedgingEnded",
    "HedgingEvent",
    "HedgingPolicy",
    "IdempotencyCache",
    "IdempotencyLimits",
    "Known",
    "Rate",
    "Refused",
    "Rejected",
    "Retry",
    "RetryInput",
    "RetryPolicy",
    "RetryState",
    "RetryThrottle",
    "Shed",
    "TokenBuckets",
    "Verdict",
]
