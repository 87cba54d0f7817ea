"""Two ends of one framing joined by a wire that delivers in pieces, stalls, ends, breaks and lies.

The model keeps lists of what was sent and a few flags, no transition table: each end receives the
frames of the other in order, without a gap, as far as the wire has carried them, and its state
follows from what it was told. At the end faults stop, and whatever can still arrive must.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from helianthus.protocols.errors import LocalProtocolError, RemoteProtocolError
from helianthus.protocols.framing import (
    ConnectionLost,
    DelimiterFraming,
    EndOfStream,
    FixedSizeFraming,
    FrameReceived,
    FramingEvent,
    FramingState,
    LengthPrefix,
    LengthPrefixFraming,
    StreamFraming,
)
from helianthus.protocols.machine import Buffer, Closing, ConnectionFailed

MAX_FRAME = 200
MAX_QUEUED = 600

LIMITS: dict[str, Any] = {"max_frame_size": MAX_FRAME, "max_queued_output": MAX_QUEUED}

Make = Callable[[], StreamFraming]
Encode = Callable[[bytes], bytes | None]
"""A frame's bytes on the wire, or None if it cannot be sent."""

KINDS: dict[str, tuple[Make, Encode]] = {
    "uint8": (
        lambda: LengthPrefixFraming(LengthPrefix.UINT8, **LIMITS),
        lambda frame: bytes([len(frame)]) + frame if len(frame) <= MAX_FRAME else None,
    ),
    "uint32 LE": (
        lambda: LengthPrefixFraming(LengthPrefix.UINT32_LE, **LIMITS),
        lambda frame: len(frame).to_bytes(4, "little") + frame if len(frame) <= MAX_FRAME else None,
    ),
    "varint": (
        lambda: LengthPrefixFraming(LengthPrefix.VARINT, **LIMITS),
        lambda frame: (
            None
            if len(frame) > MAX_FRAME
            else bytes([len(frame)] if len(frame) < 128 else [len(frame) & 127 | 128, len(frame) >> 7])
            + frame
        ),
    ),
    "delimiter": (
        lambda: DelimiterFraming(b"aba", **LIMITS),
        lambda frame: (
            frame + b"aba"
            if len(frame) <= MAX_FRAME and (frame + b"aba").find(b"aba") == len(frame)
            else None
        ),
    ),
    "fixed size": (
        lambda: FixedSizeFraming(3, max_queued_output=30),
        lambda frame: frame if len(frame) == 3 else None,
    ),
}

frames = st.one_of(
    st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=6).map(b"".join),
    st.binary(min_size=3, max_size=3),
    st.integers(100, 210).map(lambda count: b"x" * count),
)


@attrs.define(eq=False)
class End:
    """One end, and the model of it."""

    machine: StreamFraming
    queued: bytes = b""
    """What it was given to send and has not handed out."""
    wire: bytes = b""
    """What it has handed out and the other end has not been given."""
    sent: list[bytes] = attrs.Factory(list)
    events: list[FramingEvent] = attrs.Factory(list)
    closed: bool = False
    peer_ended: bool = False
    failed: bool = False
    lost: bool = False
    corrupted: bool = False
    """Whether its wire carried something that it did not send."""

    @property
    def may_send(self) -> bool:
        return not (self.closed or self.failed or self.lost)

    @property
    def reads(self) -> bool:
        return not (self.peer_ended or self.failed or self.lost)

    @property
    def received(self) -> list[bytes]:
        return [event.frame for event in self.events if isinstance(event, FrameReceived)]

    def drain(self) -> None:
        self.events += self.machine.take_events()
        if self.machine.state is FramingState.FAILED:
            self.failed = True

    def expected(self) -> tuple[FramingState, Closing]:
        if self.failed:
            return FramingState.FAILED, Closing.FULL
        if self.lost:
            return FramingState.LOST, Closing.ABORT
        return {
            (False, False): (FramingState.OPEN, Closing.OPEN),
            (True, False): (FramingState.LOCAL_ENDED, Closing.HALF),
            (False, True): (FramingState.PEER_ENDED, Closing.OPEN),
            (True, True): (FramingState.ENDED, Closing.FULL),
        }[self.closed, self.peer_ended]


