"""Sending files: the link does it, in order with the stream's output; this waits for it.

An operation that is given up cancels the transfer. What the transport has been given by then is sent,
and nothing else of the file.
"""

from __future__ import annotations

import asyncio
import os
import stat
from typing import IO, BinaryIO, TypeAlias

from ...drivers.errors import FileTooShort, TransferCancelled
from ...drivers.file_transfer import FileTransfer
from ..waiter import Waiter
from .connection import Connection
from .waiting import Bound, Woken

File: TypeAlias = str | os.PathLike[str] | IO[bytes]
"""A path, or a file that is open for reading in binary mode."""


async def send_file(connection: Connection, file: File, offset: int, count: int | None, bound: Bound) -> int:
    """Send a file, or a part of it; gives how many bytes. See `TcpSocket.sendfile`."""
    if offset < 0 or (count is not None and count < 0):
        raise ValueError(f"sendfile: offset is {offset} and count {count}; neither may be less than 0")
    if isinstance(file, str | os.PathLike):
        with await _open(connection, file, bound) as opened:
            _check_regular(opened)
            return await _send(connection, opened, offset, count, bound)
    _check_regular(file)
    before = connection.file_bytes
    try:
        return await _send(connection, file, offset, count, bound)
    finally:
        file.seek(offset + connection.file_bytes - before)


async def _send(connection: Connection, file: IO[bytes], offset: int, count: int | None, bound: Bound) -> int:
    if not file.readable():
        raise ValueError(f"sendfile: {file!r} is not open for reading")
    left = max(0, file.seek(0, os.SEEK_END) - offset)
    size = left if count is None else min(count, left)
    if not size:
        return 0
    link = connection.link
    if connection.closed or link is None or not connection.stream.sends:
        raise connection.writing_failure("sendfile")
    waiter = Waiter(asyncio.get_running_loop())

    def ended(transfer: FileTransfer) -> None:
        waiter.finish(Woken.BY_EVENT, None, direct=False)

    transfer = connection.transfer = link.send_file(file, offset, size, on_done=ended)
    try:
        woken = await bound.wait(connection.driver, waiter)
        sent = transfer.sent
        if not transfer.done:
            bound.check("sendfile", woken, queued=sent, address=connection.peer_address)
    finally:
        transfer.cancel()
        connection.transfer = None
        connection.file_bytes += transfer.sent
    error = transfer.error
    if isinstance(error, TransferCancelled) or (error is not None and connection.stream.lost):
        raise connection.writing_failure("sendfile", sent)
    if error is not None and not isinstance(error, FileTooShort):
        raise error
    return sent


async def _open(connection: Connection, path: str | os.PathLike[str], bound: Bound) -> BinaryIO:
    """Open a file without making others wait for the disk."""
    waiter = Waiter(asyncio.get_running_loop())
    opened: list[tuple[BinaryIO | None, Exception | None]] = []

    def done(file: BinaryIO | None, error: Exception | None) -> None:
        if given_up and file is not None:
            file.close()
        opened.append((file, error))
        waiter.finish(Woken.BY_EVENT, None, direct=False)

    def work() -> BinaryIO:
        return open(path, "rb", opener=_open_at_once)

    given_up = False
    connection.driver.in_thread(work, done)
    try:
        woken = await bound.wait(connection.driver, waiter)
        if not opened:
            bound.check("sendfile", woken)
    except BaseException:
        given_up = True
        for file, _ in opened:
            if file is not None:
                file.close()
        raise
    ((file, error),) = opened
    if file is None:
        raise error or OSError(f"{path} was not opened")
    return file


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the writer of a FIFO: the process could not end before there is one."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(file: IO[bytes]) -> None:
    """Refuse what has no size, such as a pipe or a device; what has no descriptor has one of its own.

    Raises:
        ValueError: It is refused.
    """
    try:
        mode = os.fstat(file.fileno()).st_mode
    except (AttributeError, OSError):  # io.UnsupportedOperation is one: a BytesIO, for example
        return
    if not stat.S_ISREG(mode):
        name = getattr(file, "name", file)
        raise ValueError(f"sendfile: {name} is not a regular file; read it, and use send_all")
