"""Version 1: a line of text (section 2.1)."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

from ..errors import LocalProtocolError
from .errors import BadProxyHeader
from .header import ProxyEndpoint, ProxyHeader, ProxyTransport, ip_text, packed_ip

PREFIX = b"PROXY "
"""How the line begins. The specification recognises it by `PROXY` and demands one space behind it."""

MAX_LINE = 107
"""Bytes of the line with its CRLF: two full IPv6 addresses, two ports of five digits, UNKNOWN."""

_FAMILIES = {"TCP4": ProxyTransport.TCP4, "TCP6": ProxyTransport.TCP6}
_UNKNOWN = b"PROXY UNKNOWN"
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")


def parse_version1(data: bytes) -> tuple[ProxyHeader, int] | None:
    """Read a line that begins with `PREFIX`; gives the header and its length, or None for an unfinished one.

    Raises:
        BadProxyHeader: It is none.
    """
    end = data.find(b"\r\n", 0, MAX_LINE)
    line = data[: end if end >= 0 else MAX_LINE]
    if not line.startswith(_UNKNOWN) and (
        b"\n" in line or b"\r" in line[:-1] or (end >= 0 and b"\r" in line)
    ):
        raise BadProxyHeader(f"its line {_shown(line)} ends with a single CR or LF; CRLF is expected")
    if end < 0:
        if len(data) >= MAX_LINE:
            raise BadProxyHeader(f"its line {_shown(line)} does not end within {MAX_LINE} bytes")
        return None
    return _parse_line(line), end + 2


def encode_version1(header: ProxyHeader) -> bytes:
    """Write a header as a line; one of the proxy's own connections, or of no TCP, says UNKNOWN.

    Raises:
        LocalProtocolError: There is more to be told than a line can.
    """
    if header.tlvs:
        raise LocalProtocolError("a PROXY header of version 1 has no TLVs; leave them out, or use version 2")
    if header.local or header.transport is ProxyTransport.UNKNOWN:
        return _UNKNOWN + b"\r\n"
    source, destination = header.source, header.destination
    if header.transport not in _FAMILIES.values() or source is None or destination is None:
        raise LocalProtocolError(
            f"a PROXY header of version 1 tells of TCP connections only, not of {header.transport.name}; "
            "use version 2"
        )
    for end in (source, destination):
        packed_ip(end, header.transport)  # or it is none
    name = header.transport.name
    return f"PROXY {name} {source.host} {destination.host} {source.port} {destination.port}\r\n".encode(
        "ascii"
    )


def _parse_line(line: bytes) -> ProxyHeader:
    if line == _UNKNOWN or line.startswith(_UNKNOWN + b" "):
        return ProxyHeader(version=1)
    try:
        words = line.decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise BadProxyHeader(f"its line {_shown(line)} is no ASCII") from None
    transport = _FAMILIES.get(words[1])
    if transport is None:
        raise BadProxyHeader(f"its line {_shown(line)} names {words[1]!r}; there are TCP4, TCP6 and UNKNOWN")
    if len(words) != 6:
        raise BadProxyHeader(
            f"its line {_shown(line)} has {len(words)} words; there must be 6, with one space between them"
        )
    _, _, source, destination, source_port, destination_port = words
    return ProxyHeader(
        ProxyEndpoint(_host(source, transport, line), _port(source_port, line)),
        ProxyEndpoint(_host(destination, transport, line), _port(destination_port, line)),
        transport,
        version=1,
    )


def _host(text: str, transport: ProxyTransport, line: bytes) -> str:
    kind: type[IPv4Address | IPv6Address] = IPv4Address if transport is ProxyTransport.TCP4 else IPv6Address
    try:
        if "%" in text:  # a zone means something to one machine only
            raise ValueError
        return ip_text(kind(text))
    except ValueError:
        raise BadProxyHeader(
            f"its line {_shown(line)} has {text!r} where an address of {transport.name} belongs"
        ) from None


def _port(text: str, line: bytes) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise BadProxyHeader(
            f"its line {_shown(line)} has {text!r} where a port belongs, 0 to 65535 without leading zeros"
        )
    return int(text)


def _shown(line: bytes) -> str:
    return repr(line)[1:]
