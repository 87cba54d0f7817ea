"""Runs the methods that a peer calls, and answers each request exactly once.

Plain functions run straight from the event. Coroutines and async generators run as tasks; they end
early when the caller cancels, when the deadline passes or when the connection is lost, and the
answer is sent when the task has really ended, so that a request counts as in flight until then.

While the peer does not take the answers that there are, requests are held back, and so are the
results of coroutines. Otherwise a hundred requests for a large answer each, which arrive in one
read, would fill memory before the first byte of the first answer could be sent.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ...protocols.errors import LocalProtocolError
from ...protocols.rpc import (
    CallStatistics,
    CancelReceived,
    CreditGranted,
    Flow,
    ItemReceived,
    NotificationReceived,
    RequestExpired,
    RequestReceived,
    StatisticsTable,
    StatusCode,
    StreamEnded,
)
from ..scope import enter_bounds, leave_bounds
from ..waiter import Waiter
from .context import CallContext
from .errors import NotRun, RpcError, encodable, error_of, is_fault
from .gate import IDEMPOTENCY_KEY, Gate
from .items import IncomingItems, OutgoingItems
from .middleware import Response
from .served_call import ServedCall, run_through
from .served_counting import ServedCounting
from .service import Kind, ServedMethod

if TYPE_CHECKING:
    from .peer import Peer
    from .peer_owner import PeerOwner

_UNARY = Flow.UNARY  # an attribute of an enum costs more to look up than a global name


class _Run:
    """A method that runs as a task."""

    __slots__ = ("begun", "call", "items", "msgid", "outgoing", "stopped", "task")

    def __init__(self, msgid: int | None, call: ServedCall | None) -> None:
        self.msgid = msgid
        """The request's; None for a notification, and once somebody else answers it."""
        self.call = call
        self.task: asyncio.Task[None] | None = None
        self.begun = False
        """Whether the task's body runs. A task that is cancelled before would never answer."""
        self.items: IncomingItems[Any] | None = None
        self.outgoing: OutgoingItems | None = None
        self.stopped: RpcError | None = None
        """Why it was cancelled, or None."""


