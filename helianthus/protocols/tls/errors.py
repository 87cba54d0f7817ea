"""How TLS fails."""

from __future__ import annotations

from ..errors import RemoteProtocolError


class TlsError(RemoteProtocolError):
    """The peer and this side do not get along in TLS; the message says what to do about it.

    Attributes:
        reason: OpenSSL's word for it, such as "CERTIFICATE_VERIFY_FAILED"; empty where there is none.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class TlsHandshakeFailed(TlsError):
    """No encrypted connection came about."""


class TlsHandshakeAbandoned(TlsHandshakeFailed):
    """The peer was gone before the handshake was over."""


class TlsTruncated(TlsError):
    """The stream ended without the peer's signature: something between may have cut it off."""
