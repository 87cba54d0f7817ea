"""Version 2: binary (section 2.2)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from ..errors import LimitExceeded, LocalProtocolError
from .crc32c import crc32c
from .errors import BadProxyHeader
from .header import IP_SIZE, MAX_PATH, ProxyEndpoint, ProxyHeader, ProxyTransport, ip_text, packed_ip
from .tlv import Tlv, TlvType, encode_tlvs, parse_tlvs

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""How the header begins."""

HEAD_SIZE = 16
"""Bytes before the addresses: signature, version and command, family and protocol, length."""

_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high half of the byte, the command in the low one
_PORTS = struct.Struct(">HH")
_CHECKSUM = Tlv(TlvType.CRC32C, bytes(4))


def parse_version2(data: memoryview, max_header: int) -> tuple[ProxyHeader, int] | None:
    """Read bytes that begin with `SIGNATURE`; gives the header and its length, or None for an unfinished one.

    Raises:
        BadProxyHeader: It is none.
        LimitExceeded: It has more than `max_header` bytes.
    """
    if len(data) > 12 and data[12] not in (_LOCAL, _PROXY):
        version, command = divmod(data[12], 16)
        if version != 2:
            raise BadProxyHeader(f"its version is {version}; the binary one is 2")
        raise BadProxyHeader(f"its command is {command}; there are 0 (LOCAL) and 1 (PROXY)")
    if len(data) < HEAD_SIZE:
        return None
    size = HEAD_SIZE + int.from_bytes(data[14:16], "big")
    if size > max_header:
        raise LimitExceeded(
            f"it has {size} bytes, and max_header is {max_header}; have the proxy send less, or allow more",
            limit="max_header",
            maximum=max_header,
        )
    if len(data) < size:
        return None
    if data[12] == _LOCAL:
        return ProxyHeader(local=True), size
    return _parse_block(data[:size]), size


def _parse_block(header: memoryview) -> ProxyHeader:
    family, protocol = divmod(header[13], 16)
    if family > 3 or protocol > 2:
        raise BadProxyHeader(
            f"its address family is {family} and its protocol {protocol}; there are 0 to 3, 0 to 2"
        )
    if not family or not protocol:  # what follows may be anything
        return ProxyHeader()
    block = header[HEAD_SIZE:]
    needed = 2 * MAX_PATH if family == 3 else 2 * IP_SIZE[family] + _PORTS.size
    if len(block) < needed:
        name = ProxyTransport(header[13]).name
        raise BadProxyHeader(f"it has {len(block)} bytes of addresses; those of {name} have {needed}")
    tlvs = parse_tlvs(block[needed:])
    _verify(header, HEAD_SIZE + needed, tlvs)
    source, destination = _endpoints(block[:needed], family)
    return ProxyHeader(source, destination, ProxyTransport(header[13]), tlvs=tlvs)


def _endpoints(block: memoryview, family: int) -> tuple[ProxyEndpoint, ProxyEndpoint]:
    if family == 3:
        return _path(block[:MAX_PATH]), _path(block[MAX_PATH:])
    size = IP_SIZE[family]
    kind: type[IPv4Address | IPv6Address] = IPv4Address if family == 1 else IPv6Address
    source, destination = kind(bytes(block[:size])), kind(bytes(block[size : 2 * size]))
    source_port, destination_port = _PORTS.unpack_from(block, 2 * size)
    return (
        ProxyEndpoint(ip_text(source), source_port),
        ProxyEndpoint(ip_text(destination), destination_port),
    )


def _path(field: memoryview) -> ProxyEndpoint:
    """A path ends at its first zero; an abstract name begins with one, and ends where only zeros follow."""
    raw = bytes(field)
    path = raw.rstrip(b"\0") if raw[:1] == b"\0" else raw.partition(b"\0")[0]
    return ProxyEndpoint("", 0, path)


def _verify(header: memoryview, start: int, tlvs: tuple[Tlv, ...]) -> None:
    """Compare the checksum, where there is one, with that of the header with zeros in its place."""
    position, places, expected = start, [], 0
    for tlv in tlvs:
        if tlv.kind == TlvType.CRC32C:
            places.append(position + 3)
            expected = int.from_bytes(tlv.value, "big")
        position += 3 + len(tlv.value)
    if not places:
        return
    if len(places) > 1:
        raise BadProxyHeader(f"it has {len(places)} checksums; there can be one")
    found = _checksum(bytearray(header), places[0])
    if found != expected:
        raise BadProxyHeader(
            f"its CRC32C says {expected:#010x}, but that of what came is {found:#010x}; it was damaged"
        )


def _checksum(header: bytearray, place: int) -> int:
    header[place : place + 4] = bytes(4)
    return crc32c(header)


# -- writing --------------------------------------------------------------------------------------------


def encode_version2(header: ProxyHeader, *, checksum: bool = False) -> bytes:
    """Write a header.

    Args:
        header: What to tell. One of the proxy's own connections, or of an unknown transport, has no TLVs,
            because their place is not known there.
        checksum: Whether to add a CRC32C.

    Raises:
        LocalProtocolError: The addresses do not fit the transport, or there is too much.
    """
    told = not header.local and header.transport is not ProxyTransport.UNKNOWN
    tlvs = tuple(tlv for tlv in header.tlvs if tlv.kind != TlvType.CRC32C)
    if not told and tlvs:
        raise LocalProtocolError("a PROXY header without addresses cannot have TLVs; leave them out")
    block = b""
    if told:
        block = _encode_endpoints(header) + encode_tlvs((*tlvs, _CHECKSUM) if checksum else tlvs)
    if len(block) > 65535:
        raise LocalProtocolError(
            f"addresses and TLVs have {len(block)} bytes; a PROXY header has room for 65535"
        )
    command = _LOCAL if header.local else _PROXY
    family = header.transport.value if told else 0
    encoded = SIGNATURE + bytes((command, family)) + len(block).to_bytes(2, "big") + block
    if checksum and told:  # its four bytes are the last ones
        encoded = encoded[:-4] + crc32c(encoded).to_bytes(4, "big")
    return encoded


def _encode_endpoints(header: ProxyHeader) -> bytes:
    source, destination = header.source, header.destination
    if source is None or destination is None:
        raise LocalProtocolError(
            f"a PROXY header of {header.transport.name} needs a source and a destination"
        )
    if header.transport.family == 3:
        if source.host or destination.host:
            raise LocalProtocolError(f"{source} to {destination}: {header.transport.name} goes between paths")
        return source.path.ljust(MAX_PATH, b"\0") + destination.path.ljust(MAX_PATH, b"\0")
    packed = packed_ip(source, header.transport) + packed_ip(destination, header.transport)
    return packed + _PORTS.pack(source.port, destination.port)
