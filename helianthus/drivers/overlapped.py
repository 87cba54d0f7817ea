"""The part of CPython's `_overlapped` that the IOCP driver uses, with its types.

It is the module that asyncio's proactor is written on. It has no documentation and no published
types; what is said here is what its source does (Modules/overlapped.c, Python 3.11 to 3.13).
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Protocol, cast

from ..protocols.machine import Buffer

if os.name != "nt":
    raise ImportError("IOCP exists on Windows only")


class Overlapped(Protocol):
    """One operation. Methods named after a call of Windows begin it, on a handle, and return at once.

    They raise `OSError` where the operation could not begin; then no completion follows. In all other
    cases one does, however the operation ends.

    Attributes:
        address: Where the kernel's structure is; by this a completion names the operation.
        pending: Whether it is still under way.
    """

    address: int
    pending: bool

    def cancel(self) -> None:
        """Have it end soon, with ERROR_OPERATION_ABORTED; nothing happens if it has ended."""

    def getresult(self, wait: bool = False, /) -> Any:
        """What came of it, once: bytes moved, or bytes and sender.

        Raises:
            OSError: How it failed, with the code as `winerror`.
        """

    def AcceptEx(self, listener: int, sock: int, /) -> None: ...  # noqa: D102, N802
    def ConnectEx(self, sock: int, sockaddr: Any, /) -> None: ...  # noqa: D102, N802
    def ConnectNamedPipe(self, pipe: int, /) -> bool: ...  # noqa: D102, N802
    def TransmitFile(  # noqa: D102, N802
        self, sock: int, file: int, offset: int, offset_high: int, count: int, at_a_time: int, flags: int, /
    ) -> None: ...
    def ReadFileInto(self, pipe: int, buffer: Buffer, /) -> None: ...  # noqa: D102, N802
    def WriteFile(self, pipe: int, data: Buffer, /) -> None: ...  # noqa: D102, N802
    def WSARecvInto(self, sock: int, buffer: Buffer, flags: int, /) -> None: ...  # noqa: D102, N802
    def WSARecvFromInto(self, sock: int, buffer: Buffer, size: int, flags: int, /) -> None: ...  # noqa: D102, N802
    def WSASend(self, sock: int, data: Buffer, flags: int, /) -> None: ...  # noqa: D102, N802
    def WSASendTo(self, sock: int, data: Buffer, flags: int, sockaddr: Any, /) -> None: ...  # noqa: D102, N802


class _Module(Protocol):
    SO_UPDATE_ACCEPT_CONTEXT: int
    SO_UPDATE_CONNECT_CONTEXT: int
    INVALID_HANDLE_VALUE: int
    ERROR_PIPE_BUSY: int

    def Overlapped(self, event: int, /) -> Overlapped: ...  # noqa: N802
    def BindLocal(self, sock: int, family: int, /) -> None: ...  # noqa: N802
    def ConnectPipe(self, name: str, /) -> int: ...  # noqa: N802
    def CreateIoCompletionPort(self, handle: int, port: int, key: int, threads: int, /) -> int: ...  # noqa: N802
    def GetQueuedCompletionStatus(self, port: int, milliseconds: int, /) -> Completion | None: ...  # noqa: N802
    def PostQueuedCompletionStatus(self, port: int, count: int, key: int, address: int, /) -> None: ...  # noqa: N802
    def WSAConnect(self, sock: int, sockaddr: Any, /) -> None: ...  # noqa: N802


Completion = tuple[int, int, int, int]
"""What the port gives: an error code, bytes, key, and the address of the operation."""

_NO_EVENT = 0
_WORKSTATION = 1  # VER_NT_WORKSTATION

kernel = cast(_Module, importlib.import_module("_overlapped"))
_msvcrt: Any = importlib.import_module("msvcrt")


def file_handle(descriptor: int) -> int:
    """The handle of an open file."""
    handle: int = _msvcrt.get_osfhandle(descriptor)
    return handle


def is_workstation() -> bool:
    """Whether this is an edition of Windows for clients, and none for servers."""
    version: Any = getattr(sys, "getwindowsversion")()  # noqa: B009 - type-checkers elsewhere do not know it
    return bool(version.product_type == _WORKSTATION)


def new_operation() -> Overlapped:
    """Make an operation, to be begun by one of its methods."""
    return kernel.Overlapped(_NO_EVENT)
