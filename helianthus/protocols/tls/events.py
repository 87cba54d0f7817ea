"""What a TLS layer tells besides what its child tells."""

from __future__ import annotations

import enum
from typing import Any, TypeAlias

import attrs

from ..machine import ConnectionFailed
from .certificate import Certificate


@attrs.define
class TlsEstablished:
    """The handshake is over: what is sent from now on is encrypted. Comes before all that was received.

    Attributes:
        version: Such as "TLSv1.3".
        cipher: OpenSSL's name of the cipher suite.
        alpn: The protocol that was agreed upon, or None.
        server_name: The host that the client has told the server it wants to reach, or None.
        certificate: The peer's; None where it has shown none.
        verified: Whether somebody whom this side trusts has signed it, and for a client, whether it is for
            the host that was asked for.
        resumed: Whether an earlier session was resumed.
    """

    version: str
    cipher: str
    alpn: str | None
    server_name: str | None
    certificate: Certificate | None
    verified: bool
    resumed: bool


@attrs.define
class TlsSessionReceived:
    """The server lets the client resume.

    Attributes:
        session: An `ssl.SSLSession`, for later connections that are made with the same context.
    """

    session: Any


TlsEvent: TypeAlias = TlsEstablished | TlsSessionReceived | ConnectionFailed


class TlsState(enum.Enum):
    """Where a layer is in its life."""

    HANDSHAKING = "handshaking"
    """Nothing of the child's is sent yet."""
    OPEN = "open"
    """Data goes both ways; either way may have been closed by this side."""
    PEER_CLOSED = "peer closed"
    """The peer sends no more; this side may."""
    ENDED = "ended"
    """The child has heard the end; input is ignored."""


class TlsInput(enum.Enum):
    """What moves a layer from one state to another."""

    ESTABLISHED = "handshake done"
    CLOSE_NOTIFY = "the peer's close_notify"
    FAULT = "the peer's fault, or its end without close_notify"
    LOSS = "connection lost"


TLS_TRANSITIONS: dict[tuple[TlsState, TlsInput], TlsState] = {
    (TlsState.HANDSHAKING, TlsInput.ESTABLISHED): TlsState.OPEN,
    (TlsState.HANDSHAKING, TlsInput.FAULT): TlsState.ENDED,
    (TlsState.HANDSHAKING, TlsInput.LOSS): TlsState.ENDED,
    (TlsState.OPEN, TlsInput.CLOSE_NOTIFY): TlsState.PEER_CLOSED,
    (TlsState.OPEN, TlsInput.FAULT): TlsState.ENDED,
    (TlsState.OPEN, TlsInput.LOSS): TlsState.ENDED,
    (TlsState.PEER_CLOSED, TlsInput.LOSS): TlsState.ENDED,
}
"""Every move there is. An input without an entry for a state changes nothing in it."""
