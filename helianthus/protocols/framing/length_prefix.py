"""Framing by a length before each frame: an integer of fixed width, or a varint.

The prefix counts the payload only, not itself. It is checked as soon as it is whole, before any
payload is kept, so a hostile length costs nothing.

Varints are unsigned LEB128: seven bits a byte, the lowest first, the top bit set on every byte but
the last (https://protobuf.dev/programming-guides/encoding/#varints). Only the shortest form is
taken; `80 00` for zero is an error. That is what the multiformats' unsigned-varint asks for, and
it leaves one spelling for every message, so that nothing slips past whoever compares or signs
bytes. As a consequence no prefix needs more bytes than `max_frame_size` itself does, and one that
goes on is refused at that byte: an endless varint cannot be.
"""

from __future__ import annotations

import enum
import struct

from ..errors import RemoteProtocolError
from ..machine import Buffer
from ..slow_consumer import BLOCK, SlowConsumerPolicy
from .events import FrameReceived
from .partial_frame import PartialFrame
from .stream_framing import (
    DEFAULT_MAX_FRAME_SIZE,
    DEFAULT_MAX_QUEUED_OUTPUT,
    DEFAULT_MAX_UNDRAINED_INPUT,
    StreamFraming,
)


class LengthPrefix(enum.Enum):
    """How the length of a frame is written. BE is big-endian (network order), LE little-endian."""

    UINT8 = "B"
    UINT16_BE = ">H"
    UINT16_LE = "<H"
    UINT32_BE = ">I"
    UINT32_LE = "<I"
    UINT64_BE = ">Q"
    UINT64_LE = "<Q"
    VARINT = "varint"


