"""What lies between the machines of a listener and its transport, from the inside out.

Each layer owns the one inside of it. TLS lies around the machine. A PROXY header comes before everything
else on the wire, and its layer is therefore the outermost one.
"""

from __future__ import annotations

from typing import Any

import attrs

from ..protocols.machine import StreamMachine
from .proxy_trust import ProxyTrust
from .tls.layers import ServerSecurity


@attrs.frozen
class ListenerLayers:
    """The layers of one listener's connections.

    Attributes:
        security: TLS, or None.
        proxy: Whose PROXY headers are believed; None where there are none.
    """

    security: ServerSecurity | None = None
    proxy: ProxyTrust | None = None

    @property
    def any(self) -> bool:
        """Whether there is one: a connection that was accepted cannot be used at once then."""
        return self.security is not None or self.proxy is not None

    def around(self, inner: StreamMachine[Any], now: float, peer_address: str) -> StreamMachine[Any]:
        """The outermost machine of a connection that was accepted."""
        machine = inner if self.security is None else self.security.around(inner, now)
        return machine if self.proxy is None else self.proxy.around(machine, now, peer_address)
