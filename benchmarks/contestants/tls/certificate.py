"""A certificate for one run: of the kind that most servers have, and nobody's but this process's."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "localhost"


@contextlib.contextmanager
def certificate() -> Iterator[Path]:
    """A PEM file with a certificate for a key on P-256, and that key; it is gone after the block."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    with TemporaryDirectory() as directory:
        file = Path(directory) / "node.pem"
        file.write_bytes(
            signed.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        yield file


def server_context() -> ssl.SSLContext:
    """What a server of asyncio or uvloop is given: the same that Helianthus makes for itself."""
    from helianthus import ServerTls
    from helianthus.services.tls.contexts import server_context as configured

    with certificate() as file:
        return configured(ServerTls(file))
