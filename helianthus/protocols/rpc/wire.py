"""MessagePack-RPC messages and the extensions to them, as numbers and encoders.

| type | message | |
|---|---|---|
| 0 | `[0, msgid, method, params]` or `[..., meta]` | request |
| 1 | `[1, msgid, error, result]` | response |
| 2 | `[2, method, params]` or `[..., meta]` | notification |
| 3 | `[3, msgid]` | cancel |
| 4 | `[4, msgid, item]` | stream item |
| 5 | `[5, msgid]` | the caller's half of a stream ends |
| 6 | `[6, msgid, n]` | credit for n more items |
| 7 | `[7, token, is_reply]` | ping |
| 8 | `[8, last_msgid, reason]` | goaway |

Types 0 to 2 are https://github.com/msgpack-rpc/msgpack-rpc/blob/master/spec.md. All else is sent
only to a peer that announced it with the notification `helianthus.hello`. Between two such peers
a message id names one call on the connection, whoever made it, because stream items travel both
ways: whoever opened the connection uses odd ids, the other side even ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ..machine import Buffer

REQUEST = 0
RESPONSE = 1
NOTIFICATION = 2
CANCEL = 3
ITEM = 4
END = 5
CREDIT = 6
PING = 7
GOAWAY = 8

MAX_MSGID = 0xFFFFFFFF
HELLO = "helianthus.hello"
VERSION = 1

_INITIAL_BUFFER = 16 * 1024  # bytes; a server has one for each of its connections
_RETAINED = 128 * 1024  # bytes; buffers that grew beyond are given back
UNPACKABLE = (TypeError, ValueError, OverflowError)
"""What msgpack raises for a message that it cannot encode."""

_UNREADABLE = (
    ValueError,
    TypeError,  # a map as a key
    OverflowError,
    RecursionError,
    MemoryError,
    msgpack.UnpackException,
)


class ExtensionsMissing(LocalProtocolError):
    """A call needs extensions that the peer has not announced, or not yet."""


class OversizedMessage(LocalProtocolError):
    """A message of ours is larger than the limit, and was not sent."""


class Encoder:
    """Encodes messages one by one; one that cannot be encoded leaves no trace.

    Where every nanosecond counts, call `pack` as `encode` does.

    Attributes:
        pack: Encodes a message and raises one of `UNPACKABLE`; replaced after a large message.
        watch_above: Bytes; what is larger has to be shown to `check_size`.
    """

    def __init__(self, max_message_size: int, max_elements: int) -> None:
        self.pack: Callable[[tuple[Any, ...]], bytes] = msgpack.Packer().pack
        self.watch_above = min(max_message_size, max_elements, _RETAINED)
        self._max_message_size = max_message_size
        self._max_elements = max_elements

    def encode(self, message: tuple[Any, ...]) -> bytes:
        """Encode a message.

        Raises:
            LocalProtocolError: It holds something that MessagePack has no form for.
            OversizedMessage: It is larger than `max_message_size`, or an array or a map in it
                than `max_elements`.
        """
        try:
            data = self.pack(message)
        except UNPACKABLE as error:
            raise unencodable(error) from error
        if len(data) > self.watch_above:
            self.check_size(data)
        return data

    def check_size(self, data: bytes) -> None:
        """Give back the memory that a large message took; raises `OversizedMessage`."""
        if len(data) > _RETAINED:
            self.pack = msgpack.Packer().pack  # the old one keeps a buffer of its largest message
        if len(data) > self._max_message_size:
            raise OversizedMessage(
                f"is {len(data)} bytes encoded, more than max_message_size ({self._max_message_size})"
            )
        if len(data) > self._max_elements:  # each takes a byte at least
            self._check_elements(data)

    def _check_elements(self, data: bytes) -> None:
        """Read the message as the peer would: a broken limit would cost it the whole connection."""
        unpacker = _small_unpacker(self._max_message_size, self._max_elements)
        unpacker.feed(data)
        try:
            unpacker.unpack()
        except ValueError as error:
            if _has_too_many(error):
                raise OversizedMessage(
                    f"has more than max_elements ({self._max_elements}) elements in an array or a map"
                ) from None


class Decoder:
    """Cuts a byte stream into messages.

    No more bytes are given to the unpacker than the message that is being read may still have, so
    that neither its buffer nor any message ever exceeds the limit.

    Attributes:
        fault: What made the stream unreadable after the messages that were decoded, or None.
        size: Bytes of the message that `decode` gave last.
    """

    def __init__(self, max_message_size: int, max_elements: int) -> None:
        self.fault: RemoteProtocolError | None = None
        self.size = 0
        self._max_message_size = max_message_size
        self._max_elements = max_elements
        self._fed = 0  # bytes given to the unpacker
        self._done = 0  # of them, those up to the end of the last message
        self._grown = False  # whether the unpacker's buffer is large
        self._unpacker = _small_unpacker(max_message_size, max_elements)

    @property
    def incomplete(self) -> int:
        """Bytes of a message whose end has not come yet."""
        return self._fed - self._done

    def decode(self, data: Buffer) -> Iterator[Any]:
        """Give the messages that these bytes complete; look at `fault` after handling them."""
        piece, rest = data, data
        unpacker, tell = self._unpacker, self._unpacker.tell
        try:
            while rest:
                room = self._max_message_size - self._fed + self._done
                if room == 0:
                    self.fault = self._too_large()
                    return
                if len(rest) <= room:
                    piece, rest = rest, b""
                else:
                    view = memoryview(rest)
                    piece, rest = view[:room], view[room:]
                unpacker.feed(piece)
                self._fed += len(piece)
                self._grown = self._grown or self._fed - self._done > _RETAINED
                done = self._done
                # The position is asked for after each message, because after the last of them the
                # unpacker moves on into what it has of the next.
                for message in unpacker:
                    end = tell()
                    self.size = end - done
                    done = end
                    yield message
                self._done = done
            if self._grown and self._fed == self._done:
                self._unpacker = _small_unpacker(self._max_message_size, self._max_elements)
                self._fed = self._done = 0
                self._grown = False
        except _UNREADABLE as error:
            reason = str(error) or type(error).__name__
            if _has_too_many(error) and self._max_elements <= self._max_message_size:
                self.fault = self._too_many()
                return
            self.fault = RemoteProtocolError(f"what the peer sent is no readable MessagePack: {reason}")

    def _too_large(self) -> LimitExceeded:
        maximum = self._max_message_size
        return LimitExceeded(
            f"a message is larger than max_message_size ({maximum} bytes)",
            limit="max_message_size",
            maximum=maximum,
        )

    def _too_many(self) -> LimitExceeded:
        maximum = self._max_elements
        return LimitExceeded(
            f"an array or a map has more than max_elements ({maximum}) elements",
            limit="max_elements",
            maximum=maximum,
        )


def _small_unpacker(max_message_size: int, max_elements: int) -> Any:
    """An unpacker with a small buffer; it grows to the largest message, and stays so."""
    return msgpack.Unpacker(
        max_buffer_size=max_message_size,
        read_size=min(max_message_size, _INITIAL_BUFFER),
        max_array_len=min(max_message_size, max_elements),
        max_map_len=min(max_message_size // 2, max_elements),
        strict_map_key=False,
    )


def _has_too_many(error: Exception) -> bool:
    """Whether msgpack refused a message for the elements of an array or a map; only its text says so."""
    return "exceeds max_array_len" in str(error) or "exceeds max_map_len" in str(error)


def unencodable(error: Exception) -> LocalProtocolError:
    """The error for a message that `Encoder.pack` refused."""
    return LocalProtocolError(f"cannot be encoded as MessagePack: {error}")


def is_after(msgid: int, last: int) -> bool:
    """Whether an id was given out after another, in spite of the wrap at 32 bits (RFC 1982)."""
    return 0 < (msgid - last) % (MAX_MSGID + 1) <= MAX_MSGID // 2


def malformed(message: object) -> RemoteProtocolError:
    """The error for something that is no message; names its form, not its content."""
    if not isinstance(message, list):
        return RemoteProtocolError(f"a message must be an array, got {type(message).__name__}")
    if not message:
        return RemoteProtocolError("a message must not be an empty array")
    kinds = ", ".join(type(part).__name__ for part in message[1:6])
    kind = message[0] if isinstance(message[0], int) else type(message[0]).__name__
    return RemoteProtocolError(f"malformed message of type {kind}: {len(message)} elements ({kinds})")
