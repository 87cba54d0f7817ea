"""Events of the framing machines.

Every machine ends with exactly one of `ConnectionFailed` (the peer broke the framing) and
`ConnectionLost` (the transport went away), and nothing comes after it.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from ..machine import ConnectionFailed


@attrs.define
class FrameReceived:
    """One whole frame came in.

    Attributes:
        frame: Its payload, without prefix or delimiter; a copy that belongs to the receiver.
    """

    frame: bytes


@attrs.define
class EndOfStream:
    """The peer ended its direction between two frames. We may still send until `close()`."""


@attrs.define
class ConnectionLost:
    """The transport is gone in both directions.

    Attributes:
        error: Why, or None after a clean close.
        unfinished: Bytes of a frame that had begun to come in, prefix included, and were dropped.
            Not 0 without an `EndOfStream` before it means that the last message was cut off.
    """

    error: Exception | None = None
    unfinished: int = 0


FramingEvent: TypeAlias = FrameReceived | EndOfStream | ConnectionLost | ConnectionFailed
"""Whatever `take_events()` of a framing machine may hold."""
