"""MessagePack values as JSON, and back.

JSON lacks some of what MessagePack carries. Such a value is written as an object with one key:

| | |
|---|---|
| `{"$bytes": "aGk="}` | bytes, in Base64 |
| `{"$float": "NaN"}` | a number that JSON has no digits for; also `Infinity` and `-Infinity` |
| `{"$map": [[1, "one"]]}` | a map with keys that are no strings, or whose only key begins with `$` |
| `{"$timestamp": [seconds, nanoseconds]}` | a timestamp, since 1970 |
| `{"$ext": [5, "aGk="]}` | an application's own type, by number |
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import msgpack


class NotJson(ValueError):
    """The text is no JSON at all."""


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
        msgpack.packb(value)
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
    return value


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
            except (ValueError, TypeError, KeyError, OverflowError):
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
}