def encode_varint(value: int) -> bytes:
    """Write a non-negative integer as unsigned LEB128, in its shortest form.

    Raises:
        ValueError: `value` is negative.
    """
    if value < 0:
        raise ValueError(f"cannot write {value} as an unsigned varint: it is negative")
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class LengthPrefixFraming(StreamFraming):
    """Frames with their length in front.

    Args:
        prefix: How the length is written.
        max_frame_size: Bytes that one frame may have, either way. Lowered to what the prefix can
            express: 255 for one byte, 65,535 for two, 2**32 - 1 for four.
        max_queued_output: Bytes that may wait to be sent; at least one largest frame.
        max_undrained_input: Bytes of input behind events not taken yet that turn `wants_read`
            False.
        peer: What error messages call the other end, its address for example.
        slow_consumer: What happens when `max_queued_output` would be passed; see `StreamFraming`.

    Raises:
        ValueError: A limit is out of its range.

    Attributes:
        prefix: As above.
    """

    def __init__(
        self,
        prefix: LengthPrefix = LengthPrefix.UINT32_BE,
        *,
        max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
        max_queued_output: int = DEFAULT_MAX_QUEUED_OUTPUT,
        max_undrained_input: int = DEFAULT_MAX_UNDRAINED_INPUT,
        peer: str = "the peer",
        slow_consumer: SlowConsumerPolicy | str = BLOCK,
    ) -> None:
        self.prefix = prefix
        # A varint has no layout: None sends it the slower way.
        self._layout = None if prefix is LengthPrefix.VARINT else struct.Struct(prefix.value)
        if self._layout is None:
            self._prefix_size = len(encode_varint(max(max_frame_size, 0)))
        else:
            self._prefix_size = self._layout.size
            max_frame_size = min(max_frame_size, (1 << 8 * self._prefix_size) - 1)
        super().__init__(
            max_frame_size=max_frame_size,
            max_frame_overhead=self._prefix_size,
            max_queued_output=max_queued_output,
            max_undrained_input=max_undrained_input,
            peer=peer,
            slow_consumer=slow_consumer,
        )
        self._partial = PartialFrame()
        self._partial_prefix = b""
        """The prefix of the frame under way: all of it, or what has arrived."""

    def _encode(self, frame: bytes) -> tuple[bytes, ...]:
        layout = self._layout
        return (encode_varint(len(frame)) if layout is None else layout.pack(len(frame)), frame)

    @property
    def unfinished_input(self) -> int:
        """Bytes held of a frame that is not whole yet, its prefix included."""
        return len(self._partial_prefix) + len(self._partial)

    def _drop_unfinished(self) -> None:
        self._partial.drop()
        self._partial_prefix = b""

    def _parse(self, data: Buffer) -> None:
        partial = self._partial
        if partial.missing:
            used = partial.fill(data)
            if partial.missing:
                return
            self._events.append(FrameReceived(partial.take()))
            self._partial_prefix = b""
            if used == len(data):
                return
            chunk = bytes(memoryview(data)[used:])
        elif self._partial_prefix:
            chunk = b"".join((self._partial_prefix, data))
            self._partial_prefix = b""
        else:
            chunk = data if type(data) is bytes else bytes(data)
        if self._layout is None:
            self._parse_varints(chunk)
        else:
            self._parse_integers(chunk, self._layout)

    def _parse_integers(self, chunk: bytes, layout: struct.Struct) -> None:
        # `chunk` is bytes, since slicing a memoryview and copying the slice takes twice as long.
        # `start` is where a frame's payload starts, so that one comparison sees a whole prefix.
        append = self._events.append
        unpack_from = layout.unpack_from
        prefix_size = self._prefix_size
        limit = self.max_frame_size
        size = len(chunk)
        start = prefix_size
        while start <= size:
            (length,) = unpack_from(chunk, start - prefix_size)
            if length > limit:
                self._fail_oversize(f"announced a frame of {length} bytes")
                return
            stop = start + length
            if stop > size:
                self._begin_partial(chunk, start - prefix_size, start, length)
                return
            append(FrameReceived(chunk[start:stop]))
            start = stop + prefix_size
        self._partial_prefix = chunk[start - prefix_size :]

    def _parse_varints(self, chunk: bytes) -> None:
        append = self._events.append
        limit = self.max_frame_size
        size = len(chunk)
        position = 0
        while position < size:
            length = chunk[position]
            start = position + 1
            if length > 0x7F:
                second = chunk[start] if start < size else 0
                if 0 < second <= 0x7F:  # two bytes, by far the commonest of the longer ones
                    length = length & 0x7F | second << 7
                    start += 1
                else:
                    length, start = self._read_varint(chunk, position)
                    if not start:
                        return
            if length > limit:
                self._fail_oversize(f"announced a frame of {length} bytes")
                return
            stop = start + length
            if stop > size:
                self._begin_partial(chunk, position, start, length)
                return
            append(FrameReceived(chunk[start:stop]))
            position = stop

    def _begin_partial(self, chunk: bytes, position: int, start: int, length: int) -> None:
        """Keep the frame whose prefix is at `position` and whose payload begins at `start`."""
        self._partial_prefix = chunk[position:start]
        with memoryview(chunk) as view:
            self._partial.begin(length, view[start:])

    def _read_varint(self, chunk: bytes, position: int) -> tuple[int, int]:
        """Read the varint at `position`.

        Returns:
            Its value, and where the payload starts: 0 if there is nothing to go on with, because
            the varint is not whole yet (it is kept) or not allowed (the framing has failed).
        """
        value = 0
        encoded = chunk[position : position + self._prefix_size]
        for index, byte in enumerate(encoded):
            value |= (byte & 0x7F) << 7 * index
            if byte <= 0x7F:
                if not byte and index:
                    self._fail_padded(encoded[: index + 1])
                    return 0, 0
                return value, position + index + 1
        if len(encoded) < self._prefix_size:
            self._partial_prefix = encoded
        else:
            self._fail_oversize(f"began a frame with a varint longer than {self._prefix_size} bytes")
        return 0, 0

    def _fail_padded(self, encoded: bytes) -> None:
        self._fail(
            RemoteProtocolError(
                f"{self._peer} wrote the length of a frame as the varint {encoded.hex(' ')}, which is padded "
                "with zeros; it must use the shortest form"
            )
        )
