"""A client's connection to one address: made, kept and made again.

Coroutine-free, so that the async and the blocking client share it. The delays are those of gRPC's
connection back-off, except that the first retry comes at once: most lost connections are a server
that has restarted and is back by now.

Source: https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from collections.abc import Callable
from typing import Any

import attrs

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.errors import TimedOut, TransportError
from ...drivers.pump import Link
from ...drivers.timers import Timer
from ...protocols.auth import NONCE_SIZE
from ...protocols.backoff import Backoff
from ...protocols.rpc import (
    CLIENT_KEEP_ALIVE,
    CallStatistics,
    KeepAlive,
    RpcLimits,
    RpcSession,
    StatisticsTable,
    StatusCode,
)
from .credentials import Credentials, Exchange, Step
from .errors import RpcError
from .peer import Peer
from .service import ServedMethod

_log = logging.getLogger("helianthus.rpc")

STABLE_AFTER = 1.0
"""Seconds a connection must last to start the back-off anew. A server that accepts and at once
closes would otherwise be called again without pause."""


@attrs.frozen
class ChannelOptions:
    """How a client connects.

    Attributes:
        connect_timeout: Seconds for one attempt to connect; gRPC's MIN_CONNECT_TIMEOUT.
        hello_timeout: Seconds that calls wait for a server to announce the extensions. After them
            plain calls are sent, and those that need the extensions fail: with UNIMPLEMENTED where
            the server has answered a call, with UNAVAILABLE where it may just be slow.
        extensions: False for a server that is known to be plain.
        limits: Bounds of the session.
        keep_alive: Pings.
        credentials: How each connection proves who connects, before it is used; None for not at all.
    """

    connect_timeout: float = 20.0
    hello_timeout: float = 2.0
    extensions: bool = True
    limits: RpcLimits = attrs.Factory(RpcLimits)
    keep_alive: KeepAlive = CLIENT_KEEP_ALIVE
    credentials: Credentials | None = None


_REFUSED = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED}
"""Why a server may not want the client at all, so that waiting does not help."""


class ChannelState(enum.Enum):
    """What a client's connection is doing."""

    IDLE = "idle"
    CONNECTING = "connecting"
    READY = "ready"
    BACKING_OFF = "backing off"
    CLOSED = "closed"


class Channel:
    """Keeps a connection to one address, and tells who waits for it.

    Args:
        driver: Makes the connection.
        address: Where to.
        options: How.
        methods: What the server may call on this side.
        loop: Where coroutines run, or None.
        changed: Called after every change of `state`.
    """

    def __init__(
        self,
        driver: Driver,
        address: Address,
        options: ChannelOptions,
        methods: dict[str, ServedMethod],
        loop: asyncio.AbstractEventLoop | None,
        changed: Callable[[], None],
    ) -> None:
        self.peer: Peer | None = None
        """The server, while it can be called."""
        self.state = ChannelState.IDLE
        self._statistics = StatisticsTable()
        self._driver = driver
        self._address = address
        self._options = options
        self._methods = methods
        self._loop = loop
        self._changed = changed
        self._backoff = Backoff(driver.rng)
        self._keep_alive = options.keep_alive
        self._attempt: Peer | None = None
        self._links: dict[Peer, Link[Any]] = {}
        self._timer: Timer | None = None
        self._ready_at = 0.0
        self._authenticating = False
        self._reason = "not connected"
        self._code = StatusCode.UNAVAILABLE

    @property
    def open_links(self) -> int:
        """Connections that have not ended, those that are being closed included."""
        return len(self._links)

    def statistics(self) -> StatisticsTable:
        """Of all calls so far; a copy."""
        return self._statistics.with_running(entry for peer in self._links for entry in peer.running)

    def statistics_of(self, method: str) -> CallStatistics:
        """Where the calls of a method are counted."""
        return self._statistics.of(method)

    def start(self) -> None:
        """Begin to connect, unless that has begun."""
        if self.state is ChannelState.IDLE:
            self._connect()

    def close(self) -> None:
        """End the connection in good order, and make no other."""
        if self.state is ChannelState.CLOSED:
            return
        self._reason = "the client was closed"
        self._set_timer(None, None)
        for peer, link in list(self._links.items()):
            if peer.link is None:
                link.abort()
            else:
                peer.close(self._reason)
        self.peer = self._attempt = None
        self._enter(ChannelState.CLOSED)

    def unavailable(self) -> RpcError:
        """The error of a call that finds no connection."""
        return RpcError(self._code, f"{self._address}: {self._reason}", maybe_executed=False)

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
        if peer is not self._attempt:
            return
        if self._options.extensions:
            self._set_timer(self._options.hello_timeout, self._authenticate)
        else:
            self._authenticate()

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
        if peer in (self.peer, self._attempt):
            self._retry(_reason(error))
        elif not self._links:
            self._changed()

    slow_after = math.inf
    gate = None

    def method_slow(self, peer: Peer, method: str, seconds: float) -> None:
        """Something that the server called on this side took long; nobody asks."""

    def method_failed(self, peer: Peer, method: str, error: Exception) -> None:
        """Something that the server called on this side failed."""
        _log.error("%s: %s failed", self._address, method or "the connection", exc_info=error)

    # -- connecting -----------------------------------------------------------------------------------

    def _connect(self) -> None:
        driver = self._driver
        session = RpcSession(
            driver.now(),
            initiator=True,
            limits=self._options.limits,
            keep_alive=self._keep_alive,
            extensions=self._options.extensions,
        )
        peer = self._attempt = Peer(driver, session, self._methods, self, self._loop, self._statistics)
        self._ready_at = 0.0
        self._authenticating = False
        self._enter(ChannelState.CONNECTING)
        self._set_timer(self._options.connect_timeout, self._connect_timed_out)
        self._links[peer] = driver.connect(self._address, session, peer)

    def _connect_timed_out(self) -> None:
        attempt = self._attempt
        if attempt is not None:
            timeout = self._options.connect_timeout
            self._links[attempt].abort(TimedOut(f"no connection within {timeout:g} s"))

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


def _reason(error: Exception | None) -> str:
    """Why a connection ended, without the address, which the reader knows already."""
    if error is None:
        return "the server closed the connection"
    return error.message if isinstance(error, TransportError) else str(error)
