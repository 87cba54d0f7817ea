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

_MAX_ELEMENTS = 1024 * 1024  # of one array or map; the decoder takes their memory from the header alone


class OversizedMessage(LocalProtocolError):
    """A message of ours is larger than the limit, and was not sent."""


class Encoder:
    """Encodes messages one by one; one that cannot be encoded leaves no trace."""

    def __init__(self, max_message_size: int) -> None:
        self._pack = msgpack.Packer().pack
        self._max_message_size = max_message_size

    def encode(self, message: tuple[Any, ...]) -> bytes:
        """Encode a message.

        Raises:
            LocalProtocolError: It holds something that MessagePack has no form for.
            OversizedMessage: It is larger than `max_message_size`.
        """
        try:
            data: bytes = self._pack(message)
        except (TypeError, ValueError, OverflowError) as error:
            raise LocalProtocolError(f"cannot be encoded as MessagePack: {error}") from error
        if len(data) > self._max_message_size:
            raise OversizedMessage(
                f"is {len(data)} bytes encoded, more than max_message_size ({self._max_message_size})"
            )
        return data


class Decoder:
    """Cuts a byte stream into messages.

    Attributes:
        fault: What made the stream unreadable after the messages that were decoded, or None.
        average_size: Bytes of the messages of the last `decode`, on average.
    """

    def __init__(self, max_message_size: int) -> None:
        self.fault: RemoteProtocolError | None = None
        self.average_size = 0
        self._max_message_size = max_message_size
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=2 * max_message_size + 4,
            max_array_len=_MAX_ELEMENTS,
            max_map_len=_MAX_ELEMENTS,
            strict_map_key=False,
        )
        self._fed = 0
        self._done = 0  # bytes of the stream up to the end of the last message

    @property
    def incomplete(self) -> int:
        """Bytes of a message whose end has not come yet."""
        return self._fed - self._done

    def decode(self, data: Buffer) -> list[Any]:
        """Give the messages that these bytes complete; look at `fault` after handling them."""
        messages: list[Any] = []
        start = self._done
        try:
            if self._fed - start + len(data) <= self._max_message_size:
                self._fed += len(data)
                self._unpacker.feed(data)
                messages.extend(self._unpacker)  # keeps what came before an exception
                self._done = self._unpacker.tell()
            else:
                self._decode_measured(data, messages)
        except RemoteProtocolError as error:
            self.fault = error
        except (ValueError, TypeError, RecursionError, MemoryError, msgpack.UnpackException) as error:
            reason = str(error) or type(error).__name__
            self.fault = RemoteProtocolError(f"what the peer sent is no readable MessagePack: {reason}")
        if messages:
            self.average_size = (self._done - start) // len(messages) or 1
        return messages

    def _decode_measured(self, data: Buffer, messages: list[Any]) -> None:
        """Decode where a message may be too large: in pieces, measuring each message."""
        view = memoryview(data)
        maximum = self._max_message_size
        for offset in range(0, len(view), maximum):
            piece = view[offset : offset + maximum]
            self._fed += len(piece)
            self._unpacker.feed(piece)
            for message in self._unpacker:
                end = self._unpacker.tell()
                self._check_size(end - self._done)
                self._done = end
                messages.append(message)
            self._check_size(self.incomplete)

    def _check_size(self, size: int) -> None:
        maximum = self._max_message_size
        if size > maximum:
            raise LimitExceeded(
                f"a message of at least {size} bytes is larger than max_message_size ({maximum})",
                limit="max_message_size",
                maximum=maximum,
            )


def malformed(message: object) -> RemoteProtocolError:
    """The error for something that is no message; names its form, not its content."""
    if not isinstance(message, list):
        return RemoteProtocolError(f"a message must be an array, got {type(message).__name__}")
    if not message:
        return RemoteProtocolError("a message must not be an empty array")
    kinds = ", ".join(type(part).__name__ for part in message[1:6])
    kind = message[0] if isinstance(message[0], int) else type(message[0]).__name__
    return RemoteProtocolError(f"malformed message of type {kind}: {len(message)} elements ({kinds})")
