"""One end of a MessagePack-RPC connection.

The session is symmetric: both ends call and serve. It keeps the tables of calls in flight, their
deadlines, the credit of streams, keep-alive, and the way a connection ends. It does not know what a
method is: requests come out as events, and whoever serves them answers with commands.

Every call of ours ends in exactly one `ResponseReceived` or `CallFailed`, whatever the peer does,
unless its caller cancels it first. Every request of the peer's is answered exactly once by us.

| state | what is possible | leaves it when |
|---|---|---|
| OPEN | everything | `goaway`, the peer's end of stream, a fault, the loss of the connection |
| DRAINING | calls and requests in flight go on, no new ones begin | the last of them ends |
| ENDED | nothing | |
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ..machine import Action, Buffer, Closing, ConnectionFailed, Outcome
from .deadlines import Deadlines
from .events import (
    CallFailed,
    CancelReceived,
    CreditGranted,
    Flow,
    GoawayReceived,
    HelloReceived,
    ItemReceived,
    NotificationReceived,
    PongReceived,
    RequestExpired,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    StreamEnded,
    UnexpectedResponse,
)
from .keepalive import PingJudge, PingSender
from .limits import CLIENT_KEEP_ALIVE, SERVER_KEEP_ALIVE, KeepAlive, RpcLimits
from .status import StatusCode
from .stream_state import StreamState
from .wire import (
    CANCEL,
    CREDIT,
    END,
    GOAWAY,
    HELLO,
    ITEM,
    MAX_MSGID,
    NOTIFICATION,
    PING,
    REQUEST,
    RESPONSE,
    VERSION,
    Decoder,
    Encoder,
    OversizedMessage,
    malformed,
)

Params = Sequence[Any] | Mapping[str, Any]


class SessionState(enum.Enum):
    """Where a session is in its life."""

    OPEN = "open"
    DRAINING = "draining"
    ENDED = "ended"


SESSION_TRANSITIONS: dict[SessionState, tuple[SessionState, ...]] = {
    SessionState.OPEN: (SessionState.DRAINING, SessionState.ENDED),
    SessionState.DRAINING: (SessionState.ENDED,),
    SessionState.ENDED: (),
}


class RpcSession:
    """A `StreamMachine` that speaks the whole wire of `wire.py`.

    Args:
        now: Monotonic seconds.
        initiator: Whether this side opened the connection; it says hello first.
        limits: Bounds of what the session holds.
        keep_alive: Pings and strikes; by default those of a client or a server.
        extensions: False to speak plain MessagePack-RPC, whatever the peer announces.
    """

    def __init__(
        self,
        now: float,
        *,
        initiator: bool,
        limits: RpcLimits | None = None,
        keep_alive: KeepAlive | None = None,
        extensions: bool = True,
    ) -> None:
        self.limits = limits or RpcLimits()
        self.peer: HelloReceived | None = None
        """What the peer announced; None as long as it speaks plain MessagePack-RPC."""
        self.state = SessionState.OPEN
        self._initiator = initiator
        self._extensions = extensions
        self._hello_sent = False
        self._encode = Encoder(self.limits.max_message_size).encode
        self._decoder = Decoder(self.limits.max_message_size)
        self._events: list[RpcEvent] = []
        self._closing = Closing.OPEN
        self._refuses_calls = ""

        self._out: list[Buffer] = []
        self._queued = 0
        self._queued_replies = 0
        self._unsent_calls: list[int] = []

        self._calls: set[int] = set()
        self._call_deadlines = Deadlines()
        self._next_msgid = 1 if initiator else 2
        self._cancelled: dict[int, None] = {}

        self._served: dict[int, int] = {}  # message id: bytes that count towards max_request_bytes
        self._request_deadlines = Deadlines()
        self._request_bytes = 0
        self._last_request: int | None = None

        self._streams: dict[int, StreamState] = {}
        self._buffered_items = 0

        settings = keep_alive or (CLIENT_KEEP_ALIVE if initiator else SERVER_KEEP_ALIVE)
        self._ping_sender = PingSender(settings, now)
        self._ping_judge = PingJudge(settings)
        self._handlers = {
            NOTIFICATION: self._on_notification,
            CANCEL: self._on_cancel,
            ITEM: self._on_item,
            END: self._on_end,
            CREDIT: self._on_credit,
            PING: self._on_ping,
            GOAWAY: self._on_goaway,
        }
        if initiator and extensions:
            self._say_hello()

    # -- the machine's outputs ------------------------------------------------------------------

    @property
    def closing(self) -> Closing:
        """How the link is to end."""
        return self._closing

    @property
    def wants_read(self) -> bool:
        """False while the peer does not read its replies, or nobody consumes its items."""
        return (
            self._queued_replies <= self.limits.pause_reading_at
            and self._buffered_items <= self.limits.max_buffered_items
        )

    @property
    def queued(self) -> int:
        """Bytes that the transport has not taken yet."""
        return self._queued

    @property
    def pending_calls(self) -> int:
        """Calls of ours that have not ended."""
        return len(self._calls)

    @property
    def pending_requests(self) -> int:
        """Requests of the peer's that have not been answered."""
        return len(self._served)

    @property
    def accepts_calls(self) -> bool:
        """Whether `call` would begin a call now."""
        return not self._refuses_calls and len(self._calls) < self.limits.max_calls

    @property
    def refuses_calls(self) -> str:
        """Why no call can begin on this connection any more; empty while they can."""
        return self._refuses_calls

    def deadline(self) -> float | None:
        """When the next call, request or keep-alive is due."""
        when = self._ping_sender.deadline(busy=self._busy) if self.peer is not None else None
        for deadlines in (self._call_deadlines, self._request_deadlines):
            if deadlines and (due := deadlines.next()) is not None and (when is None or due < when):
                when = due
        return when

    def take_data(self) -> list[Buffer]:
        """Hand over everything that is to be sent."""
        out = self._out
        if out:
            self._out = []
            self._queued = 0
            self._unsent_calls.clear()
            if self._queued_replies:
                self._queued_replies = 0
                self._ping_judge.replied()
        return out

    def take_events(self) -> list[RpcEvent]:
        """Hand over what happened."""
        events = self._events
        if events:
            self._events = []
        return events

    def take_actions(self) -> list[Action]:
        """A session has no actions."""
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """A session has no actions.

        Raises:
            LocalProtocolError: Always.
        """
        raise LocalProtocolError(f"the session has no action {action_id}")

    # -- commands: calls of ours ------------------------------------------------------------------

    def call(
        self,
        method: str,
        params: Params,
        now: float,
        *,
        timeout: float | None = None,
        meta: dict[str, Any] | None = None,
        flow: Flow = Flow.UNARY,
    ) -> int:
        """Begin a call.

        Args:
            method: The peer's name for it.
            params: Positional, or by keyword where the peer understands the extensions.
            now: Monotonic seconds.
            timeout: Seconds until the call fails with DEADLINE_EXCEEDED; the peer is told them.
            meta: What else to tell a peer that understands the extensions.
            flow: Who sends stream items.

        Returns:
            The message id, which events and other commands name.

        Raises:
            LocalProtocolError: The session is ending, a limit is reached, something cannot be
                encoded, or the peer does not understand the extensions that this call needs.
        """
        self._check_can_call(params, flow)
        msgid = self._free_msgid()
        if self.peer is not None and (timeout is not None or meta or flow):
            message: tuple[Any, ...] = (REQUEST, msgid, method, params, _request_meta(timeout, meta, flow))
        else:
            message = (REQUEST, msgid, method, params)
        data = self._encode_command(message, method)
        self._next_msgid = msgid + 2 if msgid + 2 <= MAX_MSGID else (1 if self._initiator else 2)
        if not self._calls:
            self._ping_sender.became_busy(now)
        self._calls.add(msgid)
        self._unsent_calls.append(msgid)
        if timeout is not None:
            self._call_deadlines.add(msgid, now + timeout)
        if flow and self.peer is not None:
            self._streams[msgid] = StreamState(
                flow,
                ours=True,
                window=self.limits.stream_window if flow & Flow.FROM_CALLEE else 0,
                credit=self.peer.credit,
            )
        self._out.append(data)
        self._queued += len(data)
        return msgid

    def notify(self, method: str, params: Params, *, meta: dict[str, Any] | None = None) -> None:
        """Send a notification; raises `LocalProtocolError` as `call` does."""
        self._check_can_call(params, Flow.UNARY, counts=False)
        if self.peer is not None and meta:
            data = self._encode_command((NOTIFICATION, method, params, meta), method)
        else:
            data = self._encode_command((NOTIFICATION, method, params), method)
        self._out.append(data)
        self._queued += len(data)

    def cancel(self, msgid: int) -> None:
        """Give a call up: no event of it follows. One that has ended already is left alone."""
        if msgid in self._calls:
            self._give_up(msgid)
            self._finish_draining()

    def ping(self, token: int) -> None:
        """Ask the peer for a sign of life; `PongReceived` follows.

        Raises:
            LocalProtocolError: The peer does not understand the extensions.
        """
        if self.peer is None:
            raise LocalProtocolError("the peer has not announced the extensions; it cannot be pinged")
        self._emit((PING, token, False))

    # -- commands: answers ----------------------------------------------------------------------

    def awaits_answer(self, msgid: int) -> bool:
        """Whether a request of the peer's has not been answered."""
        return msgid in self._served

    def respond(self, msgid: int, result: Any) -> None:
        """Answer a request with its result.

        Raises:
            LocalProtocolError: No such request awaits an answer, or the result cannot be
                encoded; the request then still awaits one.
        """
        if msgid not in self._served:
            raise LocalProtocolError(f"no request {msgid} awaits an answer")
        self._reply(msgid, self._encode((RESPONSE, msgid, None, result)))

    def respond_error(self, msgid: int, code: StatusCode, message: str, details: Any = None) -> None:
        """Answer a request with an error; raises as `respond` does."""
        if msgid not in self._served:
            raise LocalProtocolError(f"no request {msgid} awaits an answer")
        self._reply(msgid, self._encode((RESPONSE, msgid, (int(code), message, details), None)))

    # -- commands: streams -----------------------------------------------------------------------

    def credit(self, msgid: int) -> int:
        """How many items may be sent on a call's stream now."""
        stream = self._streams.get(msgid)
        return stream.credit if stream is not None else 0

    def send_item(self, msgid: int, item: Any) -> None:
        """Send a stream item.

        Raises:
            LocalProtocolError: The stream is over or not ours to send on, there is no credit
                (wait for `CreditGranted`), or the item cannot be encoded.
        """
        stream = self._streams.get(msgid)
        if stream is None:
            raise LocalProtocolError(f"call {msgid} has no open stream")
        stream.check_may_send(msgid)
        data = self._encode((ITEM, msgid, item))
        self._check_room(len(data))
        stream.credit -= 1
        self._out.append(data)
        self._queued += len(data)
        if not stream.ours:
            self._queued_replies += len(data)

    def end_stream(self, msgid: int) -> None:
        """End the caller's half of a call's stream; repeated, or after the call, it does nothing."""
        stream = self._streams.get(msgid)
        if stream is not None and stream.ours and stream.sending:
            stream.sending = False
            self._emit((END, msgid))

    def consumed(self, msgid: int, size: int) -> None:
        """An item has been taken: the peer may send another in its place.

        Args:
            msgid: As in its `ItemReceived`.
            size: As in its `ItemReceived`.
        """
        self._buffered_items -= size
        stream = self._streams.get(msgid)
        if stream is not None and (grant := stream.grant()):
            self._emit((CREDIT, msgid, grant))

    # -- commands: the end --------------------------------------------------------------------------

    def goaway(self, reason: str) -> None:
        """Take no new requests, finish what is in flight both ways, then close."""
        if self.state is not SessionState.OPEN:
            return
        self.state = SessionState.DRAINING
        self._refuses_calls = self._refuses_calls or f"this side is going away: {reason}"
        if self.peer is not None:
            self._emit((GOAWAY, self._last_request, reason))
        self._finish_draining()

    def close(self, reason: str = "closed by this side") -> None:
        """End now, in good order: calls in flight are cancelled at the peer and fail here."""
        if self.state is SessionState.ENDED:
            return
        if self.peer is not None:
            for msgid in sorted(self._calls):
                self._emit((CANCEL, msgid))
        self._end(StatusCode.CANCELLED, reason, Closing.FULL)

    # -- inputs --------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes from the peer; never raises for what they say."""
        if self.state is SessionState.ENDED:
            return
        self._ping_sender.heard(now)
        decoder = self._decoder
        handlers = self._handlers
        try:
            for message in decoder.decode(data):
                if message.__class__ is not list or not message or message[0].__class__ is not int:
                    raise malformed(message)
                kind = message[0]
                if kind == RESPONSE:
                    self._on_response(message)
                elif kind == REQUEST:
                    self._on_request(message, now)
                elif kind in handlers:
                    handlers[kind](message, now)
                else:
                    raise RemoteProtocolError(f"unknown message type {kind}; this side knows 0 to {GOAWAY}")
                if self._has_ended():
                    return
        except RemoteProtocolError as error:
            self._fail(error)
            return
        if decoder.fault is not None:
            self._fail(decoder.fault)

    def receive_eof(self, now: float) -> None:
        """The peer sends no more: its requests are still answered, our calls cannot be."""
        if self.state is SessionState.ENDED:
            return
        if self._decoder.incomplete:
            self._fail(
                RemoteProtocolError(
                    f"the peer ended the stream {self._decoder.incomplete} bytes into a message"
                )
            )
            return
        self._fail_calls(StatusCode.UNAVAILABLE, "the peer ended the connection")
        self._refuses_calls = "the peer ended the connection"
        self.state = SessionState.DRAINING
        self._finish_draining()

    def connection_lost(self, error: Exception | None, now: float) -> None:
        """The transport is gone: every call of ours ends."""
        if self.state is not SessionState.ENDED:
            reason = f"the connection was lost: {error}" if error is not None else "the connection was closed"
            self._end(StatusCode.UNAVAILABLE, reason, Closing.ABORT)

    def handle_timeout(self, now: float) -> None:
        """End what has reached its deadline, and ping a peer that is silent."""
        for msgid in self._call_deadlines.pop_due(now):
            sent = msgid not in self._unsent_calls
            self._give_up(msgid)
            self._events.append(
                CallFailed(
                    msgid, StatusCode.DEADLINE_EXCEEDED, "no answer before the deadline", maybe_executed=sent
                )
            )
        for msgid in self._request_deadlines.pop_due(now):
            self._events.append(RequestExpired(msgid))
        if self.peer is not None and self.state is not SessionState.ENDED:
            self._keep_alive(now)
        self._finish_draining()

    def _keep_alive(self, now: float) -> None:
        if self._ping_sender.gave_up(now):
            self._fail(RemoteProtocolError("the peer did not answer a keep-alive ping"), Closing.ABORT)
        elif self._ping_sender.due(now, busy=self._busy):
            self._emit((PING, 0, False))

    # -- messages ------------------------------------------------------------------------------------

    def _on_response(self, message: list[Any]) -> None:
        if len(message) != 4:
            raise malformed(message)
        _, msgid, error, result = message
        if msgid.__class__ is not int:
            raise malformed(message)
        if msgid not in self._calls:
            if msgid in self._cancelled:
                del self._cancelled[msgid]
            else:
                self._events.append(UnexpectedResponse(msgid))
            return
        self._calls.remove(msgid)
        if self._call_deadlines:
            self._call_deadlines.discard(msgid)
        if self._streams:
            self._streams.pop(msgid, None)
        if error is None:
            self._events.append(ResponseReceived(msgid, result))
        else:
            self._events.append(_failure(msgid, error))
        if self.state is SessionState.DRAINING:
            self._finish_draining()

    def _on_request(self, message: list[Any], now: float) -> None:
        meta = None
        if len(message) == 5:
            _, msgid, method, params, meta = message
        elif len(message) == 4:
            _, msgid, method, params = message
        else:
            raise malformed(message)
        if msgid.__class__ is not int or not 0 <= msgid <= MAX_MSGID or method.__class__ is not str:
            raise malformed(message)
        if params.__class__ is not list and params.__class__ is not dict:
            raise malformed(message)
        if msgid in self._served:
            raise RemoteProtocolError(f"the peer used message id {msgid} again before it was answered")
        self._last_request = msgid
        size = self._decoder.average_size
        self._served[msgid] = size
        self._request_bytes += size
        if self._refuse_request(msgid):
            return
        if meta is None:
            self._events.append(RequestReceived(msgid, method, params, None, None, Flow.UNARY))
        else:
            self._begin_request(msgid, method, params, meta, now)

    def _begin_request(self, msgid: int, method: str, params: Any, meta: Any, now: float) -> None:
        """Read what the library itself understands of `meta`."""
        timeout, flow = _read_meta(meta)
        deadline = None
        if timeout is not None:
            deadline = now + timeout
            self._request_deadlines.add(msgid, deadline)
        if flow:
            self._begin_stream(msgid, flow)
        if msgid in self._served:
            self._events.append(RequestReceived(msgid, method, params, meta, deadline, flow))

    def _begin_stream(self, msgid: int, flow: Flow) -> None:
        if self.peer is None:
            raise RemoteProtocolError(f"the peer opened stream {msgid} before it announced the extensions")
        if msgid % 2 == self._initiator:
            raise RemoteProtocolError(
                f"the peer opened stream {msgid}; whoever opened the connection uses odd ids, "
                "the other side even ones"
            )
        if sum(not stream.ours for stream in self._streams.values()) >= self.limits.max_streams:
            self._refuse(msgid, f"more than max_streams ({self.limits.max_streams}) streams are open")
            return
        window = self.limits.stream_window if flow & Flow.FROM_CALLER else 0
        self._streams[msgid] = StreamState(flow, ours=False, window=window, credit=self.peer.credit)

    def _refuse_request(self, msgid: int) -> bool:
        """Answer a request that this session cannot hold, and say so."""
        limits = self.limits
        if self.state is SessionState.DRAINING:
            if self.peer is not None:  # it has been told by goaway, and has failed the call itself
                self._forget_request(msgid)
            else:
                self.respond_error(msgid, StatusCode.UNAVAILABLE, self._refuses_calls)
        elif len(self._served) > limits.max_calls:
            self._refuse(msgid, f"more than max_calls ({limits.max_calls}) requests are in flight")
        elif self._request_bytes > limits.max_request_bytes:
            self._refuse(
                msgid, f"requests in flight are larger than max_request_bytes ({limits.max_request_bytes})"
            )
        else:
            return False
        return True

    def _refuse(self, msgid: int, reason: str) -> None:
        self.respond_error(msgid, StatusCode.RESOURCE_EXHAUSTED, f"{reason}; the request was not run")

    def _on_notification(self, message: list[Any], now: float) -> None:
        meta = message[3] if len(message) == 4 else None
        if len(message) not in (3, 4) or not isinstance(message[1], str):
            raise malformed(message)
        method, params = message[1], message[2]
        if not isinstance(params, list | dict) or not isinstance(meta, dict | None):
            raise malformed(message)
        if method == HELLO:
            self._on_hello(params)
        elif self.state is SessionState.OPEN:
            self._events.append(NotificationReceived(method, params, meta))

    def _on_hello(self, params: list[Any] | dict[str, Any]) -> None:
        if not self._extensions or self.peer is not None:
            return
        self.peer = _read_hello(params)
        if not self._hello_sent:
            self._say_hello()
        self._events.append(self.peer)

    def _on_cancel(self, message: list[Any], now: float) -> None:
        msgid = _only_msgid(message)
        if msgid in self._served:
            self._events.append(CancelReceived(msgid))

    def _on_item(self, message: list[Any], now: float) -> None:
        if len(message) != 3:
            raise malformed(message)
        msgid = _only_msgid(message[:2])
        stream = self._streams.get(msgid)
        if stream is None:
            return  # the call ended while the item was under way
        stream.receive_item(msgid)
        size = self._decoder.average_size
        self._buffered_items += size
        self._events.append(ItemReceived(msgid, message[2], size))

    def _on_end(self, message: list[Any], now: float) -> None:
        msgid = _only_msgid(message)
        stream = self._streams.get(msgid)
        if stream is not None and not stream.ours and stream.receiving:
            stream.receiving = False
            self._events.append(StreamEnded(msgid))

    def _on_credit(self, message: list[Any], now: float) -> None:
        if len(message) != 3 or message[2].__class__ is not int or not 0 < message[2] <= MAX_MSGID:
            raise malformed(message)
        msgid = _only_msgid(message[:2])
        stream = self._streams.get(msgid)
        if stream is not None and stream.sending:
            starved = stream.credit == 0
            stream.credit += message[2]
            if starved:
                self._events.append(CreditGranted(msgid))

    def _on_ping(self, message: list[Any], now: float) -> None:
        if len(message) != 3 or not isinstance(message[2], bool) or not isinstance(message[1], int):
            raise malformed(message)
        _, token, is_reply = message
        if is_reply:
            self._events.append(PongReceived(token))
        elif self._ping_judge.too_many(now, busy=self._busy):
            raise RemoteProtocolError("too_many_pings")
        else:
            self._emit((PING, token, True))

    def _on_goaway(self, message: list[Any], now: float) -> None:
        if len(message) != 3 or not isinstance(message[2], str):
            raise malformed(message)
        _, last, reason = message
        if last is not None and (not isinstance(last, int) or not 0 <= last <= MAX_MSGID):
            raise malformed(message)
        self._refuses_calls = f"the peer is going away: {reason}"
        never_ran = [
            m for m in self._calls if last is None or 0 < (m - last) % (MAX_MSGID + 1) <= MAX_MSGID // 2
        ]
        for msgid in sorted(never_ran):
            self._drop_call(msgid)
            self._events.append(
                CallFailed(msgid, StatusCode.UNAVAILABLE, self._refuses_calls, maybe_executed=False)
            )
        self._events.append(GoawayReceived(reason))
        if self.state is SessionState.OPEN:
            self.state = SessionState.DRAINING
        self._finish_draining()

    # -- what the above share ------------------------------------------------------------------------

    def _has_ended(self) -> bool:
        return self.state is SessionState.ENDED

    @property
    def _busy(self) -> bool:
        return bool(self._calls or self._served)

    def _say_hello(self) -> None:
        self._hello_sent = True
        self._emit((NOTIFICATION, HELLO, [{"version": VERSION, "credit": self.limits.stream_window}]))

    def _emit(self, message: tuple[Any, ...]) -> None:
        data = self._encode(message)
        self._out.append(data)
        self._queued += len(data)

    def _check_can_call(self, params: Params, flow: Flow, *, counts: bool = True) -> None:
        if self._refuses_calls:
            raise LocalProtocolError(f"no new calls: {self._refuses_calls}")
        if counts and len(self._calls) >= self.limits.max_calls:
            raise LocalProtocolError(f"max_calls ({self.limits.max_calls}) calls are in flight already")
        if self.peer is None:
            if flow:
                raise LocalProtocolError("the peer has not announced the extensions; it has no streams")
            if params.__class__ is dict:
                raise LocalProtocolError("the peer has not announced the extensions; it takes no keywords")

    def _encode_command(self, message: tuple[Any, ...], method: str) -> bytes:
        try:
            data = self._encode(message)
        except OversizedMessage as error:
            raise OversizedMessage(f"the call of {method} {error}") from None
        except LocalProtocolError as error:
            raise LocalProtocolError(f"the parameters of {method} {error}") from error
        self._check_room(len(data))
        return data

    def _check_room(self, size: int) -> None:
        if self._queued + size > self.limits.max_queued_output:
            raise LocalProtocolError(
                f"{self._queued} bytes are queued for the peer already; {size} more exceed max_queued_output "
                f"({self.limits.max_queued_output})"
            )

    def _free_msgid(self) -> int:
        msgid = self._next_msgid
        while msgid in self._calls or msgid in self._cancelled:
            msgid = msgid + 2 if msgid + 2 <= MAX_MSGID else (1 if self._initiator else 2)
        return msgid

    def _reply(self, msgid: int, data: bytes) -> None:
        self._forget_request(msgid)
        self._out.append(data)
        self._queued += len(data)
        self._queued_replies += len(data)
        if self._queued > self.limits.max_queued_output:
            self._fail(
                LimitExceeded(
                    f"{self._queued} bytes wait for a peer that does not read, more than max_queued_output "
                    f"({self.limits.max_queued_output})",
                    limit="max_queued_output",
                    maximum=self.limits.max_queued_output,
                ),
                Closing.ABORT,
            )
        elif self.state is SessionState.DRAINING:
            self._finish_draining()

    def _forget_request(self, msgid: int) -> None:
        self._request_bytes -= self._served.pop(msgid)
        if self._request_deadlines:
            self._request_deadlines.discard(msgid)
        if self._streams:
            self._streams.pop(msgid, None)

    def _drop_call(self, msgid: int) -> None:
        self._calls.discard(msgid)
        self._call_deadlines.discard(msgid)
        self._streams.pop(msgid, None)

    def _give_up(self, msgid: int) -> None:
        """Forget a call whose answer may still come, and tell the peer."""
        self._drop_call(msgid)
        self._cancelled[msgid] = None
        if len(self._cancelled) > self.limits.max_cancelled:
            del self._cancelled[next(iter(self._cancelled))]
        if self.peer is not None:
            self._emit((CANCEL, msgid))

    def _fail_calls(self, code: StatusCode, reason: str) -> None:
        unsent = set(self._unsent_calls)
        for msgid in sorted(self._calls):
            self._events.append(CallFailed(msgid, code, reason, maybe_executed=msgid not in unsent))
        self._calls.clear()
        self._call_deadlines.clear()

    def _finish_draining(self) -> None:
        """Close once nothing is in flight any more, where no more may come."""
        if self.state is SessionState.DRAINING and not self._busy:
            self.state = SessionState.ENDED
            self._closing = Closing.FULL

    def _fail(self, error: RemoteProtocolError, closing: Closing = Closing.FULL) -> None:
        """The peer broke a rule or a limit: say goodbye, end every call, close."""
        if self.peer is not None and closing is Closing.FULL:
            self._emit((GOAWAY, self._last_request, str(error)))
        self._end(StatusCode.UNAVAILABLE, f"the connection failed: {error}", closing)
        self._events.append(ConnectionFailed(error))

    def _end(self, code: StatusCode, reason: str, closing: Closing) -> None:
        self.state = SessionState.ENDED
        self._closing = closing
        self._refuses_calls = reason
        self._fail_calls(code, reason)
        self._served.clear()
        self._request_bytes = 0
        self._request_deadlines.clear()
        self._streams.clear()
        self._buffered_items = 0


