"""Whatever order things happen in: data arrives whole and in order, and each half ends by itself."""

from __future__ import annotations

import itertools
from typing import Any

from certificates import Authority
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tls_pair import Child, End, TlsPair, client_context, server_context

from helianthus.protocols.machine import Closing, ConnectionFailed
from helianthus.protocols.tls import TlsEstablished

_authority = Authority.of_this_process()
_node = _authority.issue("node", "node.example")

NUMBERS = b"".join(b"%06d," % number for number in range(200_000))
"""What is said: any part of it shows what is missing."""

sides = st.sampled_from([0, 1])


class TlsRules(RuleBasedStateMachine):
    """Two layers; commands, time and bytes come in any order."""

    @initialize(version=st.sampled_from(["TLSv1_2", "TLSv1_3"]), echoes=st.booleans())
    def begin(self, version: str, echoes: bool) -> None:
        import ssl

        client, server = client_context(_authority.file), server_context(_node)
        client.maximum_version = ssl.TLSVersion[version]
        self.echoes = echoes
        self.pair = TlsPair(client, server, server_child=Child(echoes=echoes), handshake_timeout=10.0)
        self.said = [0, 0]
        self.ended = [False, False]
        self.broken = False

    def end(self, side: int) -> End:
        return self.pair.ends[side]

    @rule(side=sides, sizes=st.lists(st.sampled_from([1, 7, 500, 5000, 40_000]), min_size=1, max_size=4))
    def say(self, side: int, sizes: list[int]) -> None:
        if self.ended[side] or self.broken or (self.echoes and side == 1):
            return
        for size in sizes:
            start = self.said[side]
            self.end(side).child.say(NUMBERS[start : start + size])
            self.said[side] = min(start + size, len(NUMBERS))

    @rule(side=sides, limit=st.sampled_from([1, 3, 100, 5000, None]))
    def carry(self, side: int, limit: int | None) -> None:
        self.pair.carry(self.end(side), self.end(1 - side), limit)

    @rule(side=sides, wants=st.booleans())
    def pause(self, side: int, wants: bool) -> None:
        self.end(side).child.wants_read = wants
        self.end(side).settle()

    @rule(seconds=st.sampled_from([0.0, 0.001, 1.0]))
    def wait(self, seconds: float) -> None:
        if self.broken or all(end.of(TlsEstablished) for end in self.pair.ends):
            self.pair.wait(seconds)
        else:
            self.pair.tell_time()

    @rule(side=sides)
    def half_close(self, side: int) -> None:
        if not (self.broken or (self.echoes and side == 1)):
            self.ended[side] = True
            self.end(side).child.closing = Closing.HALF
            self.end(side).settle()

    @rule(side=sides)
    def spurious(self, side: int) -> None:
        before = self.end(side).layer.deadline()
        if before is not None and before > self.pair.now:
            self.end(side).layer.handle_timeout(self.pair.now)
            assert self.end(side).layer.deadline() == before

    @precondition(lambda self: not self.broken)
    @rule(side=sides)
    def cut_off(self, side: int) -> None:
        """The transport ends behind what it has carried."""
        if self.end(side).eof_seen or self.end(side).closed is not None:
            return
        self.broken = True
        self.end(side).eof_seen = True
        self.end(side).layer.receive_eof(self.pair.now)
        self.end(side).settle()

    @invariant()
    def what_was_heard_was_said(self) -> None:
        for side in (0, 1):
            heard = self.end(side).child.heard
            source = 0 if self.echoes and side == 0 else 1 - side
            assert NUMBERS.startswith(bytes(heard))
            assert len(heard) <= self.said[source]

    @invariant()
    def events_keep_their_order(self) -> None:
        for end in self.pair.ends:
            if not self.broken:
                assert not end.of(ConnectionFailed)
                assert not end.child.lost
            else:
                assert len(end.of(ConnectionFailed)) <= 1
                assert len(end.child.lost) <= 1
            heard = [event for event in end.events if isinstance(event, str) and "bytes" in event]
            if heard:
                assert end.events.index(end.established) < end.events.index(heard[0])

    def teardown(self) -> None:
        """With nobody in the way, everything arrives, and both come to rest."""
        pair: Any = getattr(self, "pair", None)
        if pair is None:
            return
        for end in pair.ends:
            end.child.wants_read = True
        for side in (0, 1):
            if not (self.echoes and side == 1):
                self.ended[side] = True
                pair.ends[side].child.closing = Closing.HALF
        pair.run()
        if self.broken:
            return
        client, server = pair.ends
        assert len(server.child.heard) == self.said[0]
        assert len(client.child.heard) == self.said[0 if self.echoes else 1]
        for end in pair.ends:
            assert end.child.ended
            assert end.closed is Closing.FULL
            assert list(itertools.chain(end.of(ConnectionFailed), end.child.lost)) == []


TestTlsRules = TlsRules.TestCase
TestTlsRules.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