class TwoEnds(RuleBasedStateMachine):
    make: Make
    encode: Encode

    @initialize()
    def connect(self) -> None:
        self.ends = (End(self.make()), End(self.make()))

    def other(self, end: End) -> End:
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    # -- commands -------------------------------------------------------------------------------

    @rule(which=st.integers(0, 1), frame=frames)
    def send(self, which: int, frame: bytes) -> None:
        end = self.ends[which]
        encoded = self.encode(frame)
        room = end.machine.max_queued_output - len(end.queued)
        if end.may_send and encoded is not None and len(encoded) <= room:
            end.machine.send_frame(frame)
            end.queued += encoded
            end.sent.append(frame)
        else:
            with pytest.raises(LocalProtocolError):
                end.machine.send_frame(frame)

    @rule(which=st.integers(0, 1))
    def close(self, which: int) -> None:
        end = self.ends[which]
        end.machine.close()
        end.closed = end.closed or end.may_send

    # -- the driver and the wire ------------------------------------------------------------------

    @rule(which=st.integers(0, 1))
    def flush(self, which: int) -> None:
        end = self.ends[which]
        taken = b"".join(end.machine.take_data())
        assert taken == end.queued
        end.wire += taken
        end.queued = b""

    @rule(which=st.integers(0, 1), count=st.one_of(st.integers(1, 8), st.integers(1, 500)))
    def deliver(self, which: int, count: int) -> None:
        end = self.ends[which]
        piece, end.wire = end.wire[:count], end.wire[count:]
        self.other(end).machine.receive_data(piece, 0.0)

    @rule(which=st.integers(0, 1))
    def end_stream(self, which: int) -> None:
        """Carry out what `closing` asks for, once all is flushed and delivered."""
        end = self.ends[which]
        if end.machine.closing is Closing.OPEN or end.queued or end.wire:
            return
        self.tell_eof(self.other(end))

    @rule(which=st.integers(0, 1))
    def end_stream_early(self, which: int) -> None:
        """The peer's process ends in the middle of anything."""
        end = self.ends[which]
        end.wire = end.queued = b""
        end.machine.connection_lost(None, 0.0)
        end.drain()
        end.lost = end.lost or not end.failed
        self.tell_eof(self.other(end))

    def tell_eof(self, end: End) -> None:
        end.drain()
        reads, whole = end.reads, end.machine.unfinished_input == 0
        end.machine.receive_eof(0.0)
        end.drain()
        if reads and whole:
            assert end.events[-1] == EndOfStream()
            end.peer_ended = True
        elif reads:
            assert isinstance(end.events[-1], ConnectionFailed)
            assert end.failed

    @rule(error=st.sampled_from([None, ConnectionResetError("reset")]))
    def lose(self, error: Exception | None) -> None:
        for end in self.ends:
            end.drain()
            over = end.failed or end.lost
            unfinished = end.machine.unfinished_input
            end.machine.connection_lost(error, 0.0)
            end.drain()
            if not over:
                assert end.events[-1] == ConnectionLost(error, unfinished)
                end.lost = True
            end.queued = end.wire = b""

    @rule(which=st.integers(0, 1), junk=st.binary(min_size=1, max_size=12))
    @precondition(lambda self: not any(end.corrupted for end in self.ends))
    def corrupt(self, which: int, junk: bytes) -> None:
        self.ends[which].wire += junk
        self.ends[which].corrupted = True

    @rule(which=st.integers(0, 1), now=st.floats(0, 1e6))
    def tick(self, which: int, now: float) -> None:
        machine = self.ends[which].machine
        machine.handle_timeout(now)
        assert machine.deadline() is None

    @rule(which=st.integers(0, 1))
    def drain(self, which: int) -> None:
        self.ends[which].drain()

    # -- what always holds ---------------------------------------------------------------------------

    @invariant()
    def states_follow_the_model(self) -> None:
        for end in self.ends:
            if end.machine.state is FramingState.FAILED and not end.failed:
                end.drain()
            assert (end.machine.state, end.machine.closing) == end.expected()
            assert end.machine.queued_output == len(end.queued)
            if not end.reads:
                assert not end.machine.wants_read
                assert end.machine.unfinished_input == 0

    @invariant()
    def frames_arrive_in_order_and_whole(self) -> None:
        for end in self.ends:
            peer = self.other(end)
            if not peer.corrupted:
                assert end.received == peer.sent[: len(end.received)]

    @invariant()
    def only_a_fault_or_a_truncation_fails(self) -> None:
        for end in self.ends:
            failures = [event for event in end.events if isinstance(event, ConnectionFailed)]
            assert len(failures) == int(end.failed)
            for event in failures:
                assert event is end.events[-1]
                assert isinstance(event.error, RemoteProtocolError)
                assert self.other(end).corrupted or "truncated" in str(event.error)

    @invariant()
    def what_is_held_is_bounded(self) -> None:
        for end in self.ends:
            assert end.machine.unfinished_input <= MAX_FRAME + 8
            assert end.machine.queued_output <= MAX_QUEUED

    # -- progress ------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Without further faults, two ends that still can finish their conversation do."""
        if not hasattr(self, "ends") or any(end.failed or end.lost or end.corrupted for end in self.ends):
            return
        for which, end in enumerate(self.ends):
            self.close(which)
            self.flush(which)
            while end.wire:
                self.deliver(which, 50)
        for which in range(2):
            self.end_stream(which)
        for end in self.ends:
            assert end.received == self.other(end).sent
            assert end.events[-1:] == [EndOfStream()]
            assert end.machine.state is FramingState.ENDED
            assert end.machine.closing is Closing.FULL


def run(make: Make, encode: Encode, given: settings) -> None:
    machine = type(
        "TwoEndsOfAFraming", (TwoEnds,), {"make": staticmethod(make), "encode": staticmethod(encode)}
    )
    run_state_machine_as_test(machine, settings=given)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ends_agree(kind: str) -> None:
    make, encode = KINDS[kind]
    run(make, encode, settings(max_examples=60, stateful_step_count=40, deadline=None))


class LosesFrames(FixedSizeFraming):
    """Forgets the first frame of those that come in at once."""

    def _parse(self, data: Buffer) -> None:
        super()._parse(data)
        del self._events[:1]


class StaysOpen(FixedSizeFraming):
    """Does not tell the driver to end its direction."""

    def close(self) -> None:
        super().close()
        self._closing = Closing.OPEN


@pytest.mark.parametrize("broken", [LosesFrames, StaysOpen])
def test_a_broken_framing_does_not_get_through(broken: type[FixedSizeFraming]) -> None:
    _, encode = KINDS["fixed size"]
    given = settings(
        max_examples=500,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError):
        run(lambda: broken(3, max_queued_output=30), encode, given)