def _is_after(msgid: int, last: int) -> bool:
    """Whether an id was given out after another, in spite of the wrap at 32 bits (RFC 1982)."""
    return 0 < (msgid - last) % (MAX_MSGID + 1) <= MAX_MSGID // 2


def _request_meta(timeout: float | None, meta: dict[str, Any] | None, flow: Flow) -> dict[str, Any]:
    """Join what the caller and the library tell the peer."""
    joined = dict(meta) if meta else {}
    if timeout is not None:
        joined["timeout"] = max(0, math.ceil(timeout * 1000))
    if flow:
        joined["stream"] = int(flow)
    return joined


def _read_meta(meta: Any) -> tuple[float | None, Flow]:
    """Read timeout (seconds) and flow from a request's meta."""
    if meta.__class__ is not dict:
        raise RemoteProtocolError(f"the meta of a request must be a map, got {type(meta).__name__}")
    timeout = meta.get("timeout")
    if timeout is not None:
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0 <= timeout < 2**53:
            raise RemoteProtocolError("the timeout of a request must be a number of milliseconds, 0 or more")
        timeout /= 1000
    flow = meta.get("stream", 0)
    if flow.__class__ is not int or not 0 <= flow <= Flow.BOTH:
        raise RemoteProtocolError("the stream flags of a request must be 0, 1, 2 or 3")
    return timeout, Flow(flow)


