"""Accepting DTLS associations as sockets."""

from __future__ import annotations

import logging
from typing import Any

import attrs

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.choose import running_driver
from ...drivers.datagram_link import DatagramLink, text_of
from ...drivers.datagram_options import DEFAULT_OPTIONS, DatagramOptions
from ...protocols.dtls import (
    DtlsClosed,
    DtlsEstablished,
    DtlsFailed,
    DtlsOptions,
    DtlsServer,
    DtlsServerStatistics,
    PeerEvent,
)
from ...protocols.dtls.datagram_queue import DatagramQueue
from ...protocols.machine import Action, DatagramAddress
from ..cancel import CancelToken
from ..sockets.accepting import AcceptingListener, Port
from ..sockets.name_lookup import addresses_of
from ..sockets.waiting import bound_of, check_bounds
from ..tls import ServerTls
from .contexts import server_context
from .conversation import Conversation
from .dtls_socket import DtlsSocket
from .schemes import DTLS_SCHEMES

DEFAULT_BACKLOG = 128
"""Associations that may wait to be accepted."""

_log = logging.getLogger("helianthus.dtls")


class DtlsListener(AcceptingListener[DtlsSocket]):
    """Accepts associations at an address; made by `listen`.

    All of its sockets share one UDP port, and end with the listener. Any number of tasks may accept at the
    same time. Use it as an async context manager, and iterate over it for the sockets; the iteration ends
    when the listener is closed.
    """

    __slots__ = ()

    _port: _Port

    def __init__(self, port: _Port) -> None:
        self._port = port

    @property
    def statistics(self) -> DtlsServerStatistics:
        """What it has done."""
        return self._port.machine.statistics

    @property
    def peers(self) -> int:
        """How many associations stand."""
        return self._port.machine.peers

    async def accept(self, *, timeout: float | None = None, cancel: CancelToken | None = None) -> DtlsSocket:
        """Take the next association, as soon as there is one.

        Args:
            timeout: Seconds.
            cancel: A token that can cancel it.

        Raises:
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
            SocketClosed: The listener has been closed.
        """
        conversation, event = await self._port.take(timeout, cancel)
        return self._port.socket_of(conversation, event)

    async def close(self) -> None:
        """Say goodbye to all peers, and free the port. May be repeated."""
        self._port.close()


