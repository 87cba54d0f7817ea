"""One end of a MessagePack-RPC connection.

The session is symmetric: both ends call and serve. It keeps the tables of calls in flight, their
deadlines, the credit of streams, keep-alive, and the way a connection ends. It does not know what a
method is: requests come out as events, and whoever serves them answers with commands.

Every call of ours ends in exactly one `ResponseReceived` or `CallFailed`, whatever the peer does,
unless its caller cancels it first. Every request of the peer's is answered exactly once by us.

`session_base.py` has what both ends of a call share: the outputs, the passing of time and the ways
to the end. `session_streams.py` has the streams. Here are calls, answers and the messages of the
peer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ..machine import Buffer, Closing
from .encoder import UNPACKABLE, unencodable
from .events import (
    CallFailed,
    CancelReceived,
    Flow,
    GoawayReceived,
    NotificationReceived,
    PongReceived,
    RequestReceived,
    ResponseReceived,
    UnexpectedResponse,
)
from .extension_types import Unreadable
from .messages import (
    MAX_TIMEOUT,
    Params,
    call_deadline,
    check_call_form,
    clip,
    has_text_keys,
    read_failure,
    read_hello,
    read_meta,
    read_method,
    read_msgid,
    request_meta,
)
from .own_calls import LAST_MSGIDS
from .session_base import KEEP_ALIVE_TOKEN
from .session_state import SessionInput, SessionState
from .session_streams import StreamingSession
from .status import StatusCode
from .stream_state import StreamState
from .unreadable import sort_out
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
    ExtensionsMissing,
    OversizedMessage,
    is_after,
    malformed,
)

# An attribute of an enum costs more to look up than a message costs to tell apart.
_OPEN = SessionState.OPEN
_ENDED = SessionState.ENDED
_STAYS_OPEN = Closing.OPEN
_UNARY = Flow.UNARY
_FOREVER = math.inf


class RpcSession(StreamingSession):
    """A `StreamMachine` that speaks the whole wire of `wire.py`.

    Args:
        now: Monotonic seconds.
        initiator: Whether this side opened the connection; it says hello first.
        limits: Bounds of what the session holds.
        keep_alive: Pings and strikes; by default those of a client or a server.
        extensions: False to speak plain MessagePack-RPC, whatever the peer announces.
        codec: How values become bytes; sessions of one thread share one. It must have the same
            limits. By default one of its own, for MessagePack only.
    """

    # -- commands: calls of ours ------------------------------------------------------------------

    def call(
        self,
        method: str,
        params: Params,
        now: float,
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
        calls, output = self._calls, self.output
        pending = calls.pending
        if self._refuses_calls or len(pending) >= self.limits.max_calls:
            raise self._no_new_calls()
        if params.__class__ is not tuple or method.__class__ is not str or flow is not _UNARY:
            self._check_call(method, params, flow)
        msgid = calls.next_msgid
        if msgid in pending or msgid in calls.given_up:
            msgid = calls.free_msgid()
        deadline = None
        if timeout is not None:
            deadline = now + timeout if 0.0 < timeout < _FOREVER else call_deadline(timeout, now)
        encoder = self._encoder
        pack = encoder.pack
        message: tuple[Any, ...] = (REQUEST, msgid, method, params)
        if self.peer is not None:
            if meta or flow is not _UNARY:
                message = (REQUEST, msgid, method, params, request_meta(timeout, meta, flow))
            elif timeout is not None:
                if timeout != encoder.last_timeout:
                    encoder.write_timeout(timeout)
                message = (REQUEST, msgid, method, params, encoder.timeout_meta)
        try:
            data = pack(message)
        except UNPACKABLE as error:
            raise _of_call(method, unencodable(error)) from error
        if len(data) > encoder.watch_above:
            data = self._watch_call(method, data, message)
        size = output.size + len(data)
        if size > self.limits.max_queued_output:
            raise self._no_room(len(data))
        if not pending:
            self._ping_sender.became_busy(now)
        calls.next_msgid = msgid + 2 if msgid < LAST_MSGIDS else calls.first_msgid
        pending.add(msgid)
        if deadline is not None:
            deadlines = calls.deadlines
            if deadline < deadlines.bound or not deadlines.live:
                deadlines.bound = deadline
            deadlines.live[msgid] = deadline
        if flow is not _UNARY and self.peer is not None:
            window = self.limits.stream_window if flow & Flow.FROM_CALLEE else 0
            self._streams[msgid] = StreamState(flow, ours=True, window=window, credit=self.peer.credit)
        output.unsent[msgid] = len(output.chunks)
        output.chunks.append(data)
        output.size = size
        return msgid

    def notify(self, method: str, params: Params, *, meta: dict[str, Any] | None = None) -> None:
        """Send a notification; raises `LocalProtocolError` as `call` does."""
        if self._refuses_calls:
            raise self._no_new_calls()
        self._check_call(method, params, _UNARY)
        if self.peer is not None and meta:
            message: tuple[Any, ...] = (NOTIFICATION, method, params, request_meta(None, meta, _UNARY))
        else:
            message = (NOTIFICATION, method, params)
        try:
            data = self._encode(message)
        except ExtensionsMissing:
            raise
        except LocalProtocolError as error:
            raise _of_call(method, error) from error
        if self._overflow is None:
            self._check_room(len(data))
            self.output.add(data)
        elif self._make_room(self._overflow, len(data)):
            self.output.add_droppable(data, None)

    def cancel(self, msgid: int) -> None:
        """Give a call up: no event of it follows. One that has ended already is left alone."""
        if msgid not in self._calls.pending:
            return
        if msgid in self._streams:
            self._drop_stream_events(msgid)
        self._give_up(msgid)
        self._finish_draining()

    def ping(self, token: int) -> None:
        """Ask the peer for a sign of life; `PongReceived` follows.

        The peer ends a connection on which it is pinged too often, see `KeepAlive`.

        Args:
            token: Comes back in the answer; 0 to 2**63 - 1.

        Raises:
            LocalProtocolError: The peer does not understand the extensions or has ended the
                connection, too much is queued for it, or the token is out of range.
        """
        if not self._watches_peer:
            raise LocalProtocolError(
                "the peer cannot be pinged: the connection has ended, or it has not announced the extensions"
            )
        if token.__class__ is not int or not 0 <= token < 2**63:
            raise LocalProtocolError(
                f"the token of a ping must be a number from 0 to 2**63 - 1, got {token!r}"
            )
        data = self._encode((PING, token, False))
        self._check_room(len(data))
        self.output.add(data)

    # -- commands: answers ----------------------------------------------------------------------

    def awaits_answer(self, msgid: int | None) -> bool:
        """Whether a request of the peer's has not been answered."""
        return msgid in self.requests.sizes

    def respond(self, msgid: int, result: Any) -> int:
        """Answer a request with its result.

        Returns:
            Bytes of the answer.

        Raises:
            LocalProtocolError: No such request awaits an answer, or the result cannot be
                encoded; the request then still awaits one.
        """
        requests = self.requests
        if msgid not in requests.sizes:
            raise LocalProtocolError(f"no request {msgid} awaits an answer")
        encoder = self._encoder
        pack = encoder.pack
        try:
            data = pack((RESPONSE, msgid, None, result))
        except UNPACKABLE as error:
            raise unencodable(error) from error
        size = len(data)
        if size > encoder.watch_above:
            data = encoder.watch(data, (RESPONSE, msgid, None, result))
            size = len(data)
        output = self.output
        if self._streams or self.state is not _OPEN or output.size + size > self.limits.max_queued_output:
            self._reply(msgid, data)
            return size
        requests.bytes -= requests.sizes.pop(msgid)
        if timed := requests.deadlines.live:
            timed.pop(msgid, None)
        output.chunks.append(data)
        output.replies += size
        output.size += size
        return size

    def respond_error(
        self, msgid: int, code: StatusCode, message: str, details: Any = None, *, executed: bool = True
    ) -> int:
        """Answer a request with an error; as `respond`, and raises for the code OK.

        Args:
            msgid: The request's.
            code: Why.
            message: For people.
            details: Anything that can be encoded.
            executed: False where nothing was run for it; a peer that knows the extensions is told.
        """
        if msgid not in self.requests.sizes:
            raise LocalProtocolError(f"no request {msgid} awaits an answer")
        if not StatusCode.OK < code <= StatusCode.UNAUTHENTICATED:
            raise LocalProtocolError(f"{code!r} is no status code of an error")
        error: tuple[Any, ...] = (int(code), message, details)
        if not executed and self.peer is not None:
            error = (*error, False)
        data = self._encode((RESPONSE, msgid, error, None))
        self._reply(msgid, data)
        return len(data)

    # -- inputs --------------------------------------------------------------------------------------

    def receive_data(self, data: Buffer, now: float) -> None:
        """Take bytes from the peer; never raises for what they say."""
        if self.state is _ENDED or self._peer_ended:
            return
        self._ping_sender.heard(now)
        decoder, events = self._decoder, self._events
        calls, requests, streams = self._calls, self.requests, self._streams
        pending, sizes, timed, due = calls.pending, requests.sizes, calls.deadlines.live, requests.deadlines
        try:
            for message in decoder.decode(data):
                # Plain answers and requests, of which there are thousands, are handled here. Whatever
                # is unusual about one of them leaves it to the methods below.
                if message.__class__ is list and len(message) == 4 and message[1].__class__ is int:
                    kind, msgid, third, fourth = message
                    if kind is RESPONSE and third is None and msgid in pending and self.state is _OPEN:
                        pending.remove(msgid)
                        if timed:
                            timed.pop(msgid, None)
                        if streams:
                            streams.pop(msgid, None)
                        events.append(ResponseReceived(msgid, fourth, decoder.size))
                        continue
                    if (
                        kind is REQUEST
                        and third.__class__ is str
                        and fourth.__class__ is list
                        and 0 <= msgid <= MAX_MSGID
                        and msgid not in sizes
                        and self.state is _OPEN
                        and len(sizes) < requests.max_calls
                        and requests.bytes + decoder.size <= requests.max_bytes
                    ):
                        requests.last = msgid
                        sizes[msgid] = size = decoder.size
                        requests.bytes += size
                        events.append(RequestReceived(msgid, third, fourth, None, None, _UNARY))
                        continue
                elif message.__class__ is list and len(message) == 5 and message[0] is REQUEST:
                    _, msgid, third, fourth, meta = message
                    if (
                        meta.__class__ is dict
                        and len(meta) == 1
                        and (timeout := meta.get("timeout")).__class__ is int
                        and 0 <= timeout <= MAX_TIMEOUT
                        and third.__class__ is str
                        and fourth.__class__ is list
                        and msgid.__class__ is int
                        and 0 <= msgid <= MAX_MSGID
                        and msgid not in sizes
                        and self.state is _OPEN
                        and len(sizes) < requests.max_calls
                        and requests.bytes + decoder.size <= requests.max_bytes
                    ):
                        requests.last = msgid
                        sizes[msgid] = size = decoder.size
                        requests.bytes += size
                        deadline = now + timeout / 1000
                        if deadline < due.bound or not due.live:
                            due.bound = deadline
                        due.live[msgid] = deadline
                        events.append(RequestReceived(msgid, third, fourth, meta, deadline, _UNARY))
                        continue
                elif streams and message.__class__ is list and len(message) == 3 and message[0] is ITEM:
                    self._on_item(message, now)
                    continue
                self._receive_message(message, now)
                if self.closing is not _STAYS_OPEN:
                    break
        except RemoteProtocolError as error:
            self._refuse_unreadable()
            self._fail(error)
            return
        if self._codec.unreadable:
            self._refuse_unreadable()
        if decoder.fault is not None:
            self._fail(decoder.fault)

    def _receive_message(self, message: Any, now: float) -> None:
        if message.__class__ is not list or not message or message[0].__class__ is not int:
            raise malformed(message)
        kind = message[0]
        handlers = _HANDLERS if self.extensions else _PLAIN_HANDLERS
        if kind not in handlers:
            raise RemoteProtocolError(f"unknown message type {kind}; this side knows 0 to {max(handlers)}")
        handlers[kind](self, message, now)

    # -- messages: answers to our calls --------------------------------------------------------------

    def _on_response(self, message: list[Any], now: float) -> None:
        if len(message) != 4 or message[1].__class__ is not int:
            raise malformed(message)
        _, msgid, error, result = message
        calls = self._calls
        if msgid not in calls.pending:
            if not calls.take_late_answer(msgid):
                self._events.append(UnexpectedResponse(msgid))
            return
        calls.pending.remove(msgid)
        calls.deadlines.discard(msgid)
        self._streams.pop(msgid, None)
        if error is None:
            self._events.append(ResponseReceived(msgid, result, self._decoder.size))
        else:
            self._events.append(read_failure(msgid, error, self._decoder.size))
        self._finish_draining()

    # -- messages: requests of the peer's -----------------------------------------------------------

    def _on_request(self, message: list[Any], now: float) -> None:
        meta = None
        if len(message) == 4:
            _, msgid, method, params = message
        elif len(message) == 5:
            _, msgid, method, params, meta = message
        else:
            raise malformed(message)
        if msgid.__class__ is not int or not 0 <= msgid <= MAX_MSGID:
            raise malformed(message)
        if method.__class__ is not str:
            method = read_method(method, message)
        if params.__class__ is not list and not _may_be_params(params):
            raise malformed(message)
        requests = self.requests
        if msgid in requests.sizes:
            raise RemoteProtocolError(f"the peer used message id {msgid} again before it was answered")
        size = self._decoder.size
        requests.last = msgid
        requests.sizes[msgid] = size
        requests.bytes += size
        if self.state is not _OPEN:
            self._refuse_while_draining(msgid)
        elif requests.bytes > requests.max_bytes or len(requests.sizes) > requests.max_calls:
            self._refuse(msgid, requests.excess())
        elif meta is None:
            self._events.append(RequestReceived(msgid, method, params, None, None, _UNARY))
        else:
            self._begin_request(msgid, method, params, meta, now)

    def _begin_request(self, msgid: int, method: str, params: Any, meta: Any, now: float) -> None:
        """Read what the library itself understands of `meta`."""
        timeout, flow = read_meta(meta)
        if flow and not self._begin_stream(msgid, flow):
            self._refuse(msgid, f"more than max_streams ({self.limits.max_streams}) streams are open")
            return
        deadline = None
        if timeout is not None:
            deadline = now + timeout
            self.requests.deadlines.add(msgid, deadline)
        self._events.append(RequestReceived(msgid, method, params, meta, deadline, flow))

    def _refuse_while_draining(self, msgid: int) -> None:
        if self._goaway_sent and self._goaway is not None:
            last = self._goaway[0]
            if last is None or is_after(msgid, last):  # the peer has failed that call by itself
                self.requests.remove(msgid)
                return
        self.respond_error(msgid, StatusCode.UNAVAILABLE, clip(self._refuses_calls), executed=False)

    def _refuse(self, msgid: int, reason: str) -> None:
        message = f"{reason}; the request was not run: call again when others have ended"
        self.respond_error(msgid, StatusCode.RESOURCE_EXHAUSTED, message, executed=False)

    def _refuse_unreadable(self) -> None:
        """What has just been read holds values that cannot be: fail the messages that have them."""
        self._events, refused = sort_out(self._events)
        self._decoder.keep_unreadable()
        for event, mark in refused:
            if event.msgid in self.requests.sizes:
                reason = f"the parameters of {clip(event.method)} cannot be read: {mark.reason}"
                self.respond_error(event.msgid, StatusCode.INVALID_ARGUMENT, reason, executed=False)

    def _on_notification(self, message: list[Any], now: float) -> None:
        meta = message[3] if len(message) == 4 else None
        if not 3 <= len(message) <= 4:
            raise malformed(message)
        method, params = message[1], message[2]
        if method.__class__ is not str:
            method = read_method(method, message)
        if params.__class__ is not list and not _may_be_params(params):
            raise malformed(message)
        if meta is not None and (meta.__class__ is not dict or not has_text_keys(meta)):
            raise malformed(message)
        if method == HELLO:
            self._on_hello(params)
        elif self.state is _OPEN:
            self._events.append(NotificationReceived(method, params, meta))

    def _on_hello(self, params: list[Any] | dict[str, Any]) -> None:
        if not self.extensions or self.peer is not None:
            return
        self.peer = read_hello(params)
        self._encoder = self._codec.encoder(self.peer)
        self._encode = self._encoder.encode
        if not self._hello_sent:
            self._say_hello()
        self._send_goaway()
        self._events.append(self.peer)

    def _on_cancel(self, message: list[Any], now: float) -> None:
        msgid = read_msgid(message, 2)
        if msgid in self.requests.sizes:
            stream = self._streams.get(msgid)
            if stream is not None and stream.answer is not None:  # it has run; only items wait
                stream.waiting.clear()
                stream.waiting_size = 0
                self._answer_after_items(msgid, stream)
            else:
                self._events.append(CancelReceived(msgid))

    # -- messages: the connection ---------------------------------------------------------------------

    def _on_ping(self, message: list[Any], now: float) -> None:
        if len(message) != 3 or message[1].__class__ is not int or message[2].__class__ is not bool:
            raise malformed(message)
        _, token, is_reply = message
        if is_reply:
            if token != KEEP_ALIVE_TOKEN:
                self._events.append(PongReceived(token))
        elif self._ping_judge.too_many(now, busy=self._busy):
            raise RemoteProtocolError("too_many_pings")
        else:
            self._emit((PING, token, True))

    def _on_goaway(self, message: list[Any], now: float) -> None:
        if len(message) != 3 or message[2].__class__ is not str:
            raise malformed(message)
        _, last, reason = message
        if last is not None and (last.__class__ is not int or not 0 <= last <= MAX_MSGID):
            raise malformed(message)
        self._refuses_calls = f"the peer is going away: {clip(reason)}"
        for msgid in self._calls.never_begun(last):
            self._calls.discard(msgid)
            sent = not self.output.withdraw(msgid)
            self._streams.pop(msgid, None)
            self._events.append(
                CallFailed(
                    msgid, StatusCode.UNAVAILABLE, self._refuses_calls, maybe_executed=False, sent=sent
                )
            )
        self._events.append(GoawayReceived(reason))
        self._move(SessionInput.GOAWAY)
        self._finish_draining()

    # -- what the above share ------------------------------------------------------------------------

    def _no_new_calls(self) -> LocalProtocolError:
        if self._refuses_calls:
            return LocalProtocolError(f"no new calls: {self._refuses_calls}")
        return LocalProtocolError(f"max_calls ({self.limits.max_calls}) calls are in flight already")

    def _check_call(self, method: str, params: Params, flow: Flow) -> None:
        check_call_form(method, params)
        if self.peer is None:
            if flow:
                raise ExtensionsMissing("the peer has not announced the extensions; it has no streams")
            if isinstance(params, dict):
                raise ExtensionsMissing("the peer has not announced the extensions; it takes no keywords")
        elif flow and self._open_streams(ours=True) >= self.limits.max_streams:
            raise LocalProtocolError(f"max_streams ({self.limits.max_streams}) streams are open already")

    def _watch_call(self, method: str, data: bytes, message: tuple[Any, ...]) -> bytes:
        try:
            return self._encoder.watch(data, message)
        except OversizedMessage as error:
            raise _of_call(method, error) from error

    def _reply(self, msgid: int, data: bytes) -> None:
        if self._streams and not self._close_peers_stream(msgid, data):
            return
        requests, output = self.requests, self.output
        requests.bytes -= requests.sizes.pop(msgid)
        if timed := requests.deadlines.live:
            timed.pop(msgid, None)
        size = len(data)
        output.chunks.append(data)
        output.replies += size
        output.size = size = output.size + size
        if size > self.limits.max_queued_output:
            self._fail(
                LimitExceeded(
                    f"{size} bytes wait for a peer that does not read, more than max_queued_output "
                    f"({self.limits.max_queued_output})",
                    limit="max_queued_output",
                    maximum=self.limits.max_queued_output,
                ),
                Closing.ABORT,
            )
        elif self.state is not _OPEN:
            self._finish_draining()


def _may_be_params(params: Any) -> bool:
    """Whether what stands for parameters, and is no array, may pass: a map of keywords.

    Or what cannot be read, with which the request is answered that has it.
    """
    return (params.__class__ is dict and has_text_keys(params)) or params.__class__ is Unreadable


def _of_call(method: str, error: LocalProtocolError) -> LocalProtocolError:
    """Say of which call it is that it cannot be encoded."""
    if isinstance(error, OversizedMessage):
        return OversizedMessage(f"the call of {method} {error}")
    return LocalProtocolError(f"the parameters of {method} {error}")


_Handler = Callable[[RpcSession, list[Any], float], None]

_PLAIN_HANDLERS: dict[int, _Handler] = {
    REQUEST: RpcSession._on_request,
    RESPONSE: RpcSession._on_response,
    NOTIFICATION: RpcSession._on_notification,
}

_HANDLERS: dict[int, _Handler] = {
    **_PLAIN_HANDLERS,
    CANCEL: RpcSession._on_cancel,
    ITEM: RpcSession._on_item,
    END: RpcSession._on_end,
    CREDIT: RpcSession._on_credit,
    PING: RpcSession._on_ping,
    GOAWAY: RpcSession._on_goaway,
}
