"""From pyOpenSSL's errors to those that TLS has, and to its sentences that a person can act on."""

from __future__ import annotations

from OpenSSL import SSL

from ..tls.errors import TlsError, TlsHandshakeFailed
from ..tls.faults import explain
from .verification import Verification


class _Fault(Exception):
    """An error as `ssl` would have raised it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def error_of(error: SSL.Error, verification: Verification, *, handshake: bool) -> TlsError:
    """What an association ends with.

    Args:
        error: What OpenSSL says.
        verification: What is known of the peer; its own verdict goes first.
        handshake: Whether no association had come about.
    """
    kind = TlsHandshakeFailed if handshake else TlsError
    if verification.verdict is not None:
        return kind(explain(verification.verdict, verification.situation), "CERTIFICATE_VERIFY_FAILED")
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reason = str(queue[0][-1]).upper().replace(" ", "_") if queue and queue[0] else ""
    return kind(explain(_Fault(reason), verification.situation), reason)
