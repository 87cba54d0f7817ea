"""Bytes become messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import LimitExceeded, RemoteProtocolError
from ..machine import Buffer
from .encoder import RETAINED, has_too_many
from .extension_types import Unreadable

if TYPE_CHECKING:
    from .codec import Codec


class Decoder:
    """Cuts a byte stream into messages.

    No more bytes are given to the unpacker than the message that is being read may still have, so
    that neither its buffer nor any message ever exceeds the limit. The unpacker is the codec's,
    but while it has a part of a message.

    Attributes:
        fault: What made the stream unreadable after the messages that were decoded, or None.
        size: Bytes of the message that `decode` gave last, decompressed.
    """

    __slots__ = (
        "_base",
        "_codec",
        "_done",
        "_fed",
        "_max_message_size",
        "_unpacker",
        "_unreadable",
        "fault",
        "size",
    )

    def __init__(self, codec: Codec) -> None:
        self.fault: RemoteProtocolError | None = None
        self.size = 0
        self._codec = codec
        self._max_message_size = codec.max_message_size
        self._unpacker: Any = None  # while it has a part of a message
        self._base = 0  # position of the unpacker when it was taken
        self._fed = 0  # position behind what it was given
        self._done = 0  # position behind the last message
        self._unreadable: list[Unreadable] = []  # what is in the part that it has

    @property
    def incomplete(self) -> int:
        """Bytes of a message whose end has not come yet."""
        return self._fed - self._done if self._unpacker is not None else 0

    def decode(self, data: Buffer) -> Iterator[Any]:
        """Give the messages that these bytes complete; look at `fault` after handling them."""
        codec, unpacker, maximum = self._codec, self._unpacker, self._max_message_size
        if unpacker is None:
            unpacker = codec.spare
            if unpacker is None:
                unpacker = codec.unpacker()
            codec.spare = None
            fed = done = base = codec.position
        else:
            fed, done, base = self._fed, self._done, self._base
            if self._unreadable:
                codec.unreadable.extend(self._unreadable)
        tell = unpacker.tell
        rest: Buffer = data
        try:
            while rest:
                room = maximum - fed + done
                if len(rest) <= room:
                    piece, rest = rest, b""
                elif room:
                    view = memoryview(rest)
                    piece, rest = view[:room], view[room:]
                else:
                    self.fault = self._too_large()
                    return
                unpacker.feed(piece)
                fed += len(piece)
                # The position is asked for after each message, because after the last of them the
                # unpacker moves on into what it has of the next.
                for message in unpacker:
                    end = tell()
                    self.size = end - done
                    done = end
                    yield message
            if fed != done:
                self._unpacker, self._fed, self._done, self._base = unpacker, fed, done, base
            else:
                self._unpacker = None
                if fed - base <= RETAINED:  # else its buffer has grown
                    codec.spare, codec.position = unpacker, done
        except Exception as error:  # noqa: BLE001 - a key of a map may have a hash of its user's own
            self.fault = self._no_message(error)

    def keep_unreadable(self) -> None:
        """Remember what could not be read in a message whose end is yet to come."""
        found = self._codec.unreadable
        self._unreadable = list(found) if self.incomplete else []
        found.clear()

    def _no_message(self, error: Exception) -> RemoteProtocolError:
        if has_too_many(error) and self._codec.max_elements <= self._max_message_size:
            return self._too_many()
        reason = str(error) or type(error).__name__
        return RemoteProtocolError(f"what the peer sent is no readable MessagePack: {reason}")

    def _too_large(self) -> LimitExceeded:
        maximum = self._max_message_size
        return LimitExceeded(
            f"a message is larger than max_message_size ({maximum} bytes)",
            limit="max_message_size",
            maximum=maximum,
        )

    def _too_many(self) -> LimitExceeded:
        maximum = self._codec.max_elements
        return LimitExceeded(
            f"an array or a map has more than max_elements ({maximum}) elements",
            limit="max_elements",
            maximum=maximum,
        )


class ExpandingDecoder(Decoder):
    """Counts what compressed payloads become, of every message by itself."""

    __slots__ = ("_expanded",)

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        self._expanded = 0  # bytes, in the message whose end is yet to come

    def decode(self, data: Buffer) -> Iterator[Any]:
        """As `Decoder.decode`."""
        codec = self._codec
        codec.expanded = self._expanded
        for message in super().decode(data):
            self.size += codec.expanded
            codec.expanded = 0
            yield message
        self._expanded = codec.expanded
