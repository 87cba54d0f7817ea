"""Joins a datagram machine to a transport, the same way on every driver.

A driver's subclass moves datagrams. It calls `_received` and `_received_error` for what arrives, and
provides `_send_datagrams` and `_close_transport`. Where the platform does not take all that is to be
sent, the rest waits in the link, at most one batch, and everything later in the machine, whose own
limits answer that; the subclass calls `_writable` when it is worth trying again.

A bound socket outlives its peers. Whatever one datagram or one peer does wrong is told to the machine
(`DatagramMachine.receive_error`) or, where machine or handler let an exception out, to
`Driver.on_error`; the socket goes on.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from ..protocols.machine import Buffer, DatagramAddress, DatagramMachine
from .address import DATAGRAM_SCHEMES, Address
from .datagram_options import LARGEST_PAYLOAD, DatagramOptions
from .errors import MessageTooLarge, TransportError
from .pump import Host

if TYPE_CHECKING:
    from .base import DatagramHandler, Driver

E = TypeVar("E")

BATCH = 64
"""Datagrams taken from a machine, or given to it, at a time."""

RECEIVES_PER_TICK = 4
"""Full batches that one link may receive in a tick before the others have their turn."""

SENDS_PER_TICK = 2
"""Full batches that one link may send in a tick before the others have their turn. More would also
overrun a receiver on the same driver: Linux' receive buffer holds some 250 small datagrams unless
told otherwise (net.core.rmem_default)."""


@attrs.define
class DatagramStatistics:
    """What a link has moved, in datagrams.

    Attributes:
        received: Given to the machine.
        sent: Taken by the system.
        dropped: Given by the machine, but not sent: the system refused them, or the link was closed.
        truncated: Larger than `DatagramOptions.max_datagram_size`, and not delivered.
        errors: Reported to the machine, of all kinds.
    """

    received: int = 0
    sent: int = 0
    dropped: int = 0
    truncated: int = 0
    errors: int = 0


class DatagramLink(Host[E]):
    """A bound datagram socket with its machine.

    Attributes:
        local_address: Where it is bound, with the port that was really taken.
        peer_address: Whom it is connected to, by IP address (in the simulator as it was named), or
            None. What the machine sends may be addressed to this, or to the peer as it was named.
        options: As they were given to `Driver.bind`.
        statistics: What it has moved so far.
    """

    __slots__ = (
        "_close_told",
        "_end_error",
        "_peer_names",
        "_unsent",
        "local_address",
        "options",
        "peer_address",
        "statistics",
    )

    machine: DatagramMachine[E]
    _handler: DatagramHandler[E]

    def __init__(
        self,
        driver: Driver,
        machine: DatagramMachine[E],
        handler: DatagramHandler[E],
        local_address: Address,
        options: DatagramOptions,
        peer_address: DatagramAddress | None = None,
    ) -> None:
        super().__init__(driver, machine, handler)
        self.local_address = local_address
        self.peer_address = peer_address
        self.options = options
        self.statistics = DatagramStatistics()
        self._peer_names = frozenset[DatagramAddress]()  # under which the machine may address it
        if peer_address is not None and options.peer is not None:
            self._peer_names = frozenset({peer_address, (options.peer.host, options.peer.port)})
        self._unsent: list[tuple[bytes, DatagramAddress]] = []  # was taken from the machine; waits
        self._end_error: Exception | None = None
        self._close_told = False

    @property
    def closed(self) -> bool:
        """Whether the socket has been closed."""
        return self._let_go

    def close(self) -> None:
        """Free the socket; nothing of the machine is served any more. May be repeated.

        The handler hears `on_closed` at the end of this tick, because it may be the handler that
        calls this.
        """
        self._end(None)

    # -- what the platform's part provides ---------------------------------------------------------

    @abstractmethod
    def _send_datagrams(self, batch: list[tuple[bytes, DatagramAddress]]) -> int:
        """Send in order; returns how many the platform has dealt with.

        The others are kept, and offered again after the platform's part has called `_writable`. Those
        that the system took are counted in `statistics.sent`; one that it refuses is given to
        `_refused`, and is dealt with.
        """

    @abstractmethod
    def _close_transport(self) -> None:
        """Free the socket; nothing is called after this."""

    def _may_send_to(self, destination: DatagramAddress) -> bool:
        """Whether a connected socket is connected to this one."""
        return not self._peer_names or destination in self._peer_names

    # -- inputs from the platform's part -----------------------------------------------------------

    def _received(self, batch: Sequence[tuple[Buffer, DatagramAddress]]) -> None:
        """Give the machine what has come, and the handler what it makes of it.

        The buffers may be reused when this returns.
        """
        if self._let_go:
            return
        limit = self.options.max_datagram_size
        try:
            if limit < LARGEST_PAYLOAD and any(len(data) > limit for data, _ in batch):
                batch = self._without_too_large(batch)
            self.statistics.received += len(batch)
            self.machine.receive_datagrams(batch, self._driver.now())
            self._hand_over_actions()
            self._hand_over_events()
        except Exception as error:  # noqa: BLE001 - reported; a bound socket outlives one bad peer
            self._driver.on_error(error)
        self.wake()

    def _without_too_large(
        self, batch: Sequence[tuple[Buffer, DatagramAddress]]
    ) -> list[tuple[Buffer, DatagramAddress]]:
        """Report what is larger than allowed."""
        limit = self.options.max_datagram_size
        fitting = []
        for data, source in batch:
            if len(data) > limit:
                self._truncated(source, f"a datagram of {len(data)} bytes came")
            else:
                fitting.append((data, source))
        return fitting

    def _truncated(self, source: DatagramAddress | None, what: str = "a larger datagram came") -> None:
        """Report a datagram that did not fit, and that is not delivered."""
        self.statistics.truncated += 1
        message = f"{what}, and max_datagram_size is {self.options.max_datagram_size}"
        self._report(MessageTooLarge(message, address=text_of(source)), source)

    def _received_error(self, error: TransportError, address: DatagramAddress | None) -> None:
        """Tell the machine of an error that came from the network, and hand on what it says."""
        if self._let_go:
            return
        try:
            self._report(error, address)
            self._hand_over_actions()
            self._hand_over_events()
        except Exception as fault:  # noqa: BLE001 - reported; a bound socket outlives one bad peer
            self._driver.on_error(fault)
        self.wake()

    def _refused(self, error: TransportError, destination: DatagramAddress) -> None:
        """A datagram cannot be sent: it is lost, and the machine is told; from `_send_datagrams`."""
        self.statistics.dropped += 1
        self._report(error, destination)

    def _report(self, error: TransportError, address: DatagramAddress | None) -> None:
        self.statistics.errors += 1
        try:
            self.machine.receive_error(error, address, self._driver.now())
        except Exception as fault:  # noqa: BLE001 - reported; what else was to be sent is sent
            self._driver.on_error(fault)

    def _writable(self) -> None:
        """The platform may take more."""
        if self._let_go or not self._unsent:
            return
        self._send(self._unsent)
        if not self._unsent:
            self.wake()

    def _lost(self, error: TransportError) -> None:
        """The socket itself is broken."""
        self._end(error)

    # -- once per tick -----------------------------------------------------------------------------

    def settle(self) -> bool:
        """Drain the machine: actions, datagrams, deadline, events."""
        if self._let_go:
            return self._tell_closed()
        self.woken = False
        called = False
        try:
            called = self._hand_over_actions()
            if not self._let_go and not self._unsent:
                self._flush()
            if not self._let_go:
                self._arm()
                called = self._hand_over_events() or called
        except Exception as error:  # noqa: BLE001 - reported; a bound socket outlives one bad peer
            self._driver.on_error(error)
            return True
        return called

    def _flush(self) -> None:
        for _ in range(SENDS_PER_TICK):
            batch = self.machine.take_datagrams(BATCH)
            if batch:
                self._send(batch)
            if len(batch) < BATCH or self._unsent or self._let_go:
                return
        self._driver.post(self.wake)  # not before the next tick

    def _send(self, batch: list[tuple[bytes, DatagramAddress]]) -> None:
        self._unsent = []
        taken = self._send_datagrams(batch)
        if self._let_go:
            self.statistics.dropped += len(batch) - taken
        else:
            self._unsent = batch[taken:] if taken < len(batch) else []

    # -- the end -----------------------------------------------------------------------------------

    def _fault(self, error: Exception) -> None:
        """The machine is broken: report it, and serve it no more."""
        self._driver.on_error(error)
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._let_go:
            return
        super().close()
        self._end_error = error
        self.statistics.dropped += len(self._unsent)
        self._unsent = []
        self._close_transport()
        self._driver._settle_soon(self)

    def _tell_closed(self) -> bool:
        if self._close_told:
            return False
        self._close_told = True
        try:
            self._handler.on_closed(self._end_error)
        except Exception as error:  # noqa: BLE001 - reported; nothing is left to end
            self._driver.on_error(error)
        return True


def text_of(address: DatagramAddress | None) -> str:
    """Write an address as `host:port`."""
    if address is None:
        return ""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_bindable(address: Address) -> None:
    """Refuse an address that no datagram socket can have.

    Raises:
        ValueError: It is a path, of a Unix-domain socket or a pipe.
    """
    if address.local:
        raise ValueError(f"{address} cannot be bound to for datagrams; write it as udp://host:port")


def bound_address(host: str, port: int, asked: Address) -> Address:
    """The address of a socket that was asked for as `asked`."""
    return Address(host, port, asked.scheme if asked.scheme in DATAGRAM_SCHEMES else "udp")
