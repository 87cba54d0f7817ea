"""Certificates for tests, made when they are needed and never kept.

Their keys are Ed25519: quick to make, and a signature always has the same length, so that what a
simulated connection carries has it too. OpenSSL takes no such keys for DTLS; those are ECDSA on P-256.
"""

from __future__ import annotations

import atexit
import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest

x509 = pytest.importorskip("cryptography.x509", reason="cryptography is not installed: no certificates")

from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: E402
from cryptography.x509.oid import NameOID  # noqa: E402

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)


@attrs.frozen
class Pair:
    """A certificate and its key, as files.

    Attributes:
        certificate: PEM, with what leads to the issuer behind it.
        key: PEM.
        der: The certificate alone.
    """

    certificate: Path
    key: Path
    der: bytes


class Authority:
    """Signs certificates, and keeps all files in one directory.

    Attributes:
        file: PEM; who trusts it trusts what it signs.
    """

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self._directory = directory
        self._serial = 1
        self._key = Ed25519PrivateKey.generate()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self._name, self._key, NOW - DAY, NOW + 365 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, None)
        )
        self.file = directory / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    @classmethod
    def of_this_process(cls) -> Authority:
        """One whose files go when the process ends, for what cannot ask for the fixture `authority`."""
        directory = TemporaryDirectory(prefix="helianthus-certificates-")
        atexit.register(directory.cleanup)
        return cls(Path(directory.name))

    def issue(
        self,
        name: str,
        *hosts: str,
        uris: Iterable[str] = (),
        emails: Iterable[str] = (),
        starts: datetime = NOW - DAY,
        ends: datetime = NOW + 30 * DAY,
        file: str | None = None,
        password: str | None = None,
        ecdsa: bool = False,
    ) -> Pair:
        """Sign a certificate.

        Args:
            name: The common name.
            hosts: Host names and IP addresses that it is valid for.
            uris: The same for URIs.
            emails: And for e-mail addresses.
            starts: From when it is valid.
            ends: Until when.
            file: How the files are called; by default after `name`.
            password: Encrypts the key.
            ecdsa: Whether it is a key for DTLS.
        """
        key = ec.generate_private_key(ec.SECP256R1()) if ecdsa else Ed25519PrivateKey.generate()
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        builder = (
            self._builder(subject, key, starts, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        names = [
            *map(_host, hosts),
            *map(x509.UniformResourceIdentifier, uris),
            *map(x509.RFC822Name, emails),
        ]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, None)
        stem = (file or name).replace(" ", "-").replace("/", "-")
        pair = Pair(
            self._directory / f"{stem}.pem",
            self._directory / f"{stem}.key",
            certificate.public_bytes(serialization.Encoding.DER),
        )
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password.encode())
        pair.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return pair

    def _builder(
        self,
        subject: x509.Name,
        key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
        starts: datetime,
        ends: datetime,
    ) -> x509.CertificateBuilder:
        self._serial += 1
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(self._serial)
            .not_valid_before(starts)
            .not_valid_after(ends)
        )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
