"""DTLS 1.2 (RFC 6347) as a layer: datagram machines that own others, and encrypt what those send.

Needs pyOpenSSL, which the extra `helianthus[dtls]` brings.
"""

from __future__ import annotations

try:
    import OpenSSL as _  # noqa: F401 - only to say which extra brings it
except ImportError:
    raise ModuleNotFoundError(
        "DTLS needs the package pyOpenSSL: pip install 'helianthus[dtls]'", name="OpenSSL"
    ) from None

from .association import ASSOCIATION_TRANSITIONS, AssociationInput, AssociationState
from .client import DtlsClient
from .contexts import client_context, server_context
from .events import DtlsClosed, DtlsEstablished, DtlsEvent, DtlsFailed, DtlsRefused, PeerEvent
from .options import DtlsOptions
from .server import DtlsServer, DtlsServerStatistics

__all__ = [
    "ASSOCIATION_TRANSITIONS",
    "AssociationInput",
    "AssociationState",
    "DtlsClient",
    "DtlsClosed",
    "DtlsEstablished",
    "DtlsEvent",
    "DtlsFailed",
    "DtlsOptions",
    "DtlsRefused",
    "DtlsServer",
    "DtlsServerStatistics",
    "PeerEvent",
    "client_context",
    "server_context",
]
