"""From OpenSSL's reasons to sentences that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs

from .certificate import Certificate, read_if_possible

_NOT_YET_VALID, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64
_SELF_SIGNED, _UNKNOWN_ISSUER = 18, (2, 19, 20, 21)
"""Results of verification: `X509_V_ERR_…` in OpenSSL's x509_vfy.h."""

ALERT = 0x15
HANDSHAKE = 0x16
"""The first bytes that a TLS connection can begin with (RFC 8446, 5.1)."""

NO_TLS_HERE = b"\x15\x03\x01\x00\x02\x02\x46"
"""A fatal alert, protocol_version, for a peer that does not speak TLS: a program of this house knows it."""

_SHOWN = 16
_DER = 2  # X509_FILETYPE_ASN1


@attrs.frozen
class Situation:
    """What is known when something fails.

    Attributes:
        server_side: Whether this side is the server.
        server_name: Whom a client wants to reach.
        minimum_version: What this side asks for, at least.
        chain: The certificates that the peer has shown, its own first, as far as they can be had.
    """

    server_side: bool
    server_name: str | None = None
    minimum_version: str = ""
    chain: Sequence[Certificate] = ()

    @property
    def peer(self) -> str:
        """Who the other side is."""
        return "client" if self.server_side else "server"


def shown_by(connection: Any) -> list[Certificate]:
    """The certificates that the peer of an `SSLObject` has shown, verified or not.

    Before Python 3.13 only a private attribute has them, and a server never has those that it refused.
    """
    public = hasattr(connection, "get_unverified_chain")
    source = connection if public else getattr(connection, "_sslobj", None)
    shown: Sequence[Any] = getattr(source, "get_unverified_chain", tuple)()
    ders = (one if isinstance(one, bytes) else one.public_bytes(_DER) for one in shown or ())
    return [certificate for certificate in map(read_if_possible, ders) if certificate is not None]


def explain(error: Exception, situation: Situation) -> str:
    """Say what a failure means, and what to do.

    Args:
        error: An `ssl.SSLError`.
        situation: What is known.
    """
    if hasattr(error, "verify_code") and hasattr(error, "verify_message"):
        return _distrust(error.verify_code, error.verify_message, situation)
    return _failure(getattr(error, "reason", None) or "", situation)


def _failure(reason: str, situation: Situation) -> str:
    peer, server_side = situation.peer, situation.server_side
    alert = reason.partition("_ALERT_")[2] or reason
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return no_tls(b"", situation)
    if alert in ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION", "VERSION_TOO_LOW"):
        least = f" (at least {situation.minimum_version})" if situation.minimum_version else ""
        where = "see minimum_version on both sides"
        return f"the {peer} and this side{least} have no TLS version in common; {where}"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the client shows no certificate; give it certificate and key, or do not require one here"
    if alert == "CERTIFICATE_REQUIRED":
        return "the server requires a client certificate; give certificate and key"
    if alert == "HANDSHAKE_FAILURE" and not server_side:
        return (
            "the server found no cipher or version in common, or requires a client certificate; "
            "its log says which"
        )
    if reason == "NO_SHARED_CIPHER":
        return f"the {peer} offers no cipher that this side takes, or none that fits the certificate here"
    refused = _refused(alert, situation)
    if refused:
        return refused
    return f"TLS failed: {reason.lower().replace('_', ' ') or 'for a reason that OpenSSL does not name'}"


def _refused(alert: str, situation: Situation) -> str:
    """What an alert says of this side's own certificate; nothing where it is about something else."""
    setting = "ca" if situation.server_side else "client_ca"
    whose = f"the {situation.peer} refuses this side's certificate"
    why = {
        "UNKNOWN_CA": f"it does not trust who has signed it; set its {setting} to the issuer's certificate",
        "CERTIFICATE_EXPIRED": "it has expired; renew it",
        "BAD_CERTIFICATE": "it may be for another name, or damaged",
        "CERTIFICATE_UNKNOWN": "it may be for another name, or of an unknown issuer",
        "CERTIFICATE_REVOKED": "it was revoked",
        "UNSUPPORTED_CERTIFICATE": "it is of a kind that the peer does not take",
    }.get(alert)
    if why:
        return f"{whose}: {why}"
    if alert in ("UNRECOGNIZED_NAME", "TLSV1_UNRECOGNIZED_NAME"):
        return f"the server has no certificate for {situation.server_name!r}"
    return ""


def _distrust(code: int, message: str, situation: Situation) -> str:
    """Why the peer's certificate was refused."""
    whose = f"the {situation.peer}'s certificate"
    if not situation.chain:
        return f"{whose} was refused: {message.rstrip('.')}{_who_may_sign(code, situation)}"
    own = situation.chain[0]
    if code == _EXPIRED:
        oldest = min(situation.chain, key=lambda certificate: certificate.not_after)
        which = whose if oldest is own else "a certificate behind the server's"
        return f"{which}, {oldest}, expired at {_moment(oldest.not_after)}; it has to be renewed there"
    if code == _NOT_YET_VALID:
        return (
            f"{whose}, {own}, is valid only from {_moment(own.not_before)} on; is this machine's clock right?"
        )
    if code in (_OTHER_HOST, _OTHER_ADDRESS):
        return (
            f"{whose} is not valid for {situation.server_name!r}, but for {own.valid_for}; connect to one of "
            "these, or name one as server_name"
        )
    if code == _SELF_SIGNED or code in _UNKNOWN_ISSUER:
        by = "by itself" if code == _SELF_SIGNED else f"by {situation.chain[-1].issuer}"
        return (
            f"{whose}, {own}, is signed {by}, whom this side does not trust{_who_may_sign(code, situation)}"
        )
    return f"{whose}, {own}, was refused: {message.rstrip('.')}"


def _who_may_sign(code: int, situation: Situation) -> str:
    if code != _SELF_SIGNED and code not in _UNKNOWN_ISSUER:
        return ""
    if situation.server_side:
        return "; client_ca must hold the certificate of its issuer"
    return "; set ca to a file with the certificate of its issuer"


def no_tls(began: bytes, situation: Situation) -> str:
    """Say that the peer speaks in plain text.

    Args:
        began: What it has sent first.
        situation: What is known.
    """
    how = f" (it began with {began[:_SHOWN]!r})" if began else ""
    hint = "it has to connect by tls://" if situation.server_side else "connect by tcp://, or have it use TLS"
    return f"the {situation.peer} speaks no TLS, but plain text{how}; {hint}"


def _moment(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
