"""Two sessions, a wire that delivers as it pleases, and owners who do as they please.

The model knows nothing of messages. It remembers which calls began and what was answered, sent and
consumed, and holds each event against that: every call ends exactly once and with its own answer, a
call that surely was not run was never run, items arrive in order and never more than were allowed.
At the end the faults stop, and everything that can still end must.
"""

from __future__ import annotations

import copy
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from rpc_pair import join

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.rpc import (
    SESSION_TRANSITIONS,
    CallFailed,
    CancelReceived,
    CreditGranted,
    Flow,
    GoawayReceived,
    HelloReceived,
    ItemReceived,
    KeepAlive,
    NotificationReceived,
    PongReceived,
    RequestExpired,
    RequestReceived,
    ResponseReceived,
    RpcEvent,
    RpcLimits,
    RpcSession,
    SessionState,
    StatusCode,
    StreamEnded,
    UnexpectedResponse,
)

FLOWS = [Flow.UNARY, Flow.UNARY, Flow.FROM_CALLEE, Flow.FROM_CALLER, Flow.BOTH]

MOVES = {(start, end) for (start, _), end in SESSION_TRANSITIONS.items()}

LIMITS = RpcLimits(
    max_message_size=1024,
    max_calls=5,
    max_streams=2,
    stream_window=3,
    max_request_bytes=400,
    max_buffered_items=60,
    pause_reading_at=100,
    max_queued_output=2000,
    max_cancelled=3,
)


class WatchedSession(RpcSession):
    """A session that cannot move from one state to another unless the table says so."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "state" and hasattr(self, "state") and value is not self.state:
            assert (self.state, value) in MOVES, f"{self.state} -> {value} is not in the table"
        super().__setattr__(name, value)


@attrs.define(eq=False)
class Stream:
    """One direction of a call's items."""

    sent: int = 0
    received: int = 0
    consumed: int = 0
    sizes: list[int] = attrs.Factory(list)
    """Of items received and not consumed."""
    sender_ended: bool = False
    told_end: bool = False


@attrs.define(eq=False)
class Call:
    """A call, as its caller and its callee know it."""

    tag: int
    msgid: int
    flow: Flow
    began: float
    deadline: float | None
    sent: bool = False
    """Whether the transport has taken the request."""
    cancelled: bool = False
    ended: RpcEvent | None = None
    run: bool = False
    """Whether the callee has been told of it."""
    surely_not_run: bool = False
    answer: Any = None
    upload: Stream = attrs.Factory(Stream)
    download: Stream = attrs.Factory(Stream)

    @property
    def over(self) -> bool:
        return self.cancelled or self.ended is not None


@attrs.define(eq=False)
class End:
    """One session, its owner, and the wire away from it."""

    session: WatchedSession
    calls: dict[int, Call] = attrs.Factory(dict)
    """Its own, by message id."""
    serving: dict[int, Call] = attrs.Factory(dict)
    """Calls of the other end that its owner has to answer."""
    wire: bytearray = attrs.Factory(bytearray)
    wire_ended: bool = False
    """Whether nothing more gets onto the wire."""
    told_end: bool = False
    """Whether this session has been told of the end of its input."""
    lost: bool = False
    disturbed: bool = False
    """Whether anything happened that lets calls end otherwise than by their answer."""
    failed: str = ""
    pings: int = 0


