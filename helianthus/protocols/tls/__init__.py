"""TLS as a layer: a stream machine that owns another one, and encrypts what that sends."""

from .certificate import Certificate, read_certificate
from .errors import TlsError, TlsHandshakeAbandoned, TlsHandshakeFailed, TlsTruncated
from .events import TLS_TRANSITIONS, TlsEstablished, TlsEvent, TlsInput, TlsSessionReceived, TlsState
from .layer import HANDSHAKE_TIMEOUT, TlsLayer, answer_by_name

__all__ = [
    "HANDSHAKE_TIMEOUT",
    "TLS_TRANSITIONS",
    "Certificate",
    "TlsError",
    "TlsEstablished",
    "TlsEvent",
    "TlsHandshakeAbandoned",
    "TlsHandshakeFailed",
    "TlsInput",
    "TlsLayer",
    "TlsSessionReceived",
    "TlsState",
    "TlsTruncated",
    "answer_by_name",
    "read_certificate",
]
