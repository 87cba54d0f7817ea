"""One DTLS association as a socket."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

import attrs

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.choose import running_driver
from ...drivers.datagram_link import DatagramLink, text_of
from ...drivers.datagram_options import DatagramOptions
from ...drivers.errors import TransportError
from ...protocols.dtls import DtlsClient, DtlsEstablished, DtlsOptions
from ...protocols.machine import Action, Buffer
from ..cancel import CancelToken
from ..sockets.name_lookup import addresses_of
from ..sockets.waiting import Bound, bound_of, check_bounds
from ..tls import ClientTls
from .contexts import client_context
from .conversation import Conversation
from .schemes import DTLS_SCHEMES


class DtlsSocket:
    """Datagrams to and from one peer, encrypted; made by `connect` and by `DtlsListener.accept`.

    Datagrams keep their bounds. As with UDP they may be lost, and may come in another order; none comes
    twice. One task may receive and another one send at the same time. Use it as an async context manager,
    and iterate over it for what comes; the iteration ends when the association does.

    Every operation takes `timeout`, in seconds, and `cancel`, a token; those of a scope around it bound
    it as well. One that is given up has neither taken nor sent anything.
    """

    __slots__ = ("_carrier", "_conversation", "_driver", "_established")

    def __init__(
        self, driver: Driver, conversation: Conversation, established: DtlsEstablished, carrier: Carrier
    ) -> None:
        self._driver = driver
        self._conversation = conversation
        self._established = established
        self._carrier = carrier

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        tls: ClientTls | None = None,
        options: DtlsOptions | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        driver: Driver | None = None,
    ) -> DtlsSocket:
        """Shake hands with a server.

        Args:
            url: Such as `dtls://example.org:4433`. Of a name that has several addresses the next is tried
                where nobody is bound at one, or no route leads there.
            tls: Whom to trust, and which certificate to show; by default those whom the system trusts,
                and none. `tls.handshake_timeout` bounds a handshake. There is no resumption.
            options: Sizes and times.
            timeout: Seconds.
            cancel: A token that can cancel it.
            driver: By default the running loop's.

        Raises:
            ValueError: The URL is none, or the options ask for what DTLS does not have.
            TlsFilesUnusable: A file is not what it should be.
            TlsHandshakeFailed: Both ends do not agree, or the server does not answer.
            TransportError: Such as `ConnectionRefused`: nobody is bound there.
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
        """
        address = Address.parse(url, DTLS_SCHEMES)
        tls = tls or ClientTls()
        tls.made(client_context)
        driver = driver or running_driver()
        what = f"connecting to {address}"
        check_bounds(driver, what, timeout, cancel)
        bound = bound_of(driver, timeout, cancel)
        found = await addresses_of(driver, address, what, bound)
        for candidate in found[:-1]:
            try:
                return await _connect(driver, candidate, address.host, tls, options, bound, what)
            except TransportError:
                check_bounds(driver, what, timeout, cancel)  # its own time may have been up
        return await _connect(driver, found[-1], address.host, tls, options, bound, what)

    @property
    def local_address(self) -> Address:
        """Where this end is bound."""
        return self._carrier.local_address

    @property
    def peer_address(self) -> str:
        """The other end as `host:port`."""
        return text_of(self._established.address)

    @property
    def established(self) -> DtlsEstablished:
        """What was agreed upon: version, cipher, and the peer's certificate."""
        return self._established

    @property
    def largest(self) -> int:
        """Bytes of the largest datagram that can be sent."""
        return self._established.largest

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._conversation.closed

    async def recv(self, *, timeout: float | None = None, cancel: CancelToken | None = None) -> bytes:
        """Receive the next datagram; at most 256 wait, and later ones are dropped.

        Args:
            timeout: Seconds.
            cancel: A token that can cancel it.

        Returns:
            One byte or more; none once the peer has said goodbye, or nothing had passed for
            `idle_timeout`.

        Raises:
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
            SocketClosed: This side has closed the socket.
            SocketBusy: Another task receives.
            TlsError: The peer has broken the association off.
        """
        return await self._conversation.receive(timeout, cancel)

    async def send(
        self, data: Buffer, *, timeout: float | None = None, cancel: CancelToken | None = None
    ) -> None:
        """Send a datagram; waits while 256 are waiting for the system to take them.

        Args:
            data: 1 to `largest` bytes.
            timeout: Seconds.
            cancel: A token that can cancel it.

        Raises:
            MessageTooLarge: It does not fit, or is empty; the message names the limit.
            OperationTimedOut: Its time was up.
            OperationCancelled: It was cancelled by a token.
            SocketClosed: The association has ended.
            SocketBusy: Another task sends.
        """
        await self._conversation.send(data, self.largest, timeout, cancel)

    def __aiter__(self) -> DtlsSocket:
        return self

    async def __anext__(self) -> bytes:
        datagram = await self.recv()
        if not datagram:
            raise StopAsyncIteration
        return datagram

    async def close(self) -> None:
        """Send what is queued, say goodbye to the peer, and let go of it. May be repeated."""
        if not self._conversation.closed:
            _let_go(self._conversation, self._carrier)

    async def __aenter__(self) -> DtlsSocket:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        """Do not let an association go on that nobody can reach any more."""
        conversation, carrier = self._conversation, self._carrier
        if not conversation.closed and not conversation.ended:
            self._driver.post(lambda: _let_go(conversation, carrier))  # the collector may run in any thread
            warn(f"{self!r} was dropped without being closed", ResourceWarning, source=self)

    def __repr__(self) -> str:
        closed = ", closed" if self.closed else ""
        return f"<DtlsSocket to {self.peer_address}, {self._established.cipher}{closed}>"


