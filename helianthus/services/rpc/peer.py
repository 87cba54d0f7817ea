"""The other end of a connection: what it calls is served here, and it can be called.

A `Peer` stands between a session and the code above: it gives the session commands, and turns the
session's events into results of calls and runs of methods. Clients and servers both hold peers,
because the protocol is symmetric. It needs no event loop, except to run methods that are coroutines
and to be awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ...drivers.base import Driver
from ...drivers.link_options import LinkOptions
from ...drivers.pump import Link
from ...protocols.auth import Identity
from ...protocols.errors import LocalProtocolError, RemoteProtocolError
from ...protocols.machine import Action, ConnectionFailed
from ...protocols.proxy_header import ProxyHeader, ProxyHeaderReceived
from ...protocols.rpc import (
    COLLECT,
    CallFailed,
    CallStatistics,
    CancelReceived,
    CreditGranted,
    ExtensionsMissing,
    GoawayReceived,
    HelloReceived,
    ItemReceived,
    ItemUnreadable,
    NotificationReceived,
    NotificationUnreadable,
    Params,
    PongReceived,
    RequestExpired,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    RpcSession,
    StatisticsTable,
    StatusCode,
    StreamEnded,
    UnexpectedResponse,
)
from ...protocols.timeouts import check_timeout
from ...protocols.tls import (
    TlsEstablished,
    TlsHandshakeAbandoned,
    TlsSessionReceived,
    TlsTruncated,
)
from ..cancel import CancelToken
from ..scope import enter_bounds, joined, leave_bounds, raw_bounds
from .arrival import Arrival
from .before_call import check_cancel, is_answer, join_params, no_time, refusal
from .call import Answered, AskedCall, BoundCall, Call, cancellable
from .called_streams import CalledStreams
from .context import inherit
from .errors import NotSent, RpcError
from .items import SEND_UP_TO, IncomingItems
from .peer_owner import PeerOwner
from .room import Room
from .service import ServedMethod
from .serving import Serving
from .stream import StreamCall

HIGH_WATER = 1024 * 1024
"""Bytes queued for a peer above which whoever sends more waits."""


class Peer:
    """The other end of a connection.

    Args:
        driver: Whose turn and time it is.
        session: The machine; the driver pumps it.
        methods: What the peer may call.
        owner: Told what happens.
        loop: Where coroutines run; None where there are none.
        statistics: Counts the calls to the peer; by default they have a table of their own.
        link_options: How the link writes; None for the defaults.
    """

    def __init__(
        self,
        driver: Driver,
        session: RpcSession,
        methods: dict[str, ServedMethod],
        owner: PeerOwner,
        loop: asyncio.AbstractEventLoop | None,
        statistics: StatisticsTable | None = None,
        link_options: LinkOptions | None = None,
    ) -> None:
        self.link_options = link_options
        self.statistics = statistics or StatisticsTable()
        """Of the calls to the peer; those that run now are not counted."""
        self._called = self.statistics.by_method
        self._uncounted = 0  # answers, at most, whose duration was only collected
        self.session = session
        self._begin_call = session.call
        self._output = session.output
        self.link: Link[RpcEvent] | None = None
        self.loop = loop
        self.now = driver.now
        self.call_at = driver.call_at
        self.post = driver.post
        self.identity: Identity | None = None
        """Who the peer has proved to be."""
        self.arrival = Arrival()
        """What has to come first where there are layers around the session."""
        self.failure: Exception | None = None
        """What has broken the connection, if it was not lost."""
        self._unwanted = False
        self._owner = owner
        self.calls: dict[int, Call] = {}
        self._streams = CalledStreams(self)
        self._readers = self._streams.readers
        self.arrived: list[IncomingItems[Any]] = []
        """Streams whose reader waits, and whose items have come with what is being handled."""
        self.max_calls = session.limits.max_calls
        self.room = Room(self)
        """Where those wait whose calls it cannot take yet."""
        self._waiting = self.room.waiting
        # Half of what may be queued at all, where that is little, so that waiting comes before failing.
        self.high_water = min(HIGH_WATER, session.limits.max_queued_output // 2)
        self._serving = Serving(self, methods, owner)
        self._answered = not session.extensions  # without having said hello before
        self.congested = False
        """Whether new calls should wait because too much is queued."""
        self._astray = False  # whether an answer that no call awaits has been reported

    @property
    def address(self) -> str:
        """Where the peer is, as `host:port`; what a proxy in front has told, where there is one."""
        return self.link.peer_address if self.link is not None else ""

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.link is not None and self.link.closed

    @property
    def tls(self) -> TlsEstablished | None:
        """What is known of the encryption, once there is one; the peer's certificate, for example."""
        return self.arrival.tls

    @property
    def proxy_header(self) -> ProxyHeader | None:
        """What a proxy in front has told of the connection."""
        return self.arrival.proxy_header

    @property
    def connected(self) -> bool:
        """Whether the connection is made, and encrypted where it is to be."""
        return self.link is not None and self.arrival.complete

    @property
    def in_flight(self) -> int:
        """Requests of the peer's that are being served."""
        return self.session.pending_requests

    @property
    def load(self) -> int:
        """Calls and streams to the peer that are in flight."""
        return len(self.calls) + len(self._readers)

    @property
    def running(self) -> list[CallStatistics]:
        """The entry in `statistics` of each call to the peer that is in flight."""
        in_flight: list[Call | StreamCall] = [*self.calls.values(), *self._streams.running.values()]
        return [call.statistics for call in in_flight]

    @property
    def served(self) -> StatisticsTable:
        """Statistics of the peer's calls to this side; a copy."""
        return self._serving.counting.statistics.with_running(self._serving.running)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Those of the methods that run for the peer."""
        return self._serving.tasks

    # -- calling the peer ----------------------------------------------------------------------

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
        """Call a method of the peer's; await what is returned for its result.

        The call begins at once, or as soon as it is awaited where it has to wait for room first.

        Args:
            method: Its full name, such as "calculator.add".
            params: Positional parameters; give either these or keywords.
            timeout: Seconds after which the call fails.
            cancel: Cancelling it fails the call with CANCELLED.
            meta: What else to tell the peer, such as `traceparent`.
            keywords: Parameters by keyword.

        Raises:
            RpcError: When awaited: the call ended without a result.
            ValueError: `timeout` is no number of seconds, or less than 0.
        """
        params_sent = join_params(method, params, keywords)
        if cancel is not None or self.full:
            check_timeout(timeout)
            return self._call_with_room(method, params_sent, timeout, cancel, meta)
        try:
            return self.start_call(method, params_sent, timeout, meta)
        except RpcError as error:
            return _raise(error)
        except TypeError:
            check_timeout(timeout)
            raise

    async def _call_with_room(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Any:
        if self.full:
            timeout = await self.room.wait_within(method, timeout, joined(cancel))
        check_cancel(cancel)
        call = self.start_call(method, params, timeout, meta)
        if cancel is None:
            return await call
        return await cancellable(call, cancel)

    def ask(self, method: str, params: Params, timeout: float, answered: Answered) -> None:
        """Begin a unary call that tells of its end in place of being awaited; raises as `start_call`."""
        call = self.start_call(method, params, timeout, None)
        self.calls[call.msgid] = AskedCall(self, call, answered)

    def start_call(
        self, method: str, params: Params, timeout: float | None, meta: dict[str, Any] | None
    ) -> Call:
        """Begin a unary call and return at once; await what comes back.

        Raises:
            RpcError: It could not begin.
        """
        clock, begin = self.now, self._begin_call  # to call an attribute at once takes longer
        now = clock()
        if raw_bounds() is not None:
            return self._start_bounded_call(method, params, timeout, meta)
        if timeout is not None and not timeout > 0:  # so is NaN
            raise no_time(method, timeout)
        output = self._output
        queued = output.size
        try:
            msgid = begin(method, params, now, timeout, meta)
        except LocalProtocolError as error:
            raise self.refusal(error) from error
        statistics = self._called.get(method)
        if statistics is None:
            statistics = self.statistics.of(method)
        statistics.bytes_out += output.size - queued
        call = self.calls[msgid] = Call(self, msgid, self.loop, statistics, now)
        if output.size > self.high_water:
            self.congested = True
        link = self.link
        if link is not None and not link.woken:
            link.wake()
        return call

    def _start_bounded_call(
        self, method: str, params: Params, timeout: float | None, meta: dict[str, Any] | None
    ) -> Call:
        """Begin a call with what it inherits from what bounds the running code."""
        timeout, meta = inherit(self.now(), timeout, meta)
        token = joined(None)
        check_cancel(token)
        token_of_bounds = enter_bounds(None)
        try:
            call = self.start_call(method, params, timeout, meta)
        finally:
            leave_bounds(token_of_bounds)
        if token is None or self.loop is None:  # a blocking client has a token for it already
            return call
        bound = self.calls[call.msgid] = BoundCall(self, call, token)
        return bound

    def check_takes_meta(self, method: str) -> None:
        """Make sure that the peer would be told the meta of a call.

        Raises:
            RpcError: It has not announced the extensions.
        """
        if self.session.peer is None:
            reason = f"the peer has not announced the extensions; {method} needs meta, which it would not get"
            missing = ExtensionsMissing(reason)
            raise self.refusal(missing) from missing

    def notify(
        self, method: str, /, *params: Any, meta: dict[str, Any] | None = None, **keywords: Any
    ) -> None:
        """Call a method of the peer's and want no answer. Does not wait.

        Raises:
            RpcError: It cannot be sent, or too much is queued for the peer already.
        """
        self.start_notification(method, join_params(method, params, keywords), meta)

    def start_notification(self, method: str, params: Params, meta: dict[str, Any] | None) -> None:
        """Send a notification; see `notify`."""
        _, meta = inherit(self.now(), None, meta)
        try:
            self.session.notify(method, params, meta=meta)
        except LocalProtocolError as error:
            raise self.refusal(error) from error
        self.statistics.of(method).notifications += 1
        self.wake()

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
        """Begin a call with stream items at once; see `StreamCall`."""
        check_timeout(timeout)
        check_cancel(joined(cancel))
        stream = StreamCall(method, join_params(method, params, keywords), timeout, cancel, meta)
        self.start_stream(stream)
        return stream

    def start_stream(self, stream: StreamCall) -> None:
        """Begin a prepared stream on this connection.

        Raises:
            RpcError: It could not begin.
        """
        self._streams.begin(stream)
        self.wake()

    # -- what calls and streams ask for -------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether new calls should wait: too many are in flight, or too much is queued."""
        return len(self.calls) + len(self._streams.running) >= self.max_calls or self.congested

    def forget(self, msgid: int) -> None:
        """Nobody waits for a call any more: cancel it at the peer."""
        call = self.calls.pop(msgid, None)
        if call is not None:
            self.count_end(call.statistics, self.now() - call.started, StatusCode.CANCELLED)
        self._streams.take(msgid)
        self.session.cancel(msgid)
        self._admit(direct=False)
        self.wake()

    def count_end(self, statistics: CallStatistics, seconds: float, code: StatusCode) -> None:
        """Count a call to the peer that has ended."""
        statistics.ended(seconds, code)
        if seconds > self._owner.slow_after:
            self._tell_slow(statistics, seconds)

    def _tell_slow(self, statistics: CallStatistics, seconds: float) -> None:
        method = next((name for name, entry in self._called.items() if entry is statistics), "")
        self._owner.method_slow(self, method, seconds)

    def may_send(self, msgid: int) -> bool:
        """Whether an item can be sent on a call's stream now."""
        if self.session.never_waits:
            return True
        return self.session.credit(msgid) > 0 and self.session.queued <= min(SEND_UP_TO, self.high_water)

    def send_item(self, msgid: int, item: Any) -> int:
        """Send a stream item; gives its bytes, and raises `RpcError` where it cannot be sent."""
        try:
            size = self.session.send_item(msgid, item)
        except LocalProtocolError as error:
            raise self.refusal(error) from error
        link = self.link
        if link is not None and not link.woken:
            link.wake()
        return size

    def end_stream(self, msgid: int) -> None:
        """End our half of a call's stream."""
        self.session.end_stream(msgid)
        self.wake()

    def consumed(self, msgid: int, size: int, items: int) -> None:
        """Stream items of so many bytes together were taken."""
        self.session.consumed(msgid, size, items)
        self.wake()

    # -- the end ---------------------------------------------------------------------------------------

    def go_away(self, reason: str) -> None:
        """Take no new calls, finish what is in flight, then close."""
        self.session.goaway(reason)
        self._admit(direct=False)  # those that wait for room look for another connection
        self.wake()

    def close(self, reason: str = "closed by this side", code: StatusCode = StatusCode.CANCELLED) -> None:
        """End the connection now, in good order; what it serves is cancelled, its calls fail with `code`."""
        self._serving.cancel_all()
        self.session.close(reason, code)
        self.wake()

    def abort(self) -> None:
        """End the connection at once, or as soon as it is made."""
        self._unwanted = True
        if self.link is not None:
            self.link.abort()

    # -- LinkHandler ---------------------------------------------------------------------------------------

    def on_ready(self, link: Link[RpcEvent]) -> None:
        """The connection is made."""
        self.link = link
        if self._unwanted:
            link.abort()
        elif self.arrival.complete:
            self._owner.peer_ready(self)

    def on_events(self, events: list[RpcEvent]) -> None:
        """The machine has something to say."""
        loop = self.loop
        direct = loop is not None and asyncio.current_task(loop) is None
        now, slow_after, counting = self.now(), self._owner.slow_after, self._serving.counting
        take_call, serve, readers = self.calls.pop, self._serving.serve, self._readers
        for event in events:
            kind = event.__class__
            if kind is ResponseReceived:
                call = take_call(event.msgid, None)  # type: ignore[union-attr]  # `kind` says which
                if call is not None:
                    statistics = call.statistics
                    statistics.bytes_in += event.size  # type: ignore[union-attr]
                    seconds = now - call.started
                    statistics.durations.append(seconds)
                    if seconds > slow_after:
                        self._tell_slow(statistics, seconds)
                    call.answered(event.result, direct)  # type: ignore[union-attr]
                else:
                    self._streams.on_result(event, direct)  # type: ignore[arg-type]
            elif kind is RequestReceived:
                serve(event)  # type: ignore[arg-type]
            elif kind is ItemReceived and event.msgid in readers:  # type: ignore[union-attr]
                readers[event.msgid].push(event.item, event.size)  # type: ignore[union-attr]
            else:
                _HANDLERS[kind](self, event, direct)
        if self.arrived:
            self._wake_readers(direct=direct)
        if counting.burst is not None:
            counting.end_burst()
        self._uncounted += len(events)
        if self._uncounted >= COLLECT:
            self._uncounted = 0
            self.statistics.count_collected()
        if self.congested or self._waiting:
            self._admit(direct=direct)
        if not self._answered and self.session.peer is None:
            self._answered = any(map(is_answer, events))
        link = self.link
        if link is not None and not link.woken:
            link.wake()

    def on_actions(self, actions: list[Action]) -> None:
        """A session has no actions."""

    def on_writable(self) -> None:
        """What was queued has gone: whoever waited may go on."""
        self._admit(direct=False)
        self._streams.wake()
        self._serving.wake()

    def on_closed(self, error: Exception | None) -> None:
        """The connection has ended. The session has failed what was in flight."""
        self._serving.cancel_all()
        self._admit(direct=False)
        self._owner.peer_closed(self, error or self.failure)

    # -- events ------------------------------------------------------------------------------------

    def _on_call_failed(self, event: CallFailed, direct: bool) -> None:
        error = RpcError(event.code, event.message, event.details, maybe_executed=event.maybe_executed)
        if not event.sent:
            error = NotSent(event.code, event.message)
        call = self.calls.pop(event.msgid, None)
        if call is not None:
            self.count_end(call.statistics, self.now() - call.started, event.code)
            call.statistics.bytes_in += event.size
            call.finish(None, error, direct=direct)
            return
        stream = self._streams.take(event.msgid)
        if stream is not None:
            stream.failed(error, direct=direct)

    def _wake_readers(self, *, direct: bool) -> None:
        """Let those go on whose items have come."""
        arrived, self.arrived = self.arrived, []
        for items in arrived:
            items.wake(direct=direct)

    def _on_item_unreadable(self, event: ItemUnreadable, direct: bool) -> None:
        """An item was lost, and so is its call: to go on would look as if it had not been sent."""
        self.session.consumed(event.msgid, event.size)
        reason = f"a stream item cannot be read: {event.reason}"
        if not self._streams.on_item_unreadable(event, reason, direct):
            self._serving.end(event.msgid, StatusCode.INVALID_ARGUMENT, reason)

    def _on_notification_unreadable(self, event: NotificationUnreadable, direct: bool) -> None:
        reason = f"the notification was dropped, its parameters cannot be read: {event.reason}"
        self._owner.method_failed(self, event.method, RemoteProtocolError(reason))

    def _on_credit(self, event: CreditGranted, direct: bool) -> None:
        stream = self._streams.running.get(event.msgid)
        if stream is not None:
            stream.wake(direct=direct)
        else:
            self._serving.on_credit(event, direct)

    def _on_unexpected_response(self, event: UnexpectedResponse, direct: bool) -> None:
        """Report the first one of a connection only: a peer could send any number of them."""
        if not self._astray:
            self._astray = True
            error = RemoteProtocolError(f"an answer to {event.msgid}, which no call awaits, was dropped")
            self._owner.method_failed(self, "", error)

    def _on_connection_failed(self, event: ConnectionFailed, direct: bool) -> None:
        self._serving.cancel_all()
        self.failure = event.error
        if isinstance(event.error, TlsTruncated | TlsHandshakeAbandoned):
            return  # it has gone: nothing that somebody should look into
        self._owner.method_failed(self, "", event.error)

    def _on_proxy_header(self, event: ProxyHeaderReceived, direct: bool) -> None:
        self.arrival.on_proxy_header(event)
        if self.link is not None and event.header.source is not None:
            self.link.peer_address = str(event.header.source)
        if self.arrival.complete:
            self._owner.peer_ready(self)

    def _on_tls_established(self, event: TlsEstablished, direct: bool) -> None:
        self.arrival.on_tls_established(event)
        if self.arrival.complete:
            self._owner.peer_ready(self)

    def _admit(self, *, direct: bool) -> None:
        """Let waiting callers go on, as many as there is room for."""
        self.measure_output()
        self.room.admit(direct=direct)

    def measure_output(self) -> None:
        """See whether new calls have to wait for what is queued."""
        self.congested = self.session.queued > self.high_water

    def wake(self) -> None:
        """The session was given commands: carry them out at the end of this turn."""
        if self.link is not None:
            self.link.wake()

    def refusal(self, error: LocalProtocolError) -> RpcError:
        """Say in terms of a call why the session refused a command."""
        if self.session.never_waits:
            self.wake()  # it may have been for a slow peer, which is disconnected
        return refusal(self.session, error, answered=self._answered)


