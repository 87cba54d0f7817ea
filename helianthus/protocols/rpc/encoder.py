"""Messages become bytes.

What a call carries, its payload, may be JSON or compressed between two ends that have agreed on
it. It then stands as one extension value in the place of the parameters, the result or the item,
and the rest of the message is as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from ..errors import LocalProtocolError
from .events import Flow
from .extension_types import JSON, ZSTD
from .json_payload import NotJson, dumps
from .messages import request_meta
from .wire import HELLO, ITEM, NOTIFICATION, REQUEST, RESPONSE, ExtensionsMissing, OversizedMessage

RETAINED = 128 * 1024
"""Bytes; buffers that grew beyond are given back."""

UNPACKABLE = (TypeError, ValueError, OverflowError)
"""What `Encoder.pack` raises for a message that it cannot encode."""

_PAYLOADS = {REQUEST: 3, RESPONSE: 3, NOTIFICATION: 2, ITEM: 2}
"""Where in a message its payload stands."""


class Encoder:
    """Encodes messages one by one; one that cannot be encoded leaves no trace.

    Where every nanosecond counts, call `pack` as `encode` does.

    Args:
        max_message_size: Bytes.
        max_elements: Of an array or a map.
        write: Gives the extension value for what MessagePack has no form for.
        json: Whether payloads are JSON.
        compress: Compresses payloads, or None.
        compress_above: Bytes of a message from which on that is tried.
        refuses: Why nothing can be called; empty where it can.

    Attributes:
        pack: Encodes a message and raises one of `UNPACKABLE`; replaced after a large message.
        watch_above: Bytes; what is larger has to go through `watch`.
        last_timeout: What `write_timeout` was told last, or None.
        timeout_meta: The meta of a request that has this timeout and nothing else.
    """

    def __init__(
        self,
        max_message_size: int,
        max_elements: int,
        *,
        write: Callable[[Any], Any] | None = None,
        json: bool = False,
        compress: Callable[[bytes], bytes] | None = None,
        compress_above: int = 0,
        refuses: str = "",
    ) -> None:
        self.watch_above = min(max_message_size, max_elements, RETAINED)
        if compress is not None:
            self.watch_above = min(self.watch_above, compress_above)
        self._max_message_size = max_message_size
        self._max_elements = max_elements
        self._write = write
        self._json = json
        self._compress = compress
        self._compress_above = compress_above
        self._refuses = refuses
        self.last_timeout: float | None = None
        self.timeout_meta: dict[str, Any] = {}
        self._renew()

    def _renew(self) -> None:
        """Begin with a small buffer."""
        self._pack: Callable[[Any], bytes] = msgpack.Packer(default=self._write).pack
        self.pack: Callable[[tuple[Any, ...]], bytes] = self._pack
        if self._json:
            self.pack = self._pack_json
        elif self._refuses:
            self.pack = self._pack_nothing_new

    def write_timeout(self, timeout: float) -> None:
        """Make the meta of requests with this timeout; most have the same, one after the other."""
        self.last_timeout, self.timeout_meta = timeout, request_meta(timeout, None, Flow.UNARY)

    def encode(self, message: tuple[Any, ...]) -> bytes:
        """Encode a message.

        Raises:
            LocalProtocolError: It holds something that has no form.
            OversizedMessage: It is larger than `max_message_size`, or an array or a map in it
                than `max_elements`.
        """
        try:
            data = self.pack(message)
        except UNPACKABLE as error:
            raise unencodable(error) from error
        if len(data) > self.watch_above:
            data = self.watch(data, message)
        return data

    def watch(self, data: bytes, message: tuple[Any, ...]) -> bytes:
        """See to a message that is large: gives what is to be sent.

        Raises:
            OversizedMessage: It is larger than a limit, before it is compressed.
        """
        if len(data) > RETAINED:
            self._renew()  # the old one keeps a buffer of its largest message
        if len(data) > self._max_message_size:
            raise OversizedMessage(
                f"is {len(data)} bytes encoded, more than max_message_size ({self._max_message_size})"
            )
        if len(data) > self._max_elements:  # each takes a byte at least
            self._check_elements(data)
        if self._compress is not None and len(data) > self._compress_above:
            data = self._compressed(data, message, self._compress)
        return data

    def _check_elements(self, data: bytes) -> None:
        """Read the message as the peer would: a broken limit would cost it the whole connection."""
        try:
            msgpack.unpackb(
                data,
                max_array_len=min(self._max_message_size, self._max_elements),
                max_map_len=min(self._max_message_size // 2, self._max_elements),
                strict_map_key=False,
            )
        except ValueError as error:
            if has_too_many(error):
                raise OversizedMessage(
                    f"has more than max_elements ({self._max_elements}) elements in an array or a map"
                ) from None

    # -- payloads in another form -----------------------------------------------------------------

    def _pack_json(self, message: tuple[Any, ...]) -> bytes:
        place = _payload_place(message)
        if place is None:
            return self._pack(message)
        text = msgpack.ExtType(JSON, dumps(message[place], self._max_elements))
        return self._pack((*message[:place], text, *message[place + 1 :]))

    def _pack_nothing_new(self, message: tuple[Any, ...]) -> bytes:
        if message[0] == REQUEST or (message[0] == NOTIFICATION and message[1] != HELLO):
            raise ExtensionsMissing(self._refuses)
        return self._pack(message)

    def _compressed(self, data: bytes, message: tuple[Any, ...], compress: Callable[[bytes], bytes]) -> bytes:
        """Compress a message's payload, unless that makes it no smaller."""
        place = _payload_place(message)
        if place is None:
            return data
        start = len(self._pack(message[:place]))  # an array's header is one byte, up to 15 elements
        end = len(data) - sum(len(self._pack(part)) for part in message[place + 1 :])
        payload = self._pack(msgpack.ExtType(ZSTD, compress(data[start:end])))
        if len(payload) >= end - start:
            return data
        return b"".join((data[:start], payload, data[end:]))


def _payload_place(message: tuple[Any, ...]) -> int | None:
    """Where a message's payload stands; None where it has none."""
    kind = message[0]
    if (kind == RESPONSE and message[2] is not None) or (kind == NOTIFICATION and message[1] == HELLO):
        return None
    return _PAYLOADS.get(kind)


def has_too_many(error: Exception) -> bool:
    """Whether msgpack refused a message for the elements of an array or a map; only its text says so."""
    return "exceeds max_array_len" in str(error) or "exceeds max_map_len" in str(error)


def unencodable(error: Exception) -> LocalProtocolError:
    """The error for a message that `Encoder.pack` refused."""
    form = "JSON" if isinstance(error, NotJson) else "MessagePack"
    return LocalProtocolError(f"cannot be encoded as {form}: {error}")
