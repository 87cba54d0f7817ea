"""The other end of a connection: what it calls is served here, and it can be called.

A `Peer` stands between a session and the code above: it gives the session commands, and turns the
session's events into results of calls and runs of methods. Clients and servers both hold peers,
because the protocol is symmetric. It needs no event loop, except to run methods that are coroutines
and to be awaited.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any
from weakref import WeakValueDictionary

from ...drivers.base import Driver
from ...drivers.pump import Link
from ...protocols.auth import Identity
from ...protocols.errors import LocalProtocolError, RemoteProtocolError
from ...protocols.machine import Action, ConnectionFailed
from ...protocols.rpc import (
    COLLECT,
    CallFailed,
    CallStatistics,
    CancelReceived,
    CreditGranted,
    ExtensionsMissing,
    Flow,
    GoawayReceived,
    HelloReceived,
    ItemReceived,
    ItemUnreadable,
    NotificationReceived,
    NotificationUnreadable,
    OversizedMessage,
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
from .before_call import await_room, check_cancel, expired, join_params
from .call import Answered, AskedCall, Call, cancellable
from .cancel import CancelToken
from .context import inherit, serving
from .errors import NotSent, RpcError
from .items import SEND_UP_TO, IncomingItems
from .peer_owner import PeerOwner
from .service import ServedMethod
from .serving import Serving
from .stream import StreamCall
from .waiter import Waiter

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
    """

    def __init__(
        self,
        driver: Driver,
        session: RpcSession,
        methods: dict[str, ServedMethod],
        owner: PeerOwner,
        loop: asyncio.AbstractEventLoop | None,
        statistics: StatisticsTable | None = None,
    ) -> None:
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
        self._owner = owner
        self.calls: dict[int, Call] = {}
        # Weak, so that a stream which its user drops is cancelled rather than kept for ever.
        self._streams: WeakValueDictionary[int, StreamCall] = WeakValueDictionary()
        self._readers: dict[int, IncomingItems[Any]] = {}  # of those streams
        self.arrived: list[IncomingItems[Any]] = []
        """Streams whose reader waits, and whose items have come with what is being handled."""
        self.max_calls = session.limits.max_calls
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        """Woken in this order when there is room; no list, because those who give up leave it."""
        # Half of what may be queued at all, where that is little, so that waiting comes before failing.
        self.high_water = min(HIGH_WATER, session.limits.max_queued_output // 2)
        self._serving = Serving(self, methods, owner)
        self._answered = not session.extensions  # without having said hello before
        self.congested = False
        """Whether new calls should wait because too much is queued."""
        self._astray = False  # whether an answer that no call awaits has been reported

    @property
    def address(self) -> str:
        """Where the peer is, as `host:port`."""
        return self.link.peer_address if self.link is not None else ""

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.link is not None and self.link.closed

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
        in_flight: list[Call | StreamCall] = [*self.calls.values(), *self._streams.values()]
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
        """
        params_sent = join_params(method, params, keywords)
        if cancel is not None or self.full:
            return self._call_with_room(method, params_sent, timeout, cancel, meta)
        try:
            return self.start_call(method, params_sent, timeout, meta)
        except RpcError as error:
            return _raise(error)

    async def _call_with_room(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
    ) -> Any:
        if self.full:
            timeout = await self._room_within(method, timeout, cancel)
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
        now = self.now()
        if serving.get() is not None:
            timeout, meta = inherit(now, timeout, meta)
        if timeout is not None and timeout <= 0:
            raise expired(method)
        output = self._output
        queued = output.size
        try:
            msgid = self._begin_call(method, params, now, timeout=timeout, meta=meta)
        except LocalProtocolError as error:
            raise self._refusal(error) from error
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

    def check_takes_meta(self, method: str) -> None:
        """Make sure that the peer would be told the meta of a call.

        Raises:
            RpcError: It has not announced the extensions.
        """
        if self.session.peer is None:
            reason = f"the peer has not announced the extensions; {method} needs meta, which it would not get"
            missing = ExtensionsMissing(reason)
            raise self._refusal(missing) from missing

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
            raise self._refusal(error) from error
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
        check_cancel(cancel)
        stream = StreamCall(method, join_params(method, params, keywords), timeout, cancel, meta)
        self.start_stream(stream)
        return stream

    def start_stream(self, stream: StreamCall) -> None:
        """Begin a prepared stream on this connection.

        Raises:
            RpcError: It could not begin.
        """
        now = self.now()
        timeout, meta = inherit(now, stream.timeout, stream.meta)
        if timeout is not None and timeout <= 0:
            raise expired(stream.method)
        queued = self._output.size
        try:
            msgid = self.session.call(
                stream.method, stream.params, now, timeout=timeout, meta=meta, flow=Flow.BOTH
            )
        except LocalProtocolError as error:
            raise self._refusal(error) from error
        self._streams[msgid] = stream
        statistics = self.statistics.of(stream.method)
        statistics.bytes_out += self._output.size - queued
        stream.began(self, msgid, statistics)
        self._readers[msgid] = stream.items
        self.wake()

    # -- what calls and streams ask for -------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether new calls should wait: too many are in flight, or too much is queued."""
        return len(self.calls) + len(self._streams) >= self.max_calls or self.congested

    @property
    def flushing(self) -> bool:
        """Whether the transport takes what is queued, so that there is room after this turn."""
        return self.link is not None and not self.link.unsent and self.session.queued > self.high_water

    async def room(self, cancel: CancelToken | None = None) -> None:
        """Wait until the peer can be called, or takes no calls any more.

        Raises:
            RpcError: The token was cancelled first.
        """
        while self.full and not self.session.refuses_calls:
            if self.flushing:
                await asyncio.sleep(0)  # the end of this turn makes room
                self._measure()
            else:
                await await_room([self.waiting], Waiter(asyncio.get_running_loop()), cancel)

    async def _room_within(
        self, method: str, timeout: float | None, cancel: CancelToken | None
    ) -> float | None:
        """Wait for room; returns what is left of the timeout."""
        started = self.now()
        timeout, _ = inherit(started, timeout, None)
        try:
            async with asyncio.timeout(timeout):
                await self.room(cancel)
        except TimeoutError:
            raise expired(method) from None
        return None if timeout is None else timeout - (self.now() - started)

    def forget(self, msgid: int) -> None:
        """Nobody waits for a call any more: cancel it at the peer."""
        call = self.calls.pop(msgid, None)
        if call is not None:
            self.count_end(call.statistics, self.now() - call.started, StatusCode.CANCELLED)
        self._take_stream(msgid)
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
        return self.session.credit(msgid) > 0 and self.session.queued <= min(SEND_UP_TO, self.high_water)

    def send_item(self, msgid: int, item: Any) -> int:
        """Send a stream item; gives its bytes, and raises `RpcError` where it cannot be sent."""
        try:
            size = self.session.send_item(msgid, item)
        except LocalProtocolError as error:
            raise self._refusal(error) from error
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
        """End the connection at once."""
        if self.link is not None:
            self.link.abort()

    # -- LinkHandler ---------------------------------------------------------------------------------------

    def on_ready(self, link: Link[RpcEvent]) -> None:
        """The connection is made."""
        self.link = link
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
                    self._on_stream_result(event, direct)  # type: ignore[arg-type]
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
        if self.congested or self.waiting:
            self._admit(direct=direct)
        if not self._answered and self.session.peer is None:
            self._answered = any(map(_is_answer, events))
        link = self.link
        if link is not None and not link.woken:
            link.wake()

    def on_actions(self, actions: list[Action]) -> None:
        """A session has no actions."""

    def on_writable(self) -> None:
        """What was queued has gone: whoever waited may go on."""
        self._admit(direct=False)
        for stream in self._streams.values():
            stream.wake(direct=False)
        self._serving.wake()

    def on_closed(self, error: Exception | None) -> None:
        """The connection has ended. The session has failed what was in flight."""
        self._serving.cancel_all()
        self._admit(direct=False)
        self._owner.peer_closed(self, error)

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
        stream = self._take_stream(event.msgid)
        if stream is not None:
            stream.failed(error, direct=direct)

    def _on_stream_result(self, event: ResponseReceived, direct: bool) -> None:
        stream = self._take_stream(event.msgid)
        if stream is not None:
            stream.statistics.bytes_in += event.size
            stream.ended(event.result, None, direct=direct)

    def _take_stream(self, msgid: int) -> StreamCall | None:
        self._readers.pop(msgid, None)
        return self._streams.pop(msgid, None)

    def _wake_readers(self, *, direct: bool) -> None:
        """Let those go on whose items have come."""
        arrived, self.arrived = self.arrived, []
        for items in arrived:
            items.wake(direct=direct)

    def _on_item_unreadable(self, event: ItemUnreadable, direct: bool) -> None:
        """An item was lost, and so is its call: to go on would look as if it had not been sent."""
        self.session.consumed(event.msgid, event.size)
        reason = f"a stream item cannot be read: {event.reason}"
        stream = self._streams.get(event.msgid)
        if stream is not None:
            stream.statistics.bytes_in += event.size
            self.forget(event.msgid)
            stream.ended(None, RpcError(StatusCode.INTERNAL, reason), direct=direct)
        else:
            self._serving.end(event.msgid, StatusCode.INVALID_ARGUMENT, reason)

    def _on_notification_unreadable(self, event: NotificationUnreadable, direct: bool) -> None:
        reason = f"the notification was dropped, its parameters cannot be read: {event.reason}"
        self._owner.method_failed(self, event.method, RemoteProtocolError(reason))

    def _on_credit(self, event: CreditGranted, direct: bool) -> None:
        stream = self._streams.get(event.msgid)
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
        self._owner.method_failed(self, "", event.error)

    def _admit(self, *, direct: bool) -> None:
        """Let waiting callers go on, as many as there is room for."""
        self._measure()
        for _ in range(len(self.waiting)):
            if not self.waiting or (self.full and not self.session.refuses_calls):
                return  # whoever was resumed may have let others go on
            self.waiting.popitem(last=False)[0].finish(None, None, direct=direct)

    def _measure(self) -> None:
        self.congested = self.session.queued > self.high_water

    def wake(self) -> None:
        """The session was given commands: carry them out at the end of this turn."""
        if self.link is not None:
            self.link.wake()

    def _refusal(self, error: LocalProtocolError) -> RpcError:
        """Say in terms of a call why the session refused a command."""
        session = self.session
        if session.refuses_calls:
            return RpcError(StatusCode.UNAVAILABLE, session.refuses_calls, maybe_executed=False)
        code = StatusCode.INTERNAL
        at_a_limit = error.__cause__ is None and "max_" in str(error)  # not of what cannot be encoded
        if isinstance(error, OversizedMessage) or at_a_limit:
            code = StatusCode.RESOURCE_EXHAUSTED
        elif isinstance(error, ExtensionsMissing):  # a peer that has answered a call says hello no more
            known = self._answered or session.peer is not None
            code = StatusCode.UNIMPLEMENTED if known else StatusCode.UNAVAILABLE
        return RpcError(code, str(error), maybe_executed=False)


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
}
"""What becomes of events that are not among the frequent ones; one table for all peers."""


def _is_answer(event: RpcEvent) -> bool:
    """Whether an event is the peer's answer to a call, and not the session's own verdict."""
    if isinstance(event, CallFailed):
        return event.code is not StatusCode.DEADLINE_EXCEEDED and event.code is not StatusCode.UNAVAILABLE
    return isinstance(event, ResponseReceived)


async def _raise(error: RpcError) -> Any:
    raise error
