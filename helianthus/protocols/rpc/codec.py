"""What the sessions of one server or client have in common: how values become bytes and back.

An unpacker takes 60 KiB and the buffer of a packer 250 KiB, far more than all the rest of an idle
connection. So they are kept here, not in the session: a session takes the spare unpacker while it
reads, and keeps it only while a message is incomplete.

An extension value that cannot be read never raises: the unpacker could not go on behind it, and the
connection would be lost with every call on it. An `Unreadable` takes its place, and the session
refuses the message that holds it. One exception is MessagePack's own timestamp, which the unpacker
reads by itself: one of a wrong length, or of a year beyond 9999, is no readable MessagePack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from . import protobuf
from .compression import Zstd
from .encoder import Encoder
from .events import HelloReceived
from .extension_types import (
    BUILTIN_READERS,
    JSON,
    MAX_DEPTH,
    OBJECT,
    PROTOBUF,
    ZSTD,
    Unreadable,
    write_builtin,
)
from .json_payload import loads
from .limits import RpcLimits
from .messages import clip
from .type_registry import RegisteredType, TypeRegistry

COMPRESS_ABOVE = 4096
"""Bytes of a message; below, compressing costs more time than 100 Mbit/s take to send what it saves."""

_INITIAL_BUFFER = 16 * 1024  # bytes
_MAX_REASONS = 100  # values of one read whose reasons are kept; a peer could send millions
_READS_DATETIME = 3  # msgpack's `timestamp`


class Codec:
    """Encodes and decodes for any number of sessions, as long as they run in one thread.

    Args:
        limits: Bounds of the sessions.
        types: Classes of the user's own.
        accepts: What the peer may send besides MessagePack: "json", and "zstd" for compressed
            payloads.
        codec: What payloads are to be, both ways: "msgpack" or "json".
        compression: "zstd" to compress payloads for peers that take them; accepted too, then.
        compress_above: Bytes of a message above which its payload is compressed.

    Attributes:
        accepts: Sorted, as it is announced.
        codec: As given.
        spare: An unpacker that has no part of a message, or None while a session uses it.
        position: What its `tell` would say.
        unreadable: What could not be read since a session last looked.
        expanded: Bytes of compressed payloads in the message that is being read, decompressed.

    Raises:
        ValueError: An option has a value that it cannot have.
        ModuleNotFoundError: A package that an option needs is missing.
    """

    def __init__(
        self,
        limits: RpcLimits | None = None,
        *,
        types: TypeRegistry | None = None,
        accepts: Iterable[str] = (),
        codec: str = "msgpack",
        compression: str | None = None,
        compress_above: int = COMPRESS_ABOVE,
    ) -> None:
        limits = limits or RpcLimits()
        self._options: dict[str, Any] = {
            "limits": limits,
            "types": types,
            "accepts": tuple(accepts),
            "codec": codec,
            "compression": compression,
            "compress_above": compress_above,
        }
        self.codec = _known("codec", codec, ("msgpack", "json"))
        self.accepts = _all_accepted(self._options["accepts"], codec, compression)
        if compress_above < 0:
            raise ValueError(f"compress_above must be 0 or more bytes, got {compress_above}")
        self.types = types or TypeRegistry()
        self.spare: Any = None
        self.position = 0
        self.unreadable: list[Unreadable] = []
        self.expanded = 0
        self.max_message_size = limits.max_message_size
        self.max_elements = limits.max_elements
        self._compresses = compression == "zstd"
        self._compress_above = compress_above
        self._zstd = Zstd() if "zstd" in self.accepts else None
        self._reading_depth = 0
        self._packers: list[Any] = []  # one for each depth of objects inside each other
        self._packing_depth = 0
        self._encoders: dict[tuple[bool, bool], Encoder] = {}
        self._plain = self._encoder(json=False, compresses=False)
        self._readers: dict[int, Callable[[bytes], Any]] = {
            **BUILTIN_READERS,
            OBJECT: self._read_object,
            PROTOBUF: self._read_message,
        }
        json, zstd = "json" in self.accepts, self._zstd is not None
        self._readers[JSON] = self._read_json if json else _not_announced
        self._readers[ZSTD] = self._decompress if zstd else _not_announced

    def __getstate__(self) -> dict[str, Any]:
        """A recording keeps how a codec was made; packers cannot be copied."""
        return self._options

    def __setstate__(self, options: dict[str, Any]) -> None:
        Codec.__init__(self, **options)

    # -- encoding -----------------------------------------------------------------------------------

    def encoder(self, peer: HelloReceived | None) -> Encoder:
        """What encodes for a peer that has announced this, or nothing yet."""
        if peer is None:
            return self._plain if self.codec == "msgpack" else self._refusing("has not announced anything")
        if self.codec == "json" and "json" not in peer.codecs:
            taken = ", ".join(peer.codecs) or "nothing else"
            return self._refusing(f"takes MessagePack and {taken}")
        json = self.codec == "json" or (peer.codec == "json" and "json" in self.accepts)
        compresses = self._compresses and "zstd" in peer.codecs
        return self._encoder(json=json, compresses=compresses)

    def _encoder(self, *, json: bool, compresses: bool) -> Encoder:
        key = (json, compresses)
        if key not in self._encoders:
            self._encoders[key] = Encoder(
                self.max_message_size,
                self.max_elements,
                write=self.write,
                json=json,
                compress=self._zstd.compress if compresses and self._zstd is not None else None,
                compress_above=self._compress_above,
            )
        return self._encoders[key]

    def _refusing(self, what: str) -> Encoder:
        return Encoder(
            self.max_message_size,
            self.max_elements,
            write=self.write,
            refuses=f"the peer does not take payloads in JSON: it {what}; connect with codec='msgpack'",
        )

    def write(self, value: Any) -> Any:
        """The extension value that stands for something MessagePack has no form for.

        Raises:
            TypeError: There is none.
            ValueError: There is one for its class, but not for this value.
        """
        kind = self.types.named(value)
        if kind is not None and not protobuf.is_message_class(kind.cls):
            return msgpack.ExtType(OBJECT, self._pack([kind.name, _value_of(kind, value)]))
        written = write_builtin(value)
        if written is not None:
            return written
        if protobuf.is_message(value):
            return msgpack.ExtType(PROTOBUF, self._pack(protobuf.write_message(value)))
        raise TypeError(
            f"there is no form for {type(value).__qualname__}; register the class with a TypeRegistry, "
            "or send what MessagePack knows"
        )

    def _pack(self, value: Any) -> bytes:
        """Pack inside of a value that is being packed."""
        depth = self._packing_depth
        if depth >= MAX_DEPTH:
            raise ValueError(f"objects of registered classes are nested more than {MAX_DEPTH} deep")
        if depth == len(self._packers):
            self._packers.append(msgpack.Packer(default=self.write))
        self._packing_depth += 1
        try:
            packed: bytes = self._packers[depth].pack(value)
        finally:
            self._packing_depth = depth
        if len(packed) > _INITIAL_BUFFER:
            del self._packers[depth:]  # it keeps a buffer of its largest value
        return packed

    # -- decoding -----------------------------------------------------------------------------------

    def unpacker(self) -> Any:
        """A new unpacker with a small buffer; it grows to the largest message, and stays so."""
        self.position = 0
        return msgpack.Unpacker(
            max_buffer_size=self.max_message_size,
            read_size=min(self.max_message_size, _INITIAL_BUFFER),
            max_array_len=min(self.max_message_size, self.max_elements),
            max_map_len=min(self.max_message_size // 2, self.max_elements),
            strict_map_key=False,
            timestamp=_READS_DATETIME,
            ext_hook=self._read,
        )

    def _read(self, code: int, data: bytes) -> Any:
        """Read an extension value; never raises, see above."""
        reader = self._readers.get(code)
        if reader is None:
            if code < 0:
                return self._mark(code, f"MessagePack has not said yet what extension type {code} is")
            return msgpack.ExtType(code, data)
        try:
            return reader(data)
        except Exception as error:  # noqa: BLE001 - a registered class may raise anything
            return self._mark(code, clip(_text(error)))

    def _mark(self, code: int, reason: str) -> Unreadable:
        if len(self.unreadable) >= _MAX_REASONS:
            return self.unreadable[-1]
        mark = Unreadable(code, reason)
        self.unreadable.append(mark)
        return mark

    def _unpack(self, data: bytes) -> Any:
        """Read MessagePack inside of an extension value."""
        if self._reading_depth >= MAX_DEPTH:
            raise ValueError(f"extension values are nested more than {MAX_DEPTH} deep")
        known = len(self.unreadable)
        self._reading_depth += 1
        try:
            value = msgpack.unpackb(
                data,
                max_array_len=min(len(data), self.max_elements),
                max_map_len=min(len(data), self.max_elements),
                strict_map_key=False,
                timestamp=_READS_DATETIME,
                ext_hook=self._read,
            )
        finally:
            self._reading_depth -= 1
        if len(self.unreadable) > known or known >= _MAX_REASONS:
            raise ValueError(self.unreadable[-1].reason)
        return value

    def _read_object(self, data: bytes) -> Any:
        name, value = self._named(data)
        kind = self.types.of_name(name)
        if kind is None or protobuf.is_message_class(kind.cls):
            raise ValueError(f"no class is registered as {clip(name)!r} here")
        try:
            return kind.from_value(value)
        except Exception as error:
            raise ValueError(f"no {name} can be made of it: {_text(error)}") from error

    def _read_message(self, data: bytes) -> Any:
        name, value = self._named(data)
        if value.__class__ is not bytes:
            raise ValueError("a message must be an array of its full name and its bytes")
        kind = self.types.of_name(name)
        cls = kind.cls if kind is not None and protobuf.is_message_class(kind.cls) else None
        return protobuf.read_message(clip(name), value, cls)

    def _named(self, data: bytes) -> tuple[str, Any]:
        pair = self._unpack(data)
        if pair.__class__ is not list or len(pair) != 2 or pair[0].__class__ is not str:
            raise ValueError("it must be an array of a name and a value")
        return pair[0], pair[1]

    def _read_json(self, data: bytes) -> Any:
        return loads(data, self.max_elements)

    def _decompress(self, data: bytes) -> Any:
        if self._zstd is None:
            raise ValueError("compressed payloads were not announced here")
        size, room = self._zstd.size(data), self.max_message_size - self.expanded
        if size > room:
            raise ValueError(
                f"a message decompresses to more than max_message_size ({self.max_message_size} bytes)"
            )
        self.expanded += size
        return self._unpack(self._zstd.decompress(data, size))


def _not_announced(data: bytes) -> Any:
    raise ValueError("it is a payload in a form that this side has not announced")


def _value_of(kind: RegisteredType, thing: Any) -> Any:
    try:
        return kind.to_value(thing)
    except Exception as error:
        raise ValueError(f"to_value of {kind.name} failed: {_text(error)}") from error


def _text(error: Exception) -> str:
    """What an exception says; of a class of the user's, `__str__` may fail itself."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode() or type(error).__name__
    except Exception:  # noqa: BLE001 - it is only a text
        return type(error).__name__


def _known(option: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{option} must be one of {', '.join(known)}, got {value!r}")
    return value


def _all_accepted(accepts: Iterable[str], codec: str, compression: str | None) -> tuple[str, ...]:
    """What the peer may send: what is asked for, and what this side sends itself."""
    given = {_known("accepts", one, ("msgpack", "json", "zstd")) for one in accepts}
    if codec == "json":
        given.add("json")
    if compression is not None:
        given.add(_known("compression", compression, ("zstd",)))
    return tuple(sorted(given - {"msgpack"}))
