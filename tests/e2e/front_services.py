"""What a node behind a proxy knows of its clients."""

from __future__ import annotations

from typing import Any

from helianthus import CallContext, Service, method


class Front(Service):
    """Tells who calls, and what the proxy has told."""

    name = "front"

    @method
    def who(self, context: CallContext) -> str:
        return context.peer.address

    @method
    def told(self, context: CallContext) -> dict[str, Any] | None:
        header = context.peer.proxy_header
        if header is None:
            return None
        ssl = header.ssl
        return {
            "version": header.version,
            "source": str(header.source),
            "destination": str(header.destination),
            "authority": header.authority,
            "alpn": header.alpn,
            "kinds": [tlv.kind for tlv in header.tlvs],
            "ssl": ssl and [ssl.version, ssl.cipher, ssl.common_name, ssl.verified, ssl.key_algorithm],
        }