_HANDLERS: dict[type, Callable[[Peer, Any, bool], None]] = {
    CallFailed: Peer._on_call_failed,
    ItemReceived: lambda peer, event, direct: peer._serving.on_item(event, direct),
    CreditGranted: Peer._on_credit,
    StreamEnded: lambda peer, event, direct: peer._serving.on_stream_end(event, direct),
    CancelReceived: lambda peer, event, direct: peer._serving.on_cancel(event, direct),
    RequestExpired: lambda peer, event, direct: peer._serving.on_expired(event, direct),
    NotificationReceived: lambda peer, event, direct: peer._serving.on_notification(event, direct),
    HelloReceived: lambda peer, event, direct: peer._owner.peer_said_hello(peer),
    GoawayReceived: lambda peer, event, direct: peer._owner.peer_going_away(peer, event.reason),
    PongReceived: lambda peer, event, direct: None,
    UnexpectedResponse: Peer._on_unexpected_response,
    NotificationUnreadable: Peer._on_notification_unreadable,
    ItemUnreadable: Peer._on_item_unreadable,
    ConnectionFailed: Peer._on_connection_failed,
    ProxyHeaderReceived: Peer._on_proxy_header,
    TlsEstablished: Peer._on_tls_established,
    TlsSessionReceived: lambda peer, event, direct: peer.arrival.on_tls_session(event),
}
"""What becomes of events that are not among the frequent ones; one table for all peers."""


async def _raise(error: RpcError) -> Any:
    raise error
