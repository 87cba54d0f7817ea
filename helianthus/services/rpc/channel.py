"""A client's connection to a server: made, kept and made again.

Coroutine-free, so that the async and the blocking client share it. The delays are those of gRPC's
connection back-off, except that the first retry comes at once: most lost connections are a server
that has restarted and is back by now.

Source: https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Iterable
from typing import Any

import attrs
from attrs.validators import ge, le

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.errors import TimedOut, TransportError
from ...drivers.link_options import LinkOptions
from ...drivers.pump import Link
from ...drivers.timers import Timer
from ...protocols.auth import NONCE_SIZE
from ...protocols.backoff import Backoff
from ...protocols.machine import StreamMachine
from ...protocols.racing import ATTEMPT_DELAY, MAX_ATTEMPT_DELAY, MIN_ATTEMPT_DELAY
from ...protocols.rpc import (
    CLIENT_KEEP_ALIVE,
    COMPRESS_ABOVE,
    CallStatistics,
    Codec,
    KeepAlive,
    RpcLimits,
    RpcSession,
    StatisticsTable,
    StatusCode,
    TypeRegistry,
)
from ...protocols.tls import TlsHandshakeFailed
from ..tls import ClientTls
from ..tls.by_address import tls_for
from .credentials import Credentials, Exchange, Step
from .errors import RpcError
from .peer import Peer
from .peer_events import PeerEvents
from .racer import Racer, reason_of
from .security import client_security
from .service import ServedMethod

STABLE_AFTER = 1.0
"""Seconds a connection must last to start the back-off anew. A server that accepts and at once
closes would otherwise be called again without pause."""


@attrs.frozen
class ChannelOptions:
    """How a client connects.

    Attributes:
        connect_timeout: Seconds for one attempt to connect; gRPC's MIN_CONNECT_TIMEOUT.
        attempt_delay: Seconds after which the next of several addresses is tried as well; see
            `helianthus.protocols.racing`.
        hello_timeout: Seconds that calls wait for a server to announce the extensions. After them
            plain calls are sent, and those that need the extensions fail: with UNIMPLEMENTED where
            the server has answered a call, with UNAVAILABLE where it may just be slow.
        extensions: False for a server that is known to be plain.
        limits: Bounds of the session.
        keep_alive: Pings.
        credentials: How each connection proves who connects, before it is used; None for not at all.
        types: Classes of your own whose objects may travel.
        codec: "json" to send and receive what calls carry as JSON text; needs a server that takes it.
        compression: "zstd" to compress what calls carry, each way where the other end takes it;
            needs the extra `zstd`.
        compress_above: Bytes of a message above which that is tried.
        tls: How connections to `tls://` addresses are encrypted; by default as `ClientTls()` says.
        link_options: Watermarks and write deadline of each connection.

    Raises:
        ValueError: An option has a value that it cannot have.
        ModuleNotFoundError: A package that an option needs is missing.
    """

    connect_timeout: float = 20.0
    attempt_delay: float = attrs.field(
        default=ATTEMPT_DELAY, validator=[ge(MIN_ATTEMPT_DELAY), le(MAX_ATTEMPT_DELAY)]
    )
    hello_timeout: float = 2.0
    extensions: bool = True
    limits: RpcLimits = attrs.Factory(RpcLimits)
    keep_alive: KeepAlive = CLIENT_KEEP_ALIVE
    credentials: Credentials | None = None
    types: TypeRegistry | None = None
    codec: str = "msgpack"
    compression: str | None = None
    compress_above: int = COMPRESS_ABOVE
    tls: ClientTls | None = None
    link_options: LinkOptions | None = None

    def __attrs_post_init__(self) -> None:
        if not self.extensions and (self.codec != "msgpack" or self.compression is not None):
            raise ValueError("a plain peer knows neither codec nor compression: leave out extensions=False")
        self.make_codec()  # says at once what is wrong with the options

    def for_addresses(self, addresses: Iterable[Address]) -> ChannelOptions:
        """The same, with what connections to these addresses need.

        Raises:
            ValueError: They do not go with `tls`, or its files cannot be used.
        """
        tls = tls_for(addresses, self.tls)
        client_security(tls)  # says at once what is wrong with its files
        return attrs.evolve(self, tls=tls)

    def make_codec(self) -> Codec:
        """How values become bytes on the connections of one client."""
        return Codec(
            self.limits,
            types=self.types,
            accepts=["json"],
            codec=self.codec,
            compression=self.compression,
            compress_above=self.compress_above,
        )


_REFUSED = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.UNIMPLEMENTED}
"""Why a server may not want the client at all, so that waiting does not help; UNIMPLEMENTED where it
knows no credentials."""


class ChannelState(enum.Enum):
    """What a client's connection is doing."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    BACKING_OFF = "backing off"
    DRAINING = "draining"
    CLOSED = "closed"


