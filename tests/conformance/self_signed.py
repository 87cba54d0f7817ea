"""A certificate that is good for TLS and DTLS, and contexts that trust it and nothing else.

It is made anew for each run. The suite comes with the package and stands alone, so that there is one
here besides those of the other tests.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

NAME = "localhost"
"""The only host name that the certificate is for."""


class SelfSigned:
    """A certificate and its key in one file.

    Args:
        directory: Where the file is kept.

    Where `cryptography` is not installed, the test that asks for it is skipped.
    """

    def __init__(self, directory: Path) -> None:
        x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed")
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "conformance suite")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        self._file = directory / "self-signed.pem"
        self._file.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            + certificate.public_bytes(pem)
        )
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self._file)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.client.load_verify_locations(self._file)

    def dtls(self) -> tuple[Any, Any]:
        """Contexts for a client and a server of DTLS; skips where pyOpenSSL is not installed."""
        pytest.importorskip("OpenSSL", reason="pyOpenSSL is not installed: no DTLS")
        from helianthus.protocols.dtls import client_context, server_context

        client, server = client_context(), server_context()
        client.load_verify_locations(str(self._file))
        server.use_certificate_file(str(self._file))
        server.use_privatekey_file(str(self._file))
        return client, server
