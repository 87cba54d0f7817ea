"""What a machine gave, in a form that is the same whenever it gives the same."""

from __future__ import annotations

import hashlib
import re
from typing import Any

_BYTES = "take_data"
_EVENTS = ("take_actions", "take_datagrams", "take_events")
# Where an object lies, in the text of one that has none of its own, and where a lease was taken.
_PLACE = re.compile(r" at 0x[0-9a-f]+|, taken at [^>]+(?=>)")


def output_of(method: str, result: Any) -> Any:
    """What to keep of a method's result.

    Returns:
        For bytes their length and digest, for lists of events a line each, and for others a text.
    """
    if method == _BYTES and isinstance(result, list):
        result = b"".join(result)
    if isinstance(result, bytes | bytearray | memoryview):
        return len(result), hashlib.blake2b(result, digest_size=16).hexdigest()
    if method in _EVENTS and isinstance(result, list):
        return [text_of(one) for one in result]
    if isinstance(result, Exception):
        return f"{type(result).__name__}: {result}"
    return text_of(result)


def text_of(value: Any) -> str:
    """The text of a value, without places in memory."""
    return _PLACE.sub("", repr(value))