@attrs.frozen
class ConnectionInfo:
    """What one connection of a client is doing.

    Attributes:
        address: The server's, as `host:port`; while there is no connection, where it is looked for.
        state: What it is doing.
        age: Seconds since it could first be called; 0.0 while it cannot.
        calls: Calls and streams in flight.
    """

    address: str
    state: ChannelState
    age: float
    calls: int


class Channel:
    """Keeps one connection to a server, and tells who waits for it.

    Args:
        driver: Makes the connection.
        addresses: Where to: the first that answers.
        options: How, with what these addresses need.
        methods: What the server may call on this side.
        loop: Where coroutines run, or None.
        changed: Called after every change of `state`.
        events: Told of connections, errors and slow calls.
    """

    def __init__(
        self,
        driver: Driver,
        addresses: tuple[Address, ...],
        options: ChannelOptions,
        methods: dict[str, ServedMethod],
        loop: asyncio.AbstractEventLoop | None,
        changed: Callable[[], None],
        events: PeerEvents,
    ) -> None:
        self.peer: Peer | None = None
        """The server, while it can be called."""
        self.state = ChannelState.IDLE
        self._statistics = StatisticsTable()
        self._driver = driver
        self._addresses = addresses
        self._options = options
        self._security = client_security(options.tls)
        self._methods = methods
        self._loop = loop
        self._changed = changed
        self._events = events
        self._codec = options.make_codec()
        self._backoff = Backoff(driver.rng)
        self._keep_alive = options.keep_alive
        self._racer: Racer | None = None
        self._attempt: Peer | None = None  # connected, but not to be called yet
        self._links: dict[Peer, Link[Any]] = {}
        self._used: set[Peer] = set()  # connections that were ready
        self._timer: Timer | None = None
        self._ready_at = 0.0
        self._authenticating = False
        self._reason = "not connected"
        self._code = StatusCode.UNAVAILABLE

    @property
    def open_links(self) -> int:
        """Connections that have not ended, those that are being closed included."""
        return len(self._links)

    @property
    def peers(self) -> list[Peer]:
        """As `ChannelPool.peers`."""
        return [self.peer] if self.peer is not None else []

    @property
    def where(self) -> str:
        """All addresses, as text."""
        return ", ".join(map(str, self._addresses))

    def statistics(self) -> StatisticsTable:
        """Of all calls so far; a copy."""
        return self._statistics.with_running(entry for peer in self._links for entry in peer.running)

    def statistics_of(self, method: str) -> CallStatistics:
        """Where the calls of a method are counted."""
        return self._statistics.of(method)

    def info(self) -> ConnectionInfo:
        """What the connection is doing now."""
        known = self.peer is not None or self.state is ChannelState.DRAINING
        return ConnectionInfo(
            next((peer.address for peer in self._links if known and peer.address), self.where),
            self.state,
            self._driver.now() - self._ready_at if known else 0.0,
            sum(peer.load for peer in self._links),
        )

    def infos(self) -> list[ConnectionInfo]:
        """`info` of its only connection; as `ChannelPool.infos`."""
        return [self.info()]

    def start(self) -> None:
        """Begin to connect, unless that has begun."""
        if self.state is ChannelState.IDLE:
            self._connect()

    def close(self) -> None:
        """End the connection in good order, and make no other."""
        if self.state is ChannelState.CLOSED:
            return
        self._reason, self._code = "the client was closed", StatusCode.UNAVAILABLE
        self._set_timer(None, None)
        for peer, link in list(self._links.items()):
            if peer.connected:
                peer.close(self._reason)
            else:
                link.abort()
        self.peer = self._attempt = None
        self._stop_racing()
        self._enter(ChannelState.CLOSED)

    def retire(self, reason: str) -> None:
        """Take no new calls, close the connection when those in flight have ended, make no other."""
        self._reason = reason
        self._set_timer(None, None)
        peer, attempt = self.peer, self._attempt
        self.peer = self._attempt = None
        self._stop_racing()
        self._enter(ChannelState.DRAINING if self._links else ChannelState.CLOSED)
        if peer is not None:
            peer.go_away(reason)
        elif attempt is not None:
            attempt.close(reason)

    def cut(self, reason: str) -> None:
        """End a connection that was retired; calls in flight fail with UNAVAILABLE."""
        for peer in list(self._links):
            peer.close(reason, StatusCode.UNAVAILABLE)

    def unavailable(self) -> RpcError:
        """The error of a call that finds no connection."""
        return RpcError(self._code, f"{self.where}: {self._reason}", maybe_executed=False)

    @property
    def worth_waiting_for(self) -> bool:
        """Whether a call may wait for it although connecting has failed."""
        return self.state is not ChannelState.CLOSED and self._code not in _REFUSED

    def let_go(self, peer: Peer) -> None:
        """Look for another connection: this one takes no calls, though `peer_closed` is yet to come."""
        if peer is self.peer:
            self._retry(peer.session.refuses_calls)

    # -- PeerOwner ----------------------------------------------------------------------------------

    def peer_ready(self, peer: Peer) -> None:
        """The transport is connected: wait for hello, if the server is to say it."""
        if self._racer is not None and self._racer.knows(peer):
            self._racer.connected(peer)

    def peer_said_hello(self, peer: Peer) -> None:
        """The server understands the extensions."""
        if peer is self._attempt and not self._authenticating:
            self._authenticate()

    def peer_going_away(self, peer: Peer, reason: str) -> None:
        """The server takes no new calls: connect again while the old connection finishes."""
        if reason == "too_many_pings":  # gRPC's A8: ping half as often from now on
            self._keep_alive = attrs.evolve(self._keep_alive, time=self._keep_alive.time * 2)
        if peer in (self.peer, self._attempt):
            self._retry(f"the server is going away: {reason}")

    def peer_closed(self, peer: Peer, error: Exception | None) -> None:
        """A connection has ended, or could not be made."""
        self._links.pop(peer, None)
        if peer in self._used:
            self._used.remove(peer)
            self._events.tell_disconnected(peer, error)
        if self._racer is not None and self._racer.knows(peer):
            self._racer.lost(peer, error or TransportError(reason_of(None)))
        elif peer in (self.peer, self._attempt):
            self._retry(reason_of(error))
        elif not self._links:
            draining = self.state is ChannelState.DRAINING
            self._enter(ChannelState.CLOSED if draining else self.state)

    gate = None

    @property
    def slow_after(self) -> float:
        """Seconds after which somebody wants to hear of a call."""
        return self._events.slow_after

    def method_slow(self, peer: Peer, method: str, seconds: float) -> None:
        """A call took longer than that, on either side."""
        self._events.tell_slow(peer, method, seconds)

    def method_failed(self, peer: Peer, method: str, error: Exception) -> None:
        """Something that the server called on this side failed, or the server broke the rules."""
        if isinstance(error, TlsHandshakeFailed):
            return  # the calls that wait say so, as when nobody listens there
        attempt_failed = error is peer.failure and peer not in self._used
        self._events.tell_failed(peer, method, error, log=not attempt_failed)  # likewise said by calls

    # -- connecting -----------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._ready_at = 0.0
        self._authenticating = False
        self._enter(ChannelState.CONNECTING)
        self._set_timer(self._options.connect_timeout, self._connect_timed_out)
        self._racer = Racer(
            self._driver,
            self._addresses,
            self._options.attempt_delay,
            self._begin_attempt,
            self._abort_attempt,
            self._won,
            self._all_failed,
        )

    def _begin_attempt(self, address: Address, name: Address) -> Peer:
        driver = self._driver
        session = driver.make_machine(
            f"connection to {address}",
            RpcSession,
            driver.now(),
            initiator=True,
            limits=self._options.limits,
            keep_alive=self._keep_alive,
            extensions=self._options.extensions,
            codec=self._codec,
        )
        peer = Peer(
            driver,
            session,
            self._methods,
            self,
            self._loop,
            self._statistics,
            self._options.link_options,
        )
        machine: StreamMachine[Any] = session
        if self._security is not None and address.secure:
            peer.arrival.awaits_tls = True
            machine, peer.arrival.keep_session = self._security.around(session, name, driver.now())
        self._links[peer] = driver.connect(address, machine, peer)
        return peer

    def _abort_attempt(self, peer: Peer) -> None:
        self._links[peer].abort()

    def _won(self, peer: Peer, address: Address) -> None:
        self._racer = None
        self._attempt = peer
        if self._options.extensions:
            self._set_timer(self._options.hello_timeout, self._authenticate)
        else:
            self._authenticate()

    def _all_failed(self, reason: str) -> None:
        if self._racer is not None:
            self._racer = None
            self._retry(reason)

    def _stop_racing(self) -> None:
        racer, self._racer = self._racer, None
        if racer is not None:
            racer.give_up(TransportError(self._reason))

    def _connect_timed_out(self) -> None:
        if self._racer is not None:
            self._racer.give_up(TimedOut(f"no connection within {self._options.connect_timeout:g} s"))

    def _authenticate(self) -> None:
        """Prove who connects, where that was asked for; then the connection is ready."""
        attempt, credentials = self._attempt, self._options.credentials
        if credentials is None or attempt is None:
            self._is_ready()
            return
        self._authenticating = True
        self._set_timer(None, None)
        exchange = credentials.exchange(self._driver.random_bytes(NONCE_SIZE))
        self._ask(attempt, exchange, exchange.begin())

    def _ask(self, attempt: Peer, exchange: Exchange, step: Step) -> None:
        def answered(result: Any, error: RpcError | None) -> None:
            if attempt is self._attempt:
                self._go_on(attempt, exchange, result, error)

        method, params = step
        try:
            attempt.ask(method, params, self._options.connect_timeout, answered)
        except RpcError as error:
            self._go_on(attempt, exchange, None, error)

    def _go_on(self, attempt: Peer, exchange: Exchange, result: Any, error: RpcError | None) -> None:
        """A step of the exchange has ended."""
        step = None
        if error is None:
            try:
                step = exchange.answered(result)
            except RpcError as distrust:
                error = distrust
        if step is not None:
            self._ask(attempt, exchange, step)
        elif error is None:
            self._is_ready()
        else:
            self._retry(f"authentication failed: {error.message}", error.code)
            attempt.close("authentication failed")

    def _is_ready(self) -> None:
        self._set_timer(None, None)
        self.peer, self._attempt = self._attempt, None
        self._ready_at = self._driver.now()
        self._enter(ChannelState.READY)
        if self.peer is not None:
            self._used.add(self.peer)
            self._events.tell_connected(self.peer)

    def _retry(self, reason: str, code: StatusCode = StatusCode.UNAVAILABLE) -> None:
        """The connection is of no more use: make another, after a while."""
        self._reason = reason
        self._code = code
        now = self._driver.now()
        if self.peer is not None and now - self._ready_at >= STABLE_AFTER:
            self._backoff.reset()
        self.peer = self._attempt = None
        delay = self._backoff.next_delay()
        self._set_timer(delay, self._connect)
        self._enter(ChannelState.BACKING_OFF if delay else ChannelState.CONNECTING)

    def _set_timer(self, delay: float | None, callback: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay is not None and callback is not None:
            self._timer = self._driver.call_at(self._driver.now() + delay, callback)

    def _enter(self, state: ChannelState) -> None:
        self.state = state
        self._changed()
