"""Who a certificate makes somebody.

The name is "cert:" and the common name, so that no token or secret can be mistaken for it. What a name
must not have, spaces for example, is written as in URLs: "CN=Alice Smith" is "cert:Alice%20Smith".
Without a common name it is the SHA-256 fingerprint, as "cert:sha256:…".

The alternative names are groups: "dns:host.example", "uri:spiffe://cluster/alice", "email:alice@example.org".
So a rule can be about `@uri:spiffe://cluster/*`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..tls.certificate import Certificate
from .identity import Identity

CERTIFICATE = "cert:"
"""What the name of an identity begins with that a certificate proves."""


def certificate_identity(
    certificate: Certificate, groups: Mapping[str, Iterable[str]] | None = None
) -> Identity:
    """The identity of whoever has a certificate; see above.

    Args:
        certificate: One that was verified.
        groups: More groups, by the name of the identity.
    """
    name = _written(certificate.common_name or f"sha256:{certificate.fingerprint}")
    return Identity(
        f"{CERTIFICATE}{name}",
        {*_alternatives(certificate), *(groups or {}).get(f"{CERTIFICATE}{name}", ())},
        {"certificate": certificate},
    )


def _alternatives(certificate: Certificate) -> Iterable[str]:
    for kind, names in (
        ("dns", certificate.dns_names),
        ("ip", certificate.ip_addresses),
        ("uri", certificate.uris),
        ("email", certificate.email_addresses),
    ):
        for name in names:
            yield f"{kind}:{_written(name)}"


def _written(name: str) -> str:
    """A name without what would end it in a rule, and so that no two become the same."""
    return "".join(
        "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogatepass"))
        if c.isspace() or c == "%" or not c.isprintable()
        else c
        for c in name
    )