class Serving:
    """What one peer has called and what runs for it.

    Attributes:
        peer: The caller.
        counting: What it has called, in numbers.
    """

    def __init__(self, peer: Peer, methods: dict[str, ServedMethod], owner: PeerOwner) -> None:
        self.peer = peer
        self._session = peer.session
        self._respond = peer.session.respond
        self._output = peer.session.output
        self._high_water = peer.high_water
        self._methods = methods
        self._owner = owner
        self._gate = owner.gate
        self._now = peer.now
        self._known: dict[str, tuple[ServedMethod, CallStatistics]] = {}  # what the peer has called so far
        self.counting = ServedCounting(peer, owner)
        self._runs: dict[int, _Run] = {}
        self._notified: dict[_Run, None] = {}  # runs of notifications have no message id
        self._detached: dict[_Run, None] = {}  # they run on, though their own caller has gone
        self._at_gate: dict[int, ServedCall] = {}  # what has not begun to run there, or not yet
        self._dropping = False  # notifications, and that has been reported
        self._held: list[RequestReceived | Waiter] = []  # until there is room for answers
        self._resume_due = False

    @property
    def running(self) -> list[CallStatistics]:
        """The entry in `statistics` of each request that has begun and has no answer."""
        return self.counting.running

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Those of the methods that run now, as tasks."""
        runs = (*self._runs.values(), *self._notified, *self._detached)
        return [run.task for run in runs if run.task is not None]

    # -- events -----------------------------------------------------------------------------------

    def serve(self, event: RequestReceived, has_room: bool = False) -> None:
        """Run a request's method, as soon as there is room for its answer.

        Args:
            event: The request.
            has_room: Whether its turn has come, and with it its room.
        """
        if (self._held or self._output.size > self._high_water) and event.flow is _UNARY and not has_room:
            self._hold(event)
            return
        counting = self.counting
        known = self._known.get(event.method)
        method, statistics = known if known is not None else self._find(event.method)
        try:
            meta = event.meta
            if method is not None and method.simple and (meta is None or IDEMPOTENCY_KEY not in meta):
                if statistics is not counting.burst:
                    counting.begin_burst(statistics, event.method)
                if (chain := method.chain) is not None:
                    result = run_through(self, method, chain, event)
                else:
                    params, check = event.params, method.check
                    check(params)
                    token = enter_bounds((self.peer, event))
                    try:
                        result = (
                            method.function(*params)
                            if params.__class__ is list
                            else method.call_by_name(params)
                        )
                    finally:
                        leave_bounds(token)
                respond = self._respond  # `self._respond(…)` would be looked up as a method first, slowly
                respond(event.msgid, result)
                counting.burst_calls += 1
            else:
                counting.count_later(event.msgid, event.method, statistics)
                self._begin(event, method)
        except Exception as error:  # noqa: BLE001 - every request is answered
            if event.msgid not in counting.begun:
                counting.count_later(event.msgid, event.method, statistics)
            self._answer_failure(event.msgid, event.method, error)

    def _find(self, name: str) -> tuple[ServedMethod | None, CallStatistics]:
        """Look up what the peer calls for the first time."""
        method = self._methods.get(name)
        if method is None:
            return None, self.counting.statistics.of(StatisticsTable.OTHERS)
        known = self._known[name] = (method, self.counting.statistics.of(name))
        return known

    def on_notification(self, event: NotificationReceived, direct: bool) -> None:
        """Run a notification's method; nobody hears of its result, the owner of its errors."""
        method = self._methods.get(event.method)
        if method is None:
            return
        self.counting.statistics.of(method.name).notifications += 1
        if method.kind is not Kind.FUNCTION and not self._takes_notification(method):
            return
        try:
            gate = self._gate_of(method, None)
            if method.chain is not None or gate is not None:
                ServedCall(self, event, method, gate).begin()
                return
            method.check(event.params)
            self.begin_run(None, method, event.params, event.meta or {}, None)
        except Exception as error:  # noqa: BLE001 - reported; there is nobody to answer
            self._owner.method_failed(self.peer, event.method, error)

    def _takes_notification(self, method: ServedMethod) -> bool:
        """Whether another one may run as a task; each series of those that are dropped is reported once."""
        limit = self._session.limits.max_calls
        takes = len(self._notified) < limit
        if not takes and not self._dropping:
            reason = f"more than max_calls ({limit}) notifications run; what exceeds them is dropped"
            self._owner.method_failed(
                self.peer, method.name, RpcError(StatusCode.RESOURCE_EXHAUSTED, reason, maybe_executed=False)
            )
        self._dropping = not takes
        return takes

    def on_cancel(self, event: CancelReceived, direct: bool) -> None:
        """The caller has given a request up, or has ended the connection."""
        run = self._runs.get(event.msgid)
        if run is not None and self._session.peer_ended and self._is_keyed(run):
            self._leave_behind(run)
        else:
            self.end(event.msgid, StatusCode.CANCELLED, "cancelled by the caller")

    def on_expired(self, event: RequestExpired, direct: bool) -> None:
        """A request's deadline has come."""
        self.end(event.msgid, StatusCode.DEADLINE_EXCEEDED, "the deadline passed while the method ran")

    def on_item(self, event: ItemReceived, direct: bool) -> None:
        """The caller sent an item."""
        run = self._runs.get(event.msgid)
        if run is not None and run.items is not None:
            item, call = event.item, run.call
            if call is not None:
                try:
                    item = call.received(item)
                except Exception as error:  # noqa: BLE001 - it becomes the answer
                    self.report(event.msgid, call.method.name, error)
                    self._cancel(run, error_of(call.method.name, error))
            run.items.push(item, event.size)
        else:
            self.peer.consumed(event.msgid, event.size, 1)

    def on_stream_end(self, event: StreamEnded, direct: bool) -> None:
        """The caller sends no more items."""
        run = self._runs.get(event.msgid)
        if run is not None and run.items is not None:
            run.items.end(None, direct=direct)

    def on_credit(self, event: CreditGranted, direct: bool) -> None:
        """The caller takes items again."""
        run = self._runs.get(event.msgid)
        if run is not None and run.outgoing is not None:
            run.outgoing.wake(direct=direct)

    def wake(self) -> None:
        """The transport takes data again: streams and answers may go on."""
        for run in self._runs.values():
            if run.outgoing is not None:
                run.outgoing.wake(direct=False)
        if self._held:
            self._resume()

    def cancel_all(self) -> None:
        """The connection ends: so does what runs for it.

        What carries an idempotency key runs on, until its deadline: its caller is likely to ask
        again, over another connection.
        """
        self._held.clear()
        gone = RpcError(StatusCode.CANCELLED, "the caller's connection ended")
        for call in list(self._at_gate.values()):
            self._withdraw(call, gone)
        for run in [*self._runs.values(), *self._notified]:
            if self._is_keyed(run):
                self._leave_behind(run)
            else:
                self._cancel(run, gone)

    # -- room for answers ---------------------------------------------------------------------------

    def _hold(self, waiting: RequestReceived | Waiter) -> None:
        """Keep something until there is room for an answer; in the order of coming."""
        self._held.append(waiting)
        self._resume_later()

    async def _room(self) -> None:
        """Wait until there is room for an answer."""
        while self._session.queued > self.peer.high_water:
            waiter = Waiter(self.peer.loop)
            self._hold(waiter)
            await waiter

    def _resume_later(self) -> None:
        """Look again when the transport has taken something."""
        link = self.peer.link
        if not self._resume_due and link is not None and not link.clogged:  # else `wake` is called
            self._resume_due = True
            self.peer.post(self._resume)

    def _resume(self) -> None:
        """Go on with as many as there is room for."""
        self._resume_due = False
        held, session, high_water = self._held, self._session, self.peer.high_water
        while held and session.queued <= high_water:
            waiting = held.pop(0)
            if isinstance(waiting, Waiter):
                waiting.finish(None, None, direct=asyncio.current_task(self.peer.loop) is None)
            elif session.awaits_answer(waiting.msgid):
                self.serve(waiting, True)
        self.counting.end_burst()
        if held:
            self._resume_later()
        self.peer.wake()

    def _drop_held(self, msgid: int, reason: RpcError) -> None:
        for waiting in self._held:
            if isinstance(waiting, RequestReceived) and waiting.msgid == msgid:
                self._held.remove(waiting)
                self._answer_error(msgid, reason)
                break

    # -- running ----------------------------------------------------------------------------------

    def _begin(self, event: RequestReceived, method: ServedMethod | None) -> None:
        if method is None:
            raise NotRun(
                StatusCode.UNIMPLEMENTED,
                f"this node has no method {event.method!r}; node.services lists what it has",
            )
        if method.flow is not event.flow and method.flow & ~event.flow:
            raise NotRun(
                StatusCode.UNIMPLEMENTED,
                f"{method.name} has stream items; call it as a stream, with a client that understands them",
            )
        gate = self._gate_of(method, event.meta)
        if method.chain is not None or gate is not None:
            ServedCall(self, event, method, gate).begin()
            return
        method.check(event.params)
        self.begin_run(event.msgid, method, event.params, event.meta or {}, event.deadline)

    def begin_run(
        self,
        msgid: int | None,
        method: ServedMethod,
        params: Any,
        meta: dict[str, Any],
        deadline: float | None,
        call: ServedCall | None = None,
    ) -> None:
        """Run a method whose parameters have been checked.

        Args:
            msgid: The request's; None for a notification, which nobody wants answered.
            method: What to run.
            params: As they came.
            meta: What the caller sent along.
            deadline: Driver time at which the caller gives up, or None.
            call: Told of the end, and answers then; without one, the answer is the result.

        Raises:
            Exception: What the method, or the answer to it, let out.
        """
        positional, named = method.arguments(params)
        identity = self.peer.identity if call is None else call.request.identity
        context = CallContext(method.name, self.peer, deadline, meta, identity)
        if method.context is not None:
            named[method.context] = context
        if method.kind is Kind.FUNCTION and (call is None or not method.takes_time):
            token = enter_bounds(context)
            try:
                result = method.function(*positional, **named)
            finally:
                leave_bounds(token)
            if call is not None:
                call.finish(Response(result))
            elif msgid is not None:
                self.answer(msgid, method.name, result, None)
            return
        self._start_task(msgid, method, positional, named, context, call)

    def _start_task(
        self,
        msgid: int | None,
        method: ServedMethod,
        positional: Any,
        named: dict[str, Any],
        context: CallContext,
        call: ServedCall | None,
    ) -> None:
        loop = self.peer.loop
        if loop is None:
            raise NotRun(
                StatusCode.UNIMPLEMENTED,
                f"{method.name} is asynchronous, and this node turns its driver without an event loop",
            )
        run = _Run(msgid, call)
        if method.items is not None:
            run.items = named[method.items] = IncomingItems(self.peer, msgid or 0)
            if msgid is None:
                run.items.end(None, direct=False)
        if msgid is None:
            self._notified[run] = None
        else:
            self._runs[msgid] = run
        if method.kind is Kind.STREAM and msgid is not None:
            run.outgoing = OutgoingItems(self.peer, msgid)
        scope = contextvars.copy_context()
        scope.run(enter_bounds, context)
        body = self._run(run, msgid, method, positional, named)
        task = loop.create_task(body, context=scope)
        if not task.done():
            run.task = task
            if call is not None:
                call.task = task
            if run.stopped is not None and run.begun:  # it was, while the task could not be cancelled yet
                task.cancel()

    async def _run(
        self, run: _Run, msgid: int | None, method: ServedMethod, positional: Any, named: dict[str, Any]
    ) -> None:
        """The body of a method's task: it catches everything, so that the request is answered."""
        result: Any = None
        failure: BaseException | None = None
        run.begun = True
        try:
            if run.stopped is not None:
                failure = run.stopped  # before it began
            else:
                result = await self._result(run, method, positional, named)
                if msgid is not None and self._session.queued > self.peer.high_water:
                    await self._room()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it becomes the answer
            failure = error
        if run.items is not None:
            run.items.discard()
        self._end_run(run, method.name, result, failure)

    def _result(
        self, run: _Run, method: ServedMethod, positional: Any, named: dict[str, Any]
    ) -> Awaitable[Any]:
        """What to await for a method's result, with the middleware that waits around it."""

        def proceed() -> Awaitable[Any]:
            if method.kind is Kind.STREAM:
                return self._send_items(run, method.function(*positional, **named))
            if method.kind is Kind.FUNCTION:
                return _in_task(method.function, positional, named)
            awaitable: Awaitable[Any] = method.function(*positional, **named)
            return awaitable

        return proceed() if run.call is None else run.call.around(proceed)

    async def _send_items(self, run: _Run, generator: Any) -> None:
        outgoing, call = run.outgoing, run.call
        try:
            async for item in generator:
                if outgoing is None:
                    continue  # a notification has no stream
                if call is not None:
                    item = call.sending(item)
                try:
                    if not outgoing.try_send(item):
                        await outgoing.send(item)
                except RpcError as error:  # of the item: it is answered as a result would be
                    raise error.__cause__ or error from None
        finally:
            await generator.aclose()

    def _end_run(self, run: _Run, method: str, result: Any, failure: BaseException | None) -> None:
        msgid = run.msgid
        self._detached.pop(run, None)
        if msgid in self.counting.begun:
            statistics = self.counting.begun[msgid].statistics
            if run.outgoing is not None:
                statistics.bytes_out += run.outgoing.bytes
            if run.items is not None:
                statistics.bytes_in += run.items.bytes
        if msgid is None and run in self._notified:
            del self._notified[run]
            if isinstance(failure, Exception) and (run.stopped is None or is_fault(failure)):
                self._owner.method_failed(self.peer, method, failure)
        else:
            if msgid is not None:
                self._runs.pop(msgid, None)
            if failure is not None:  # perhaps in its clean-up
                self.report(msgid, method, failure)
        error = run.stopped or (None if failure is None else error_of(method, failure))
        if run.call is not None:
            run.call.finish(Response(result, error))
        elif msgid is not None:
            self.answer(msgid, method, result, error)
        self.peer.wake()

    def end(self, msgid: int, code: StatusCode, reason: str) -> None:
        """End what runs for a request, or waits to, and answer with an error."""
        run = self._runs.get(msgid)
        if run is not None and run.call is not None and self._awaited(run.call):
            self._detach(run, RpcError(code, reason))
        elif run is not None:
            self._cancel(run, RpcError(code, reason))
        elif msgid in self._at_gate:
            self._withdraw(self._at_gate[msgid], NotRun(code, f"{reason}; it was not run"))
        elif self._held:
            self._drop_held(msgid, NotRun(code, f"{reason}; it was not run"))

    def _cancel(self, run: _Run, reason: RpcError) -> None:
        if run.stopped is None:
            run.stopped = reason
            if run.begun and run.task is not None and not run.task.get_loop().is_closed():
                run.task.cancel()

    # -- at the gate ----------------------------------------------------------------------------------

    def at_gate(self, call: ServedCall) -> None:
        """A request may have to wait there; its caller may give it up meanwhile."""
        if call.msgid is not None:
            self._at_gate[call.msgid] = call

    def _gate_of(self, method: ServedMethod, meta: dict[str, Any] | None) -> Gate | None:
        """The gate, if it has a say in a request."""
        gate = self._gate
        if gate is None or (meta is not None and IDEMPOTENCY_KEY in meta):
            return gate
        return gate if method.takes_time and gate.limits_concurrency else None

    def _awaited(self, call: ServedCall) -> bool:
        return self._gate is not None and self._gate.awaited(call)

    def _withdraw(self, call: ServedCall, error: RpcError) -> None:
        if self._gate is not None:
            self._gate.withdraw(call, error)

    def _detach(self, run: _Run, error: RpcError) -> None:
        """Answer a request whose method runs on, because others wait for its outcome, or will."""
        msgid, call = run.msgid, run.call
        if msgid is None or call is None:
            return
        del self._runs[msgid]
        run.msgid = call.msgid = None
        self._detached[run] = None
        self.answer(msgid, call.method.name, None, error)

    def _is_keyed(self, run: _Run) -> bool:
        """Whether its caller is likely to ask again."""
        return run.call is not None and run.call.key is not None

    def _leave_behind(self, run: _Run) -> None:
        """The connection has ended: let a method run on, until its deadline."""
        self._detach(run, RpcError(StatusCode.CANCELLED, "the caller's connection ended"))
        deadline = run.call.request.deadline if run.call is not None else None
        if deadline is not None:
            expired = RpcError(StatusCode.DEADLINE_EXCEEDED, "the deadline passed while the method ran")
            self.peer.call_at(deadline, lambda: self._cancel(run, expired))

    # -- answers ------------------------------------------------------------------------------------

    def answer(self, msgid: int, method: str, result: Any, error: RpcError | None) -> int:
        """Answer a request, unless its connection has ended; gives the bytes of the answer."""
        self._at_gate.pop(msgid, None)
        if error is not None:
            return self._answer_error(msgid, error)
        self.counting.end_burst()
        try:
            sent = self._session.respond(msgid, result)
        except LocalProtocolError as failure:  # of the result
            return self._answer_failure(msgid, method, failure)
        self.counting.count(msgid, StatusCode.OK, sent)
        return sent

    def report(self, msgid: int | None, method: str, failure: BaseException) -> None:
        """Tell the owner of what a method let out, unless it was raised for the caller."""
        if isinstance(failure, LocalProtocolError) and not self._session.awaits_answer(msgid):
            return  # the connection has ended, and so there was nothing to answer
        if is_fault(failure):
            self._owner.method_failed(self.peer, method, failure)

    def _answer_failure(self, msgid: int, method: str, failure: BaseException) -> int:
        """Answer a request with what its method, or its answer, let out."""
        self.report(msgid, method, failure)
        return self._answer_error(msgid, error_of(method, failure))

    def _answer_error(self, msgid: int, error: RpcError) -> int:
        self.counting.end_burst()
        session, sent = self._session, 0
        executed, message = not isinstance(error, NotRun), encodable(error.message)
        if session.awaits_answer(msgid):
            try:
                sent = session.respond_error(msgid, error.code, message, error.details, executed=executed)
            except LocalProtocolError:
                if session.awaits_answer(msgid):  # the details cannot be encoded, or are too large
                    sent = session.respond_error(msgid, error.code, message[:1000], executed=executed)
        self.counting.count(msgid, error.code, sent)
        return sent


async def _in_task(function: Callable[..., Any], positional: Any, named: dict[str, Any]) -> Any:
    """A plain function, for middleware that waits."""
    return function(*positional, **named)