def _read_hello(params: Any) -> HelloReceived:
    hello = params[0] if isinstance(params, list) and params else None
    if not isinstance(hello, dict):
        raise RemoteProtocolError(f"the parameters of {HELLO} must be an array that begins with a map")
    version, credit = hello.get("version"), hello.get("credit", 0)
    if version.__class__ is not int or version < 1 or credit.__class__ is not int or credit < 0:
        raise RemoteProtocolError(f"{HELLO} must name a version of 1 or more and a credit of 0 or more")
    return HelloReceived(version, credit)


def _only_msgid(message: list[Any]) -> int:
    if len(message) != 2 or message[1].__class__ is not int or not 0 <= message[1] <= MAX_MSGID:
        raise malformed(message)
    msgid: int = message[1]
    return msgid


def _failure(msgid: int, error: Any) -> CallFailed:
    """Read the error of a response; a foreign peer may send anything."""
    if isinstance(error, list) and len(error) >= 2 and isinstance(error[1], str):
        code = error[0]
        if code.__class__ is int and 0 < code <= StatusCode.UNAUTHENTICATED:
            return CallFailed(msgid, StatusCode(code), error[1], error[2] if len(error) > 2 else None)
    return CallFailed(msgid, StatusCode.UNKNOWN, error if isinstance(error, str) else repr(error), error)
