"""What a PROXY header says: between whom a connection is that a proxy passes on."""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote

import attrs

from ..errors import LocalProtocolError
from .tlv import ProxySsl, Tlv, TlvType

IP_SIZE = {1: 4, 2: 16}
"""Bytes of an address, by family."""

MAX_PATH = 108
"""Bytes of a Unix-domain socket's path in version 2; what is shorter is filled up with zeros."""


class ProxyTransport(enum.Enum):
    """What the connection goes over; the value is the byte of version 2: address family and protocol."""

    UNKNOWN = 0x00
    TCP4 = 0x11
    UDP4 = 0x12
    TCP6 = 0x21
    UDP6 = 0x22
    UNIX_STREAM = 0x31
    UNIX_DATAGRAM = 0x32

    @property
    def family(self) -> int:
        """0 for none, 1 for IPv4, 2 for IPv6, 3 for paths."""
        return self.value >> 4


@attrs.frozen
class ProxyEndpoint:
    """One end of the connection: an IP address and a port, or a path.

    Attributes:
        host: An IP address, as short as it can be written; empty for a path.
        port: 0 to 65535.
        path: Of a Unix-domain socket, maybe empty; an abstract one begins with a zero byte.
    """

    host: str
    port: int = attrs.field(default=0)
    path: bytes = attrs.field(default=b"")

    @port.validator
    def _fits(self, _: object, value: int) -> None:
        if not 0 <= value <= 65535:
            raise ValueError(f"port is {value}; it must be from 0 to 65535")

    @path.validator
    def _is_either(self, _: object, value: bytes) -> None:
        if value and self.host:
            raise ValueError(f"{self.host} and {value!r}: an endpoint is an IP address or a path, not both")
        if len(value) > MAX_PATH:
            raise ValueError(f"the path has {len(value)} bytes; a PROXY header has room for {MAX_PATH}")

    @property
    def ip(self) -> IPv4Address | IPv6Address:
        """The IP address.

        Raises:
            ValueError: It has none.
        """
        return ip_address(self.host)

    def __str__(self) -> str:
        if not self.host:
            path = b"/@" + self.path[1:] if self.path.startswith(b"\0") else self.path
            return f"unix://{quote(path, safe='/@')}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def packed_ip(end: ProxyEndpoint, transport: ProxyTransport) -> bytes:
    """The bytes of an IP address of a transport's family.

    Raises:
        LocalProtocolError: It is none.
    """
    try:
        packed = end.ip.packed
    except ValueError:
        packed = b""
    if len(packed) != IP_SIZE[transport.family]:
        raise LocalProtocolError(f"{end} is no address of {transport.name}")
    return packed


def ip_text(address: IPv4Address | IPv6Address) -> str:
    """Write an IP address as short as it can be, and one of IPv4 within IPv6 with dots (RFC 5952)."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return f"::ffff:{mapped}" if mapped is not None else address.compressed


@attrs.frozen
class ProxyHeader:
    """A PROXY header, read or to be sent.

    Attributes:
        source: Who has connected to the proxy; None where the header says nothing of it.
        destination: Where they have connected to; likewise.
        transport: What that goes over.
        version: 1 for a line of text, 2 for binary.
        local: The connection is the proxy's own, such as a health check (LOCAL in version 2): it is
            between the proxy and us.
        tlvs: What version 2 tells besides, in the order in which it came.
    """

    source: ProxyEndpoint | None = None
    destination: ProxyEndpoint | None = None
    transport: ProxyTransport = ProxyTransport.UNKNOWN
    version: int = 2
    local: bool = False
    tlvs: tuple[Tlv, ...] = ()

    @classmethod
    def between(
        cls,
        source: tuple[str, int],
        destination: tuple[str, int],
        *,
        version: int = 2,
        tlvs: tuple[Tlv, ...] = (),
    ) -> ProxyHeader:
        """A header of a TCP connection between two IP addresses, each with its port.

        Raises:
            ValueError: One is no IP address, or they are of two families.
        """
        ends = [ip_address(host) for host, _ in (source, destination)]
        if ends[0].version != ends[1].version:
            raise ValueError(f"{ends[0]} and {ends[1]} are of two families; a PROXY header has one")
        return cls(
            ProxyEndpoint(ip_text(ends[0]), source[1]),
            ProxyEndpoint(ip_text(ends[1]), destination[1]),
            ProxyTransport.TCP4 if ends[0].version == 4 else ProxyTransport.TCP6,
            version=version,
            tlvs=tlvs,
        )

    @property
    def alpn(self) -> bytes | None:
        """The protocol that the client negotiated in its TLS with the proxy."""
        return self._value(TlvType.ALPN)

    @property
    def authority(self) -> str | None:
        """The host name that the client asked for, as TLS's SNI."""
        return self._text(TlvType.AUTHORITY)

    @property
    def unique_id(self) -> bytes | None:
        """What the proxy calls the connection."""
        return self._value(TlvType.UNIQUE_ID)

    @property
    def netns(self) -> str | None:
        """The network namespace that the connection came through."""
        return self._text(TlvType.NETNS)

    @property
    def ssl(self) -> ProxySsl | None:
        """What the proxy tells of the client's TLS."""
        value = self._value(TlvType.SSL)
        return None if value is None else ProxySsl.parse(value)

    def _value(self, kind: int) -> bytes | None:
        return next((tlv.value for tlv in self.tlvs if tlv.kind == kind), None)

    def _text(self, kind: int) -> str | None:
        value = self._value(kind)
        return None if value is None else value.decode("utf-8", "backslashreplace")
