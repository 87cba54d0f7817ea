"""Who somebody is, how they prove it, and what they may call."""

from .certificate_identity import CERTIFICATE, certificate_identity
from .challenge import NONCE_SIZE, ChallengeLimits, Challenger, Prover, check_secret
from .identity import ANONYMOUS, KNOWN, Identity
from .rules import Rule, Rules, Verdict

__all__ = [
    "ANONYMOUS",
    "CERTIFICATE",
    "KNOWN",
    "NONCE_SIZE",
    "ChallengeLimits",
    "Challenger",
    "Identity",
    "Prover",
    "Rule",
    "Rules",
    "Verdict",
    "certificate_identity",
    "check_secret",
]
