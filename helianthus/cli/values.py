"""MessagePack values as JSON, and back.

JSON lacks some of what MessagePack carries. Such a value is written as an object with one key:

| | |
|---|---|
| `{"$bytes": "aGk="}` | bytes, in Base64 |
| `{"$float": "NaN"}` | a number that JSON has no digits for; also `Infinity` and `-Infinity` |
| `{"$map": [[1, "one"]]}` | a map with keys that are no strings, or whose only key begins with `$` |
| `{"$timestamp": [seconds, nanoseconds]}` | a timestamp, since 1970; a `datetime` |
| `{"$uuid": "12345678-…"}`, `{"$decimal": "1.50"}` | |
| `{"$date": "2024-02-29"}`, `{"$time": "12:30:00"}` | |
| `{"$timedelta": [days, seconds, microseconds]}` | |
| `{"$object": ["Point", {"x": 1}]}` | an object of a class that is registered at the other end |
| `{"$ext": [5, "aGk="]}` | an application's own type, by number |
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs
import msgpack

from ..protocols.rpc import Codec, RegisteredType, TypeRegistry


class NotJson(ValueError):
    """The text is no JSON at all."""


@attrs.frozen
class AnyObject:
    """An object of a class that is not known here: its name, and what it travels as."""

    name: str
    value: Any


class AnyTypes(TypeRegistry):
    """Takes objects of any class for what they are on the wire, and sends such."""

    def of_name(self, name: str) -> RegisteredType | None:
        """How one with this name is read."""
        return RegisteredType(name, AnyObject, _same, lambda value: AnyObject(name, value))

    def named(self, value: Any) -> RegisteredType | None:
        """How a value is sent."""
        if not isinstance(value, AnyObject):
            return None
        return RegisteredType(value.name, AnyObject, lambda one: one.value, _same)


def _same(value: Any) -> Any:
    return value


_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(value: Any, *, only_ascii: bool = False) -> str:
    """Write a decoded MessagePack value as one line of JSON.

    Args:
        value: Any that the decoder gives.
        only_ascii: Whether to escape all other characters.

    Raises:
        ValueError: It is nested too deeply.
    """
    try:
        return json.dumps(_to_plain(value), ensure_ascii=only_ascii, allow_nan=False)
    except RecursionError:
        raise ValueError("nested too deeply to be written as JSON") from None


def from_json(text: str | bytes) -> Any:
    """Read JSON into what MessagePack can carry.

    Raises:
        NotJson: That is what it is. The message goes on after the text: "is no JSON: ...".
        ValueError: MessagePack has no form for what it says; likewise: "cannot be sent: ...".
    """
    try:
        value = json.loads(text, object_pairs_hook=_from_object, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson(f"is no JSON: {error}") from None
    try:
        Codec(types=AnyTypes()).encoder(None).pack((0, 0, "", value))
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"cannot be sent: {error}") from None
    return value


# -- to JSON -----------------------------------------------------------------------------------------


def _to_plain(value: Any) -> Any:
    if isinstance(value, msgpack.ExtType):  # before tuples, being one
        return {"$ext": [value.code, _to_base64(value.data)]}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, dict):
        return _map_to_plain(value)
    if isinstance(value, bytes):
        return {"$bytes": _to_base64(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, msgpack.Timestamp):
        return {"$timestamp": [value.seconds, value.nanoseconds]}
    if isinstance(value, datetime.datetime):
        since = value - _EPOCH
        return {"$timestamp": [since.days * 86400 + since.seconds, since.microseconds * 1000]}
    for kind, tag, write in _WRITERS:
        if isinstance(value, kind):
            return {tag: write(value)}
    return value


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

_WRITERS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (uuid.UUID, "$uuid", str),
    (Decimal, "$decimal", str),
    (datetime.date, "$date", datetime.date.isoformat),
    (datetime.time, "$time", datetime.time.isoformat),
    (datetime.timedelta, "$timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    (AnyObject, "$object", lambda value: [value.name, _to_plain(value.value)]),
)


def _map_to_plain(value: dict[Any, Any]) -> dict[str, Any]:
    looks_tagged = len(value) == 1 and str(next(iter(value))).startswith("$")
    if looks_tagged or not all(isinstance(key, str) for key in value):
        return {"$map": [[_to_plain(key), _to_plain(item)] for key, item in value.items()]}
    return {key: _to_plain(item) for key, item in value.items()}


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# -- from JSON ---------------------------------------------------------------------------------------


def _refuse_constant(name: str) -> Any:
    raise ValueError(f'is no JSON, which has no {name}; write {{"$float": "{name}"}}')


def _from_object(pairs: list[tuple[str, Any]]) -> Any:
    value = dict(pairs)
    if len(pairs) == 1:
        tag, content = pairs[0]
        read = _TAGS.get(tag)
        if read is not None:
            try:
                return read(content)
            except (ValueError, TypeError, KeyError, OverflowError, ArithmeticError):
                raise ValueError(f"cannot be sent: {json.dumps(content, default=repr)} is no {tag}") from None
    return value


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_TAGS: dict[str, Callable[[Any], Any]] = {
    "$bytes": _from_base64,
    "$float": _FLOATS.__getitem__,
    "$map": dict,
    "$timestamp": lambda content: msgpack.Timestamp(*content),
    "$ext": lambda content: msgpack.ExtType(content[0], _from_base64(content[1])),
    "$uuid": uuid.UUID,
    "$decimal": Decimal,
    "$date": datetime.date.fromisoformat,
    "$time": datetime.time.fromisoformat,
    "$timedelta": lambda content: datetime.timedelta(*content),
    "$object": lambda content: AnyObject(*content),
}
