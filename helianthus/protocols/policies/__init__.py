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
from .idempotency import Attempt, IdempotencyCache, IdempotencyLimits, Known, Rejected
from .token_bucket import Rate, TokenBuckets

__all__ = [
    "Admission",
    "AdmissionEvent",
    "AdmissionLimits",
    "Admitted",
    "Attempt",
    "ConcurrencyLimit",
    "IdempotencyCache",
    "IdempotencyLimits",
    "Known",
    "Rate",
    "Refused",
    "Rejected",
    "Shed",
    "TokenBuckets",
    "Verdict",
]
