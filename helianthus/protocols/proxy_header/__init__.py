"""The PROXY protocol: who connects, as a proxy in front tells it. Versions 1 and 2.

After haproxy's "The PROXY protocol, Versions 1 & 2" (proxy-protocol.txt), whose sections are cited.
"""

from .errors import BadProxyHeader
from .header import ProxyEndpoint, ProxyHeader, ProxyTransport
from .layer import (
    HEADER_TIMEOUT,
    PROXY_HEADER_TRANSITIONS,
    ProxyHeaderInput,
    ProxyHeaderLayer,
    ProxyHeaderReceived,
    ProxyHeaderState,
)
from .parsing import DEFAULT_MAX_HEADER, encode_proxy_header, parse_proxy_header
from .tlv import ProxySsl, Tlv, TlvType

__all__ = [
    "DEFAULT_MAX_HEADER",
    "HEADER_TIMEOUT",
    "PROXY_HEADER_TRANSITIONS",
    "BadProxyHeader",
    "ProxyEndpoint",
    "ProxyHeader",
    "ProxyHeaderInput",
    "ProxyHeaderLayer",
    "ProxyHeaderReceived",
    "ProxyHeaderState",
    "ProxySsl",
    "ProxyTransport",
    "Tlv",
    "TlvType",
    "encode_proxy_header",
    "parse_proxy_header",
]
