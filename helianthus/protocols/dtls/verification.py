"""Whether a peer's certificate is good, and for whom.

OpenSSL verifies signatures and dates, by the system's real clock. pyOpenSSL has no way to have it check
the name as well, so that is done here, when OpenSSL asks about the last certificate of the chain:
a peer with the wrong name hears an alert, as one with a wrong signature does.
"""

from __future__ import annotations

import ipaddress

from OpenSSL import SSL, crypto

from ..tls.certificate import Certificate, read_certificate
from ..tls.faults import Situation

_Codes = SSL.X509VerificationCodes
_OTHER_HOST = 62  # X509_V_ERR_HOSTNAME_MISMATCH, of OpenSSL's x509_vfy.h


class Distrust(Exception):
    """Why a certificate was refused; has what `ssl.SSLCertVerificationError` has.

    Attributes:
        verify_code: OpenSSL's number of the reason.
        verify_message: The reason.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.verify_code = code
        self.verify_message = message


class Verification:
    """What is expected of one peer's certificate, and what has come of it.

    Args:
        server_side: Whether the peer is a client.
        server_name: The host name or IP address that a server's certificate must be for; None for any.

    Attributes:
        server_side: Whether the peer is a client.
        verdict: Why it was refused, once it was.
    """

    def __init__(self, *, server_side: bool, server_name: str | None = None) -> None:
        self.verdict: Distrust | None = None
        self.server_side = server_side
        self._server_name = server_name
        self._chain: dict[int, Certificate] = {}  # by depth; the peer's own has 0

    @property
    def situation(self) -> Situation:
        """What is known of the peer."""
        chain = tuple(certificate for _, certificate in sorted(self._chain.items()))
        return Situation(self.server_side, self._server_name, chain=chain)

    def judge(self, der: bytes, code: int, depth: int) -> bool:
        """Whether to go on with a certificate of which OpenSSL has said `code`."""
        try:
            self._chain[depth] = certificate = read_certificate(der)
        except ValueError as error:
            self.verdict = Distrust(code, str(error))
            return False
        name = self._server_name
        if code != _Codes.OK:
            self.verdict = self.verdict or Distrust(code, _reason(code))
        elif not depth and name is not None and not is_for(certificate, name):
            self.verdict = Distrust(_OTHER_HOST, "hostname mismatch")
        return self.verdict is None


def is_for(certificate: Certificate, name: str) -> bool:
    """Whether a certificate is for a host: one of its alternative names is (RFC 9525 §6.3).

    `*` stands for the whole first label, and for one label only.
    """
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return any(_matches(pattern, name) for pattern in certificate.dns_names)
    return str(address) in certificate.ip_addresses


def _matches(pattern: str, name: str) -> bool:
    wanted = name.lower().rstrip(".").split(".")
    offered = pattern.lower().rstrip(".").split(".")
    if offered[0] == "*" and len(offered) > 2:
        return len(wanted) == len(offered) and bool(wanted[0]) and wanted[1:] == offered[1:]
    return wanted == offered


def verify(connection: SSL.Connection, shown: crypto.X509, code: int, depth: int, ok: int) -> bool:
    """What OpenSSL calls for every certificate of a chain (SSL_CTX_set_verify)."""
    verification = connection.get_app_data()
    assert isinstance(verification, Verification)
    return verification.judge(_der(shown), _Codes.OK if ok else code, depth)


def certificate_of(connection: SSL.Connection) -> Certificate | None:
    """What the peer has shown, as far as it can be read."""
    shown = connection.get_peer_certificate()
    if shown is None:
        return None
    try:
        return read_certificate(_der(shown))
    except ValueError:  # possible only where nobody has asked for verification
        return None


def _der(certificate: crypto.X509) -> bytes:
    return crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


def _reason(code: int) -> str:
    known = (name for name, value in sorted(vars(_Codes).items()) if value == code)
    return next(known, f"error {code}").removeprefix("ERR_").replace("_", " ").lower()
