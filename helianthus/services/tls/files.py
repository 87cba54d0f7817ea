"""Reading certificates and keys, and saying what is wrong with them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from ...protocols.tls.certificate import Certificate, read_certificate

FilePath: TypeAlias = "str | PathLike[str]"

_BEGIN = "-----BEGIN CERTIFICATE-----"
_END = "-----END CERTIFICATE-----"


class TlsFilesUnusable(ValueError):
    """A certificate or a key is not what it should be; the message names the file and what to do."""


def certificates_in(path: FilePath) -> list[Certificate]:
    """The certificates of a PEM file, in their order.

    Raises:
        TlsFilesUnusable: There is no such file, or no certificate in it.
    """
    text = read_pem(path)
    found = []
    for part in text.split(_BEGIN)[1:]:
        try:
            der = ssl.PEM_cert_to_DER_cert(_BEGIN + part.partition(_END)[0] + _END)
            found.append(read_certificate(der))
        except ValueError as error:
            raise TlsFilesUnusable(f"{path}: certificate {len(found) + 1} is damaged: {error}") from None
    if not found:
        raise TlsFilesUnusable(f"{path} holds no certificate; it must be PEM, with the line {_BEGIN}")
    return found


def read_pem(path: FilePath) -> str:
    """The text of a file; raises `TlsFilesUnusable` where it cannot be read."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except FileNotFoundError:
        raise TlsFilesUnusable(f"{path}: there is no such file") from None
    except OSError as error:
        raise TlsFilesUnusable(f"{path} cannot be read: {error.strerror}") from None


def check_pair(certificate: FilePath, key: FilePath | None) -> None:
    """Look at what somebody is going to show, before OpenSSL does, which says less.

    Raises:
        TlsFilesUnusable: A file is missing or holds something else, or the certificate is out of date.
    """
    own = certificates_in(certificate)[0]
    holds_key = certificate if key is None else key
    if "PRIVATE KEY-----" not in read_pem(holds_key):
        hint = "; name the key's file as key" if key is None else ""
        raise TlsFilesUnusable(f"{holds_key} holds no private key{hint}")
    check_dates(certificate, own)


def check_dates(path: FilePath, certificate: Certificate) -> None:
    """Raise `TlsFilesUnusable` for a certificate that nobody would accept now."""
    now = datetime.now(UTC)
    if certificate.not_after < now:
        raise TlsFilesUnusable(
            f"{path}: the certificate {certificate} expired at {moment(certificate.not_after)}; renew it"
        )
    if certificate.not_before > now:
        raise TlsFilesUnusable(
            f"{path}: the certificate {certificate} is valid only from {moment(certificate.not_before)} on; "
            "is this machine's clock right?"
        )


def load_pair(
    context: ssl.SSLContext, certificate: FilePath, key: FilePath | None, password: str | None
) -> None:
    """Have a context show a certificate.

    Raises:
        TlsFilesUnusable: Its key does not fit, or cannot be decrypted; or as `check_pair`.
    """
    check_pair(certificate, key)
    holds_key = certificate if key is None else key
    asked = []

    def tell_password() -> str:
        asked.append(True)
        return password or ""

    try:
        context.load_cert_chain(certificate, key, tell_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            reason = f"the key in {holds_key} does not belong to the certificate in {certificate}"
        elif asked:
            needed = "key_password is wrong" if password else "give key_password"
            reason = f"the key in {holds_key} is encrypted; {needed}"
        else:
            reason = f"{certificate} with the key in {holds_key} cannot be used: {error}"
        raise TlsFilesUnusable(reason) from None


def load_trusted(context: ssl.SSLContext, ca: FilePath) -> None:
    """Have a context trust what those sign whose certificates are in a file or directory.

    Raises:
        TlsFilesUnusable: There is none.
    """
    if Path(ca).is_dir():
        context.load_verify_locations(capath=ca)
        return
    certificates_in(ca)
    try:
        context.load_verify_locations(cafile=ca)
    except (ssl.SSLError, OSError) as error:
        raise TlsFilesUnusable(f"{ca} cannot be used: {error}") from None


def moment(when: datetime) -> str:
    """A time, for people."""
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"
