"""From the options of TLS to OpenSSL's contexts for DTLS."""

from __future__ import annotations

import os

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from ...protocols.dtls import client_context as new_client_context
from ...protocols.dtls import server_context as new_server_context
from ..tls import ClientTls, ServerTls, TlsFilesUnusable
from ..tls.files import FilePath, certificates_in, check_pair, read_pem


def server_context(tls: ServerTls) -> SSL.Context:
    """Make a server's context; blocks while it reads files.

    Raises:
        TlsFilesUnusable: A file is not what it should be.
        ValueError: The options ask for what DTLS does not have.
    """
    context = _server_context(tls, tls.certificate, tls.key)
    others = {name: _server_context(tls, *pair) for name, pair in tls.sni.items()}

    def choose(connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("latin-1").lower().rstrip(".")
        chosen = others.get(name) or others.get(f"*.{name.partition('.')[2]}")
        if chosen is not None:
            connection.set_context(chosen)

    if others:
        context.set_tlsext_servername_callback(choose)
    return context


def client_context(tls: ClientTls) -> SSL.Context:
    """Make a client's context; as `server_context`."""
    _check_version(tls)
    context = new_client_context(alpn=tls.alpn or (), verify_server=tls.verify)
    if tls.ca is not None:
        _trust(context, tls.ca)
    elif tls.verify:
        context.set_default_verify_paths()
    if tls.certificate is not None:
        _show(context, tls.certificate, tls.key, tls.key_password)
    return context


def _server_context(tls: ServerTls, certificate: FilePath, key: FilePath | None) -> SSL.Context:
    _check_version(tls)
    context = new_server_context(
        alpn=tls.alpn or (),
        ask_for_certificate=tls.client_ca is not None,
        require_certificate=tls.require_client_certificate,
    )
    _show(context, certificate, key, tls.key_password)
    if tls.client_ca is not None:
        _trust(context, tls.client_ca)
        context.load_client_ca(os.fsencode(tls.client_ca))
    return context


def _check_version(tls: ServerTls | ClientTls) -> None:
    if tls.minimum_version != "TLSv1.2":
        raise ValueError(
            f"minimum_version={tls.minimum_version!r} cannot be had for dtls://: OpenSSL has no DTLS 1.3; "
            "leave it at 'TLSv1.2'"
        )


def _show(context: SSL.Context, certificate: FilePath, key: FilePath | None, password: str | None) -> None:
    """Have a context show a certificate."""
    check_pair(certificate, key)
    shown = x509.load_pem_x509_certificate(read_pem(certificate).encode())
    if isinstance(shown.public_key(), Ed25519PublicKey | Ed448PublicKey):
        raise TlsFilesUnusable(
            f"{certificate}: the key is of a kind (Ed25519 or Ed448) that OpenSSL does not take for DTLS; "
            "use ECDSA or RSA"
        )
    holds_key = certificate if key is None else key
    try:
        private = load_pem_private_key(read_pem(holds_key).encode(), password.encode() if password else None)
    except TypeError:
        hint = "give key_password" if not password else "it is not encrypted; leave key_password out"
        raise TlsFilesUnusable(f"the key in {holds_key} cannot be read: {hint}") from None
    except ValueError as error:
        reason = "key_password is wrong" if password else str(error)
        raise TlsFilesUnusable(f"the key in {holds_key} cannot be read: {reason}") from None
    context.use_certificate_chain_file(os.fsencode(certificate))
    try:
        context.use_privatekey(private)  # type: ignore[arg-type]  # any kind; OpenSSL says which it takes
        context.check_privatekey()
    except (SSL.Error, TypeError):
        reason = f"the key in {holds_key} does not belong to the certificate in {certificate}"
        raise TlsFilesUnusable(reason) from None


def _trust(context: SSL.Context, ca: FilePath) -> None:
    """Trust those whose certificates are in a file or directory, whether they are roots or not."""
    if os.path.isdir(ca):
        context.load_verify_locations(None, os.fsencode(ca))
    else:
        certificates_in(ca)
        context.load_verify_locations(os.fsencode(ca))
    store = context.get_cert_store()
    if store is not None:
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
