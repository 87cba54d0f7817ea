"""Framing by a size that all frames have: nothing goes on the wire but the frames."""

from __future__ import annotations

from ..errors import LocalProtocolError
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


class FixedSizeFraming(StreamFraming):
    """Frames of one size.

    Args:
        frame_size: Bytes in every frame, the same at both ends; at least 1.
        max_frame_size: What `frame_size` may be at most, for sizes that come from a configuration.
        max_queued_output: Bytes that may wait to be sent; at least one frame.
        max_undrained_input: Bytes of input behind events not taken yet that turn `wants_read`
            False.
        peer: What error messages call the other end, its address for example.
        slow_consumer: What happens when `max_queued_output` would be passed; see `StreamFraming`.

    Raises:
        ValueError: `frame_size` or a limit is out of its range.

    Attributes:
        frame_size: As above, in bytes.
    """

    def __init__(
        self,
        frame_size: int,
        *,
        max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
        max_queued_output: int = DEFAULT_MAX_QUEUED_OUTPUT,
        max_undrained_input: int = DEFAULT_MAX_UNDRAINED_INPUT,
        peer: str = "the peer",
        slow_consumer: SlowConsumerPolicy | str = BLOCK,
    ) -> None:
        if not 1 <= frame_size <= max_frame_size:
            raise ValueError(
                f"frame_size is {frame_size} bytes; it must be from 1 to max_frame_size, {max_frame_size}"
            )
        super().__init__(
            max_frame_size=frame_size,
            max_frame_overhead=0,
            max_queued_output=max_queued_output,
            max_undrained_input=max_undrained_input,
            peer=peer,
            slow_consumer=slow_consumer,
        )
        self.frame_size = frame_size
        self._partial = PartialFrame()

    def _encode(self, frame: bytes) -> tuple[bytes, ...]:
        if len(frame) != self.frame_size:
            raise LocalProtocolError(
                f"cannot send a frame of {len(frame)} bytes: every frame has frame_size, {self.frame_size}; "
                "pad or split it"
            )
        return (frame,)

    @property
    def unfinished_input(self) -> int:
        """Bytes held of a frame that is not whole yet."""
        return len(self._partial)

    def _drop_unfinished(self) -> None:
        self._partial.drop()

    def _parse(self, data: Buffer) -> None:
        partial = self._partial
        start = 0
        if partial.missing:
            start = partial.fill(data)
            if partial.missing:
                return
            self._events.append(FrameReceived(partial.take()))
        size = self.frame_size
        chunk = data if type(data) is bytes else bytes(data)
        stop = len(chunk) - (len(chunk) - start) % size
        self._events += [FrameReceived(chunk[at : at + size]) for at in range(start, stop, size)]
        if stop < len(chunk):
            partial.begin(size, chunk[stop:])
