"""The file that a recording is: records of a kind, a length and a pickle.

A recording begins with a header, which says how the machine was made, and goes on with a record for
each call and one for what the call gave. Whoever is ended in the middle of a record, by a crash
say, leaves a recording that can be read up to there.

Values travel as pickles, because a command's parameters may be anything. Reading a pickle that
somebody else wrote can run anything, too, so the reader makes objects only of classes that do
nothing but hold values: those of `helianthus.protocols`, which is pure, a few of the standard
library, and those of modules that whoever replays has named. No function is ever called but
`restore_error`.
"""

from __future__ import annotations

import builtins
import io
import pickle
import struct
from collections.abc import Collection, Iterator
from typing import IO, Any, Protocol

import attrs

from ..machine import Buffer
from .kept_lease import KeptLease

MAGIC = b"helianthus recording 1\n"

HEADER, CALL, RESULT, END = b"H", b"C", b"R", b"E"

CUT_OFF = "the file ends in the middle of a record: its process has ended, or its disk was full"

MAX_RECORD = 256 * 1024 * 1024
"""Bytes in one record; a length beyond it is no length."""

_HEAD = struct.Struct("<cI")

_PURE = "helianthus.protocols."
_VALUES = {
    "builtins": ("bytearray", "bytes", "complex", "frozenset", "range", "set", "slice"),
    "collections": ("OrderedDict", "deque"),
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "decimal": ("Decimal",),
    "helianthus.cli.values": ("AnyObject", "AnyTypes"),
    "helianthus.drivers.address": ("Address",),
    "ipaddress": ("IPv4Address", "IPv6Address"),
    "random": ("Random",),
    "uuid": ("UUID", "SafeUUID"),
}
_ERRORS = "helianthus.drivers.errors"


class Tape(Protocol):
    """Where a recording goes."""

    def write(self, data: bytes) -> None:
        """Take what comes next; what this raises ends the recording."""

    def rest(self) -> None:
        """The machine has ended: nothing more is likely to come."""


class BadRecording(ValueError):
    """A file is no recording, or one that cannot be read."""


@attrs.define
class Header:
    """How a machine was made, and where.

    Attributes:
        label: What the machine was for, such as `connection from 127.0.0.1:4242`.
        cls: Its class.
        args: Of its constructor.
        kwargs: Likewise.
        notes: About the process: version, driver, date.
    """

    label: str
    cls: type
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    notes: dict[str, str]


# -- writing ------------------------------------------------------------------------------------------


def encode_record(kind: bytes, value: object) -> bytes:
    """Write a record.

    Raises:
        BadRecording: The value holds something that cannot be kept, such as an open file.
    """
    buffer = io.BytesIO()
    try:
        _Pickler(buffer, protocol=5).dump(value)
    except Exception as error:  # whatever a class of the user's raises, too
        raise BadRecording(f"cannot be recorded: {error}") from error
    data = buffer.getvalue()
    if len(data) > MAX_RECORD:
        raise BadRecording(f"cannot be recorded: {len(data)} bytes are more than {MAX_RECORD}")
    return _HEAD.pack(kind, len(data)) + data


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if obj.__class__ is memoryview:  # a view of a buffer that is used again
            return bytes, (bytes(obj),)
        if hasattr(obj, "release") and isinstance(getattr(obj, "view", None), memoryview):
            return KeptLease, (bytes(obj.view),)
        if isinstance(obj, BaseException):  # their constructors may want what `args` does not hold
            return restore_error, (type(obj), obj.args), obj.__dict__ or None
        return NotImplemented


def restore_error(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Make an exception without its own constructor."""
    error = cls.__new__(cls, *args)
    if isinstance(error, OSError):
        OSError.__init__(error, *args)  # the system's code is in no dictionary
    error.args = args
    return error


# -- reading ------------------------------------------------------------------------------------------


def read_records(file: IO[bytes], allow: Collection[str] = ()) -> Iterator[tuple[bytes, Any]]:
    """Read a recording up to its end, or to where it was cut off.

    Args:
        file: Of the recording.
        allow: Modules whose classes may be made, besides those of the library.

    Yields:
        The kind of each record, and its value; of one that was cut off, why nothing follows.

    Raises:
        BadRecording: The file is none, or holds an object of a class that may not be made.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise BadRecording("this is no recording of this version: it does not begin as one")
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        kind, size = _HEAD.unpack(head)
        if size > MAX_RECORD:
            raise BadRecording(f"a record of {size} bytes is longer than any; the file is damaged")
        data = file.read(size)
        if len(data) < size:
            yield END, CUT_OFF
            return
        yield kind, _decode(data, allow)
    if head:
        yield END, CUT_OFF


def _decode(data: Buffer, allow: Collection[str]) -> Any:
    try:
        return _Unpickler(io.BytesIO(data), allow).load()
    except BadRecording:
        raise
    except Exception as error:  # a pickle that is damaged may raise anything
        raise BadRecording(f"a record cannot be read: {type(error).__name__}: {error}") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], allow: Collection[str]) -> None:
        super().__init__(file)
        self._allow = allow

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) == (__name__, restore_error.__name__):
            return restore_error
        if global_name in _VALUES.get(module_name, ()):
            return super().find_class(module_name, global_name)
        allowed = module_name in self._allow
        if not allowed and not module_name.startswith(_PURE) and module_name not in (_ERRORS, "builtins"):
            raise BadRecording(
                f"it holds {module_name}.{global_name}; if you trust the recording, allow that module"
            )
        found = super().find_class(module_name, global_name)
        if getattr(found, "__module__", None) == module_name and (allowed or _holds_values(found)):
            return found
        raise BadRecording(f"it holds {module_name}.{global_name}, which is no class of values")


def _holds_values(found: Any) -> bool:
    """Whether it is a class, and of the built-in ones an exception."""
    if not isinstance(found, type):
        return False
    return found.__module__ != builtins.__name__ or issubclass(found, BaseException)