class Carrier(Protocol):
    """What carries an association; a client's own link, or a listener's for one of its peers."""

    @property
    def local_address(self) -> Address:
        """Where it is bound."""

    def close_association(self) -> None:
        """Say goodbye to the peer."""


def _let_go(conversation: Conversation, carrier: Carrier) -> None:
    conversation.close()
    carrier.close_association()


class _ClientLink:
    """A client's machine on its link, as the link's handler."""

    def __init__(self, driver: Driver, machine: DtlsClient, conversation: Conversation) -> None:
        self._driver = driver
        self._machine = machine
        self._conversation = conversation
        self._link: DatagramLink[object] | None = None

    def bind(self, server: Address) -> None:
        """Open a socket for it; raises as `Driver.bind`."""
        options = DatagramOptions(peer=server)
        self._link = self._driver.bind(Address("", 0, "dtls"), self._machine, self, options)
        self._conversation.wake = self._link.wake

    @property
    def local_address(self) -> Address:
        assert self._link is not None
        return attrs.evolve(self._link.local_address, scheme="dtls")

    def close_association(self) -> None:
        if self._link is None or self._link.closed:
            return
        self._machine.close(self._driver.now())
        self._link.wake()
        self._driver.post(self._let_go)

    def _let_go(self) -> None:
        if self._link is not None and not self._link.closed:
            self._link.settle()  # what is said last, in case nobody has had it sent yet
            self._link.close()

    def on_events(self, events: list[object]) -> None:
        for event in events:
            self._conversation.handle(event)

    def on_actions(self, actions: list[Action]) -> None:
        """A queue has none."""

    def on_closed(self, error: Exception | None) -> None:
        self._conversation.broken(error)


async def _connect(
    driver: Driver,
    server: Address,
    name: str,
    tls: ClientTls,
    options: DtlsOptions | None,
    bound: Bound,
    what: str,
) -> DtlsSocket:
    peer = (server.host, server.port)
    conversation = Conversation(driver, peer)
    machine = DtlsClient(
        conversation.queue,
        tls.made(client_context),
        peer,
        driver.now(),
        server_name=tls.server_name or name,
        handshake_timeout=tls.handshake_timeout,
        options=options,
    )
    link = _ClientLink(driver, machine, conversation)
    link.bind(server)
    try:
        established = await conversation.opened(what, bound)
    except BaseException:
        link.close_association()
        raise
    return DtlsSocket(driver, conversation, established, link)
