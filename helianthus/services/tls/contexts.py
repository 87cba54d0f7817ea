"""From options to OpenSSL's contexts."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from ...protocols.tls import answer_by_name
from .files import FilePath, load_pair, load_trusted
from .options import ClientTls, ServerTls


def server_context(tls: ServerTls, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """Make a server's context; blocks while it reads files.

    Args:
        tls: The options.
        alpn: Protocols that the service speaks, where the options name none.

    Raises:
        TlsFilesUnusable: A file is not what it should be.
    """
    context = _server_context(tls, tls.certificate, tls.key, alpn)
    others = {name: _server_context(tls, *pair, alpn) for name, pair in tls.sni.items()}
    answer_by_name(context, others)
    return context


def client_context(tls: ClientTls, alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """Make a client's context; as `server_context`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _set_up(context, tls, alpn)
    context.hostname_checks_common_name = False
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca is not None:
        load_trusted(context, tls.ca)
    else:
        context.load_default_certs()
    if tls.certificate is not None:
        load_pair(context, tls.certificate, tls.key, tls.key_password)
    return context


def _server_context(
    tls: ServerTls, certificate: FilePath, key: FilePath | None, alpn: Sequence[str]
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_up(context, tls, alpn)
    load_pair(context, certificate, key, tls.key_password)
    if tls.client_ca is not None:
        load_trusted(context, tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if tls.require_client_certificate else ssl.CERT_OPTIONAL
    context.num_tickets = tls.session_tickets
    if not tls.session_tickets:
        context.options |= ssl.OP_NO_TICKET
    return context


def _set_up(context: ssl.SSLContext, tls: ServerTls | ClientTls, alpn: Sequence[str]) -> None:
    """What both ends have. Renegotiation, a thing of TLS 1.2, has only ever been a nuisance."""
    context.minimum_version = ssl.TLSVersion[tls.minimum_version.replace(".", "_")]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # who is named in `ca` is trusted, root or not
    names = tls.alpn if tls.alpn is not None else alpn
    if names:
        context.set_alpn_protocols(list(names))
