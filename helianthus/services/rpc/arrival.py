"""What has to come before it is known who a peer is: the end of a TLS handshake, the header of a proxy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...protocols.proxy_header import ProxyHeader, ProxyHeaderReceived
from ...protocols.tls import TlsEstablished, TlsSessionReceived


class Arrival:
    """What the layers around a peer's session are to tell of it, and what they have told.

    Attributes:
        awaits_tls: Whether the connection is to be encrypted, and is not yet.
        awaits_proxy_header: Whether a proxy in front is to say for whom it connects, and has not yet.
        tls: What is known of the encryption, once there is one.
        proxy_header: What a proxy has told.
        keep_session: Told of what can be resumed later.
    """

    __slots__ = ("awaits_proxy_header", "awaits_tls", "keep_session", "proxy_header", "tls")

    def __init__(self) -> None:
        self.awaits_tls = False
        self.awaits_proxy_header = False
        self.tls: TlsEstablished | None = None
        self.proxy_header: ProxyHeader | None = None
        self.keep_session: Callable[[Any], None] | None = None

    @property
    def complete(self) -> bool:
        """Whether all has come that a layer has to tell."""
        return not (self.awaits_tls or self.awaits_proxy_header)

    def on_tls_established(self, event: TlsEstablished) -> None:
        """The handshake is over."""
        self.tls = event
        self.awaits_tls = False

    def on_tls_session(self, event: TlsSessionReceived) -> None:
        """The server has sent what the next connection may begin with."""
        if self.keep_session is not None:
            self.keep_session(event.session)

    def on_proxy_header(self, event: ProxyHeaderReceived) -> None:
        """A proxy has said for whom it connects."""
        self.proxy_header = event.header
        self.awaits_proxy_header = False
