"""The writing half of a link: what waits for the transport, and for how long.

What the machine gives is handed to the platform at once. What the platform does not take stays in the
link; once that is more than the high watermark the link is *clogged*, and further output stays in the
machine. `LinkOptions` has the watermarks and the time that a peer may take nothing.

Files go between: while one is on its way the link is clogged, see `file_transfer`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, TypeVar

from ..protocols.machine import Buffer, StreamMachine
from .errors import WriteTimeout
from .file_transfer import NOT_DIRECT, FileTransfer, OutgoingFiles, Told, check_sendable
from .host import Host
from .link_options import DEFAULT_LINK_OPTIONS, LinkOptions
from .link_state import CONNECTING, GONE, OPEN, LinkState
from .link_statistics import LinkStatistics
from .timers import Timer

if TYPE_CHECKING:
    from .base import Driver, LinkHandler

E = TypeVar("E")


class LinkOutput(Host[E]):
    """The base of `Link`; not used by itself.

    Attributes:
        peer_address: The other end as `host:port`.
        bytes_in: See `LinkStatistics`, also for the following.
        bytes_out: Counted by the platform's part, as are `writes` and `partial_writes`.
        writes: Likewise.
        partial_writes: Likewise.
        stalls: How often output had to wait.
        high_mark: The most bytes that waited.
    """

    __slots__ = (
        "_clogged",
        "_files",
        "_half_closed",
        "_high",
        "_low",
        "_options",
        "_progress_at",
        "_stalled_at",
        "_stalled_time",
        "_state",
        "_write_timer",
        "_writes_through",
        "bytes_in",
        "bytes_out",
        "high_mark",
        "local_address",
        "partial_writes",
        "peer_address",
        "stalls",
        "writes",
    )

    machine: StreamMachine[E]
    _handler: LinkHandler[E]

    def __init__(
        self, driver: Driver, machine: StreamMachine[E], handler: LinkHandler[E], peer_address: str
    ) -> None:
        super().__init__(driver, machine, handler)
        self.local_address = ""
        self.peer_address = peer_address
        self._state = CONNECTING
        self._half_closed = False
        self._clogged = False  # too much waits for the transport, or files are on their way
        self._files: OutgoingFiles | None = None
        self._writes_through: Callable[[Buffer], list[Buffer]] | None
        self._writes_through = getattr(machine, "write_through", None)
        options: LinkOptions = getattr(handler, "link_options", None) or DEFAULT_LINK_OPTIONS
        self._options = options
        self._high, self._low = options.high_water, options.low_water
        self._progress_at = 0.0
        self._write_timer: Timer | None = None
        self._stalled_at: float | None = None
        self._stalled_time = 0.0
        self.bytes_in = self.bytes_out = self.writes = self.partial_writes = 0
        self.stalls = self.high_mark = 0

    _state: LinkState

    @property
    def closed(self) -> bool:
        """Whether the link has ended."""
        return self._state in GONE

    @property
    def clogged(self) -> bool:
        """Whether output stays in the machine for now; the handler hears `on_writable` when not."""
        return self._clogged

    @property
    @abstractmethod
    def unsent(self) -> int:
        """Bytes that the machine has given and the transport has not taken yet."""

    def send_file(
        self,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        on_done: Told | None = None,
        on_progress: Told | None = None,
    ) -> FileTransfer:
        """Send a part of a file, behind everything that the machine has given so far.

        What the machine gives from now on goes out behind the file. The callbacks are called by the
        driver, never from within this call. When `on_done` is called nothing behind the file has been
        sent yet, so that a transfer which has failed can still end the link.

        Args:
            file: Opened in binary mode, and able to seek; it must stay open until the end.
            offset: Where to begin, in bytes.
            count: Bytes to send; by default all to the end that the file has now.
            on_done: Told of the end of the transfer, good or bad.
            on_progress: Told whenever the transport has taken some of it.

        Raises:
            LocalProtocolError: The link is not connected, sends nothing any more, or has a layer that
                cannot send yet.
            ValueError: The file is a text, or has fewer bytes.
            OSError: The file cannot be examined.
        """
        check_sendable(self, ended=self._state is not OPEN or self._half_closed)
        transfer = FileTransfer(self, file, offset, count, on_done, on_progress)
        output = self._write_through(b"") if self._writes_through is not None else []
        output += self.machine.take_data()
        if self._files is None:
            self._files = OutgoingFiles(self, blocked=self._clogged or self.unsent > 0)
            self._clogged = True
            self._set_limits(0, 0)
        self._files.add(output, transfer)
        self.wake()
        return transfer

    # -- numbers ------------------------------------------------------------------------------------

    @property
    def links(self) -> int:
        """One, once it was connected."""
        return 1 if self.local_address else 0

    @property
    def stalled_time(self) -> float:
        """Seconds that output has waited for the transport."""
        since = self._stalled_at
        return self._stalled_time + (self._driver.now() - since if since is not None else 0.0)

    @property
    def dropped(self) -> int:
        """Messages that the machine has dropped because the peer is slow."""
        return getattr(self.machine, "dropped_messages", 0)

    def statistics(self) -> LinkStatistics:
        """The present numbers."""
        numbers = LinkStatistics()
        numbers.add(self)
        return numbers

    # -- what the platform's part provides ------------------------------------------------------------

    @abstractmethod
    def _send(self, buffers: list[Buffer]) -> None:
        """Send, and keep in order what the platform does not take.

        Where it does not take all, the platform's part calls `_left_over`, and `_drained` when no more
        than `_low` bytes are left of that. It counts `bytes_out`, `writes` and `partial_writes`.
        """

    def _send_direct(self, descriptor: int, offset: int, count: int) -> int:
        """Have the kernel send a part of a file: gives bytes sent, `WOULD_BLOCK` or `NOT_DIRECT`."""
        return NOT_DIRECT

    def _set_limits(self, high: int, low: int) -> None:
        """Other watermarks are in force from now on."""
        self._high, self._low = high, low
        if not self._clogged and self.unsent > high:
            self._left_over()

    # -- inputs from the platform's part ----------------------------------------------------------------

    def _left_over(self) -> None:
        """The platform has not taken everything that was sent."""
        unsent = self.unsent
        if unsent > self.high_mark:
            self.high_mark = unsent
        self._watch_progress()
        if self._files is not None:
            self._files.blocked = True
        elif unsent <= self._high:
            return
        self._clogged = True
        if self._stalled_at is None:
            self._stalled_at = self._driver.now()
            self.stalls += 1

    def _drained(self) -> None:
        """What the platform had left over it has taken now, all but the low watermark."""
        if self._stalled_at is not None:
            self._stalled_time += self._driver.now() - self._stalled_at
            self._stalled_at = None
        if self._write_timer is not None and not self.unsent:
            self._write_timer.cancel()
            self._write_timer = None
        if self._files is not None:
            self._files.blocked = False
            self.wake()
            return
        self._clogged = False
        if self._state is OPEN:
            try:
                self._handler.on_writable()
            except Exception as error:  # noqa: BLE001 - reported, and only this link ends
                self._fault(error)
                return
            self.wake()

    # -- files ---------------------------------------------------------------------------------------

    def _send_files(self, files: OutgoingFiles) -> None:
        """Go on with files that are on their way; once they have gone, with the machine's output."""
        if files.proceed():
            self._files = None
            self._clogged = False
            self._set_limits(self._options.high_water, self._options.low_water)
            self._handler.on_writable()
            self.wake()

    def _write_through(self, data: Buffer) -> list[Buffer]:
        """What a piece of a file is on the wire."""
        return [data] if self._writes_through is None else self._writes_through(data)

    # -- a peer that takes nothing ----------------------------------------------------------------------

    @property
    def _write_deadline(self) -> float:
        own = self._options.write_deadline
        return self._driver.write_deadline if own is None else own

    def _watch_progress(self) -> None:
        if self._write_timer is not None:
            return
        driver = self._driver
        self._progress_at = driver.now()
        self._write_timer = driver.call_at(self._progress_at + self._write_deadline, self._check_progress)

    def _check_progress(self) -> None:
        driver = self._driver
        self._write_timer = None
        unsent, waiting = self.unsent, self._files is not None and self._files.blocked
        if not unsent and not waiting:
            return
        due = self._progress_at + self._write_deadline
        if driver.now() < due:
            self._write_timer = driver.call_at(due, self._check_progress)
            return
        queued = f"{unsent} bytes queued" if unsent else "a file on its way"
        self._lost(
            WriteTimeout(
                f"the peer took nothing for {self._write_deadline:g} s (write_deadline) with {queued}",
                address=self.peer_address,
            )
        )

    @abstractmethod
    def _lost(self, error: Exception | None) -> None:
        """The transport is gone, or is to be gone."""
