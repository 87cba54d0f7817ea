"""The deadlines of calls against a plain dict."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helianthus.protocols.rpc.deadlines import Deadlines

msgids = st.integers(0, 5)
times = st.integers(0, 20).map(float)


class AgainstADict(RuleBasedStateMachine):
    """What is next may be too early, and never too late."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines = Deadlines()
        self.model: dict[int, float] = {}

    @rule(msgid=msgids, when=times)
    def add(self, msgid: int, when: float) -> None:
        self.deadlines.add(msgid, when)
        self.model[msgid] = when

    @rule(msgid=msgids)
    def discard(self, msgid: int) -> None:
        self.deadlines.discard(msgid)
        self.model.pop(msgid, None)

    @rule(now=times)
    def pop_due(self, now: float) -> None:
        due = sorted((when, msgid) for msgid, when in self.model.items() if when <= now)
        assert self.deadlines.pop_due(now) == [msgid for _, msgid in due]
        for _, msgid in due:
            del self.model[msgid]
        assert (self.deadlines.next() or 99.0) > now, "a timer would fire again at once"

    @rule()
    def clear(self) -> None:
        self.deadlines.clear()
        self.model.clear()

    @invariant()
    def none_is_earlier_than_the_next(self) -> None:
        bound = self.deadlines.next()
        assert (bound is None) == (not self.model)
        assert bound is None or bound <= min(self.model.values())
        assert self.deadlines.live == self.model


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


def test_when_it_has_come_the_next_is_exact() -> None:
    deadlines = Deadlines()
    for msgid, when in ((1, 1.0), (2, 5.0), (3, 7.0)):
        deadlines.add(msgid, when)
    deadlines.discard(1)
    deadlines.discard(2)
    assert deadlines.next() == 1.0
    assert deadlines.pop_due(1.0) == []
    assert deadlines.next() == 7.0
