"""JSON text as a payload, as strict as MessagePack is.

RFC 8259 leaves much to whoever reads a text: what a second value under the same key means, how
large a number may be, whether `NaN` is one. Here all of these are refused, both ways, and so is
what `json.dumps` would change silently, such as a key that is a number. What passes comes back
equal, but for tuples, which come back as lists.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 500
"""Arrays and maps inside each other; MessagePack's own limit is about the same."""

_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1


class NotJson(ValueError):
    """A value has no form in JSON."""


def dumps(value: Any, max_elements: int) -> bytes:
    """Write a value.

    Raises:
        NotJson: It has no form in JSON.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_refuse)
        _check(value, max_elements)
        return text.encode()
    except NotJson:
        raise
    except RecursionError:
        raise NotJson(f"it is nested more than {MAX_DEPTH} deep") from None
    except (ValueError, TypeError) as error:
        raise NotJson(str(error)) from None


def loads(data: bytes, max_elements: int) -> Any:
    """Read a value.

    Raises:
        ValueError: The text is no JSON, or more than JSON promises to carry everywhere.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_map, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from None
    _check(value, max_elements)
    if b"\\u" in data:  # an escape may stand for half a character, which no UTF-8 has
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _check(value: Any, max_elements: int) -> None:
    """Look for what the reader may understand otherwise. Without recursion: it may be deep."""
    todo: list[tuple[Any, int]] = [(value, 0)]
    while todo:
        part, depth = todo.pop()
        if isinstance(part, (list, tuple, dict)):
            if depth >= MAX_DEPTH:
                raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
            if len(part) > max_elements:
                raise ValueError(f"an array or a map has more than max_elements ({max_elements}) elements")
            if isinstance(part, dict):
                _check_keys(part)
                todo.extend((one, depth + 1) for one in part.values())
            else:
                todo.extend((one, depth + 1) for one in part)
        elif isinstance(part, int):
            if not _MIN_INT <= part <= _MAX_INT:
                raise ValueError("a number is beyond 64 bits")
        elif isinstance(part, float) and not math.isfinite(part):
            raise ValueError("a number is beyond what a float can hold")


def _check_keys(part: dict[Any, Any]) -> None:
    for key in part:
        if not isinstance(key, str):
            raise ValueError(f"the keys of a map must be str in JSON, got {type(key).__name__}")


def _map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a map has the same key twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _refuse(value: Any) -> NoReturn:
    raise NotJson(f"JSON has no form for {type(value).__qualname__}; the MessagePack codec may have one")