class _Port(Port[tuple[Conversation, DtlsEstablished]]):
    """What is behind a listener: the machine and its link, and the associations that have come."""

    def __init__(
        self,
        driver: Driver,
        tls: ServerTls,
        options: DtlsOptions | None,
        datagram_options: DatagramOptions,
        backlog: int,
    ) -> None:
        super().__init__(driver)
        self._backlog = backlog
        self._datagram_options = datagram_options
        self.machine = DtlsServer(
            self._adopt,
            lambda: tls.made(server_context),
            driver.random_bytes,
            handshake_timeout=tls.handshake_timeout,
            options=options,
        )
        self._link: DatagramLink[Any] | None = None
        self._made: dict[DatagramAddress, Conversation] = {}
        self._conversations: dict[DatagramAddress, Conversation] = {}

    @property
    def address(self) -> Address:
        """Where it listens."""
        assert self._link is not None
        return attrs.evolve(self._link.local_address, scheme="dtls")

    def close(self) -> None:
        """See `DtlsListener.close`."""
        if self.closed:
            return
        self.closed = True
        for conversation in (*self._made.values(), *self._conversations.values()):
            conversation.close()
        self._end_accepting()
        if self._link is not None and not self._link.closed:
            self.machine.close(self.driver.now())
            self._link.wake()
            self.driver.post(self._let_go)

    # -- for its sockets -----------------------------------------------------------------------------

    def open_at(self, address: Address) -> None:
        """Bind; raises as `Driver.bind`."""
        self._link = self.driver.bind(address, self.machine, self, self._datagram_options)

    def socket_of(self, conversation: Conversation, event: DtlsEstablished) -> DtlsSocket:
        """What has been accepted, for people."""
        return DtlsSocket(self.driver, conversation, event, _PeerOf(self, event.address, conversation))

    def stir(self, peer: DatagramAddress) -> None:
        """Something was put into a peer's queue."""
        if self._link is not None:
            self.machine.touch(peer)
            self._link.wake()

    def forget(self, peer: DatagramAddress, conversation: Conversation) -> None:
        """Say goodbye to a peer, unless it is somebody else's by now."""
        if self._conversations.get(peer) is conversation and self._link is not None:
            del self._conversations[peer]
            self.machine.close_peer(peer, self.driver.now())
            self._link.wake()

    # -- from the machine and its link -----------------------------------------------------------------

    def _adopt(self, established: DtlsEstablished) -> DatagramQueue:
        conversation = Conversation(self.driver, established.address)
        self._made[established.address] = conversation
        return conversation.queue

    def on_events(self, events: list[Any]) -> None:
        """Hand on what peers' conversations wait for."""
        for event in events:
            if isinstance(event, DtlsEstablished):
                self._established(event)
            elif isinstance(event, DtlsFailed):
                _log.info("no association with %s: %s", text_of(event.address), event.error)
            elif isinstance(event, DtlsClosed):
                conversation = self._conversations.pop(event.address, None)
                if conversation is not None:
                    conversation.handle(event)
            elif event.address in self._conversations:
                self._conversations[event.address].handle(
                    event.event if isinstance(event, PeerEvent) else event
                )

    def on_actions(self, actions: list[Action]) -> None:
        """A queue has none."""

    def on_closed(self, error: Exception | None) -> None:
        """The port is free."""
        for conversation in self._conversations.values():
            conversation.broken(error)
        self._conversations.clear()
        self.closed = True

    def _established(self, event: DtlsEstablished) -> None:
        peer = event.address
        conversation = self._conversations[peer] = self._made.pop(peer)
        conversation.handle(event)
        conversation.wake = lambda: self.stir(peer)
        if self.closed or len(self._waiting) >= self._backlog:
            conversation.close()
            self.forget(peer, conversation)
            return
        self._offer((conversation, event), direct=False)

    def _let_go(self) -> None:
        if self._link is not None and not self._link.closed:
            self._link.settle()  # what is said last, in case nobody has had it sent yet
            self._link.close()


class _PeerOf:
    """A peer of a listener."""

    def __init__(self, port: _Port, peer: DatagramAddress, conversation: Conversation) -> None:
        self._port = port
        self._peer = peer
        self._conversation = conversation

    @property
    def local_address(self) -> Address:
        return self._port.address

    def close_association(self) -> None:
        self._port.forget(self._peer, self._conversation)


async def listen(
    url: str,
    *,
    tls: ServerTls,
    options: DtlsOptions | None = None,
    datagram_options: DatagramOptions = DEFAULT_OPTIONS,
    backlog: int = DEFAULT_BACKLOG,
    timeout: float | None = None,
    cancel: CancelToken | None = None,
    driver: Driver | None = None,
) -> DtlsListener:
    """Begin to listen at an address.

    Args:
        url: Such as `dtls://127.0.0.1:4433`; port 0 takes any free port. A name stands for the first of
            its addresses that this machine has.
        tls: The server's certificate, and whose clients' are asked for. `tls.reload()` takes effect for
            handshakes that begin from then on. There is no resumption.
        options: Sizes, times and how many peers there may be.
        datagram_options: Of the UDP socket.
        backlog: Associations that may wait for `accept`; further ones are ended at once.
        timeout: Seconds that looking up a name may take.
        cancel: A token that can cancel that.
        driver: By default the running loop's.

    Raises:
        ValueError: The URL is none, or an option asks for what DTLS does not have.
        TlsFilesUnusable: A file is not what it should be.
        TransportError: Such as `AddressInUse`.
        OperationTimedOut: Its time was up.
        OperationCancelled: It was cancelled by a token.
    """
    if backlog < 1:
        raise ValueError(f"listen: the backlog is {backlog}; it must be 1 or more")
    address = Address.parse(url, DTLS_SCHEMES)
    tls.made(server_context)
    driver = driver or running_driver()
    what = f"listening at {address}"
    check_bounds(driver, what, timeout, cancel)
    found = await addresses_of(driver, address, what, bound_of(driver, timeout, cancel))
    port = _Port(driver, tls, options, datagram_options, backlog)
    port.open_at_first(found)
    return DtlsListener(port)
