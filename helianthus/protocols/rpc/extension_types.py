"""The extension types of MessagePack that stand for values it has no form for.

| type | value | its bytes |
|---|---|---|
| -1 | `datetime` with a time zone | MessagePack's own timestamp; comes back in UTC |
| 64 | `uuid.UUID` | its 16 bytes, RFC 9562 |
| 65 | `decimal.Decimal` | ASCII text, as Python writes it |
| 66 | `date` | ASCII text, ISO 8601 |
| 67 | `time` | ASCII text, ISO 8601, with its offset where it has one |
| 68 | `timedelta` | days, seconds, microseconds as signed 32 bit numbers, big-endian |
| 72 | object of a registered class | MessagePack: `[name, value]` |
| 73 | Protocol Buffers message | MessagePack: `[full name, its bytes]` |
| 80 | the payload as JSON | UTF-8 text |
| 81 | the payload compressed | a Zstandard frame, RFC 8878, of MessagePack |

The last two stand for a whole payload, and only where both ends have agreed on them. Any other type
is a foreign application's own, and comes as `msgpack.ExtType`. (The numbers begin at 64 to leave
alone those that are in use: Neovim has 0 to 2, MessagePack for C# 98 to 100.)
"""

from __future__ import annotations

import datetime
import re
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs
import msgpack

TIMESTAMP = -1
UUID = 64
DECIMAL = 65
DATE = 66
TIME = 67
TIMEDELTA = 68
OBJECT = 72
PROTOBUF = 73
JSON = 80
ZSTD = 81

MAX_DEPTH = 16
"""How deep extension values may be nested: each level takes 40 KiB of the C stack in msgpack."""

MAX_DECIMAL_TEXT = 4096
"""Characters of a Decimal."""
MAX_DECIMAL_EXPONENT = 6144
"""Of a Decimal's first digit; decimal128's. `int()` of one with a large exponent would fill memory."""

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_TIMEDELTA = struct.Struct(">iii")
_MAX_ISO_TEXT = 64
_DECIMAL_FORM = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?(?:E[+-][0-9]+)?|Infinity|NaN)", re.ASCII)


@attrs.define(eq=False)
class Unreadable:
    """Stands where an extension value could not be read, until its message is refused.

    Attributes:
        code: The extension's type.
        reason: Why, in words.
    """

    code: int
    reason: str


def write_builtin(value: Any) -> Any:
    """The extension value for one of Python's own classes; None where there is none.

    Raises:
        ValueError: The value has no form, such as a datetime without a time zone.
    """
    if isinstance(value, datetime.datetime):
        return _write_datetime(value)
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value)
    return None


def _write_datetime(value: datetime.datetime) -> msgpack.Timestamp:
    if value.utcoffset() is None:
        raise ValueError(
            f"{value!r} has no time zone, so it names no instant: give it one, such as "
            "value.replace(tzinfo=datetime.UTC), or send value.isoformat()"
        )
    since = value - _EPOCH  # whole numbers: `timestamp()` is a float, and rounds up far from 1970
    return msgpack.Timestamp(since.days * 86400 + since.seconds, since.microseconds * 1000)


def _write_decimal(value: Decimal) -> msgpack.ExtType:
    text = str(value)
    _check_decimal(value, text)
    return msgpack.ExtType(DECIMAL, text.encode())


def _write_time(value: datetime.time) -> msgpack.ExtType:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise ValueError(f"the offset of {value!r} depends on the day: send a datetime instead")
    return msgpack.ExtType(TIME, value.isoformat().encode())


_WRITERS: tuple[tuple[type, Callable[[Any], msgpack.ExtType]], ...] = (
    (uuid.UUID, lambda value: msgpack.ExtType(UUID, value.bytes)),
    (Decimal, _write_decimal),
    (datetime.date, lambda value: msgpack.ExtType(DATE, value.isoformat().encode())),
    (datetime.time, _write_time),
    (
        datetime.timedelta,
        lambda value: msgpack.ExtType(
            TIMEDELTA, _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)
        ),
    ),
)


def _read_decimal(data: bytes) -> Decimal:
    if len(data) > MAX_DECIMAL_TEXT:  # before the text is looked at
        raise ValueError(f"a Decimal has more than {MAX_DECIMAL_TEXT} characters")
    text = data.decode("ascii")
    if _DECIMAL_FORM.fullmatch(text) is None:
        raise ValueError("a Decimal must be written as Python writes it")
    value = Decimal(text)
    _check_decimal(value, text)
    return value


def _check_decimal(value: Decimal, text: str) -> None:
    if len(text) > MAX_DECIMAL_TEXT:
        raise ValueError(f"a Decimal has more than {MAX_DECIMAL_TEXT} characters")
    if _DECIMAL_FORM.fullmatch(text) is None:  # a NaN that signals or carries a number
        raise ValueError(f"the Decimal {text} has no form: of the NaNs, only the plain one has")
    if value.is_finite() and abs(value.adjusted()) > MAX_DECIMAL_EXPONENT:
        raise ValueError(f"the exponent of a Decimal is beyond {MAX_DECIMAL_EXPONENT}")


def _read_text(data: bytes) -> str:
    if len(data) > _MAX_ISO_TEXT:
        raise ValueError(f"a date or a time has more than {_MAX_ISO_TEXT} characters")
    return data.decode("ascii")


def _read_timedelta(data: bytes) -> datetime.timedelta:
    days, seconds, microseconds = _TIMEDELTA.unpack(data)
    return datetime.timedelta(days, seconds, microseconds)


BUILTIN_READERS: dict[int, Callable[[bytes], Any]] = {
    UUID: lambda data: uuid.UUID(bytes=data),
    DECIMAL: _read_decimal,
    DATE: lambda data: datetime.date.fromisoformat(_read_text(data)),
    TIME: lambda data: datetime.time.fromisoformat(_read_text(data)),
    TIMEDELTA: _read_timedelta,
}
"""Each raises some exception for bytes that are no such value."""


def find_unreadable(*values: Any) -> Unreadable | None:
    """The first value in decoded ones that could not be read. Without recursion: they may be deep."""
    todo = list(values)
    while todo:
        value = todo.pop()
        kind = value.__class__
        if kind is Unreadable:
            found: Unreadable = value
            return found
        if kind is list:
            todo.extend(value)
        elif kind is dict:
            todo.extend(value)
            todo.extend(value.values())
    return None
