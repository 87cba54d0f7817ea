"""DTLS records as they stand in datagrams (RFC 6347 §4.1), as far as they can be read without keys.

A record is `type 1, version 2, epoch 2, sequence number 6, length 2`, and then its content. The
header is never encrypted; of epoch 0, before keys are agreed on, nothing is.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..machine import Buffer

CHANGE_CIPHER_SPEC = 20
ALERT = 21
HANDSHAKE = 22
APPLICATION_DATA = 23
_TYPES = (CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA)

HEADER = 13
"""Bytes in front of a record's content."""

LARGEST_CONTENT = 2**14 + 2048
"""Bytes of the largest encrypted content (RFC 6347 §4.1, RFC 5246 §6.2.3)."""

_CLIENT_HELLO = 1
_RANDOM = slice(HEADER + 12 + 2, HEADER + 12 + 2 + 32)  # behind the handshake's header and a version


def split(datagram: Buffer) -> list[bytes]:
    """The records of a datagram; from the first that is none, or is cut short, nothing is read.

    RFC 6347 §4.1.2.7: what is invalid is dropped silently.
    """
    data = bytes(datagram)
    records = []
    start = 0
    while start + HEADER <= len(data):
        length = int.from_bytes(data[start + 11 : start + HEADER])
        end = start + HEADER + length
        if (
            data[start] not in _TYPES
            or data[start + 1] != 0xFE
            or end > len(data)
            or length > LARGEST_CONTENT
        ):
            break
        records.append(data[start:end])
        start = end
    return records


def pack(records: Iterable[bytes], mtu: int) -> list[bytes]:
    """Datagrams of at most `mtu` bytes from records in their order; a longer record stands alone."""
    datagrams: list[bytes] = []
    for record in records:
        if datagrams and len(datagrams[-1]) + len(record) <= mtu:
            datagrams[-1] += record
        else:
            datagrams.append(record)
    return datagrams


def epoch(record: bytes) -> int:
    """Which keys a record is protected with; 0 is none."""
    return int.from_bytes(record[3:5])


def number(record: bytes) -> int:
    """Its sequence number within its epoch."""
    return int.from_bytes(record[5:11])


def client_random(record: bytes) -> bytes | None:
    """The 32 bytes that tell one ClientHello in the clear from another; None of any other record.

    A client says the same in the ClientHello that carries a cookie as in the one before.
    """
    if record[0] != HANDSHAKE or epoch(record) or len(record) < _RANDOM.stop:
        return None
    return record[_RANDOM] if record[HEADER] == _CLIENT_HELLO else None


class ClearNumbers:
    """Sequence numbers of what is sent in the clear.

    A record that is sent again needs a number of its own, because the receiver drops a number that
    it has seen (RFC 6347 §4.1.2.6 and §4.2.4). In epoch 0 nothing is signed or encrypted, so the
    number can be written over. Those of encrypted records are part of what is authenticated, and
    stay as they are.

    Args:
        first: The lowest that may be used.
    """

    def __init__(self, first: int) -> None:
        self._next = first

    def put_on(self, record: bytes) -> bytes:
        """The record with its own number, or with the next one where that has been used."""
        if epoch(record):
            return record
        own = max(number(record), self._next)
        self._next = own + 1
        return record[:5] + own.to_bytes(6) + record[11:]
