"""OpenSSL's contexts for DTLS, ready for certificates to be loaded into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from OpenSSL import SSL

from .listening import check_cookie, make_cookie
from .verification import verify

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:!AESCCM8:!aNULL"
"""Forward secrecy and authenticated encryption only (RFC 9325 §4.2)."""


def client_context(*, alpn: Sequence[str] = (), verify_server: bool = True) -> SSL.Context:
    """A context for `DtlsClient`; load whom to trust, and perhaps a certificate and its key.

    Args:
        alpn: Names of protocols, the best first (RFC 7301).
        verify_server: Whether the server's certificate must be good.
    """
    context = _context(SSL.VERIFY_PEER if verify_server else SSL.VERIFY_NONE)
    if alpn:
        context.set_alpn_protos([name.encode("ascii") for name in alpn])
    return context


def server_context(
    *, alpn: Sequence[str] = (), ask_for_certificate: bool = False, require_certificate: bool = False
) -> SSL.Context:
    """A context for `DtlsServer`; load a certificate, its key, and whom to trust.

    Args:
        alpn: Names of protocols, the best first. A client that knows none of them is taken without.
        ask_for_certificate: Whether clients are asked for a certificate. One that is not good is refused.
        require_certificate: Whether a client without one is refused.
    """
    mode = SSL.VERIFY_NONE
    if ask_for_certificate or require_certificate:
        mode = SSL.VERIFY_PEER
    if require_certificate:
        mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    context = _context(mode)
    if alpn:
        context.set_alpn_select_callback(_selector([name.encode("ascii") for name in alpn]))
    context.set_cookie_generate_callback(make_cookie)
    context.set_cookie_verify_callback(check_cookie)
    return context


def _selector(names: Sequence[bytes]) -> Callable[[SSL.Connection, list[bytes]], Any]:
    def select(_: SSL.Connection, offered: list[bytes]) -> Any:
        return next((name for name in names if name in offered), SSL.NO_OVERLAPPING_PROTOCOLS)

    return select


def _context(mode: int) -> SSL.Context:
    context = SSL.Context(SSL.DTLS_METHOD)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_max_proto_version(_DTLS_1_2)
    context.set_cipher_list(CIPHERS)
    context.set_options(
        SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_verify(mode, verify if mode & SSL.VERIFY_PEER else None)
    return context


_OPTIONS = SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION

_DTLS_1_2 = 0xFEFD
"""The wire's number of the version (RFC 6347 §4.1), which OpenSSL takes as well."""
