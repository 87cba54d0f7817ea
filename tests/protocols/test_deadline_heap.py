"""The heap of deadlines against a plain dict."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helianthus.protocols.policies.deadline_heap import DeadlineHeap

tickets = st.integers(0, 5)
times = st.integers(0, 20).map(float)


class AgainstADict(RuleBasedStateMachine):
    """An id may be given a new deadline, with the old one still in the heap."""

    def __init__(self) -> None:
        super().__init__()
        self.deadlines = DeadlineHeap()
        self.model: dict[int, float] = {}

    @rule(ticket=tickets, when=times)
    def add(self, ticket: int, when: float) -> None:
        self.deadlines.add(ticket, when)
        self.model[ticket] = when

    @rule(ticket=tickets)
    def discard(self, ticket: int) -> None:
        self.deadlines.discard(ticket)
        self.model.pop(ticket, None)

    @rule(now=times)
    def pop_due(self, now: float) -> None:
        due = sorted((when, ticket) for ticket, when in self.model.items() if when <= now)
        assert self.deadlines.pop_due(now) == [ticket for _, ticket in due]
        for _, ticket in due:
            del self.model[ticket]

    @rule()
    def clear(self) -> None:
        self.deadlines.clear()
        self.model.clear()

    @invariant()
    def the_earliest_is_next(self) -> None:
        assert self.deadlines.next() == min(self.model.values(), default=None)
        assert self.deadlines.live == self.model


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)


def test_deadlines_that_are_discarded_do_not_pile_up() -> None:
    """A call per microsecond with a deadline in an hour must not fill an hour's worth of memory."""
    deadlines = DeadlineHeap()
    for ticket in range(10_000):
        deadlines.add(ticket, 3600.0 - ticket * 0.01)
        if ticket >= 10:
            deadlines.discard(ticket - 10)
        assert len(deadlines._heap) <= 64 + 2 * 11 + 1
    assert deadlines.pop_due(3600.0) == list(range(9_999, 9_989, -1))


def test_the_heap_stays_in_order_when_it_is_rebuilt() -> None:
    deadlines = DeadlineHeap()
    for ticket in range(100):
        deadlines.add(ticket, float(ticket * 37 % 101))
    for ticket in range(0, 100, 2):
        deadlines.discard(ticket)
    for ticket in range(1000, 1300):  # which rebuilds the heap, whose live entries then stand first
        deadlines.add(ticket, 500.0)
        deadlines.discard(ticket)
    due = deadlines.pop_due(1000.0)
    assert due == sorted(range(1, 100, 2), key=lambda ticket: ticket * 37 % 101)
