"""Calling the services of a node from async code."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar, overload

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.choose import running_driver
from ...protocols.pool import PoolOptions
from ...protocols.rpc import Flow, Params, StatisticsTable
from .batch import gather_calls
from .call import Call, cancellable
from .cancel import CancelToken
from .channel import Channel, ChannelOptions, ChannelState, ConnectionInfo
from .channel_pool import ONE_CONNECTION, ChannelPool, channel_for
from .context import inherit
from .errors import RpcError
from .middleware import Middleware
from .outgoing_call import ClientMiddleware, OutgoingCall
from .peer import Peer, check_cancel, expired, join_params, wait_or_cancel
from .proxy import ServiceProxy, proxy_of
from .service import Service, method_table
from .stream import StreamCall
from .waiter import Waiter

T = TypeVar("T")


def connect(
    url: str | Sequence[str],
    services: Iterable[Service] = (),
    *,
    driver: Driver | None = None,
    **options: Any,
) -> Client:
    """Make a client of the node at `url`; see `Client`."""
    return Client(url, services, driver=driver, **options)


class Client:
    """Calls the services of a node, over a connection that is made again when it is lost.

    Use it as an async context manager. It connects when it is entered, or at the first call.
    Calls wait while it connects; once an attempt has failed they fail with UNAVAILABLE until
    the next one, whose time comes by exponential back-off. A lost connection fails the calls in
    flight with UNAVAILABLE, and `RpcError.maybe_executed` says whether they may have run.

    Args:
        url: Such as `tcp://127.0.0.1:7070`; several are raced, see `protocols.racing`.
        services: What the server may call on this side.
        driver: By default the running loop's.
        middleware: What every call goes through; see `Middleware`.
        pool: How many connections; one by default.
        options: Those of `ChannelOptions`.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        services: Iterable[Service] = (),
        *,
        driver: Driver | None = None,
        middleware: Iterable[Middleware] = (),
        pool: PoolOptions = ONE_CONNECTION,
        **options: Any,
    ) -> None:
        self._addresses = Address.parse_all(url)
        self._methods = method_table(services)
        self._options = ChannelOptions(**options)
        self._driver = driver
        given = list(middleware)
        self._middleware = ClientMiddleware(given, self._now) if given else None
        self._pool = pool
        self._channel: Channel | ChannelPool | None = None
        self._peer: Peer | None = None  # the only connection's, at hand for every call
        self._watchers: dict[Waiter, None] = {}  # a dict for its order

    @property
    def state(self) -> ChannelState:
        """What the connection is doing."""
        return self._channel.state if self._channel is not None else ChannelState.IDLE

    async def __aenter__(self) -> Client:
        self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def call(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> Coroutine[Any, Any, Any]:
        """Call a method; await what is returned for its result.

        The call begins at once, so that one task can have many under way, or as soon as it is
        awaited where it has to wait for a connection or for room. Inside of a method that is being
        served, it inherits the deadline and trace of that method's call.

        Args:
            method: Its full name, such as "calculator.add".
            params: Positional parameters; give either these or keywords.
            timeout: Seconds after which the call fails with DEADLINE_EXCEEDED.
            cancel: Cancelling it fails the call with CANCELLED.
            meta: What else to tell the server, such as `traceparent`.
            keywords: Parameters by keyword.

        Raises:
            RpcError: When awaited: the call ended without a result.
        """
        peer = self._peer
        if (
            keywords
            or peer is None
            or self._middleware is not None
            or cancel is not None
            or len(peer.calls) >= peer.max_calls
            or peer.congested
        ):
            return self._call_slowly(method, join_params(method, params, keywords), timeout, cancel, meta)
        try:
            return peer.start_call(method, params, timeout, meta)
        except RpcError as error:
            return self._call_after(error, method, params, timeout, meta)

    def _call_slowly(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Coroutine[Any, Any, Any]:
        """Call through the middleware, or as soon as there is a connection with room for it."""
        if cancel is None and self._middleware is None and isinstance(self._channel, ChannelPool):
            call = self._begin_in_pool(self._channel, method, params, timeout, meta)
            if call is not None:
                return call
        through = self._through(method, params, timeout, meta, Flow.UNARY)
        if through is None:
            return self._call_with_room(method, params, timeout, cancel, meta)
        return through.run(
            lambda request: self._call_with_room(method, request.params, timeout, cancel, request.meta)
        )

    def _begin_in_pool(
        self,
        pool: ChannelPool,
        method: str,
        params: Params,
        timeout: float | None,
        meta: dict[str, Any] | None,
    ) -> Call | None:
        """Begin a call at once, if a connection has room for it."""
        peer = pool.peer
        if peer is None or peer.full:
            return None
        try:
            return peer.start_call(method, params, timeout, meta)
        except RpcError:  # raised again by the next attempt, unless this connection has just ended
            return None

    def _through(
        self, method: str, params: Params, timeout: float | None, meta: dict[str, Any] | None, flow: Flow
    ) -> OutgoingCall | None:
        """The middleware that a call goes through, or None."""
        if self._middleware is None:
            return None
        return self._middleware.begin(method, params, timeout, meta, flow)

    async def _call_with_room(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Any:
        """Call as soon as there is a connection with room for it."""
        peer, timeout = await self._usable_peer(method, timeout, cancel)
        call = peer.start_call(method, params, timeout, meta)
        if cancel is None:
            return await call
        return await cancellable(call, cancel)

    async def _call_after(
        self,
        error: RpcError,
        method: str,
        params: Params,
        timeout: float | None,
        meta: dict[str, Any] | None,
    ) -> Any:
        """The call could not begin: raise why, but call again where the connection has just ended."""
        peer = self._peer
        if peer is not None and not peer.session.refuses_calls:
            raise error
        # The channel is about to hear of the end: wait for the next connection.
        return await self._call_with_room(method, params, timeout, None, meta)

    async def notify(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        """Call a method without wanting an answer; returns when the call is queued.

        Raises:
            RpcError: There is no connection, or the call cannot be sent.
        """
        given = join_params(method, params, keywords)
        through = self._through(method, given, timeout, meta, Flow.UNARY)
        if through is None:
            await self._notify(method, given, timeout, cancel, meta)
            return
        through.request.notification = True
        await through.run(lambda request: self._notify(method, request.params, timeout, cancel, request.meta))

    async def _notify(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> None:
        peer, _ = await self._usable_peer(method, timeout, cancel)
        peer.start_notification(method, params, meta)

    def stream(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> StreamCall:
        """Call a method with stream items, either way or both; see `StreamCall`."""
        given = join_params(method, params, keywords)
        through = self._through(method, given, timeout, meta, Flow.BOTH)
        return StreamCall(method, given, timeout, cancel, meta, self, through)

    async def batch(
        self,
        calls: Iterable[Sequence[Any]],
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> list[Any]:
        """Make many calls in one round trip.

        They do not depend on each other, and may run in any order. As many as there is room for
        are sent together (`RpcLimits.max_calls`), the others as answers come.

        Args:
            calls: Method and positional parameters of each, such as ("calculator.add", 2, 3).
            timeout: As for `call`; of each of them, and of waiting for a connection.
            cancel: As for `call`.
            meta: As for `call`.

        Returns:
            For each call, in the same order, its result, or the `RpcError` that it ended with.
        """
        begin = functools.partial(self.call, timeout=timeout, cancel=cancel, meta=meta)
        return await gather_calls(begin, calls)

    @overload
    def service(self, service: str) -> ServiceProxy: ...
    @overload
    def service(self, service: type[T]) -> T: ...
    def service(self, service: str | type[T]) -> ServiceProxy | T:
        """An object whose methods are those of a service.

        Args:
            service: Its name, or a class that declares its methods as coroutines and async
                generators: type-checkers then know the parameters and results.
        """
        return proxy_of(self, service)  # type: ignore[no-any-return]  # it stands in for what is declared

    def statistics(self) -> StatisticsTable:
        """Calls so far, by method."""
        return self._channel.statistics() if self._channel is not None else StatisticsTable()

    def connections(self) -> list[ConnectionInfo]:
        """What each connection is doing, those that are being closed included."""
        return self._channel.infos() if self._channel is not None else []

    async def close(self) -> None:
        """End the connection in good order; calls in flight fail with CANCELLED."""
        channel = self._open()
        channel.close()
        while channel.open_links:
            await self._watch()

    # -- finding a connection ------------------------------------------------------------------------

    async def open_stream(self, stream: StreamCall) -> None:
        """Begin a stream that `stream` has prepared."""
        if not stream.enter_middleware():
            return
        try:
            peer, stream.timeout = await self._usable_peer(stream.method, stream.timeout, stream.cancel_token)
            peer.start_stream(stream)
        except RpcError as error:
            if stream.through is not None:  # the middleware that has let it through hears of its end
                stream.ended(None, error, direct=False)
            raise

    def _open(self) -> Channel | ChannelPool:
        if self._channel is None:
            self._channel = channel_for(
                self._driver or running_driver(),
                self._addresses,
                self._options,
                self._pool,
                self._methods,
                asyncio.get_running_loop(),
                self._state_changed,
            )
            self._channel.start()
        return self._channel

    async def _usable_peer(
        self, method: str, timeout: float | None, cancel: CancelToken | None
    ) -> tuple[Peer, float | None]:
        """Wait for a connection with room for a call; returns what is left of the timeout."""
        check_cancel(cancel)
        channel = self._open()
        loop = asyncio.get_running_loop()
        timeout, _ = inherit(self._now(), timeout, None)
        deadline = None if timeout is None else loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                while (peer := channel.peer) is None or peer.full or peer.session.refuses_calls:
                    if peer is not None and peer.session.refuses_calls:
                        channel.let_go(peer)
                    elif peer is not None:
                        await self._room(peer, cancel)
                    elif channel.state is ChannelState.CONNECTING:
                        await wait_or_cancel(self._watch(), cancel)
                    else:
                        raise channel.unavailable()
        except TimeoutError:
            raise expired(f"{method} at {channel.where} ({channel.state.value})") from None
        return peer, None if deadline is None else deadline - loop.time()

    def _now(self) -> float:
        return (self._driver or running_driver()).now()

    async def _room(self, peer: Peer, cancel: CancelToken | None) -> None:
        """Wait for room: in the only connection, or also for another one that is made meanwhile."""
        if isinstance(self._channel, Channel) or peer.flushing:
            await peer.room(cancel)
            return
        waiter = self._watch()
        peer.await_room(waiter)
        try:
            await wait_or_cancel(waiter, cancel)
        finally:
            self._watchers.pop(waiter, None)

    def _watch(self) -> Waiter:
        waiter = Waiter(asyncio.get_running_loop())
        self._watchers[waiter] = None
        return waiter

    def _state_changed(self) -> None:
        channel = self._channel
        self._peer = channel.peer if isinstance(channel, Channel) else None
        watchers, self._watchers = self._watchers, {}
        for waiter in watchers:
            waiter.finish(None, None, direct=False)
