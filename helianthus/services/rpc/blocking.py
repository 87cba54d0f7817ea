"""Calling services from plain code, without asyncio and without a thread.

The client has a driver of its own, and turns it in the caller's thread while a call waits. Between
calls nothing turns: what the server pushes is served during the next call, and a server that pings
an idle client gets its answer then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.choose import driver as make_driver
from ...protocols.pool import PoolOptions
from ...protocols.rpc import Flow, Params, StatisticsTable
from .call import Call
from .cancel import CancelToken
from .channel import ChannelOptions, ChannelState, ConnectionInfo
from .channel_pool import ONE_CONNECTION, channel_for
from .context import inherit
from .errors import RpcError
from .middleware import Middleware
from .outgoing_call import ClientMiddleware, OutgoingCall
from .peer import Peer, check_cancel, expired, join_params
from .proxy import ServiceProxy, proxy_of
from .service import Service, method_table
from .stream import StreamCall

T = TypeVar("T")


def connect_sync(
    url: str | Sequence[str], services: Iterable[Service] = (), **options: Any
) -> BlockingClient:
    """Make a blocking client of the node at `url`; see `BlockingClient`."""
    return BlockingClient(url, services, **options)


class BlockingClient:
    """Calls the services of a node; each method returns when its work is done.

    Use it as a context manager, from one thread at a time.

    Args:
        url: Such as `tcp://127.0.0.1:7070`; several are raced, see `protocols.racing`.
        services: What the server may call on this side: plain functions only.
        middleware: What every call goes through; see `Middleware`. None that waits: there is no loop.
        pool: How many connections; one by default.
        options: Those of `ChannelOptions`.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        services: Iterable[Service] = (),
        *,
        middleware: Iterable[Middleware] = (),
        pool: PoolOptions = ONE_CONNECTION,
        **options: Any,
    ) -> None:
        self._addresses = Address.parse_all(url)
        self._driver = make_driver("auto")
        self._driver.looks_up_inline = True  # no hidden thread, not even for a name
        self._channel = channel_for(
            self._driver,
            self._addresses,
            ChannelOptions(**options),
            pool,
            method_table(services),
            None,
            lambda: None,
        )
        given = list(middleware)
        self._middleware = ClientMiddleware(given, self._driver.now, blocking=True) if given else None
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
        given, token = join_params(method, params, keywords), self._relay(cancel)
        through = self._through(method, given, timeout, meta, Flow.UNARY)
        if through is None:
            return self._call(method, given, timeout, token, meta)
        return through.run_now(
            lambda request: self._call(method, request.params, timeout, token, request.meta)
        )

    def _call(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        token: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Any:
        peer, timeout = self._usable_peer(method, timeout, token)
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

        Those that go through middleware are made one after the other.
        """
        token, outcomes = self._relay(cancel), []
        begun: list[Call] = []
        for method, *params in calls:
            try:
                if self._middleware is not None:
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
        given, token = join_params(method, params, keywords), self._relay(cancel)
        through = self._through(method, given, timeout, meta, Flow.UNARY)
        if through is None:
            self._notify(method, given, timeout, token, meta)
            return
        through.request.notification = True
        through.run_now(lambda request: self._notify(method, request.params, timeout, token, request.meta))

    def _notify(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        token: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> None:
        peer, _ = self._usable_peer(method, timeout, token)
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
        given, token = join_params(method, params, keywords), self._relay(cancel)
        through = self._through(method, given, timeout, meta, Flow.BOTH)
        stream = StreamCall(method, given, timeout, token, meta, through=through)
        if stream.enter_middleware():
            try:
                peer, stream.timeout = self._usable_peer(method, timeout, token)
                peer.start_stream(stream)
            except RpcError as error:
                stream.ended(None, error, direct=False)  # the middleware hears of it
                raise
        return BlockingStream(stream, self._turn_until, self._flush)

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

    def _through(
        self, method: str, params: Params, timeout: float | None, meta: dict[str, Any] | None, flow: Flow
    ) -> OutgoingCall | None:
        """The middleware that a call goes through, or None."""
        if self._middleware is None:
            return None
        return self._middleware.begin(method, params, timeout, meta, flow)

    def _usable_peer(
        self, method: str, timeout: float | None, cancel: CancelToken | None
    ) -> tuple[Peer, float | None]:
        """Turn until there is a connection with room for a call."""
        check_cancel(cancel)
        channel = self._channel
        if channel.state is ChannelState.CLOSED:
            raise channel.unavailable()
        timeout, _ = inherit(self._driver.now(), timeout, None)
        deadline = None if timeout is None else time.monotonic() + timeout

        def usable() -> bool:
            if cancel is not None and cancel.cancelled:
                return True
            peer = channel.peer
            if peer is not None and peer.session.refuses_calls:
                channel.let_go(peer)
                peer = channel.peer
            if peer is not None:
                return not peer.full
            return channel.state is not ChannelState.CONNECTING

        if cancel is not None:
            cancel.add_callback(_nothing)  # the relay turns the driver for it, and then we look again
        try:
            self._driver.poll(0)  # a server that has gone since the last call is found out now
            in_time = self._turn_until(usable, deadline)
        finally:
            if cancel is not None:
                cancel.remove_callback(_nothing)
        if not in_time:
            raise expired(f"{method} at {channel.where} ({channel.state.value})")
        check_cancel(cancel)
        peer = channel.peer
        if peer is None:
            raise channel.unavailable()
        return peer, None if deadline is None else deadline - time.monotonic()

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
        return None if cancel is None else _Relay(cancel, self._driver)


class _Relay(CancelToken):
    """A token whose callbacks come in the driver's turn, whichever thread or signal handler cancels it."""

    def __init__(self, token: CancelToken, driver: Driver) -> None:
        super().__init__()
        self._token = token
        self._driver = driver
        self._relayed: dict[Callable[[], None], Callable[[], None]] = {}
        self.reason = token.reason

    @property
    def cancelled(self) -> bool:
        if self._token.cancelled:
            self.reason = self._token.reason
        return self._token.cancelled

    def add_callback(self, callback: Callable[[], None]) -> None:
        def in_turn() -> None:
            self.reason = self._token.reason
            callback()

        def relayed() -> None:
            self._driver.post(in_turn)

        self._relayed[callback] = relayed
        self._token.add_callback(relayed)
        if self._token.cancelled:  # by another thread, just now: twice is better than never
            relayed()

    def remove_callback(self, callback: Callable[[], None]) -> None:
        relayed = self._relayed.pop(callback, None)
        if relayed is not None:
            self._token.remove_callback(relayed)


def _outcome(call: Call) -> Any:
    """The result of a call that has ended, or its error."""
    try:
        return call.result()
    except RpcError as error:
        return error


def _nothing() -> None:
    """What is called only so that the driver turns."""


class BlockingStream:
    """A call with stream items; iterate over those of the callee."""

    def __init__(
        self,
        stream: StreamCall,
        wait: Callable[[Callable[[], bool]], object],
        flush: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._wait = wait
        self._flush = flush

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._wait(lambda: self._stream.has_item)
        try:
            return self._stream.take()
        except StopAsyncIteration:
            raise StopIteration from None

    def send(self, item: Any) -> None:
        """Send an item, as soon as the callee takes it; raises `RpcError` where the call has ended."""
        self._wait(lambda: self._stream.may_send)
        self._stream.send_now(item)
        self._flush()

    def end(self) -> None:
        """Send no more items; the call goes on until the callee ends it."""
        self._stream.end_now()
        self._flush()

    def result(self) -> Any:
        """Wait for the end of the call and return its result; as `StreamCall.result`."""
        self._stream.end_now()
        self._stream.let_items_go()
        self._wait(lambda: self._stream.over)
        return self._stream.outcome()

    def __enter__(self) -> BlockingStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stream.give_up("the block that used the stream ended")
        self._flush()