class TwoEnds(RuleBasedStateMachine):
    """See above."""

    extensions = (True, True)
    keep_alive = KeepAlive(time=40.0, timeout=15.0, min_interval=0.0, min_interval_idle=0.0)

    @initialize(greeted=st.sampled_from([True, True, True, False]))
    def connect(self, greeted: bool) -> None:
        self.now = 0.0
        self.tags = 0
        self.by_tag: dict[int, Call] = {}
        first, second = (
            WatchedSession(
                0.0,
                initiator=initiator,
                limits=LIMITS,
                keep_alive=self.keep_alive,
                extensions=extensions,
            )
            for initiator, extensions in zip((True, False), self.extensions, strict=True)
        )
        self.ends = (End(first), End(second))
        if greeted:
            self.settle()

    def other(self, end: End) -> End:
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    # -- owners: calls ----------------------------------------------------------------------------

    @rule(
        which=st.integers(0, 1),
        timeout=st.one_of(st.none(), st.sampled_from([0.0, 0.5, 5.0, 30.0])),
        flow=st.sampled_from(FLOWS),
        padding=st.sampled_from([0, 0, 0, 150]),
    )
    def call(self, which: int, timeout: float | None, flow: Flow, padding: int) -> None:
        end = self.ends[which]
        session = end.session
        live = [call for call in end.calls.values() if not call.over]
        try:
            msgid = session.call("m", (self.tags, "x" * padding), self.now, timeout=timeout, flow=flow)
        except LocalProtocolError:
            assert (
                not session.accepts_calls
                or (flow and session.peer is None)
                or (flow and sum(bool(call.flow) for call in live) >= LIMITS.max_streams)
                or session.queued + padding + 50 > LIMITS.max_queued_output
            )
            return
        assert msgid not in {call.msgid for call in live}
        deadline = None if timeout is None else self.now + timeout
        call = Call(self.tags, msgid, flow, self.now, deadline)
        end.calls[msgid] = self.by_tag[self.tags] = call
        self.tags += 1

    @rule(which=st.integers(0, 1), choice=st.integers(0, 9))
    def cancel(self, which: int, choice: int) -> None:
        end = self.ends[which]
        calls = list(end.calls.values())
        if calls:
            call = calls[choice % len(calls)]
            pending = end.session.pending_calls
            end.session.cancel(call.msgid)
            if end.session.pending_calls < pending:
                call.cancelled = True
                call.surely_not_run = not call.sent

    @rule(which=st.integers(0, 1))
    def notify(self, which: int) -> None:
        session = self.ends[which].session
        try:
            session.notify("n", [which])
        except LocalProtocolError:
            assert session.refuses_calls or session.queued + 50 > LIMITS.max_queued_output

    @rule(which=st.integers(0, 1))
    def ping(self, which: int) -> None:
        end = self.ends[which]
        try:
            end.session.ping(end.pings)
        except LocalProtocolError:
            assert end.session.peer is None or end.session.refuses_calls or end.session.queued > 1900
        else:
            end.pings += 1

    # -- owners: answers ----------------------------------------------------------------------------

    @rule(
        which=st.integers(0, 1), choice=st.integers(0, 9), kind=st.sampled_from(["result", "error", "large"])
    )
    def respond(self, which: int, choice: int, kind: str) -> None:
        end = self.ends[which]
        serving = list(end.serving.values())
        if not serving:
            return
        call = serving[choice % len(serving)]
        session = end.session
        awaited = session.awaits_answer(call.msgid)
        try:
            if kind == "error":
                session.respond_error(call.msgid, StatusCode.ABORTED, "no", call.tag)
            else:
                session.respond(call.msgid, [call.tag, "x" * (200 if kind == "large" else 0)])
        except LocalProtocolError:
            assert not awaited
            assert session.state is SessionState.ENDED
        else:
            assert awaited
            call.answer = kind
        del end.serving[call.msgid]

    # -- owners: streams ----------------------------------------------------------------------------

    def streams(self, end: End, *, sending: bool) -> list[tuple[Call, Stream]]:
        """Directions of calls in which this end sends or receives."""
        mine = [(call, call.upload if sending else call.download) for call in end.calls.values() if call.flow]
        other = self.other(end)
        theirs = [
            (call, call.download if sending else call.upload)
            for call in other.calls.values()
            if call.flow and call.run
        ]
        return mine + theirs

    @rule(which=st.integers(0, 1), choice=st.integers(0, 9))
    def send_item(self, which: int, choice: int) -> None:
        end = self.ends[which]
        streams = self.streams(end, sending=True)
        if not streams:
            return
        call, stream = streams[choice % len(streams)]
        credit = end.session.credit(call.msgid)
        try:
            end.session.send_item(call.msgid, [call.tag, stream.sent])
        except LocalProtocolError:
            assert credit == 0 or end.session.queued + 20 > LIMITS.max_queued_output
        else:
            assert credit > 0
            stream.sent += 1
            assert not stream.sender_ended
            assert stream.sent - stream.consumed <= LIMITS.stream_window, "credit was overrun"

    @rule(which=st.integers(0, 1), choice=st.integers(0, 9))
    def end_stream(self, which: int, choice: int) -> None:
        end = self.ends[which]
        calls = [call for call in end.calls.values() if call.flow & Flow.FROM_CALLER and not call.over]
        if calls:
            call = calls[choice % len(calls)]
            end.session.end_stream(call.msgid)
            call.upload.sender_ended = True

    @rule(which=st.integers(0, 1), choice=st.integers(0, 9), count=st.integers(1, 3))
    def consume(self, which: int, choice: int, count: int) -> None:
        end = self.ends[which]
        streams = [(call, stream) for call, stream in self.streams(end, sending=False) if stream.sizes]
        if streams:
            call, stream = streams[choice % len(streams)]
            for _ in range(min(count, len(stream.sizes))):
                end.session.consumed(call.msgid, stream.sizes.pop())
                stream.consumed += 1

    # -- owners: the end ----------------------------------------------------------------------------

    @precondition(lambda self: self.tags > 3)
    @rule(which=st.integers(0, 1))
    def goaway(self, which: int) -> None:
        self.disturb()
        self.ends[which].session.goaway("restart")

    @precondition(lambda self: self.tags > 5)
    @rule(which=st.integers(0, 1))
    def close(self, which: int) -> None:
        self.disturb()
        self.ends[which].session.close()

    # -- the wire -----------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1))
    def flush(self, which: int) -> None:
        """The transport takes what there is to send."""
        end = self.ends[which]
        data = join(end.session.take_data())
        assert end.session.queued == 0
        assert end.session.take_data() == []
        pending = [call for call in end.calls.values() if not call.over]
        for call in pending:
            call.sent = True
        if not end.wire_ended:
            end.wire += data

    @rule(which=st.integers(0, 1), count=st.integers(1, 200))
    def deliver(self, which: int, count: int) -> None:
        """Some bytes reach the other end."""
        end, other = self.ends[which], self.other(self.ends[which])
        data = bytes(end.wire[:count])
        del end.wire[:count]
        if data and not other.told_end and not other.lost:
            other.session.receive_data(data, self.now)

    @rule(which=st.integers(0, 1))
    def carry_everything(self, which: int) -> None:
        self.flush(which)
        self.deliver(which, 1_000_000)

    @rule()
    def settle(self) -> None:
        """All goes well for a moment: what is on its way arrives, and both owners listen."""
        for which in (0, 1, 0):
            self.carry_everything(which)
            self.drain(1 - which)

    @rule(which=st.integers(0, 1))
    def carry_end(self, which: int) -> None:
        """A driver ends the link as the session wants; the other end hears of it behind the data."""
        end, other = self.ends[which], self.other(self.ends[which])
        closing = end.session.closing
        if closing is Closing.OPEN:
            return
        self.disturb()
        if closing is Closing.ABORT:
            self.lose(which)
            return
        self.flush(which)
        end.wire_ended = True
        if not end.wire and not other.told_end and not other.lost:
            other.told_end = True
            other.session.receive_eof(self.now)

    @precondition(lambda self: self.tags > 4)
    @rule(which=st.integers(0, 1), cut=st.booleans())
    def end_early(self, which: int, cut: bool) -> None:
        """The transport ends one direction, perhaps within a message."""
        end, other = self.ends[which], self.other(self.ends[which])
        self.disturb()
        end.wire_ended = True
        if cut:
            end.wire.clear()
        if not end.wire and not other.told_end and not other.lost:
            other.told_end = True
            other.session.receive_eof(self.now)

    @precondition(lambda self: self.tags > 4)
    @rule(which=st.integers(0, 1))
    def lose(self, which: int) -> None:
        end = self.ends[which]
        self.disturb()
        end.lost = end.wire_ended = True
        self.other(end).wire.clear()
        end.session.connection_lost(OSError("cable pulled"), self.now)

    def disturb(self) -> None:
        for end in self.ends:
            end.disturbed = True

    # -- time ---------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.5, 3.0, 16.0, 50.0]), late=st.booleans())
    def advance(self, seconds: float, late: bool) -> None:
        """Time passes; drivers tell it at each deadline, or only at the end."""
        end_time = self.now + seconds
        while not late:
            due = [when for end in self.ends if (when := end.session.deadline()) is not None]
            if not due or min(due) > end_time:
                break
            self.now = max(self.now, min(due))
            self.tell_time()
        self.now = end_time
        self.tell_time()

    def tell_time(self) -> None:
        for end in self.ends:
            end.session.handle_timeout(self.now)
            due = end.session.deadline()
            assert due is None or due > self.now

    # -- events -------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1))
    def drain(self, which: int) -> None:
        end = self.ends[which]
        events = end.session.take_events()
        assert end.session.take_events() == []
        for event in events:
            assert not end.failed, "ConnectionFailed is the last event"
            getattr(self, f"on_{type(event).__name__}")(end, event)

    def on_HelloReceived(self, end: End, event: HelloReceived) -> None:  # noqa: N802
        assert event == HelloReceived(1, LIMITS.stream_window) == end.session.peer
        assert all(self.extensions)

    def on_RequestReceived(self, end: End, event: RequestReceived) -> None:  # noqa: N802
        call = self.by_tag[event.params[0]]  # type: ignore[index]
        assert call.msgid == event.msgid
        assert call.flow is event.flow
        assert not call.run, "a request was told twice"
        assert not call.surely_not_run
        assert call.msgid not in end.serving
        assert (event.deadline is None) == (call.deadline is None or not event.meta)
        call.run = True
        end.serving[call.msgid] = call

    def on_NotificationReceived(self, end: End, event: NotificationReceived) -> None:  # noqa: N802
        assert event.params == [self.ends.index(self.other(end))]

    def on_CancelReceived(self, end: End, event: CancelReceived) -> None:  # noqa: N802
        calls = [call for call in self.by_tag.values() if call.msgid == event.msgid and call.run]
        assert (
            end.told_end  # a caller that has gone wants nothing any more
            or any(call.over or self.other(end).session.state is SessionState.ENDED for call in calls)
            or any(self.queued_end(self.other(end), call) for call in calls)
        )

    def queued_end(self, end: End, call: Call) -> bool:
        """Whether a call has ended, and its owner has yet to hear of it."""
        return any(
            isinstance(event, CallFailed) and event.msgid == call.msgid for event in end.session._events
        )

    def on_RequestExpired(self, end: End, event: RequestExpired) -> None:  # noqa: N802
        calls = [call for call in self.by_tag.values() if call.msgid == event.msgid and call.run]
        assert any(call.deadline is not None for call in calls)

    def finish(self, end: End, event: ResponseReceived | CallFailed) -> Call:
        call = end.calls[event.msgid]
        assert not call.over, "a call ended twice"
        assert call.sent or isinstance(event, CallFailed)
        call.ended = event
        return call

    def on_ResponseReceived(self, end: End, event: ResponseReceived) -> None:  # noqa: N802
        call = self.finish(end, event)
        assert call.answer in ("result", "large")
        assert event.result[0] == call.tag, "a call got the answer of another"

    def on_CallFailed(self, end: End, event: CallFailed) -> None:  # noqa: N802
        call = self.finish(end, event)
        if event.code is StatusCode.ABORTED:
            assert call.answer == "error"
            assert event.details == call.tag, "a call got the error of another"
        elif event.code is StatusCode.DEADLINE_EXCEEDED:
            assert call.deadline is not None
            assert call.deadline <= self.now
        elif event.code is StatusCode.RESOURCE_EXHAUSTED:
            assert not call.run
            call.surely_not_run = True
        elif event.code is StatusCode.CANCELLED:
            assert end.session.state is SessionState.ENDED
        else:
            assert event.code is StatusCode.UNAVAILABLE
            refused = not call.run and self.other(end).session.refuses_calls  # and could not say goaway
            assert end.session.refuses_calls or refused
        if not event.maybe_executed:
            assert not call.run
            call.surely_not_run = True

    def on_ItemReceived(self, end: End, event: ItemReceived) -> None:  # noqa: N802
        call = self.by_tag[event.item[0]]
        assert call.msgid == event.msgid
        assert not (call.cancelled and call in end.calls.values()), "an item of a cancelled call"
        stream = call.download if end.calls.get(call.msgid) is call else call.upload
        assert event.item[1] == stream.received < stream.sent
        assert not stream.told_end
        stream.received += 1
        stream.sizes.append(event.size)

    def on_StreamEnded(self, end: End, event: StreamEnded) -> None:  # noqa: N802
        call = end.serving.get(event.msgid)
        if call is not None:
            assert call.upload.sender_ended
            assert call.upload.received == call.upload.sent
            assert not call.upload.told_end
            call.upload.told_end = True

    def on_CreditGranted(self, end: End, event: CreditGranted) -> None:  # noqa: N802
        assert any(call.msgid == event.msgid and call.flow for call in self.by_tag.values())

    def on_GoawayReceived(self, end: End, event: GoawayReceived) -> None:  # noqa: N802
        assert end.session.state is not SessionState.OPEN

    def on_PongReceived(self, end: End, event: PongReceived) -> None:  # noqa: N802
        assert 0 <= event.token < end.pings

    def on_UnexpectedResponse(self, end: End, event: UnexpectedResponse) -> None:  # noqa: N802
        """Only so many calls that were given up are remembered."""
        call = end.calls[event.msgid]
        assert call.over or self.queued_end(end, call)
        given_up = [
            call for call in end.calls.values() if call.cancelled or isinstance(call.ended, CallFailed)
        ]
        assert len(given_up) >= LIMITS.max_cancelled

    def on_ConnectionFailed(self, end: End, event: ConnectionFailed) -> None:  # noqa: N802
        """Neither session breaks the protocol, so that only the wire and the owners can be at fault."""
        end.failed = str(event.error)
        assert (
            "keep-alive" in end.failed
            or "bytes into a message" in end.failed
            or "max_queued_output" in end.failed
        ), end.failed
        self.disturb()

    # -- what always holds --------------------------------------------------------------------------

    @invariant()
    def outputs_are_bounded_and_asking_changes_nothing(self) -> None:
        for end in self.ends:
            session = end.session
            assert session.deadline() == session.deadline()
            assert session.take_actions() == []
            assert session.queued == sum(len(chunk) for chunk in session.output.chunks)
            assert session.queued <= LIMITS.max_queued_output + 300, "control messages aside"
            assert session.output.replies <= session.queued
            assert session.pending_calls <= LIMITS.max_calls
            assert session.pending_requests <= LIMITS.max_calls
            assert session.requests.bytes == sum(session.requests.sizes.values())
            assert session.requests.bytes <= LIMITS.max_request_bytes
            assert set(session.output.unsent) <= session._calls.pending
            assert len(session._calls.given_up) <= LIMITS.max_cancelled
            assert session._buffered_items >= 0
            streams = session._streams.values()
            assert sum(stream.ours for stream in streams) <= LIMITS.max_streams
            assert sum(not stream.ours for stream in streams) <= LIMITS.max_streams
            assert (session.state is SessionState.ENDED) == (session.closing is not Closing.OPEN)
            if session.state is SessionState.ENDED:
                assert session.deadline() is None
                assert (session.pending_calls, session.pending_requests, len(streams)) == (0, 0, 0)
            elif session.state is SessionState.DRAINING:
                assert session.pending_calls + session.pending_requests > 0
                assert session.refuses_calls
            live = sum(not call.over for call in end.calls.values())
            assert session.pending_calls <= live

    # -- the end of a run ---------------------------------------------------------------------------

    def teardown(self) -> None:
        """Without further faults all ends well: what can be answered is, and each call ends once."""
        if not hasattr(self, "ends"):
            return
        for _ in range(200):
            busy = False
            for which, end in enumerate(self.ends):
                before = copy.copy(end.wire), len(end.serving), end.session.queued
                self.carry_everything(which)
                self.carry_end(which)
                self.drain(1 - which)
                self.drain(which)
                for _ in range(len(end.serving)):
                    self.respond(which, 0, "result")
                busy = busy or before != (end.wire, len(end.serving), end.session.queued)
            if not busy:
                break
        else:
            raise AssertionError("the ends never come to rest")
        for end in self.ends:
            for call in end.calls.values():
                if not end.disturbed:
                    assert call.over, f"call {call.tag} was not answered"
        for which in (0, 1):
            self.lose(which)
            self.drain(which)
        for end in self.ends:
            assert end.session.pending_calls == 0
            assert end.session.take_data() == []
            for call in end.calls.values():
                assert call.over, f"call {call.tag} never ended"
                assert not (call.run and call.surely_not_run)
