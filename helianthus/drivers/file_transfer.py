"""Files on their way to a peer, in order with what the link's machine sends.

Everything that the machine has given before `Link.send_file` goes out before the file, everything it
gives later goes out behind it. While a file is on its way the link counts as clogged: the machine's
output stays in the machine, as it does while the peer takes nothing.

The kernel copies the file itself where it can (`sendfile`). It cannot where there is no socket, as in
the simulator, where a layer such as TLS has to see the bytes, and where what is called a file is none
of the kernel's; then the file is read in pieces, and each piece is sent as the machine's output is.
Reading from a disk blocks the driver for as long as the disk takes, either way.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from ..protocols.errors import LocalProtocolError
from ..protocols.machine import Buffer
from .errors import ConnectionReset, FileTooShort, TransferCancelled

if TYPE_CHECKING:
    from .link_output import LinkOutput

PIECE = 128 * 1024
"""Bytes of a file that are read at a time, where the kernel does not copy it itself."""

WOULD_BLOCK = -1
"""Of `Link._send_direct`: the transport takes nothing now, and `_left_over` has been called."""

NOT_DIRECT = -2
"""Of `Link._send_direct`: the file has to be read in pieces."""

Told = Callable[["FileTransfer"], None]


class FileTransfer:
    """A part of a file that a link sends.

    Attributes:
        file: The file; it must stay open until the transfer is done. Its position is undefined then.
        offset: Where the part begins, in bytes.
        count: Bytes of the part.
        sent: Bytes that have been handed over to the transport.
        done: Whether nothing more of the part will be sent.
        error: Why not all of it was sent: `FileTooShort`, `TransferCancelled`, the error that ended the
            link, or what reading the file raised. None while all is well.
    """

    __slots__ = (
        "_link",
        "_on_done",
        "_on_progress",
        "cancelled",
        "count",
        "descriptor",
        "done",
        "error",
        "file",
        "offset",
        "sent",
    )

    def __init__(
        self,
        link: LinkOutput[Any],
        file: IO[bytes],
        offset: int,
        count: int | None,
        on_done: Told | None,
        on_progress: Told | None,
    ) -> None:
        given: object = file
        if isinstance(given, io.TextIOBase):
            raise ValueError("the file to send must be opened in binary mode")
        if offset < 0 or (count is not None and count < 0):
            raise ValueError(f"cannot send {count} bytes of a file from {offset} on; both must be 0 or more")
        self._link = link
        self._on_done = on_done
        self._on_progress = on_progress
        self.file = file
        self.descriptor = _descriptor(file)
        self.offset = offset
        left = self._size() - offset
        if left < (count or 0):
            raise ValueError(
                f"cannot send {count or 0} bytes of a file from {offset} on: it has {left + offset} bytes"
            )
        self.count = left if count is None else count
        self.sent = 0
        self.done = False
        self.cancelled = False
        self.error: Exception | None = None

    def cancel(self) -> None:
        """Send nothing more of it; what has been handed over to the transport stays on its way.

        The link goes on with what the machine has to say, and `on_done` is called with the error
        `TransferCancelled`. Whoever has promised the peer all of the file has to end the link instead.
        """
        if not self.done and not self.cancelled:
            self.cancelled = True
            self._link.wake()

    def read(self, size: int) -> bytes:
        """The next bytes that are to be sent, at most `size` of them."""
        position = self.offset + self.sent
        if self.descriptor is not None and hasattr(os, "pread"):
            return os.pread(self.descriptor, size, position)
        self.file.seek(position)
        return self.file.read(size)

    def handed_over(self, size: int) -> None:
        """So many more bytes have gone."""
        self.sent += size
        if self._on_progress is not None:
            self._on_progress(self)

    def finish(self, error: Exception | None) -> None:
        """Nothing more will be sent."""
        self.done = True
        self.error = error
        if self._on_done is not None:
            self._on_done(self)

    def too_short(self) -> FileTooShort:
        """The file has ended before its time."""
        return FileTooShort(
            f"the file ended after {self.sent} of the {self.count} bytes to be sent from {self.offset} on; "
            "it has been shortened since the transfer began"
        )

    def _size(self) -> int:
        if self.descriptor is not None:
            return os.fstat(self.descriptor).st_size
        return self.file.seek(0, os.SEEK_END)


class OutgoingFiles:
    """What one link sends while it sends files: the files, and output that goes between them.

    Attributes:
        blocked: The platform has left something over.
    """

    __slots__ = ("_items", "_link", "_resume_due", "blocked")

    def __init__(self, link: LinkOutput[Any], *, blocked: bool) -> None:
        self._link = link
        self._items: deque[FileTransfer | list[Buffer]] = deque()
        self._resume_due = False
        self.blocked = blocked

    def add(self, output: list[Buffer], transfer: FileTransfer) -> None:
        """Queue the machine's output so far, and a file behind it."""
        if output:
            self._items.append(output)
        self._items.append(transfer)

    def proceed(self) -> bool:
        """Send what the transport takes and one tick allows; gives whether all has gone."""
        self._drop_cancelled()
        budget = self._link._driver.fairness.file_bytes_per_tick
        items, link = self._items, self._link
        while items and not self.blocked and not link.closed:
            item = items[0]
            if isinstance(item, list):
                items.popleft()
                link._send(item)
            elif item.sent == item.count:
                items.popleft()
                item.finish(None)
            elif budget <= 0:
                self._resume_later()
                return False
            else:
                budget -= self._send_part(item, budget)
        return not items and not self.blocked

    def fail(self, error: Exception | None, on_error: Callable[[Exception], None]) -> None:
        """The link has ended; `on_error` is told what a callback lets out."""
        items, self._items = self._items, deque()
        reason = error or ConnectionReset("the link was closed", address=self._link.peer_address)
        for item in items:
            if isinstance(item, list):
                continue
            try:
                item.finish(_cancelled(item) if item.cancelled else reason)
            except Exception as fault:  # noqa: BLE001 - reported; the other transfers must hear of the end
                on_error(fault)

    def _send_part(self, transfer: FileTransfer, limit: int) -> int:
        """Send some of a file; gives how many bytes."""
        wanted = min(transfer.count - transfer.sent, limit)
        link = self._link
        try:
            sent = NOT_DIRECT
            if transfer.descriptor is not None and link._writes_through is None:
                sent = link._send_direct(transfer.descriptor, transfer.offset + transfer.sent, wanted)
            if sent == NOT_DIRECT:
                piece = transfer.read(min(wanted, PIECE))
                sent = len(piece)
                if piece:
                    link._send(link._write_through(piece))
        except (OSError, ValueError, LocalProtocolError) as error:  # the link itself has its own ways to end
            self._items.popleft()
            transfer.finish(error)
            return 0
        if sent == WOULD_BLOCK:
            return 0
        if sent > 0:
            link._progress_at = link._driver.now()
            transfer.handed_over(sent)
        elif not link.closed:
            self._items.popleft()
            transfer.finish(transfer.too_short())
        return sent

    def _drop_cancelled(self) -> None:
        for item in [item for item in self._items if isinstance(item, FileTransfer) and item.cancelled]:
            self._items.remove(item)
            item.finish(_cancelled(item))

    def _resume_later(self) -> None:
        """Go on in the next tick."""
        if not self._resume_due:
            self._resume_due = True
            self._link._driver.post(self._resume)

    def _resume(self) -> None:
        self._resume_due = False
        self._link.wake()


def _cancelled(transfer: FileTransfer) -> TransferCancelled:
    return TransferCancelled(f"the transfer was cancelled after {transfer.sent} of {transfer.count} bytes")


def check_sendable(link: LinkOutput[Any], *, ended: bool) -> None:
    """Refuse a file for a link that sends nothing (more).

    Raises:
        LocalProtocolError: It is not connected, or its direction has ended.
    """
    if ended:
        raise LocalProtocolError(
            f"cannot send a file to {link.peer_address}: the link is not connected, or has ended"
        )


def _descriptor(file: IO[bytes]) -> int | None:
    """The descriptor of a file that the kernel can read by itself.

    Only of Python's own files: what else has a `fileno` may stand for something in that file, as a
    `GzipFile` does.
    """
    inner = getattr(file, "file", file)  # of a temporary file
    if isinstance(inner, io.BufferedRandom):
        inner.flush()
    if isinstance(inner, io.BufferedReader | io.BufferedRandom):
        inner = inner.raw
    return inner.fileno() if isinstance(inner, io.FileIO) else None
