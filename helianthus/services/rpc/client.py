"""Calling the services of a node from async code."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from ...drivers.base import Driver
from ...drivers.choose import running_driver
from ...protocols.policies import RetryThrottle
from ...protocols.pool import PoolOptions
from ...protocols.rpc import Flow, Params, StatisticsTable
from ...protocols.timeouts import check_timeout
from ..cancel import CancelToken
from ..scope import joined
from ..waiter import Waiter
from .addresses import rpc_addresses
from .batch import gather_calls
from .before_call import await_room, check_cancel, expired, join_params
from .call import Call, cancellable
from .call_policy import (
    CallPolicy,
    ClientPolicies,
    PolicyCall,
    call_repeatedly,
    check_policy,
    chosen_timeout,
)
from .channel import Channel, ChannelOptions, ChannelState, ConnectionInfo
from .channel_pool import ONE_CONNECTION, ChannelPool, channel_for
from .context import inherit
from .errors import RpcError
from .hedged_call import HedgedCall
from .middleware import Middleware
from .outgoing_call import ClientMiddleware
from .peer import Peer
from .peer_events import PeerEvents
from .policy_view import PolicyView
from .proxy import ServiceProxy, proxy_of
from .service import Service, method_table
from .stream import StreamCall

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


class Client(PeerEvents):
    """Calls the services of a node, over a connection that is made again when it is lost.

    Use it as an async context manager. It connects when it is entered, or at the first call.
    Calls wait while it connects; once an attempt has failed they fail with UNAVAILABLE until
    the next one, whose time comes by exponential back-off. A lost connection fails the calls in
    flight with UNAVAILABLE, and `RpcError.maybe_executed` says whether they may have run.

    Args:
        url: Such as `tcp://127.0.0.1:7070` or `tls://node.example:7070`; several are raced, see
            `protocols.racing`.
        services: What the server may call on this side.
        driver: By default the running loop's.
        middleware: What every call goes through; see `Middleware`.
        policies: How calls are made, by the full name of a method, that of a service, or "*" for
            all; the most specific name holds.
        retry_throttle: Stops retries and hedges while too much fails. By default the client has one
            of its own; clients of the same server may share one.
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
        policies: Mapping[str, CallPolicy] | None = None,
        retry_throttle: RetryThrottle | None = None,
        pool: PoolOptions = ONE_CONNECTION,
        **options: Any,
    ) -> None:
        super().__init__(lambda error: (self._driver or running_driver()).on_error(error))
        self._addresses = rpc_addresses(url)
        self._options = ChannelOptions(**options).for_addresses(self._addresses)
        self._methods = method_table(services, types=self._options.types)
        self._driver = driver
        given = list(middleware)
        self._middleware = ClientMiddleware(given, self._now)
        self._policies = ClientPolicies(policies) if policies else None
        self._throttle = retry_throttle or RetryThrottle()
        self._goes_slowly = bool(given or policies)
        self._pool = pool
        self._channel: Channel | ChannelPool | None = None
        self._peer: Peer | None = None  # the only connection's, at hand for every call
        self._watchers: dict[Waiter, None] = {}

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
            ValueError: `timeout` is no number of seconds, or less than 0.
        """
        peer = self._peer
        if (
            keywords
            or peer is None
            or self._goes_slowly
            or cancel is not None
            or len(peer.calls) >= peer.max_calls
            or peer.congested
        ):
            return self._call_slowly(method, join_params(method, params, keywords), timeout, cancel, meta)
        try:
            return peer.start_call(method, params, timeout, meta)
        except RpcError as error:
            return self._call_after(error, method, params, timeout, meta)
        except TypeError:
            check_timeout(timeout)  # here, where it costs nothing as long as it is one
            raise

    def _call_slowly(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Coroutine[Any, Any, Any]:
        """Call through the middleware, by a policy, or as soon as there is a connection with room."""
        if not self._goes_slowly:
            check_timeout(timeout)
            if cancel is None and isinstance(self._channel, ChannelPool):
                call = self._begin_in_pool(self._channel, method, params, timeout, meta)
                if call is not None:
                    return call
            return self._call_with_room(method, params, timeout, cancel, meta)
        return self.call_by(self._policy_of(method), method, params, timeout, cancel, meta)

    def call_by(
        self,
        policy: CallPolicy | None,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Coroutine[Any, Any, Any]:
        """Call by a policy, or by none."""
        timeout = chosen_timeout(policy, timeout)
        through = self._middleware.begin(method, params, timeout, meta, Flow.UNARY)
        if through is None:
            return self._call_inside(policy, method, params, timeout, cancel, meta)
        return through.run(
            lambda request: self._call_inside(policy, method, request.params, timeout, cancel, request.meta)
        )

    def _call_inside(
        self,
        policy: CallPolicy | None,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Coroutine[Any, Any, Any]:
        """Call inside of the middleware."""
        if policy is not None:
            return self._call_by_policy(policy, method, params, timeout, cancel, meta)
        peer = self._peer
        if peer is None or cancel is not None or len(peer.calls) >= peer.max_calls or peer.congested:
            return self._call_with_room(method, params, timeout, cancel, meta)
        try:
            return peer.start_call(method, params, timeout, meta)
        except RpcError as error:
            return self._call_after(error, method, params, timeout, meta)

    async def _call_by_policy(
        self,
        policy: CallPolicy,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Any:
        """Make the attempts of a call."""
        call = self._begin_by_policy(policy, method, timeout, meta)

        def send(timeout: float | None, meta: dict[str, Any] | None) -> Coroutine[Any, Any, Any]:
            return self._call_with_room(method, params, timeout, cancel, meta, policy)

        if policy.hedging is None:
            return await call_repeatedly(call, send, lambda until: self._pause(until, cancel))

        def wait(waiter: Waiter, until: float | None) -> Awaitable[None]:
            return self._wait(waiter, until, joined(cancel))

        return await HedgedCall(call, policy.hedging, send, wait).run()

    def _begin_by_policy(
        self, policy: CallPolicy, method: str, timeout: float | None, meta: dict[str, Any] | None
    ) -> PolicyCall:
        channel, driver = self._open(), self._driver or running_driver()
        return PolicyCall(policy, method, timeout, meta, driver, self._throttle, channel)

    def _policy_of(self, method: str) -> CallPolicy | None:
        return self._policies.of(method) if self._policies is not None else None

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

    async def _call_with_room(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
        policy: CallPolicy | None = None,
    ) -> Any:
        """Call as soon as there is a connection with room for it."""
        wait = policy is not None and policy.wait_for_ready
        peer, timeout = await self._usable_peer(method, timeout, cancel, wait=wait)
        if policy is not None and policy.idempotent:
            peer.check_takes_meta(method)
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
        await self.notify_by(self._policy_of(method), method, given, timeout, cancel, meta)

    async def notify_by(
        self,
        policy: CallPolicy | None,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> None:
        """Notify by a policy, or by none; there is nothing to make again."""
        timeout = chosen_timeout(policy, timeout)
        wait = policy is not None and policy.wait_for_ready

        async def notify(params: Params, meta: dict[str, Any] | None) -> None:
            peer, _ = await self._usable_peer(method, timeout, cancel, wait=wait)
            peer.start_notification(method, params, meta)

        through = self._middleware.begin(method, params, timeout, meta, Flow.UNARY)
        if through is None:
            await notify(params, meta)
            return
        through.request.notification = True
        await through.run(lambda request: notify(request.params, request.meta))

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
        return self.stream_by(self._policy_of(method), method, given, timeout, cancel, meta)

    def stream_by(
        self,
        policy: CallPolicy | None,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> StreamCall:
        """Stream by a policy, or by none."""
        timeout = chosen_timeout(policy, timeout)
        through = self._middleware.begin(method, params, timeout, meta, Flow.BOTH)
        return StreamCall(method, params, timeout, cancel, meta, self, through, policy)

    def with_policy(self, policy: CallPolicy) -> PolicyView:
        """The same client, whose calls all follow `policy`, whatever `policies` says of them."""
        check_policy(policy)
        return PolicyView(self, policy)

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
            await self._wait(Waiter(asyncio.get_running_loop()), None, None)

    # -- finding a connection ------------------------------------------------------------------------

    async def open_stream(self, stream: StreamCall) -> None:
        """Begin a stream that `stream` has prepared, or begin it again."""
        if not stream.enter_middleware():
            return
        policy, cancel = stream.policy, stream.cancel_token
        if policy is not None and stream.attempts is None:
            stream.attempts = self._begin_by_policy(policy, stream.method, stream.timeout, stream.meta)
        while True:
            try:
                if stream.attempts is not None:
                    await self._pause(stream.attempts.resume_at, cancel)
                    stream.begin_attempt()
                wait = policy is not None and policy.wait_for_ready
                peer, stream.timeout = await self._usable_peer(
                    stream.method, stream.timeout, cancel, wait=wait
                )
                if not stream.over:  # or somebody has given it up meanwhile
                    peer.start_stream(stream)
            except RpcError as error:
                if not stream.could_not_begin(error):
                    raise
            else:
                return

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
                self,
            )
            self._channel.start()
        return self._channel

    async def _usable_peer(
        self, method: str, timeout: float | None, cancel: CancelToken | None, *, wait: bool = False
    ) -> tuple[Peer, float | None]:
        """Wait for a connection with room for a call; returns what is left of the timeout.

        Where there is none because connecting has failed, it waits on only if `wait` says so.
        """
        cancel = joined(cancel)
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
                    elif channel.state is ChannelState.CONNECTING or (wait and channel.worth_waiting_for):
                        await self._wait(Waiter(loop), None, cancel)
                    else:
                        raise channel.unavailable()
        except TimeoutError:
            raise expired(f"{method} at {channel.where} ({channel.state.value})") from None
        return peer, None if deadline is None else max(0.0, deadline - loop.time())

    def _now(self) -> float:
        return (self._driver or running_driver()).now()

    async def _room(self, peer: Peer, cancel: CancelToken | None) -> None:
        """Wait for room: in the only connection, or in any of several, or for another one."""
        channel = self._channel
        if not isinstance(channel, ChannelPool) or peer.room.flushing:
            await peer.room.wait(cancel)
        else:
            await self._wait(Waiter(asyncio.get_running_loop()), None, cancel, channel.peers)

    async def _pause(self, until: float, cancel: CancelToken | None) -> None:
        """Wait for a driver time, or until the client is closed; raises as `_wait` does."""
        cancel = joined(cancel)
        check_cancel(cancel)
        while self.state is not ChannelState.CLOSED and self._now() < until:
            await self._wait(Waiter(asyncio.get_running_loop()), until, cancel)

    async def _wait(
        self, waiter: Waiter, until: float | None, cancel: CancelToken | None, peers: Iterable[Peer] = ()
    ) -> None:
        """Wait until somebody finishes `waiter`, the state changes, a driver time comes, or a peer has room.

        Raises:
            RpcError: The token was cancelled first.
        """

        def wake() -> None:
            waiter.finish(None, None, direct=False)

        self._watchers[waiter] = None
        driver = self._driver or running_driver()
        timer = driver.call_at(until, wake) if until is not None else None
        try:
            await await_room((peer.room.waiting for peer in peers), waiter, cancel)
        finally:
            self._watchers.pop(waiter, None)
            if timer is not None:
                timer.cancel()

    def _state_changed(self) -> None:
        channel = self._channel
        self._peer = channel.peer if isinstance(channel, Channel) else None
        watchers, self._watchers = self._watchers, {}
        for waiter in watchers:
            waiter.finish(None, None, direct=False)
