"""What a session holds, what comes out of it, and how it ends.

Every way to the end goes through here, so that each of them keeps the promises: a call of ours ends
once and says whether the peer may have run it, what has not been sent of a failed call is never
sent, and nothing is left behind that would ask for time or memory.
"""

from __future__ import annotations

from typing import Any

from ..errors import LocalProtocolError, RemoteProtocolError
from ..machine import Action, Buffer, Closing, ConnectionFailed, Outcome
from ..slow_consumer import BLOCK
from .codec import Codec
from .decoder import Decoder, ExpandingDecoder
from .events import CallFailed, CancelReceived, HelloReceived, RequestExpired, RpcEvent
from .keepalive import PingJudge, PingSender
from .limits import CLIENT_KEEP_ALIVE, SERVER_KEEP_ALIVE, KeepAlive, RpcLimits
from .messages import clip
from .output_queue import OutputQueue
from .overflow import Overflow
from .own_calls import OwnCalls
from .peer_requests import PeerRequests
from .session_state import SESSION_TRANSITIONS, SessionInput, SessionState
from .status import StatusCode
from .stream_state import StreamState
from .wire import CANCEL, GOAWAY, HELLO, NOTIFICATION, PING, VERSION

_ENDED = SessionState.ENDED  # an attribute of an enum costs more to look up than a global name

KEEP_ALIVE_TOKEN = -1
"""The token of pings that the session sends by itself; their answers are no event."""


