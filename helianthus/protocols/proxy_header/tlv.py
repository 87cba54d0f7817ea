"""What a header of version 2 tells besides addresses: types, lengths and values."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import ClassVar

import attrs

from ..machine import Buffer
from .errors import BadProxyHeader

_HEAD = struct.Struct(">BH")
_SSL_HEAD = struct.Struct(">BI")

MAX_UNIQUE_ID = 128
"""Bytes of a UNIQUE_ID (2.2.5)."""


class TlvType(enum.IntEnum):
    """Types that the specification gives a meaning (2.2); others are kept as they are."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    SSL_SIG_ALG = 0x24
    SSL_KEY_ALG = 0x25
    NETNS = 0x30


@attrs.frozen
class Tlv:
    """One of them.

    Attributes:
        kind: 0 to 255; see `TlvType`.
        value: At most 65535 bytes.
    """

    kind: int = attrs.field()
    value: bytes = attrs.field()

    @kind.validator
    def _is_byte(self, _: object, value: int) -> None:
        if not 0 <= value <= 255:
            raise ValueError(f"the type of a TLV is {value}; it must be from 0 to 255")

    @value.validator
    def _fits(self, _: object, value: bytes) -> None:
        if len(value) > 65535:
            raise ValueError(f"the value of a TLV has {len(value)} bytes; it can have 65535")


@attrs.frozen
class ProxySsl:
    """What a proxy tells of the client's TLS (2.2.6).

    Attributes:
        flags: `TLS`, `CERTIFICATE` and `CERTIFICATE_OF_SESSION`, added up.
        verify: 0 where the client presented a certificate and it was found good.
        tlvs: The rest.
    """

    TLS: ClassVar[int] = 0x01
    CERTIFICATE: ClassVar[int] = 0x02
    CERTIFICATE_OF_SESSION: ClassVar[int] = 0x04

    flags: int
    verify: int = 0
    tlvs: tuple[Tlv, ...] = ()

    @classmethod
    def parse(cls, value: Buffer) -> ProxySsl:
        """Read the value of an SSL TLV.

        Raises:
            BadProxyHeader: It is none.
        """
        if len(value) < _SSL_HEAD.size:
            raise BadProxyHeader(f"its TLV SSL has {len(value)} bytes, and needs {_SSL_HEAD.size} at least")
        flags, verify = _SSL_HEAD.unpack_from(value)
        return cls(flags, verify, parse_tlvs(memoryview(value)[_SSL_HEAD.size :]))

    def encode(self) -> Tlv:
        """The TLV for a header."""
        return Tlv(TlvType.SSL, _SSL_HEAD.pack(self.flags, self.verify) + encode_tlvs(self.tlvs))

    @property
    def common_name(self) -> str | None:
        """Of the client's certificate, whether that was found good or not; see `verified`."""
        return self._text(TlvType.SSL_CN)

    @property
    def verified(self) -> bool:
        """Whether the client presented a certificate, and the proxy found it good."""
        return self.verify == 0 and bool(self.flags & (self.CERTIFICATE | self.CERTIFICATE_OF_SESSION))

    @property
    def version(self) -> str | None:
        """Such as `TLSv1.3`."""
        return self._text(TlvType.SSL_VERSION)

    @property
    def cipher(self) -> str | None:
        """Such as `ECDHE-RSA-AES128-GCM-SHA256`."""
        return self._text(TlvType.SSL_CIPHER)

    @property
    def signature_algorithm(self) -> str | None:
        """That of the proxy's certificate, such as `RSA-SHA256`."""
        return self._text(TlvType.SSL_SIG_ALG)

    @property
    def key_algorithm(self) -> str | None:
        """That of the proxy's key, such as `RSA2048`."""
        return self._text(TlvType.SSL_KEY_ALG)

    def _text(self, kind: int) -> str | None:
        found = next((tlv.value for tlv in self.tlvs if tlv.kind == kind), None)
        return None if found is None else found.decode("utf-8", "backslashreplace")


def parse_tlvs(data: memoryview) -> tuple[Tlv, ...]:
    """Read all there are.

    Raises:
        BadProxyHeader: The last one is cut off, or one that has a meaning is none of its kind.
    """
    found = []
    position = 0
    while position < len(data):
        start = position + _HEAD.size
        if start > len(data):
            raise BadProxyHeader("its last TLV is cut off within its type and length")
        kind, length = _HEAD.unpack_from(data, position)
        position = start + length
        if position > len(data):
            raise BadProxyHeader(
                f"its TLV {kind:#04x} has {length} bytes, of which {len(data) - start} are there"
            )
        tlv = Tlv(kind, bytes(data[start:position]))
        _check(tlv)
        found.append(tlv)
    return tuple(found)


def _check(tlv: Tlv) -> None:
    if tlv.kind == TlvType.UNIQUE_ID and len(tlv.value) > MAX_UNIQUE_ID:
        raise BadProxyHeader(f"its TLV UNIQUE_ID has {len(tlv.value)} bytes, and may have {MAX_UNIQUE_ID}")
    if tlv.kind == TlvType.CRC32C and len(tlv.value) != 4:
        raise BadProxyHeader(f"its TLV CRC32C has {len(tlv.value)} bytes instead of 4")
    if tlv.kind == TlvType.SSL:
        ProxySsl.parse(tlv.value)


def encode_tlvs(tlvs: Iterable[Tlv]) -> bytes:
    """Write them one after the other."""
    return b"".join(_HEAD.pack(tlv.kind, len(tlv.value)) + tlv.value for tlv in tlvs)
