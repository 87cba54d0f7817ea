r"""Framing by a delimiter after each frame, such as lines that end with `\n`.

Linear in the bytes received, however they are cut. What arrives is searched once, by
`bytes.split`: all that is kept is searched already, except for its last few bytes (the length of
the delimiter less one), where a delimiter may have begun. Those are put before the next input.

Two adjacent delimiters enclose an empty frame. There is no escaping: a frame must not hold the
delimiter. Nor may it end in such a way that its end and the delimiter together hold an earlier
one: with the delimiter `aa`, the frame `ba` would be sent as `baaa` and read as `b`.
"""

from __future__ import annotations

from ..errors import LocalProtocolError
from ..machine import Buffer
from ..slow_consumer import BLOCK, SlowConsumerPolicy
from .events import FrameReceived
from .stream_framing import (
    DEFAULT_MAX_QUEUED_OUTPUT,
    DEFAULT_MAX_UNDRAINED_INPUT,
    StreamFraming,
)

DEFAULT_MAX_DELIMITED_SIZE = 64 * 1024
"""Bytes in one delimited frame. Less than for other framings, because nothing announces the size:
beyond this a lost delimiter is likelier than a long line. asyncio's StreamReader has the same."""


class DelimiterFraming(StreamFraming):
    """Frames with a delimiter behind.

    A frame without its delimiter is refused as soon as it is certain to pass `max_frame_size`,
    which is when the bytes held are more than that and all of the delimiter but one byte.

    Args:
        delimiter: What ends each frame; one byte or more, the same at both ends.
        max_frame_size: Bytes that one frame may have, either way, without its delimiter.
        max_queued_output: Bytes that may wait to be sent; at least one largest frame.
        max_undrained_input: Bytes of input behind events not taken yet that turn `wants_read`
            False.
        peer: What error messages call the other end, its address for example.
        slow_consumer: What happens when `max_queued_output` would be passed; see `StreamFraming`.

    Raises:
        ValueError: The delimiter is empty, or a limit is out of its range.

    Attributes:
        delimiter: As above.
    """

    def __init__(
        self,
        delimiter: bytes = b"\n",
        *,
        max_frame_size: int = DEFAULT_MAX_DELIMITED_SIZE,
        max_queued_output: int = DEFAULT_MAX_QUEUED_OUTPUT,
        max_undrained_input: int = DEFAULT_MAX_UNDRAINED_INPUT,
        peer: str = "the peer",
        slow_consumer: SlowConsumerPolicy | str = BLOCK,
    ) -> None:
        if not delimiter:
            raise ValueError("the delimiter is empty; it must have one byte or more")
        super().__init__(
            max_frame_size=max_frame_size,
            max_frame_overhead=len(delimiter),
            max_queued_output=max_queued_output,
            max_undrained_input=max_undrained_input,
            peer=peer,
            slow_consumer=slow_consumer,
        )
        self.delimiter = bytes(delimiter)
        self._overlap = len(delimiter) - 1
        self._searched = bytearray()
        """The frame under way, as far as no delimiter can have begun in it."""
        self._unsearched = b""
        """The rest of it, `_overlap` bytes at most."""

    def _encode(self, frame: bytes) -> tuple[bytes, ...]:
        delimiter = self.delimiter
        end = frame[max(0, len(frame) - self._overlap) :]
        if delimiter in frame or (end + delimiter).find(delimiter) < len(end):
            raise LocalProtocolError(
                f"cannot send a frame of {len(frame)} bytes: its bytes hold the delimiter {delimiter!r}, or "
                "do once the delimiter follows, and the peer would see two frames; escape it first"
            )
        return frame, delimiter

    @property
    def unfinished_input(self) -> int:
        """Bytes held of a frame whose delimiter has not come yet."""
        return len(self._searched) + len(self._unsearched)

    def _drop_unfinished(self) -> None:
        self._searched = bytearray()
        self._unsearched = b""

    def _parse(self, data: Buffer) -> None:
        chunk = b"".join((self._unsearched, data)) if self._unsearched else bytes(data)
        frames = chunk.split(self.delimiter)
        rest = frames.pop()
        if not frames or self._emit(frames, len(chunk)):
            self._keep(rest)

    def _emit(self, frames: list[bytes], size: int) -> bool:
        """Emit frames, `size` bytes in all, of which the first began in earlier input.

        Returns:
            False where one passes `max_frame_size`: those before it are emitted, and the framing
            has failed.
        """
        limit = self.max_frame_size
        if self._searched:
            first = len(self._searched) + len(frames[0])
            if first > limit:
                self._fail_oversize(f"sent a frame of {first} bytes")
                return False
            size += len(self._searched)
            self._searched += frames[0]
            frames[0] = bytes(self._searched)
            self._searched = bytearray()
        if size <= limit:  # together, so each of them
            self._events += map(FrameReceived, frames)
            return True
        for frame in frames:
            if len(frame) > limit:
                self._fail_oversize(f"sent a frame of {len(frame)} bytes")
                return False
            self._events.append(FrameReceived(frame))
        return True

    def _keep(self, rest: bytes) -> None:
        """Hold on to `rest`, in which there is no delimiter, unless the frame gets too large."""
        size = len(self._searched) + len(rest)
        if size > self.max_frame_size + self._overlap:
            self._fail_oversize(f"sent {size} bytes without the delimiter {self.delimiter!r}")
            return
        cut = max(0, len(rest) - self._overlap)
        self._searched += rest[:cut]
        self._unsearched = rest[cut:]
