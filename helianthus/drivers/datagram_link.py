"""Joins a datagram machine to a transport, the same way on every driver."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from ..protocols.machine import Buffer, DatagramAddress, DatagramMachine
from .address import Address
from .pump import Host

if TYPE_CHECKING:
    from .base import Driver, HostHandler

E = TypeVar("E")

BATCH = 64
"""Datagrams taken from a machine at a time."""

_ROUNDS = 16  # batches that one link may send in a tick before the others have their turn


class DatagramLink(Host[E]):
    """A bound datagram socket with its machine; a driver's subclass moves the datagrams.

    Attributes:
        local_address: Where it is bound, with the port that was really taken.
    """

    __slots__ = ("local_address",)

    machine: DatagramMachine[E]

    def __init__(
        self, driver: Driver, machine: DatagramMachine[E], handler: HostHandler[E], address: Address
    ) -> None:
        super().__init__(driver, machine, handler)
        self.local_address = address

    @property
    def closed(self) -> bool:
        """Whether the socket has been closed."""
        return self._let_go

    def close(self) -> None:
        """Free the socket; nothing of the machine is served any more. May be repeated."""
        if not self._let_go:
            super().close()
            self._close_transport()

    @abstractmethod
    def _send_datagrams(self, batch: list[tuple[bytes, DatagramAddress]]) -> None:
        """Send; a datagram that the platform refuses is lost."""

    @abstractmethod
    def _close_transport(self) -> None:
        """Free the socket."""

    def _received(self, batch: Sequence[tuple[Buffer, DatagramAddress]]) -> None:
        """Give the machine what has come, and the handler what it makes of it."""
        if self._let_go:
            return
        try:
            self.machine.receive_datagrams(batch, self._driver.now())
            self._hand_over_actions()
            self._hand_over_events()
        except Exception as error:  # noqa: BLE001 - reported; a bound socket outlives one bad peer
            self._driver.on_error(error)
        self.wake()

    def settle(self) -> bool:
        """Drain the machine: actions, datagrams, deadline, events."""
        if self._let_go:
            return False
        self.woken = False
        called = False
        try:
            called = self._hand_over_actions()
            if not self._let_go:
                self._flush()
                self._arm()
                called = self._hand_over_events() or called
        except Exception as error:  # noqa: BLE001 - reported; a bound socket outlives one bad peer
            self._driver.on_error(error)
            return True
        return called

    def _flush(self) -> None:
        for _ in range(_ROUNDS):
            batch = self.machine.take_datagrams(BATCH)
            if batch:
                self._send_datagrams(batch)
            if len(batch) < BATCH:
                return
        self.wake()
