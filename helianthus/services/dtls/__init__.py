"""DTLS for people: sockets and listeners. Needs the extra `helianthus[dtls]`."""

from .dtls_listener import DtlsListener, listen
from .dtls_socket import DtlsSocket

__all__ = ["DtlsListener", "DtlsSocket", "listen"]
