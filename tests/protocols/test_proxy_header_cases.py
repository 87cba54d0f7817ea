"""PROXY headers of both versions, by the specification: whole, byte by byte, with data behind them."""

from __future__ import annotations

from typing import Any

import pytest

from helianthus.protocols.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from helianthus.protocols.proxy_header import (
    BadProxyHeader,
    ProxyEndpoint,
    ProxyHeader,
    ProxySsl,
    ProxyTransport,
    Tlv,
    TlvType,
    encode_proxy_header,
    parse_proxy_header,
)
from helianthus.protocols.proxy_header.crc32c import crc32c

SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
V4 = bytes([192, 168, 0, 1, 192, 168, 0, 11]) + b"\xdc\x04\x01\xbb"  # the example of 2.1
V6 = bytes.fromhex("20010db800000000000000000000000120010db8000000000000000000000002") + b"\xff\xff\x00\x00"
TEN = ProxyEndpoint("192.168.0.1", 56324)
ELEVEN = ProxyEndpoint("192.168.0.11", 443)
ALL_ONES = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"


def v2(command: int, family: int, block: bytes = b"") -> bytes:
    return SIGNATURE + bytes([command, family]) + len(block).to_bytes(2, "big") + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def text(source: ProxyEndpoint, destination: ProxyEndpoint, transport: ProxyTransport) -> ProxyHeader:
    return ProxyHeader(source, destination, transport, version=1)


GOOD: dict[str, tuple[bytes, ProxyHeader]] = {
    "the example": (
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        text(TEN, ELEVEN, ProxyTransport.TCP4),
    ),
    "the longest of IPv4": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        text(*[ProxyEndpoint("255.255.255.255", 65535)] * 2, ProxyTransport.TCP4),
    ),
    "the longest of IPv6": (
        f"PROXY TCP6 {ALL_ONES} {ALL_ONES} 65535 65535\r\n".encode(),
        text(*[ProxyEndpoint(ALL_ONES, 65535)] * 2, ProxyTransport.TCP6),
    ),
    "short IPv6, in capitals": (
        b"PROXY TCP6 ::1 2001:DB8::A 0 1\r\n",
        text(ProxyEndpoint("::1", 0), ProxyEndpoint("2001:db8::a", 1), ProxyTransport.TCP6),
    ),
    "IPv4 within IPv6": (
        b"PROXY TCP6 ::ffff:10.0.0.1 ::ffff:a00:2 1 2\r\n",
        text(ProxyEndpoint("::ffff:10.0.0.1", 1), ProxyEndpoint("::ffff:10.0.0.2", 2), ProxyTransport.TCP6),
    ),
    "unknown": (b"PROXY UNKNOWN\r\n", ProxyHeader(version=1)),
    "unknown, with what is ignored": (b"PROXY UNKNOWN any\nthing\xff \r at all\r\n", ProxyHeader(version=1)),
    "unknown, the longest": (
        f"PROXY UNKNOWN {ALL_ONES} {ALL_ONES} 65535 65535\r\n".encode(),
        ProxyHeader(version=1),
    ),
    "binary TCP over IPv4": (v2(0x21, 0x11, V4), ProxyHeader(TEN, ELEVEN, ProxyTransport.TCP4)),
    "binary UDP over IPv4": (v2(0x21, 0x12, V4), ProxyHeader(TEN, ELEVEN, ProxyTransport.UDP4)),
    "binary TCP over IPv6": (
        v2(0x21, 0x21, V6),
        ProxyHeader(
            ProxyEndpoint("2001:db8::1", 65535), ProxyEndpoint("2001:db8::2", 0), ProxyTransport.TCP6
        ),
    ),
    "binary UDP over IPv6": (
        v2(0x21, 0x22, V6),
        ProxyHeader(
            ProxyEndpoint("2001:db8::1", 65535), ProxyEndpoint("2001:db8::2", 0), ProxyTransport.UDP6
        ),
    ),
    "binary, paths": (
        v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")),
        ProxyHeader(
            ProxyEndpoint("", 0, b"/run/a"), ProxyEndpoint("", 0, b"\0abstract"), ProxyTransport.UNIX_STREAM
        ),
    ),
    "binary, a path that fills its place, and none": (
        v2(0x21, 0x32, b"/" * 108 + bytes(108)),
        ProxyHeader(ProxyEndpoint("", 0, b"/" * 108), ProxyEndpoint(""), ProxyTransport.UNIX_DATAGRAM),
    ),
    "binary, a path with rubbish behind its zero": (
        v2(0x21, 0x31, b"/a\0rubbish".ljust(108, b"x") + bytes(108)),
        ProxyHeader(ProxyEndpoint("", 0, b"/a"), ProxyEndpoint(""), ProxyTransport.UNIX_STREAM),
    ),
    "local": (v2(0x20, 0x00), ProxyHeader(local=True)),
    "local, with addresses that are discarded": (v2(0x20, 0x11, V4), ProxyHeader(local=True)),
    "local, the family is ignored": (v2(0x20, 0xFF, b"anything"), ProxyHeader(local=True)),
    "unspecified": (v2(0x21, 0x00), ProxyHeader()),
    "unspecified, with what is ignored": (v2(0x21, 0x00, b"anything"), ProxyHeader()),
    "unspecified protocol": (v2(0x21, 0x10, V4), ProxyHeader()),
    "unspecified family": (v2(0x21, 0x01, b"\1"), ProxyHeader()),
    "TLVs": (
        v2(
            0x21,
            0x11,
            V4
            + tlv(0x01, b"h2")
            + tlv(0x02, b"example.com")
            + tlv(0x04, b"")
            + tlv(0x05, b"u" * 128)
            + tlv(0x30, b"blue")
            + tlv(0xE0, b"our own"),
        ),
        ProxyHeader(
            TEN,
            ELEVEN,
            ProxyTransport.TCP4,
            tlvs=(
                Tlv(TlvType.ALPN, b"h2"),
                Tlv(TlvType.AUTHORITY, b"example.com"),
                Tlv(TlvType.NOOP, b""),
                Tlv(TlvType.UNIQUE_ID, b"u" * 128),
                Tlv(TlvType.NETNS, b"blue"),
                Tlv(0xE0, b"our own"),
            ),
        ),
    ),
}

