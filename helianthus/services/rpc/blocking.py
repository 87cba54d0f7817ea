"""Calling services from plain code, without asyncio and without a thread.

The client has a driver of its own, and turns it in the caller's thread while a call waits. Between
calls nothing turns: what the server pushes is served during the next call, and a server that pings
an idle client gets its answer then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from ...drivers.choose import driver as make_driver
from ...protocols.policies import HedgingPolicy, RetryThrottle
from ...protocols.pool import PoolOptions
from ...protocols.rpc import Flow, Params, StatisticsTable
from ...protocols.timeouts import check_timeout
from ..cancel import CancelToken
from ..scope import joined
from .addresses import rpc_addresses
from .before_call import check_cancel, expired, join_params
from .blocking_hedged_call import BlockingHedgedCall
from .blocking_stream import BlockingStream
from .call import Call
from .call_policy import CallPolicy, ClientPolicies, PolicyCall, check_policy, chosen_timeout
from .cancel_relay import CancelRelay
from .channel import ChannelOptions, ChannelState, ConnectionInfo
from .channel_pool import ONE_CONNECTION, channel_for
from .context import inherit
from .errors import RpcError
from .middleware import Middleware
from .outgoing_call import ClientMiddleware
from .peer import Peer
from .peer_events import PeerEvents
from .policy_view import BlockingPolicyView
from .proxy import ServiceProxy, proxy_of
from .service import Service, method_table
from .stream import StreamCall

T = TypeVar("T")


def connect_sync(
    url: str | Sequence[str], services: Iterable[Service] = (), **options: Any
) -> BlockingClient:
    """Make a blocking client of the node at `url`; see `BlockingClient`."""
    return BlockingClient(url, services, **options)


class BlockingClient(PeerEvents):
    """Calls the services of a node; each method returns when its work is done.

    Use it as a context manager, from one thread at a time.

    Args:
        url: Such as `tcp://127.0.0.1:7070` or `tls://node.example:7070`; several are raced, see
            `protocols.racing`.
        services: What the server may call on this side: plain functions only.
        middleware: What every call goes through; see `Middleware`. None that waits: there is no loop.
        policies: As those of `Client`.
        retry_throttle: As that of `Client`.
        pool: How many connections; one by default.
        options: Those of `ChannelOptions`.

    Raises:
        TypeError: A policy is none, or a middleware waits.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        services: Iterable[Service] = (),
        *,
        middleware: Iterable[Middleware] = (),
        pool: PoolOptions = ONE_CONNECTION,
        policies: Mapping[str, CallPolicy] | None = None,
        retry_throttle: RetryThrottle | None = None,
        **options: Any,
    ) -> None:
        super().__init__(lambda error: self._driver.on_error(error))
        self._addresses = rpc_addresses(url)
        channel_options = ChannelOptions(**options).for_addresses(self._addresses)
        methods = method_table(services, types=channel_options.types)
        self._policies = ClientPolicies(policies or {})
        self._throttle = retry_throttle or RetryThrottle()
        self._driver = make_driver("auto")
        self._driver.looks_up_inline = True  # no hidden thread, not even for a name
        self._channel = channel_for(
            self._driver,
            self._addresses,
            channel_options,
            pool,
            methods,
            None,
            lambda: None,
            self,
        )
        self._middleware = ClientMiddleware(list(middleware), self._driver.now, blocking=True)
        self._channel.start()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def call(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> Any:
        """Call a method and return its result; as `Client.call`."""
        given = join_params(method, params, keywords)
        return self.call_by(self._policies.of(method), method, given, timeout, cancel, meta)

    def call_by(
        self,
        policy: CallPolicy | None,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Any:
        """Call by a policy, or by none."""
        timeout, token = chosen_timeout(policy, timeout), self._relay(cancel)

        def call(params: Params, meta: dict[str, Any] | None) -> Any:
            if policy is None:
                return self._call(method, params, timeout, token, meta)
            return self._call_by_policy(policy, method, params, timeout, token, meta)

        through = self._middleware.begin(method, params, timeout, meta, Flow.UNARY)
        if through is None:
            return call(params, meta)
        return through.run_now(lambda request: call(request.params, request.meta))

    def _call_by_policy(
        self,
        policy: CallPolicy,
        method: str,
        params: Params,
        timeout: float | None,
        token: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Any:
        """Make the attempts of a call; the same as `call_repeatedly`, but without a loop."""
        call = self._begin_by_policy(policy, method, timeout, meta)
        if policy.hedging is not None:
            return self._hedge(call, policy.hedging, params, token)
        while True:
            timeout, meta = call.begin()
            try:
                result = self._call(method, params, timeout, token, meta, policy)
            except RpcError as error:
                if not call.failed(error):
                    raise
            else:
                call.succeeded()
                return result
            try:
                self._pause(call, token)
            except RpcError as error:
                raise call.final(error) from None

    def _hedge(
        self, call: PolicyCall, policy: HedgingPolicy, params: Params, token: CancelToken | None
    ) -> Any:
        """Make the attempts of a call side by side."""
        method, wait = call.method, call.policy.wait_for_ready

        def begin(timeout: float | None, meta: dict[str, Any] | None) -> Call | None:
            if not self._decided(wait=wait):
                return None
            peer = self._ready_peer()
            if call.policy.idempotent:
                peer.check_takes_meta(method)
            return peer.start_call(method, params, timeout, meta)

        def turn(done: Callable[[], bool], until: float | None) -> None:
            self._turn_to(done, until, token)

        check_cancel(token)
        self._driver.poll(0)  # a server that has gone since the last call is found out now
        return BlockingHedgedCall(call, policy, begin, lambda: self._decided(wait=wait), turn).run()

    def _begin_by_policy(
        self, policy: CallPolicy, method: str, timeout: float | None, meta: dict[str, Any] | None
    ) -> PolicyCall:
        return PolicyCall(policy, method, timeout, meta, self._driver, self._throttle, self._channel)

    def _call(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        token: CancelToken | None,
        meta: dict[str, Any] | None,
        policy: CallPolicy | None = None,
    ) -> Any:
        wait = policy is not None and policy.wait_for_ready
        peer, timeout = self._usable_peer(method, timeout, token, wait=wait)
        if policy is not None and policy.idempotent:
            peer.check_takes_meta(method)
        call = peer.start_call(method, params, timeout, meta)
        self._wait_for([call], token)
        return call.result()

    def _wait_for(self, calls: list[Call], token: CancelToken | None) -> None:
        """Turn until calls have ended; give them up when the token, or an interrupt, says so."""

        def give_up() -> None:
            for call in calls:
                call.give_up(token.reason if token is not None else "interrupted")

        if token is not None:
            token.add_callback(give_up)
        try:
            for call in calls:
                self._turn_until(call.done)
        except BaseException:  # a KeyboardInterrupt, most likely: nobody waits for the answers
            give_up()
            raise
        finally:
            if token is not None:
                token.remove_callback(give_up)

    def batch(
        self,
        calls: Iterable[Sequence[Any]],
        *,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
    ) -> list[Any]:
        """Make many calls in one round trip; as `Client.batch`.

        Those that go through middleware, or have a policy, are made one after the other.
        """
        check_timeout(timeout)
        token, outcomes = self._relay(cancel), []
        begun: list[Call] = []
        for method, *params in calls:
            try:
                if self._middleware.any or self._policies.of(method) is not None:
                    outcomes.append(self.call(method, *params, timeout=timeout, cancel=cancel, meta=meta))
                    continue
                peer, left = self._usable_peer(method, timeout, token)
                begun.append(peer.start_call(method, params, left, meta))
                outcomes.append(begun[-1])
            except RpcError as error:
                outcomes.append(error)
        self._wait_for(begun, token)
        return [_outcome(one) if isinstance(one, Call) else one for one in outcomes]

    def notify(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        """Call a method without wanting an answer; returns when the operating system has it."""
        given = join_params(method, params, keywords)
        self.notify_by(self._policies.of(method), method, given, timeout, cancel, meta)

    def notify_by(
        self,
        policy: CallPolicy | None,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> None:
        """Notify by a policy, or by none; there is nothing to make again."""
        timeout, token = chosen_timeout(policy, timeout), self._relay(cancel)
        wait = policy is not None and policy.wait_for_ready
        through = self._middleware.begin(method, params, timeout, meta, Flow.UNARY)
        if through is None:
            self._notify(method, params, timeout, token, meta, wait=wait)
            return
        through.request.notification = True
        through.run_now(
            lambda request: self._notify(method, request.params, timeout, token, request.meta, wait=wait)
        )

    def _notify(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        token: CancelToken | None,
        meta: dict[str, Any] | None,
        *,
        wait: bool,
    ) -> None:
        peer, _ = self._usable_peer(method, timeout, token, wait=wait)
        peer.start_notification(method, params, meta)
        link = peer.link
        self._flush()
        self._turn_until(lambda: link is None or link.closed or not (peer.session.queued or link.unsent))

    def stream(
        self,
        method: str,
        /,
        *params: Any,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        meta: dict[str, Any] | None = None,
        **keywords: Any,
    ) -> BlockingStream:
        """Call a method with stream items, either way or both; see `BlockingStream`."""
        given = join_params(method, params, keywords)
        return self.stream_by(self._policies.of(method), method, given, timeout, cancel, meta)

    def stream_by(
        self,
        policy: CallPolicy | None,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> BlockingStream:
        """Stream by a policy, or by none."""
        timeout, token = chosen_timeout(policy, timeout), self._relay(cancel)
        through = self._middleware.begin(method, params, timeout, meta, Flow.BOTH)
        stream = StreamCall(method, params, timeout, token, meta, through=through, policy=policy)
        if stream.enter_middleware():
            if policy is not None:
                stream.attempts = self._begin_by_policy(policy, method, timeout, stream.meta)
            self._begin_stream(stream)
        return BlockingStream(stream, self._turn_until, self._flush, self._begin_stream)

    def _begin_stream(self, stream: StreamCall) -> None:
        """Begin a stream, or begin it again."""
        token, policy = stream.cancel_token, stream.policy
        while True:
            try:
                if stream.attempts is not None:
                    self._pause(stream.attempts, token)
                    stream.begin_attempt()
                wait = policy is not None and policy.wait_for_ready
                peer, stream.timeout = self._usable_peer(stream.method, stream.timeout, token, wait=wait)
                peer.start_stream(stream)
            except RpcError as error:
                if not stream.could_not_begin(error):
                    raise
            else:
                return

    def with_policy(self, policy: CallPolicy) -> BlockingPolicyView:
        """The same client, whose calls all follow `policy`, whatever `policies` says of them."""
        check_policy(policy)
        return BlockingPolicyView(self, policy)

    @overload
    def service(self, service: str) -> ServiceProxy: ...
    @overload
    def service(self, service: type[T]) -> T: ...
    def service(self, service: str | type[T]) -> ServiceProxy | T:
        """An object whose methods are those of a service.

        Args:
            service: Its name, or a class that declares its methods as plain functions and
                generators: type-checkers then know the parameters and results.
        """
        return proxy_of(self, service)  # type: ignore[no-any-return]  # it stands in for what is declared

    def statistics(self) -> StatisticsTable:
        """Calls so far, by method."""
        return self._channel.statistics()

    def connections(self) -> list[ConnectionInfo]:
        """What each connection is doing; as `Client.connections`."""
        return self._channel.infos()

    def close(self) -> None:
        """End the connection in good order, and free what the client holds."""
        self._channel.close()
        self._turn_until(lambda: not self._channel.open_links)
        self._driver.close()

    def _usable_peer(
        self, method: str, timeout: float | None, cancel: CancelToken | None, *, wait: bool = False
    ) -> tuple[Peer, float | None]:
        """Turn until there is a connection with room for a call.

        Where there is none because connecting has failed, it turns on only if `wait` says so.
        """
        check_cancel(cancel)
        channel = self._channel
        if channel.state is ChannelState.CLOSED:
            raise channel.unavailable()
        timeout, _ = inherit(self._driver.now(), timeout, None)
        deadline = None if timeout is None else time.monotonic() + timeout

        def usable() -> bool:
            return _is_cancelled(cancel) or self._decided(wait=wait)

        self._driver.poll(0)  # a server that has gone since the last call is found out now
        in_time = self._turn_or_cancel(usable, deadline, cancel)
        if not in_time:
            raise expired(f"{method} at {channel.where} ({channel.state.value})")
        check_cancel(cancel)
        return self._ready_peer(), None if deadline is None else max(0.0, deadline - time.monotonic())

    def _decided(self, *, wait: bool) -> bool:
        """Whether a call has a connection with room, or else has to fail; see `_usable_peer`."""
        channel = self._channel
        peer = channel.peer
        if peer is not None and peer.session.refuses_calls:
            channel.let_go(peer)
            peer = channel.peer
        if peer is not None:
            return not peer.full
        if channel.state is ChannelState.CONNECTING:
            return False
        return not (wait and channel.worth_waiting_for)

    def _ready_peer(self) -> Peer:
        """The connection, where there is one."""
        peer = self._channel.peer
        if peer is None:
            raise self._channel.unavailable()
        return peer

    def _pause(self, call: PolicyCall, cancel: CancelToken | None) -> None:
        """Turn until the next attempt of a call is to begin."""
        check_cancel(cancel)
        if call.resume_at > self._driver.now():
            self._turn_to(lambda: False, call.resume_at, cancel)

    def _turn_to(self, done: Callable[[], bool], until: float | None, cancel: CancelToken | None) -> None:
        """Turn until something is true, or a driver time has come; raises CANCELLED by the token."""
        deadline = None if until is None else time.monotonic() + until - self._driver.now()
        self._turn_or_cancel(lambda: _is_cancelled(cancel) or done(), deadline, cancel)
        check_cancel(cancel)

    def _turn_or_cancel(
        self, done: Callable[[], bool], deadline: float | None, cancel: CancelToken | None
    ) -> bool:
        """The same as `_turn_until`, for something that looks whether the token is cancelled."""
        if cancel is None:
            return self._turn_until(done, deadline)
        cancel.add_callback(_nothing)  # the relay turns the driver for it, and then we look again
        try:
            return self._turn_until(done, deadline)
        finally:
            cancel.remove_callback(_nothing)

    def _turn_until(self, done: Callable[[], bool], deadline: float | None = None) -> bool:
        """Turn the driver until something is true; False if the deadline comes first."""
        while not done():
            if deadline is None:
                self._driver.poll(None)
            elif (wait := deadline - time.monotonic()) > 0:
                self._driver.poll(wait)
            else:
                return False
        return True

    def _flush(self) -> None:
        """Give the operating system what it takes of what is queued, without waiting for anything.

        A turn that waits flushes first, but then waits for something to happen.
        """
        if self._channel.state is not ChannelState.CLOSED:
            self._driver.poll(0)

    def _relay(self, cancel: CancelToken | None) -> CancelToken | None:
        token = joined(cancel)
        return None if token is None else CancelRelay(token, self._driver)


def _is_cancelled(cancel: CancelToken | None) -> bool:
    return cancel is not None and cancel.cancelled


def _nothing() -> None:
    """What is called only so that the driver turns."""


def _outcome(call: Call) -> Any:
    """The result of a call that has ended, or its error."""
    try:
        return call.result()
    except RpcError as error:
        return error
