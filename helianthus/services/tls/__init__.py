"""TLS as users configure it: files, certificates and contexts."""

from .files import TlsFilesUnusable
from .options import ClientTls, ServerTls

__all__ = ["ClientTls", "ServerTls", "TlsFilesUnusable"]
