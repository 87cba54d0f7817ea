"""Framing machines: they cut a byte stream into frames and put frames on one.

`LengthPrefixFraming`, `DelimiterFraming` and `FixedSizeFraming` are stream machines with the same
commands, `send_frame()` and `close()`, and the same events.
"""

from .delimiter import DEFAULT_MAX_DELIMITED_SIZE, DelimiterFraming
from .events import ConnectionLost, EndOfStream, FrameReceived, FramingEvent
from .fixed_size import FixedSizeFraming
from .length_prefix import LengthPrefix, LengthPrefixFraming, encode_varint
from .stream_framing import (
    CLOSING_OF_STATE,
    DEFAULT_MAX_FRAME_SIZE,
    DEFAULT_MAX_QUEUED_OUTPUT,
    DEFAULT_MAX_UNDRAINED_INPUT,
    TRANSITIONS,
    FramingInput,
    FramingState,
    StreamFraming,
)

__all__ = [
    "CLOSING_OF_STATE",
    "DEFAULT_MAX_DELIMITED_SIZE",
    "DEFAULT_MAX_FRAME_SIZE",
    "DEFAULT_MAX_QUEUED_OUTPUT",
    "DEFAULT_MAX_UNDRAINED_INPUT",
    "TRANSITIONS",
    "ConnectionLost",
    "DelimiterFraming",
    "EndOfStream",
    "FixedSizeFraming",
    "FrameReceived",
    "FramingEvent",
    "FramingInput",
    "FramingState",
    "LengthPrefix",
    "LengthPrefixFraming",
    "StreamFraming",
    "encode_varint",
]
