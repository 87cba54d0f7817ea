"""Who somebody is, how they prove it, and what they may call."""

from .challenge import NONCE_SIZE, ChallengeLimits, Challenger, Prover, check_secret
from .identity import ANONYMOUS, KNOWN, Identity
from .rules import Rule, Rules, Verdict

__all__ = [
    "ANONYMOUS",
    "KNOWN",
    "NONCE_SIZE",
    "ChallengeLimits",
    "Challenger",
    "Identity",
    "Prover",
    "Rule",
    "Rules",
    "Verdict",
    "check_secret",
]
