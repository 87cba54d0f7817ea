r"""Windows' named pipes: their names, their handles, and what the kernel says of them.

`pipe:///name` is `\\.\pipe\name`. A pipe is a stream of bytes both ways within one machine. It has no
half-close: when one end is closed, the other reads what is left and then finds the end, and can write
no more.
"""

from __future__ import annotations

import importlib
from typing import Any

from .address import Address
from .errors import AddressInUse, AddressNotAvailable, ConnectionRefused, TransportError, from_os_error
from .overlapped import kernel

_winapi: Any = importlib.import_module("_winapi")

BUFFER = 64 * 1024
"""Bytes that the kernel keeps in each direction, as far as it can."""

_FILE_NOT_FOUND, _ACCESS_DENIED, _BUSY = 2, 5, 231
_REJECT_REMOTE_CLIENTS = 8  # PIPE_REJECT_REMOTE_CLIENTS: else other machines reach it as a shared file
_LONGEST_NAME = 256  # characters, with what stands before it (CreateNamedPipe)


class NamedPipe:
    """One end of a pipe.

    Attributes:
        handle: As the kernel calls it; -1 once it is closed.
    """

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def fileno(self) -> int:
        """The handle."""
        return self.handle

    def close(self) -> None:
        """Free it; may be repeated."""
        handle, self.handle = self.handle, -1
        if handle != -1:
            _winapi.CloseHandle(handle)


def pipe_name(address: Address) -> str:
    """What Windows calls a pipe.

    Raises:
        AddressNotAvailable: No pipe can have that name.
    """
    name = address.path[1:]
    full = rf"\\.\pipe\{name}"
    if "\\" in name or "/" in name or len(full) > _LONGEST_NAME:
        longest = _LONGEST_NAME - len(full) + len(name)
        raise AddressNotAvailable(
            f"the name of a pipe has no slashes, and {longest} characters at most", address=str(address)
        )
    return full


def new_instance(address: Address, *, first: bool) -> NamedPipe:
    """Make a listener's end, to which one client can connect; the first one claims the name.

    Raises:
        AddressInUse: Somebody listens there.
        TransportError: Another one of `drivers.errors`.
    """
    mode = _winapi.PIPE_ACCESS_DUPLEX | _winapi.FILE_FLAG_OVERLAPPED
    if first:
        mode |= _winapi.FILE_FLAG_FIRST_PIPE_INSTANCE
    try:
        handle = _winapi.CreateNamedPipe(
            pipe_name(address),
            mode,
            _winapi.PIPE_WAIT | _REJECT_REMOTE_CLIENTS,  # bytes, not messages
            _winapi.PIPE_UNLIMITED_INSTANCES,
            BUFFER,
            BUFFER,
            0,
            _winapi.NULL,
        )
    except OSError as error:
        if first and _code(error) == _ACCESS_DENIED:
            raise AddressInUse("somebody listens there", code=_ACCESS_DENIED, address=str(address)) from error
        raise from_os_error(error, str(address)) from error
    return NamedPipe(handle)


def try_to_connect(address: Address) -> NamedPipe | None:
    """Connect, which never has to be waited for; gives None where every instance is taken.

    Nothing tells of the moment at which there is another.

    Raises:
        ConnectionRefused: Nobody listens there.
        TransportError: Another one of `drivers.errors`.
    """
    try:
        return NamedPipe(kernel.ConnectPipe(pipe_name(address)))
    except TransportError:
        raise
    except OSError as error:
        code = _code(error)
        if code == _BUSY:
            return None
        if code == _FILE_NOT_FOUND:
            message = "nobody listens there, there is no such pipe"
            raise ConnectionRefused(message, code=code, address=str(address)) from error
        raise from_os_error(error, str(address)) from error


def _code(error: OSError) -> int | None:
    return getattr(error, "winerror", None) or error.errno