BAD: dict[str, tuple[bytes, str]] = {
    "HTTP": (
        b"GET / HTTP/1.1\r\n",
        r"began with b'GET / HTTP/1.1\\r\\n', which is none; have the proxy send one",
    ),
    "TLS": (b"\x16\x03\x01\x02\x00", "which is TLS, which comes after the header"),
    "MessagePack-RPC": (b"\x94\x00\x01\xa3add\x92\x01\x02", "send-proxy or send-proxy-v2"),
    "a zero": (b"\0", "which is none"),
    "small letters": (b"proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n", "which is none"),
    "a tab": (b"PROXY\tTCP4 1.1.1.1 1.1.1.1 1 1\r\n", "which is none"),
    "another signature": (SIGNATURE[:11] + b"\r", "which is none"),
    "two spaces": (b"PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n", "names ''"),
    "two spaces further on": (b"PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n", "has 7 words; there must be 6"),
    "a space at the end": (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n", "has 7 words"),
    "no ports": (b"PROXY TCP4 1.1.1.1 1.1.1.1\r\n", "has 4 words"),
    "nothing": (b"PROXY \r\n", "names ''; there are TCP4, TCP6 and UNKNOWN"),
    "UDP": (b"PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n", "names 'UDP4'"),
    "nearly unknown": (b"PROXY UNKNOWNS\r\n", "names 'UNKNOWNS'"),
    "IPv6 in TCP4": (b"PROXY TCP4 ::1 ::1 1 1\r\n", "has '::1' where an address of TCP4 belongs"),
    "IPv4 in TCP6": (b"PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n", "has '1.1.1.1' where an address of TCP6 belongs"),
    "a name": (b"PROXY TCP4 localhost 1.1.1.1 1 1\r\n", "has 'localhost' where"),
    "three numbers": (b"PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n", r"has '1\.1\.1' where"),
    "a number too large": (b"PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n", "256' where"),
    "a leading zero": (b"PROXY TCP4 1.1.1.01 1.1.1.1 1 1\r\n", "01' where"),
    "a zone": (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", "eth0' where"),
    "two double colons": (b"PROXY TCP6 1::2::3 ::1 1 1\r\n", "where"),
    "a port with a leading zero": (b"PROXY TCP4 1.1.1.1 1.1.1.1 080 1\r\n", "'080' where a port belongs"),
    "a port too large": (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n", "'65536' where a port belongs"),
    "a port with a sign": (b"PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n", r"'\+1' where a port belongs"),
    "no port": (b"PROXY TCP4 1.1.1.1 1.1.1.1  1\r\n", "'' where a port belongs"),
    "a port in hexadecimal": (b"PROXY TCP4 1.1.1.1 1.1.1.1 0x1 1\r\n", "'0x1' where"),
    "no ASCII": ("PROXY TCP4 1.1.1.1 1.1.1.1 1 \u0661\r\n".encode(), "no ASCII"),
    "a single LF": (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n", "ends with a single CR or LF"),
    "a single CR": (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\rx", "ends with a single CR or LF"),
    "CR before CRLF": (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\r\n", "ends with a single CR or LF"),
    "no end": (b"PROXY TCP4 " + b"1" * 96, "does not end within 107 bytes"),
    "unknown without an end": (b"PROXY UNKNOWN".ljust(107, b" "), "does not end within 107 bytes"),
    "an end that comes a byte too late": (b"PROXY UNKNOWN".ljust(106, b" ") + b"\r\n", "within 107 bytes"),
    "version 1 in binary": (v2(0x11, 0x11, V4), "its version is 1; the binary one is 2"),
    "version 3": (v2(0x31, 0x11, V4), "its version is 3"),
    "another command": (v2(0x22, 0x11, V4), "its command is 2; there are 0"),
    "another family": (v2(0x21, 0x41, V4), "its address family is 4 and its protocol 1"),
    "another protocol": (v2(0x21, 0x13, V4), "its address family is 1 and its protocol 3"),
    "too few bytes for IPv4": (v2(0x21, 0x11, V4[:-1]), "has 11 bytes of addresses; those of TCP4 have 12"),
    "too few bytes for IPv6": (v2(0x21, 0x22, V6[:-1]), "has 35 bytes of addresses; those of UDP6 have 36"),
    "too few bytes for paths": (v2(0x21, 0x31, bytes(215)), "those of UNIX_STREAM have 216"),
    "a TLV without its length": (v2(0x21, 0x11, V4 + b"\x01\x00"), "cut off within its type and length"),
    "a TLV cut off": (v2(0x21, 0x11, V4 + b"\x01\x00\x05h2"), "0x01 has 5 bytes, of which 2 are there"),
    "a long UNIQUE_ID": (
        v2(0x21, 0x11, V4 + tlv(5, bytes(129))),
        "UNIQUE_ID has 129 bytes, and may have 128",
    ),
    "a short CRC32C": (v2(0x21, 0x11, V4 + tlv(3, bytes(3))), "CRC32C has 3 bytes instead of 4"),
    "a wrong CRC32C": (v2(0x21, 0x11, V4 + tlv(3, bytes(4))), "its CRC32C says 0x00000000, but"),
    "two CRC32C": (v2(0x21, 0x11, V4 + 2 * tlv(3, bytes(4))), "has 2 checksums"),
    "a short SSL": (v2(0x21, 0x11, V4 + tlv(0x20, bytes(4))), "SSL has 4 bytes, and needs 5"),
    "an SSL with a TLV cut off": (
        v2(0x21, 0x11, V4 + tlv(0x20, bytes(5) + b"\x22\x00\x09x")),
        "0x22 has 9 bytes, of which 1 are there",
    ),
}


@pytest.mark.parametrize(("wire", "header"), GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("behind", [b"", b"\x94\x00", b"PROXY TCP4 "])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_it_is_read(wire: bytes, header: ProxyHeader, behind: bytes, kind: Any) -> None:
    assert parse_proxy_header(kind(wire + behind)) == (header, len(wire))


@pytest.mark.parametrize("wire", [wire for wire, _ in GOOD.values()], ids=GOOD)
def test_it_is_waited_for(wire: bytes) -> None:
    for end in range(len(wire)):
        assert parse_proxy_header(wire[:end]) is None


@pytest.mark.parametrize(("wire", "complaint"), BAD.values(), ids=BAD)
def test_it_is_refused(wire: bytes, complaint: str) -> None:
    """As soon as it can be known, and the same however it comes."""
    with pytest.raises(BadProxyHeader, match=complaint):
        parse_proxy_header(wire + b"behind")
    for end in range(len(wire) + 1):
        try:
            found = parse_proxy_header(wire[:end])
        except BadProxyHeader:
            return
        assert found is None
    pytest.fail("it was never refused")


@pytest.mark.parametrize(
    "wire",
    [wire for name, (wire, _) in GOOD.items() if "ignored" not in name and "discarded" not in name],
    ids=[name for name in GOOD if "ignored" not in name and "discarded" not in name],
)
def test_it_is_written(wire: bytes) -> None:
    """What was read is written so that it is read as the same."""
    found = parse_proxy_header(wire)
    assert found is not None
    written = encode_proxy_header(found[0])
    assert parse_proxy_header(written) == (found[0], len(written))


def test_the_bytes_of_the_specification_are_written() -> None:
    for name in ("the example", "the longest of IPv4", "the longest of IPv6", "unknown", "TLVs", "local"):
        wire, header = GOOD[name]
        assert encode_proxy_header(header) == wire, name
    between = ProxyHeader.between(("192.168.0.1", 56324), ("192.168.0.11", 443), version=1)
    assert between == GOOD["the example"][1]
    assert (
        ProxyHeader.between(("2001:DB8::1", 65535), ("2001:db8:0::2", 0)) == GOOD["binary TCP over IPv6"][1]
    )


# -- limits and checksums --------------------------------------------------------------------------------


def test_a_long_header_is_refused_before_it_has_come() -> None:
    with pytest.raises(LimitExceeded, match="it has 65551 bytes, and max_header is 4096") as caught:
        parse_proxy_header(SIGNATURE + b"\x21\x11\xff\xff")
    assert (caught.value.limit, caught.value.maximum) == ("max_header", 4096)
    wire = v2(0x21, 0x11, V4 + tlv(0x04, bytes(65535 - 15)))
    assert parse_proxy_header(wire, len(wire)) is not None
    with pytest.raises(LimitExceeded):
        parse_proxy_header(wire, len(wire) - 1)


def test_the_checksum_is_that_of_the_specification() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of every catalogue of CRCs
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_a_checksum_is_compared_wherever_it_stands() -> None:
    header = ProxyHeader.between(("10.0.0.1", 1), ("10.0.0.2", 2), tlvs=(Tlv(TlvType.NETNS, b"blue"),))
    wire = encode_proxy_header(header, checksum=True)
    found = parse_proxy_header(wire)
    assert found is not None
    assert found[0].netns == "blue"
    before = bytearray(v2(0x21, 0x11, V4 + tlv(3, bytes(4)) + tlv(0x30, b"blue")))
    place = len(SIGNATURE) + 4 + len(V4) + 3
    before[place : place + 4] = crc32c(before).to_bytes(4, "big")
    assert parse_proxy_header(before) is not None
    positions = set(range(16, len(wire))) - {len(wire) - 7}  # whose byte says that a checksum follows
    for position in positions:
        damaged = bytearray(wire)
        damaged[position] ^= 0x10
        with pytest.raises(RemoteProtocolError):
            parse_proxy_header(bytes(damaged))
    again = encode_proxy_header(found[0], checksum=True)
    assert again == wire, "the checksum that was read is not written twice"


# -- what it says -----------------------------------------------------------------------------------------


def test_what_a_proxy_tells() -> None:
    ssl = ProxySsl(
        ProxySsl.TLS | ProxySsl.CERTIFICATE,
        0,
        (
            Tlv(TlvType.SSL_VERSION, b"TLSv1.3"),
            Tlv(TlvType.SSL_CN, "Jürgen".encode()),
            Tlv(TlvType.SSL_CIPHER, b"TLS_AES_256_GCM_SHA384"),
            Tlv(TlvType.SSL_SIG_ALG, b"RSA-SHA256"),
            Tlv(TlvType.SSL_KEY_ALG, b"RSA2048"),
        ),
    )
    sent = ProxyHeader.between(
        ("10.0.0.1", 1),
        ("10.0.0.2", 2),
        tlvs=(
            Tlv(TlvType.ALPN, b"helianthus/1"),
            Tlv(TlvType.AUTHORITY, b"node.example"),
            Tlv(TlvType.UNIQUE_ID, b"\x01\x02"),
            ssl.encode(),
            Tlv(TlvType.NETNS, b"blue"),
        ),
    )
    found = parse_proxy_header(encode_proxy_header(sent))
    assert found is not None
    header = found[0]
    assert header == sent
    assert (header.alpn, header.authority, header.unique_id) == (b"helianthus/1", "node.example", b"\x01\x02")
    assert header.netns == "blue"
    assert header.ssl == ssl
    assert header.ssl.common_name == "Jürgen"
    assert header.ssl.version == "TLSv1.3"
    assert header.ssl.cipher == "TLS_AES_256_GCM_SHA384"
    assert (header.ssl.signature_algorithm, header.ssl.key_algorithm) == ("RSA-SHA256", "RSA2048")
    assert header.ssl.verified
    assert not ProxySsl(ProxySsl.TLS).verified, "there was no certificate"
    assert not ProxySsl(ProxySsl.TLS | ProxySsl.CERTIFICATE, 1).verified
    nothing = ProxyHeader()
    assert (nothing.alpn, nothing.authority, nothing.unique_id, nothing.netns, nothing.ssl) == (None,) * 5
    assert ProxySsl(0).common_name is None


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (ProxyEndpoint("10.0.0.1", 80), "10.0.0.1:80"),
        (ProxyEndpoint("2001:db8::1", 80), "[2001:db8::1]:80"),
        (ProxyEndpoint("", 0, b"/run/a b.sock"), "unix:///run/a%20b.sock"),
        (ProxyEndpoint("", 0, b"\0name"), "unix:///@name"),
        (ProxyEndpoint("", 0, b"pid=1,uid=0,gid=0"), "unix://pid%3D1%2Cuid%3D0%2Cgid%3D0"),
        (ProxyEndpoint(""), "unix://"),
    ],
)
def test_an_endpoint_is_written_as_addresses_are(end: ProxyEndpoint, text: str) -> None:
    """And nobody can pass a path off as the credentials that the kernel vouches for."""
    assert str(end) == text


# -- a caller's mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (ProxyHeader(TEN, ELEVEN, ProxyTransport.UDP4, version=1), "TCP connections only, not of UDP4"),
        (ProxyHeader(TEN, None, ProxyTransport.TCP4, version=1), "TCP connections only"),
        (ProxyHeader(TEN, ELEVEN, ProxyTransport.TCP6, version=1), "192.168.0.1:56324 is no address of TCP6"),
        (
            ProxyHeader(ProxyEndpoint("a\r\nb", 1), ELEVEN, ProxyTransport.TCP4, version=1),
            "is no address of TCP4",
        ),
        (ProxyHeader(version=1, tlvs=(Tlv(1, b""),)), "version 1 has no TLVs"),
        (ProxyHeader(tlvs=(Tlv(1, b""),)), "without addresses cannot have TLVs"),
        (ProxyHeader(local=True, tlvs=(Tlv(1, b""),)), "without addresses cannot have TLVs"),
        (ProxyHeader(TEN, None, ProxyTransport.TCP4), "needs a source and a destination"),
        (ProxyHeader(TEN, ELEVEN, ProxyTransport.TCP6), "is no address of TCP6"),
        (ProxyHeader(TEN, ELEVEN, ProxyTransport.UNIX_STREAM), "goes between paths"),
        (ProxyHeader(ProxyEndpoint(""), ProxyEndpoint(""), ProxyTransport.TCP4), "is no address of TCP4"),
        (
            ProxyHeader(TEN, ELEVEN, ProxyTransport.TCP4, tlvs=(Tlv(4, bytes(65535)),)),
            "has room for 65535",
        ),
    ],
)
def test_what_cannot_be_written(header: ProxyHeader, complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        encode_proxy_header(header)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="port is 65536"):
        ProxyEndpoint("10.0.0.1", 65536)
    with pytest.raises(ValueError, match="not both"):
        ProxyEndpoint("10.0.0.1", 1, b"/a")
    with pytest.raises(ValueError, match="has room for 108"):
        ProxyEndpoint("", 0, bytes(109))
    with pytest.raises(ValueError, match="from 0 to 255"):
        Tlv(256, b"")
    with pytest.raises(ValueError, match="it can have 65535"):
        Tlv(1, bytes(65536))
    with pytest.raises(ValueError, match="of two families"):
        ProxyHeader.between(("10.0.0.1", 1), ("::1", 1))
    with pytest.raises(ValueError, match="does not appear"):
        ProxyHeader.between(("localhost", 1), ("::1", 1))
