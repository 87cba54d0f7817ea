"""Room for those whose handshake is under way."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helianthus.protocols.policies.arrivals import Arrivals


def test_while_there_is_room_everybody_has_time() -> None:
    arrivals: Arrivals[str] = Arrivals(3, patience=1.0)
    arrivals.add("a", 0.0)
    arrivals.add("b", 0.5)
    assert not arrivals.full
    assert arrivals.deadline() is None
    assert arrivals.overdue(100.0) == []
    assert len(arrivals) == 2


def test_without_room_the_first_has_to_go() -> None:
    arrivals: Arrivals[str] = Arrivals(2, patience=1.0)
    arrivals.add("a", 0.0)
    arrivals.add("b", 0.5)
    assert arrivals.full
    assert arrivals.deadline() == 1.0
    assert arrivals.overdue(0.9) == []
    assert arrivals.overdue(1.0) == ["a"]
    assert "a" not in arrivals
    assert arrivals.deadline() is None
    assert arrivals.overdue(9.0) == [], "there is room now"
    arrivals.add("c", 9.0)
    assert arrivals.deadline() == 1.5
    assert arrivals.discard("b")
    assert not arrivals.discard("b")
    assert list(arrivals) == ["c"]


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="room for 0 arrivals"):
        Arrivals(0)
    with pytest.raises(ValueError, match="patience is 0 s"):
        Arrivals(1, patience=0)


class Rules(RuleBasedStateMachine):
    """Against a list of everybody, with the time at which they came."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.arrivals: Arrivals[int] = Arrivals(4, patience=2.0)
        self.here: list[tuple[int, float]] = []
        self.number = 0

    @precondition(lambda self: len(self.here) < 6)
    @rule()
    def come(self) -> None:
        self.number += 1
        self.arrivals.add(self.number, self.now)
        self.here.append((self.number, self.now))

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def get_on(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.here))
        self.here.remove(entry)
        assert self.arrivals.discard(entry[0])

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        gone = []
        while len(self.here) >= 4 and self.here[0][1] + 2.0 <= self.now:
            gone.append(self.here.pop(0)[0])
        assert self.arrivals.overdue(self.now) == gone
        deadline = self.arrivals.deadline()
        assert deadline is None or deadline > self.now

    @invariant()
    def same(self) -> None:
        assert list(self.arrivals) == [number for number, _ in self.here]
        assert self.arrivals.full is (len(self.here) >= 4)
        assert self.arrivals.deadline() == (self.here[0][1] + 2.0 if self.arrivals.full else None)


TestRules = Rules.TestCase
