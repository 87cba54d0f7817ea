"""What becomes of a message that holds a value which cannot be read: it fails, and nothing else does.

The decoder puts an `Unreadable` in the value's place. Only when it has done so are the events of
that read looked through, so that this costs nothing otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

from .events import (
    CallFailed,
    ItemReceived,
    ItemUnreadable,
    NotificationReceived,
    NotificationUnreadable,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
)
from .extension_types import Unreadable, find_unreadable
from .status import StatusCode


def sort_out(events: Iterable[RpcEvent]) -> tuple[list[RpcEvent], list[tuple[RequestReceived, Unreadable]]]:
    """Replace the events that hold something unreadable.

    Returns:
        The events that may be told, and the requests among the others, which are to be refused.
    """
    kept: list[RpcEvent] = []
    refused: list[tuple[RequestReceived, Unreadable]] = []
    for event in events:
        if isinstance(event, RequestReceived):
            mark = find_unreadable(event.params, event.meta)
            if mark is not None:
                refused.append((event, mark))
                continue
        kept.append(_without_unreadable(event))
    return kept, refused


def _without_unreadable(event: RpcEvent) -> RpcEvent:
    if isinstance(event, ResponseReceived):
        if mark := find_unreadable(event.result):
            reason = f"the result cannot be read: {mark.reason}"
            return CallFailed(event.msgid, StatusCode.INTERNAL, reason, size=event.size)
    elif isinstance(event, NotificationReceived):
        if mark := find_unreadable(event.params, event.meta):
            return NotificationUnreadable(event.method, mark.reason)
    elif isinstance(event, ItemReceived):
        if mark := find_unreadable(event.item):
            return ItemUnreadable(event.msgid, event.size, mark.reason)
    elif isinstance(event, CallFailed) and (mark := find_unreadable(event.details)):
        event.message += f" (its details cannot be read: {mark.reason})"
        event.details = None
    return event
