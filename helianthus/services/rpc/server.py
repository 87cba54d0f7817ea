"""Serving methods to whoever connects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ...drivers.address import Address
from ...drivers.base import Driver, Listener
from ...drivers.choose import running_driver
from ...protocols.policies import AdmissionLimits, IdempotencyLimits
from ...protocols.rpc import (
    COMPRESS_ABOVE,
    SERVER_KEEP_ALIVE,
    Codec,
    KeepAlive,
    RpcLimits,
    RpcSession,
    StatisticsTable,
    TypeRegistry,
)
from .authentication import Authentication
from .gate import Gate
from .middleware import Middleware
from .peer import Peer
from .peer_events import PeerEvents
from .reflection import Reflection
from .server_statistics import PeerStatistics, ServerStatistics
from .service import Service, method_table
from .waiter import Waiter

DEFAULT_GRACE = 30.0
"""Seconds that calls in flight have to finish when a server drains; as in Kubernetes."""


class Server(PeerEvents):
    """Serves the methods of some services at any number of addresses.

    In async code, `await server.listen(url)` and `await server.serve_forever()`. In a loop of your
    own, pass the driver, `open` an address and turn the driver; only plain functions can then be
    served.

    Args:
        services: Service objects, each under its own name. Reflection is added as "node".
        driver: By default the running loop's.
        limits: Bounds of each connection.
        keep_alive: Pings and strikes of each connection.
        middleware: What stands between callers and methods; see `Middleware`.
        authentication: How callers prove who they are, and what each may call.
        admission: How many coroutines and streams may run, and how many requests may wait for that.
        idempotency: What is remembered of calls that carry an idempotency key.
        types: Classes of your own whose objects may travel.
        codecs: What clients may have calls carried in: "msgpack" always, and "json".
        compression: "zstd" to compress what is sent to clients that take it, and to take it from
            them; needs the extra `zstd`.
        compress_above: Bytes of a message above which that is tried.
    """

    def __init__(
        self,
        services: Iterable[Service] = (),
        *,
        driver: Driver | None = None,
        limits: RpcLimits | None = None,
        keep_alive: KeepAlive | None = None,
        middleware: Iterable[Middleware] = (),
        authentication: Authentication | None = None,
        admission: AdmissionLimits | None = None,
        idempotency: IdempotencyLimits | None = None,
        types: TypeRegistry | None = None,
        codecs: Iterable[str] = ("msgpack", "json"),
        compression: str | None = None,
        compress_above: int = COMPRESS_ABOVE,
    ) -> None:
        super().__init__(lambda error: self._own_driver().on_error(error))
        given = list(services)
        self.peers: dict[Peer, None] = {}
        """Whoever is connected, oldest first."""
        types = types or TypeRegistry()
        served = [*given, Reflection(given, self.statistics)]
        through = list(middleware)
        if authentication is not None:
            served.append(authentication.service(self._own_driver))
            through.append(authentication)
        self._methods = method_table(served, through, types)
        self._driver = driver
        self._limits = limits or RpcLimits()
        self._codec = Codec(
            self._limits,
            types=types,
            accepts=codecs,
            compression=compression,
            compress_above=compress_above,
        )
        self._keep_alive = keep_alive or SERVER_KEEP_ALIVE
        self.gate = Gate(admission, idempotency)
        """What requests have to pass before they run."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: list[Listener] = []
        self._closed = False
        self._served_before = StatisticsTable()  # by peers that have gone
        self._ending: list[asyncio.Task[None]] = []  # of methods whose connection has ended before them
        self._waiters: list[Waiter] = []

    @property
    def addresses(self) -> list[Address]:
        """Where the server listens, with the ports that were really bound."""
        return [listener.address for listener in self._listeners]

    def statistics(self) -> ServerStatistics:
        """What has been served so far, and by whom it was called."""
        methods = StatisticsTable()
        methods.add(self._served_before)
        peers = []
        for peer in self.peers:
            served = peer.served
            methods.add(served)
            peers.append(PeerStatistics(peer.address, served))
        return ServerStatistics(methods, peers)

    # -- serving -------------------------------------------------------------------------------------

    def open(self, url: str) -> Address:
        """Begin to serve at an address; returns it with the port that was really bound.

        Raises:
            ValueError: The URL is wrong.
            TransportError: The address cannot be used, such as `AddressInUse`.
        """
        if self._closed:
            raise RuntimeError("the server has been closed; make a new one")
        if self._driver is None:
            self._driver = running_driver()
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None  # the driver is turned by hand: only plain functions can run
        self.gate.open(self._driver)
        listener = self._driver.listen(Address.parse(url), self._accept)
        self._listeners.append(listener)
        return listener.address

    async def listen(self, url: str) -> Address:
        """Begin to serve at an address; see `open`."""
        return self.open(url)

    async def serve_forever(self) -> None:
        """Serve until the server is drained or closed; being cancelled closes it."""
        try:
            while not (self._closed and not self.peers):
                await self._watch()
        finally:
            self.close_now()

    async def drain(self, grace: float = DEFAULT_GRACE) -> bool:
        """Stop in good order.

        No new connection is accepted, clients are told to go away, and the calls in flight have
        `grace` seconds to finish; what is left then is cancelled.

        Returns:
            Whether every call finished within the grace period.
        """
        self._closed = True
        self._close_listeners()
        for peer in list(self.peers):
            peer.go_away("the server is shutting down")
        finished = True
        try:
            async with asyncio.timeout(grace):
                while self.peers:
                    await self._watch()
        except TimeoutError:  # of an idle peer only the goodbye is missing
            finished = not any(peer.in_flight or peer.session.pending_calls for peer in self.peers)
        await self.close()
        return finished

    async def close(self) -> None:
        """Stop now: what runs is cancelled, connections are closed in good order.

        Returns when the methods that ran have ended too, with their clean-up.
        """
        self.close_now()
        while self.peers:
            await self._watch()
        ending = [task for task in self._ending if task is not asyncio.current_task()]
        if ending:
            await asyncio.wait(ending)

    def close_now(self) -> None:
        """Begin to `close` without waiting for the end of it."""
        self._closed = True
        self._close_listeners()
        for peer in list(self.peers):
            peer.close("the server was closed")
        self.gate.close()
        self._changed()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    # -- PeerOwner --------------------------------------------------------------------------------------

    def peer_ready(self, peer: Peer) -> None:
        """Somebody has connected."""
        self.peers[peer] = None
        self.tell_connected(peer)

    def peer_said_hello(self, peer: Peer) -> None:
        """The client understands the extensions; nothing to do."""

    def peer_going_away(self, peer: Peer, reason: str) -> None:
        """The client takes no calls any more; the session sees to the rest."""

    def peer_closed(self, peer: Peer, error: Exception | None) -> None:
        """A connection has ended."""
        if peer in self.peers:
            del self.peers[peer]
            self._served_before.add(peer.served)
            self._ending = [task for task in (*self._ending, *peer.tasks) if not task.done()]
            self.tell_disconnected(peer, error)
        self._changed()

    def method_slow(self, peer: Peer, method: str, seconds: float) -> None:
        """A method took longer than `slow_after`."""
        self.tell_slow(peer, method, seconds)

    def method_failed(self, peer: Peer, method: str, error: Exception) -> None:
        """A method failed, or a peer broke the rules."""
        self.tell_failed(peer, method, error)

    # -- inside -------------------------------------------------------------------------------------------

    def _own_driver(self) -> Driver:
        return self._driver or running_driver()

    def _accept(self, peer_address: str) -> tuple[RpcSession, Peer]:
        driver = self._own_driver()
        session = RpcSession(
            driver.now(),
            initiator=False,
            limits=self._limits,
            keep_alive=self._keep_alive,
            codec=self._codec,
        )
        return session, Peer(driver, session, self._methods, self, self._loop)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    async def _watch(self) -> None:
        waiter = Waiter(asyncio.get_running_loop())
        self._waiters.append(waiter)
        await waiter

    def _changed(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.finish(None, None, direct=False)
