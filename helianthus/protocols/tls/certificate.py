"""What an X.509 certificate says of its owner, read from its DER bytes.

Python's `ssl` tells what stands in a certificate only once it has verified it. But what a person needs
to know of one that was refused is just that: whose it is, until when it was valid, for which names.
So the few fields that matter are read here. Nothing is verified; that is OpenSSL's business.

The structure is that of RFC 5280, section 4.1, the encoding DER (X.690), of which only definite
lengths occur. Bytes of a stranger are read here: whatever they are, `ValueError` is all that comes of it.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import attrs

_SEQUENCE, _SET, _OID = 0x30, 0x31, 0x06
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_ALT_NAME = bytes.fromhex("551d11")  # 2.5.29.17
_COMMON_NAME = bytes.fromhex("550403")  # 2.5.4.3
_EMAIL, _DNS, _URI, _IP = 0x81, 0x82, 0x86, 0x87  # of a GeneralName

_LETTERS = {
    _COMMON_NAME: "CN",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("550407"): "L",
}
_ENCODINGS = {
    0x0C: "utf-8",
    0x13: "ascii",
    0x16: "ascii",
    0x14: "latin-1",
    0x1E: "utf-16-be",
    0x1C: "utf-32-be",
}


@attrs.frozen
class Certificate:
    """Whose a certificate is.

    Attributes:
        subject: The owner's name in full, such as "O=Example, CN=alice".
        common_name: The last of the common names in it; None where there is none.
        issuer: Who has signed it, in full.
        dns_names: Host names that it is valid for; `*` may stand for the first label.
        ip_addresses: Addresses that it is valid for.
        uris: Such as "spiffe://cluster/service".
        email_addresses: Such as "alice@example.org".
        not_before: From when it is valid.
        not_after: Until when.
        fingerprint: SHA-256 of the whole, in hexadecimal digits.
    """

    subject: str
    common_name: str | None
    issuer: str
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    uris: tuple[str, ...]
    email_addresses: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    fingerprint: str

    @property
    def valid_for(self) -> str:
        """The host names and addresses that it is valid for, as text."""
        return ", ".join((*self.dns_names, *self.ip_addresses)) or "no host name at all"

    def __str__(self) -> str:
        return self.subject or f"with the fingerprint {self.fingerprint[:16]}…"


def read_certificate(der: bytes) -> Certificate:
    """Read a certificate.

    Raises:
        ValueError: The bytes are none.
    """
    try:
        return _read(der)
    except (ValueError, IndexError, StopIteration, OverflowError) as error:
        raise ValueError(f"the certificate cannot be read: {error or type(error).__name__}") from None


def read_if_possible(der: bytes | None) -> Certificate | None:
    """The same; None where there is none, and for one that OpenSSL may take but this reader does not.

    Whoever shows such a one is nobody here, which is the safe side.
    """
    try:
        return None if der is None else read_certificate(der)
    except ValueError:
        return None


def _read(der: bytes) -> Certificate:
    fields = _items(_expect(_SEQUENCE, *next(_items(_whole(der)))))
    if next(fields)[0] == _VERSION:  # else it was the serial number already
        next(fields)
    next(fields)  # the algorithm
    issuer = _names(_expect(_SEQUENCE, *next(fields)))
    not_before, not_after = (_time(*item) for item in _items(_expect(_SEQUENCE, *next(fields))))
    subject = _names(_expect(_SEQUENCE, *next(fields)))
    alternatives = _alternative_names(fields)
    common_names = [text for oid, text in subject if oid == _COMMON_NAME]
    return Certificate(
        subject=_full(subject),
        common_name=common_names[-1] if common_names else None,
        issuer=_full(issuer),
        dns_names=_of_kind(_DNS, alternatives, _ascii),
        ip_addresses=_of_kind(_IP, alternatives, _ip_address),
        uris=_of_kind(_URI, alternatives, _ascii),
        email_addresses=_of_kind(_EMAIL, alternatives, _ascii),
        not_before=not_before,
        not_after=not_after,
        fingerprint=hashlib.sha256(der).hexdigest(),
    )


def _whole(der: bytes) -> bytes:
    (item,) = _items(der)
    return _expect(_SEQUENCE, *item)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements that stand one after the other: tag and contents."""
    start = 0
    while start < len(data):
        tag, length = data[start], data[start + 1]
        start += 2
        if length >= 0x80:
            count = length - 0x80
            if not 1 <= count <= 4:
                raise ValueError("an element has no definite length")
            length = int.from_bytes(data[start : start + count], "big")
            start += count
        if start + length > len(data):
            raise ValueError("an element is longer than what holds it")
        yield tag, data[start : start + length]
        start += length


def _expect(wanted: int, tag: int, value: bytes) -> bytes:
    if tag != wanted:
        raise ValueError(f"{tag:#04x} stands where {wanted:#04x} should")
    return value


def _names(value: bytes) -> list[tuple[bytes, str]]:
    """The parts of a name, each with the identifier of what it is."""
    found = []
    for _, part in _items(value):
        for _, pair in _items(part):
            (_, oid), (kind, text) = _items(pair)
            found.append((oid, text.decode(_ENCODINGS.get(kind, "latin-1"))))
    return found


def _full(names: list[tuple[bytes, str]]) -> str:
    return ", ".join(f"{_LETTERS[oid]}={text}" for oid, text in names if oid in _LETTERS)


def _time(tag: int, value: bytes) -> datetime:
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(tag, "")
    moment = datetime.strptime(value.decode("ascii"), form).replace(tzinfo=UTC)
    if tag == _UTC_TIME and moment.year >= 2050:  # RFC 5280, 4.1.2.5.1; `strptime` turns at 69
        return moment.replace(year=moment.year - 100)
    return moment


def _alternative_names(fields: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    for tag, value in fields:
        if tag != _EXTENSIONS:
            continue
        for _, extension in _items(_expect(_SEQUENCE, *next(_items(value)))):
            parts = list(_items(extension))
            if parts[0] == (_OID, _ALT_NAME):
                return list(_items(_expect(_SEQUENCE, *next(_items(parts[-1][1])))))
    return []


def _of_kind(kind: int, names: list[tuple[int, bytes]], convert: Callable[[bytes], str]) -> tuple[str, ...]:
    return tuple(convert(value) for tag, value in names if tag == kind)


def _ascii(value: bytes) -> str:
    return value.decode("ascii")


def _ip_address(value: bytes) -> str:
    return str(ipaddress.ip_address(value))
