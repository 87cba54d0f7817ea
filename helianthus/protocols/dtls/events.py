"""What DTLS machines have to say."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from ..machine import DatagramAddress
from ..tls.certificate import Certificate


@attrs.define
class DtlsEstablished:
    """A peer has been agreed with on keys; datagrams pass from now on.

    Attributes:
        address: The peer's.
        version: "DTLSv1.2".
        cipher: As OpenSSL calls it, such as "ECDHE-ECDSA-AES256-GCM-SHA384".
        alpn: The protocol that was agreed on, None where none was.
        server_name: The name that the client asked for, None where it asked for none.
        certificate: The peer's; None where it has shown none.
        verified: Whether somebody whom this side trusts has signed it, and for a client, whether it is for
            the host that was asked for.
        largest: Bytes of the largest datagram that fits under `mtu`.
    """

    address: DatagramAddress
    version: str
    cipher: str
    alpn: str | None
    server_name: str | None
    certificate: Certificate | None
    verified: bool
    largest: int


@attrs.define
class DtlsFailed:
    """No association came to be.

    Attributes:
        address: The peer's.
        error: What went wrong, and what can be done about it.
    """

    address: DatagramAddress
    error: Exception


@attrs.define
class DtlsClosed:
    """An association has ended; nothing more comes from it, and nothing is sent.

    Attributes:
        address: The peer's.
        error: None where either end has said goodbye.
    """

    address: DatagramAddress
    error: Exception | None


@attrs.define
class DtlsRefused:
    """A datagram of the child has not been sent.

    Attributes:
        address: Where it was to go.
        error: Why; names the limit.
    """

    address: DatagramAddress
    error: Exception


@attrs.define
class PeerEvent:
    """What the child machine of one peer of a server has said.

    Attributes:
        address: The peer's.
        event: The child's event.
    """

    address: DatagramAddress
    event: Any


DtlsEvent: TypeAlias = DtlsEstablished | DtlsFailed | DtlsClosed | DtlsRefused
