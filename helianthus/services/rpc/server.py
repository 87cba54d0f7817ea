"""Serving methods to whoever connects."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable
from typing import Any

import attrs

from ...drivers.address import Address
from ...drivers.base import Driver, Listener
from ...drivers.choose import running_driver
from ...drivers.link_options import LinkOptions
from ...drivers.link_statistics import LinkStatistics
from ...protocols.machine import StreamMachine
from ...protocols.policies import AdmissionLimits, IdempotencyLimits
from ...protocols.policies.arrivals import MAX_ARRIVALS
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
from ...protocols.slow_consumer import SlowConsumerPolicy
from ..listener_layers import ListenerLayers
from ..proxy_trust import proxy_trust
from ..tls import ServerTls
from ..waiter import Waiter
from .addresses import rpc_address
from .arriving_peers import ArrivingPeers
from .authentication import Authentication, identify_certificate
from .gate import Gate
from .middleware import Middleware
from .peer import Peer
from .peer_events import PeerEvents
from .reflection import Reflection
from .security import server_security
from .server_statistics import PeerStatistics, ServerStatistics
from .service import Service, method_table

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
        slow_consumer: What happens to notifications and stream items that a client is too slow for:
            "block" (whoever sends waits, or is refused), "drop-oldest" or "disconnect"; instead of
            that of `limits`.
        max_pending: Bytes that may wait for a client before that happens; instead of that of `limits`.
        link_options: Watermarks and write deadline of each connection.
        max_handshakes: Connections whose TLS handshake, or PROXY header, may be under way. When there
            are so many, others wait in the system, and the oldest of these is ended once it has taken
            a second.
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
        slow_consumer: SlowConsumerPolicy | str | None = None,
        max_pending: int | None = None,
        link_options: LinkOptions | None = None,
        max_handshakes: int = MAX_ARRIVALS,
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
        self._authentication = authentication
        self._methods = method_table(served, through, types)
        self._driver = driver
        limits = limits or RpcLimits()
        if slow_consumer is not None:
            limits = attrs.evolve(limits, slow_consumer=slow_consumer)
        if max_pending is not None:
            limits = attrs.evolve(limits, max_pending=max_pending)
        self._limits = limits
        self._link_options = link_options
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
        self._arriving = ArrivingPeers(max_handshakes)
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
            transport = peer.link.statistics() if peer.link is not None else LinkStatistics()
            transport.dropped = peer.session.dropped_messages  # also where a layer is around the session
            peers.append(PeerStatistics(peer.address, served, transport))
        return ServerStatistics(methods, peers)

    # -- serving -------------------------------------------------------------------------------------

    def open(
        self,
        url: str,
        *,
        tls: ServerTls | None = None,
        mode: int | None = None,
        proxy: bool = False,
        proxy_from: Iterable[str] = (),
    ) -> Address:
        """Begin to serve at an address; returns it with the port that was really bound.

        Args:
            url: `tcp://host:port`, `tls://host:port` or `unix:///path`.
            tls: How connections to a `tls://` address are encrypted. Its files are read at once.
            mode: Permission bits of the socket file, such as 0o660, in place of the URL's; without
                any, those that the umask leaves. Only who may write to the file can connect.
            proxy: Whether every connection begins with a PROXY header, which tells who the peer is. One
                without is ended.
            proxy_from: Whose headers are believed, such as "10.0.0.0/8" or "unix"; others' connections
                are ended. Without any, everybody who can connect can claim to be anybody.

        Raises:
            ValueError: The URL is wrong, does not go with `tls`, or has no file for the mode; or
                `proxy_from` is wrong.
            TlsFilesUnusable: A certificate or key is not what it should be.
            TransportError: The address cannot be used, such as `AddressInUse`.
        """
        address = rpc_address(url).with_mode(mode)
        layers = ListenerLayers(server_security(address, tls), proxy_trust(proxy, proxy_from))
        if self._closed:
            raise RuntimeError("the server has been closed; make a new one")
        if self._driver is None:
            self._driver = running_driver()
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None  # the driver is turned by hand: only plain functions can run
        self.gate.open(self._driver)
        listener = self._driver.listen(address, functools.partial(self._accept, layers))
        self._listeners.append(listener)
        if layers.any:
            self._arriving.pause_when_full(listener)
        return listener.address

    async def listen(
        self,
        url: str,
        *,
        tls: ServerTls | None = None,
        mode: int | None = None,
        proxy: bool = False,
        proxy_from: Iterable[str] = (),
    ) -> Address:
        """Begin to serve at an address; see `open`."""
        return self.open(url, tls=tls, mode=mode, proxy=proxy, proxy_from=proxy_from)

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
        self._arriving.abort_all()
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
        while self.peers or self._arriving:
            await self._watch()
        ending = [task for task in self._ending if task is not asyncio.current_task()]
        if ending:
            await asyncio.wait(ending)

    def close_now(self) -> None:
        """Begin to `close` without waiting for the end of it."""
        self._closed = True
        self._close_listeners()
        self._arriving.abort_all()
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
        self._arriving.discard(peer)
        if peer.tls is not None:
            peer.identity = identify_certificate(peer, self._authentication)
        self.peers[peer] = None
        self.tell_connected(peer)

    def peer_said_hello(self, peer: Peer) -> None:
        """The client understands the extensions; nothing to do."""

    def peer_going_away(self, peer: Peer, reason: str) -> None:
        """The client takes no calls any more; the session sees to the rest."""

    def peer_closed(self, peer: Peer, error: Exception | None) -> None:
        """A connection has ended."""
        self._arriving.discard(peer)
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

    def _accept(self, layers: ListenerLayers, peer_address: str) -> tuple[StreamMachine[Any], Peer]:
        driver = self._own_driver()
        session = driver.make_machine(
            f"connection from {peer_address}",
            RpcSession,
            driver.now(),
            initiator=False,
            limits=self._limits,
            keep_alive=self._keep_alive,
            codec=self._codec,
        )
        peer = Peer(driver, session, self._methods, self, self._loop, link_options=self._link_options)
        peer.arrival.awaits_tls = layers.security is not None
        peer.arrival.awaits_proxy_header = layers.proxy is not None
        if not peer.arrival.complete:
            self._arriving.add(peer, driver)
        return layers.around(session, driver.now(), peer_address), peer

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