class SessionBase:
    """The base of `StreamingSession`, which adds streams, and `RpcSession`, which adds all else."""

    def __init__(
        self,
        now: float,
        *,
        initiator: bool,
        limits: RpcLimits | None = None,
        keep_alive: KeepAlive | None = None,
        extensions: bool = True,
        codec: Codec | None = None,
    ) -> None:
        self.limits = limits or RpcLimits()
        self.peer: HelloReceived | None = None
        """What the peer announced; None as long as it speaks plain MessagePack-RPC."""
        self.state = SessionState.OPEN
        self._initiator = initiator
        self.extensions = extensions
        self._hello_sent = False
        self._codec = codec or Codec(self.limits)
        self._encoder = self._codec.encoder(None)
        self._encode = self._encoder.encode
        self._decoder = (ExpandingDecoder if "zstd" in self._codec.accepts else Decoder)(self._codec)
        self._events: list[RpcEvent] = []
        self.output = OutputQueue()
        """What is encoded and the transport has not taken; only to be looked at."""
        self.closing = Closing.OPEN
        """How the link is to end."""
        self._refuses_calls = ""
        self._goaway: tuple[int | None, str] | None = None
        """The last request that is still run, and why, once this side has said goaway."""
        self._goaway_sent = False
        self._peer_ended = False

        self._calls = OwnCalls(1 if initiator else 2, self.limits.max_cancelled)
        self.requests = PeerRequests(self.limits)
        """Those of the peer that await an answer; only to be looked at."""
        self._streams: dict[int, StreamState] = {}
        self._buffered_items = 0
        policy = self.limits.slow_consumer
        self._overflow: Overflow | None = None  # where nobody waits for the peer
        if policy is not BLOCK:
            self._overflow = Overflow(self.output, self._streams, policy, self.limits.max_pending)

        settings = keep_alive or (CLIENT_KEEP_ALIVE if initiator else SERVER_KEEP_ALIVE)
        self._ping_sender = PingSender(settings, now)
        self._ping_judge = PingJudge(settings)
        if initiator and extensions:
            self._say_hello()

    # -- outputs ------------------------------------------------------------------------------------

    @property
    def wants_read(self) -> bool:
        """False while the peer does not read its replies, or nobody consumes its items.

        Replies pause nothing while we wait for some ourselves: two ends which both did that, each
        with its replies stuck because the other does not read, would wait for ever.
        """
        return (
            self.output.replies <= self.limits.pause_reading_at or bool(self._calls.pending)
        ) and self._buffered_items <= self.limits.max_buffered_items

    @property
    def queued(self) -> int:
        """Bytes that the transport has not taken yet."""
        return self.output.size

    @property
    def pending(self) -> int:
        """The same, and what waits for credit."""
        return self.output.size if self._overflow is None else self._overflow.pending

    @property
    def never_waits(self) -> bool:
        """Whether items are taken whatever the credit; see `RpcLimits.slow_consumer`."""
        return self._overflow is not None

    @property
    def dropped_messages(self) -> int:
        """Notifications and items that were dropped because the peer is slow."""
        return self._overflow.dropped if self._overflow is not None else 0

    @property
    def pending_calls(self) -> int:
        """Calls of ours that have not ended."""
        return len(self._calls.pending)

    @property
    def peer_ended(self) -> bool:
        """Whether the peer has ended its direction of the connection."""
        return self._peer_ended

    @property
    def pending_requests(self) -> int:
        """Requests of the peer's that have not been answered."""
        return len(self.requests.sizes)

    @property
    def accepts_calls(self) -> bool:
        """Whether `call` would begin a call now."""
        return not self._refuses_calls and len(self._calls.pending) < self.limits.max_calls

    @property
    def refuses_calls(self) -> str:
        """Why no call can begin on this connection any more; empty while they can."""
        return self._refuses_calls

    def deadline(self) -> float | None:
        """When the next call, request or keep-alive is due."""
        calls, requests = self._calls, self.requests
        when = None
        if self.peer is not None and not self._peer_ended and self.state is not _ENDED:
            when = self._ping_sender.deadline(bool(calls.pending or requests.sizes))
        if calls.deadlines.live or requests.deadlines.live:
            for deadlines in (calls.deadlines, requests.deadlines):
                if (due := deadlines.next()) is not None and (when is None or due < when):
                    when = due
        return when

    def take_data(self) -> list[Buffer]:
        """Hand over everything that is to be sent."""
        output = self.output
        if not output.chunks:
            return []
        if output.replies:
            self._ping_judge.replied()
        return output.take()

    def take_events(self) -> list[RpcEvent]:
        """Hand over what happened."""
        events = self._events
        if not events:
            return []  # never our own list, to which the next event would be added behind its owner's back
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

    # -- commands -----------------------------------------------------------------------------------

    def goaway(self, reason: str) -> None:
        """Take no new requests, finish what is in flight both ways, then close.

        Raises:
            LocalProtocolError: The reason cannot be encoded.
        """
        if self.state is not SessionState.OPEN:
            return
        self._goaway = (self.requests.last, reason)
        try:
            self._send_goaway()
        except LocalProtocolError:
            self._goaway = None
            raise
        self._refuses_calls = f"this side is going away: {reason}"
        self._move(SessionInput.GOAWAY)
        self._finish_draining()

    def close(self, reason: str = "closed by this side", code: StatusCode = StatusCode.CANCELLED) -> None:
        """End now, in good order: calls in flight are cancelled at the peer and fail here, with `code`."""
        if self.state is SessionState.ENDED:
            return
        sent = [msgid for msgid in sorted(self._calls.pending) if msgid not in self.output.unsent]
        self._end(SessionInput.CLOSE, code, reason, Closing.FULL)
        if self.peer is not None:
            for msgid in sent:
                self._emit((CANCEL, msgid))

    # -- inputs -------------------------------------------------------------------------------------

    def receive_eof(self, now: float) -> None:
        """The peer sends no more: its requests are still answered, our calls cannot be.

        A plain peer may have ended only its own direction and wait for the answers. One with the
        extensions never does that: it has gone, perhaps killed in the middle of a call, and what
        runs for it is cancelled as if it had said so.
        """
        if self.state is SessionState.ENDED or self._peer_ended:
            return
        if self._decoder.incomplete:
            self._fail(
                RemoteProtocolError(
                    f"the peer ended the stream {self._decoder.incomplete} bytes into a message"
                )
            )
            return
        self._peer_ended = True
        self._refuses_calls = "the peer ended the connection"
        self._fail_calls(StatusCode.UNAVAILABLE, self._refuses_calls)
        if self.peer is not None:
            self._events.extend(map(CancelReceived, self.requests.sizes))
        self._move(SessionInput.EOF)
        self._finish_draining()

    def connection_lost(self, error: Exception | None, now: float) -> None:
        """The transport is gone: every call of ours ends."""
        if self.state is not SessionState.ENDED:
            reason = f"the connection was lost: {error}" if error is not None else "the connection was closed"
            self._end(SessionInput.LOSS, StatusCode.UNAVAILABLE, reason, Closing.ABORT)

    def handle_timeout(self, now: float) -> None:
        """End what has reached its deadline, and ping a peer that is silent."""
        for msgid in self._calls.deadlines.pop_due(now):
            sent = self._give_up(msgid)
            self._events.append(
                CallFailed(
                    msgid,
                    StatusCode.DEADLINE_EXCEEDED,
                    "no answer before the deadline",
                    maybe_executed=sent,
                    sent=sent,
                )
            )
        for msgid in self.requests.deadlines.pop_due(now):
            self._events.append(RequestExpired(msgid))
        if self._watches_peer:
            if self._ping_sender.gave_up(now):
                self._fail(RemoteProtocolError("the peer did not answer a keep-alive ping"), Closing.ABORT)
            elif self._ping_sender.due(now, self._busy):
                self._emit((PING, KEEP_ALIVE_TOKEN, False))
        self._finish_draining()

    # -- what commands and messages share -------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        return bool(self._calls.pending or self.requests.sizes)

    @property
    def _watches_peer(self) -> bool:
        """Whether the peer can be pinged: it knows how, and has not ended its direction."""
        return self.peer is not None and not self._peer_ended and self.state is not SessionState.ENDED

    def _say_hello(self) -> None:
        self._hello_sent = True
        hello: dict[str, Any] = {"version": VERSION, "credit": self.limits.stream_window}
        if self._codec.accepts:
            hello["codecs"] = self._codec.accepts
        if self._codec.codec != "msgpack":
            hello["codec"] = self._codec.codec
        self._emit((NOTIFICATION, HELLO, [hello]))

    def _send_goaway(self) -> None:
        """Say goaway, as soon as it is due and the peer would understand it."""
        if self._goaway is not None and self.peer is not None:
            self._emit((GOAWAY, *self._goaway))
            self._goaway_sent = True

    def _emit(self, message: tuple[Any, ...]) -> None:
        self.output.add(self._encode(message))

    def _check_room(self, size: int) -> None:
        if self.output.size + size > self.limits.max_queued_output:
            raise self._no_room(size)

    def _no_room(self, size: int) -> LocalProtocolError:
        return LocalProtocolError(
            f"{self.output.size} bytes are queued for the peer already; {size} more exceed "
            f"max_queued_output ({self.limits.max_queued_output})"
        )

    def _give_up(self, msgid: int) -> bool:
        """Forget a call; false where the peer never hears of it."""
        self._calls.discard(msgid)
        if self._streams:
            self._streams.pop(msgid, None)
        if self.output.withdraw(msgid):
            return False
        self._calls.await_late_answer(msgid)
        if self.peer is not None:
            self._emit((CANCEL, msgid))
        return True

    def _fail_calls(self, code: StatusCode, reason: str) -> None:
        """End all of our calls. What has not been sent of them never will be."""
        for msgid in self._calls.clear():
            sent = not self.output.withdraw(msgid)
            self._streams.pop(msgid, None)
            self._events.append(CallFailed(msgid, code, reason, maybe_executed=sent, sent=sent))

    def _finish_draining(self) -> None:
        """Close once nothing is in flight any more, where no more may come."""
        if self.state is SessionState.DRAINING and not self._busy:
            self._move(SessionInput.IDLE)
            self.closing = Closing.FULL

    def _fail(self, error: RemoteProtocolError, closing: Closing = Closing.FULL) -> None:
        """The peer broke a rule or a limit: say goodbye, end every call, close."""
        reason = str(error)
        self._end(SessionInput.FAULT, StatusCode.UNAVAILABLE, f"the connection failed: {reason}", closing)
        if self.peer is not None and closing is Closing.FULL:
            self._emit((GOAWAY, self.requests.last, clip(reason)))
        # Its traceback would keep the caller's buffer and this session alive as long as the event.
        error.__traceback__ = error.__context__ = None
        self._events.append(ConnectionFailed(error))

    def _end(self, cause: SessionInput, code: StatusCode, reason: str, closing: Closing) -> None:
        self._fail_calls(code, reason)
        self._move(cause)
        self.closing = closing
        self._refuses_calls = reason
        self.requests.clear()
        self._streams.clear()
        self._buffered_items = 0
        if closing is Closing.ABORT:
            self.output.clear()

    def _move(self, cause: SessionInput) -> None:
        self.state = SESSION_TRANSITIONS.get((self.state, cause), self.state)
