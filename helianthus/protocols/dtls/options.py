"""Bounds of DTLS."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, gt, le, optional

HANDSHAKE_TIMEOUT = 10.0
"""Seconds; a flight is sent again after 1, 3 and 7 of them."""

IDLE_TIMEOUT: float | None = 300.0
"""Seconds. Home routers forget a UDP conversation after 2 to 5 minutes (RFC 4787 §4.3)."""

SMALLEST_MTU = 256
"""OpenSSL's smallest; with less it fails."""

LARGEST_MTU = 65_507
"""Bytes of the largest datagram over IPv4 (RFC 768, RFC 791)."""


@attrs.frozen(kw_only=True)
class DtlsOptions:
    """Bounds of an association, and of a server's many.

    Attributes:
        mtu: Bytes of the largest datagram, without the headers of IP and UDP. 1,200 pass on every path
            that QUIC asks for (RFC 9000 §14).
        idle_timeout: Seconds; an association ends when no datagram has passed either way for so long, at
            the latest after twice that. None for never.
        max_associations: Peers of a server; more are not answered. One takes about 75 KB.
        max_handshakes: Handshakes of a server that have proved their address and are not finished; more
            are not answered.
        cookie_lifetime: Seconds after which the secret of a server's cookies is replaced. A cookie is good
            for one to two lifetimes. A client whose hello comes later has to begin anew.

    Raises:
        ValueError: An option is out of its bounds.
    """

    mtu: int = attrs.field(default=1200, validator=and_(ge(SMALLEST_MTU), le(LARGEST_MTU)))
    idle_timeout: float | None = attrs.field(default=IDLE_TIMEOUT, validator=optional(gt(0.0)))
    max_associations: int = attrs.field(default=1024, validator=ge(1))
    max_handshakes: int = attrs.field(default=256, validator=ge(1))
    cookie_lifetime: float = attrs.field(default=60.0, validator=gt(0))


def dtls_options(options: DtlsOptions | None) -> DtlsOptions:
    """Those that were given, or the usual ones.

    Raises:
        TypeError: What was given is something else.
    """
    if options is None:
        return DtlsOptions()
    if not isinstance(options, DtlsOptions):
        raise TypeError(f"options must be DtlsOptions, not {options!r}")
    return options
