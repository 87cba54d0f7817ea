from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.policies import (
    Admission,
    AdmissionLimits,
    Admitted,
    ConcurrencyLimit,
    Refused,
    Shed,
    Verdict,
)

ADMITTED, QUEUED = Verdict.ADMITTED, Verdict.QUEUED


def server_only(concurrent: int, queued: int = 0) -> Admission:
    return Admission(AdmissionLimits(server=ConcurrencyLimit(concurrent, queued)))


def ask(admission: Admission, ticket: int, method: str = "m", client: str = "c", **more: Any) -> Any:
    return admission.request(ticket, method, client, more.get("deadline"), more.get("now", 0.0))


def test_calls_run_then_wait_then_are_refused() -> None:
    admission = server_only(2, 1)
    assert [ask(admission, ticket) for ticket in (1, 2, 3)] == [ADMITTED, ADMITTED, QUEUED]
    refused = ask(admission, 4)
    assert isinstance(refused, Refused)
    assert "the server runs max_concurrent (2) calls and as many as max_queued (1) wait" in refused.reason
    assert refused.retry_after == 1.0
    admission.release(1, 0.0)
    assert admission.take_events() == [Admitted(3)]
    assert ask(admission, 4) is QUEUED


def test_no_limit_admits_all() -> None:
    admission = Admission(AdmissionLimits())
    assert all(ask(admission, ticket) is ADMITTED for ticket in range(100))


def test_a_full_method_or_client_holds_nobody_else_up() -> None:
    admission = Admission(
        AdmissionLimits(
            server=ConcurrencyLimit(3, 10),
            methods={"slow": ConcurrencyLimit(1, 5)},
            client=ConcurrencyLimit(2, 5),
        )
    )
    assert ask(admission, 1, "slow", "a") is ADMITTED
    assert ask(admission, 2, "slow", "b") is QUEUED
    assert ask(admission, 3, "fast", "a") is ADMITTED
    assert ask(admission, 4, "fast", "a") is QUEUED  # two of this client's run
    assert ask(admission, 5, "fast", "b") is ADMITTED
    assert ask(admission, 6, "fast", "c") is QUEUED  # three run
    admission.release(5, 0.0)
    assert admission.take_events() == [Admitted(6)]
    admission.release(1, 0.0)
    assert admission.take_events() == [Admitted(2)]
    admission.release(3, 0.0)
    assert admission.take_events() == [Admitted(4)]


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (AdmissionLimits(method=ConcurrencyLimit(1)), "the method m runs max_concurrent (1)"),
        (AdmissionLimits(client=ConcurrencyLimit(1)), "the client runs max_concurrent (1)"),
    ],
)
def test_a_refusal_names_the_limit(limits: AdmissionLimits, name: str) -> None:
    admission = Admission(limits)
    assert ask(admission, 1) is ADMITTED
    assert name in ask(admission, 2).reason


def test_what_has_waited_past_its_deadline_is_never_run() -> None:
    admission = server_only(1, 5)
    ask(admission, 1)
    ask(admission, 2, deadline=5.0)
    ask(admission, 3, deadline=9.0)
    assert admission.deadline() == 5.0
    admission.handle_timeout(4.0)
    assert admission.take_events() == []
    admission.release(1, 6.0)  # before the timer, and yet too late for one
    assert admission.take_events() == [Shed(2), Admitted(3)]
    assert admission.deadline() is None


def test_what_is_withdrawn_makes_room_in_the_queue() -> None:
    admission = server_only(1, 1)
    ask(admission, 1)
    ask(admission, 2)
    admission.withdraw(2)
    admission.withdraw(2)
    assert ask(admission, 3) is QUEUED
    admission.release(1, 0.0)
    assert admission.take_events() == [Admitted(3)]


def test_what_has_waited_past_its_deadline_takes_nobodys_place() -> None:
    admission = server_only(1, 1)
    ask(admission, 1)
    ask(admission, 2, deadline=5.0)
    assert isinstance(ask(admission, 3, now=4.9), Refused)
    assert ask(admission, 3, now=5.0) is QUEUED  # before the timer
    assert admission.take_events() == [Shed(2)]
    admission.release(1, 5.0)
    assert admission.take_events() == [Admitted(3)]


def test_a_method_that_got_room_while_the_server_was_full_is_not_forgotten() -> None:
    limits = AdmissionLimits(server=ConcurrencyLimit(2, 9), methods={"slow": ConcurrencyLimit(1, 9)})
    admission = Admission(limits)
    assert ask(admission, 1, "slow") is ADMITTED
    assert ask(admission, 2, "fast") is ADMITTED
    assert ask(admission, 3, "fast") is QUEUED
    assert ask(admission, 4, "slow") is QUEUED
    assert ask(admission, 5, "fast") is QUEUED
    admission.release(1, 0.0)  # slow has room again, but 3 is the first
    assert admission.take_events() == [Admitted(3)]
    admission.release(2, 0.0)
    assert admission.take_events() == [Admitted(4)]
    admission.withdraw(5)
    admission.release(3, 0.0)
    admission.release(4, 0.0)
    assert (admission.running, admission.queued, admission.scopes) == (0, 0, 0)


def test_nothing_is_kept_of_a_method_whose_calls_gave_up_when_it_had_room() -> None:
    limits = AdmissionLimits(server=ConcurrencyLimit(1, 9), methods={"slow": ConcurrencyLimit(1, 9)})
    admission = Admission(limits)
    ask(admission, 1, "slow")
    ask(admission, 2, "fast")
    ask(admission, 3, "slow")
    admission.release(1, 0.0)
    assert admission.take_events() == [Admitted(2)]
    assert len(admission._open) == 1
    admission.withdraw(3)
    assert (admission.scopes, len(admission._open)) == (0, 0)


@pytest.mark.parametrize("held_up_by", ["server", "method"])
def test_a_release_costs_the_same_however_many_wait_for_something_else(held_up_by: str) -> None:
    """Counted in calls of its functions, which no other load on the machine changes.

    Only of its own: the garbage collector may run in between, and calls those who asked to be told.
    """
    costs = []
    for waiting in (10, 2000):
        limits = AdmissionLimits(
            server=ConcurrencyLimit(3, 10_000) if held_up_by == "server" else None,
            methods={"slow": ConcurrencyLimit(1, 10_000)},
        )
        admission = Admission(limits)
        for ticket in range(waiting):
            ask(admission, ticket, "slow")
        for ticket in range(waiting, waiting + 3):
            ask(admission, ticket, "fast")
        calls = 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event == "call" and frame.f_globals["__name__"] == Admission.__module__

        sys.setprofile(count)
        try:
            admission.release(waiting, 0.0)
        finally:
            sys.setprofile(None)
        costs.append(calls)
    assert 0 < costs[0] == costs[1] < 40


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30))
def test_those_who_leave_the_queue_leave_nothing_behind(rounds: list[int]) -> None:
    admission = server_only(1, 100)
    ask(admission, -1)
    ticket = 0
    for number in rounds:
        for _ in range(30 * number):
            ticket += 1
            assert ask(admission, ticket) is QUEUED
        for gone in range(ticket - 30 * number + 1, ticket + 1):
            admission.withdraw(gone)
    assert admission._server is not None
    assert len(admission._server.parked) <= 64 + 100
    assert ask(admission, ticket) is QUEUED  # a ticket that was used before
    admission.release(-1, 0.0)
    assert admission.take_events() == [Admitted(ticket)]


def test_wrong_use_changes_nothing() -> None:
    admission = server_only(1, 1)
    ask(admission, 1)
    with pytest.raises(LocalProtocolError, match="ticket 1 names another call"):
        ask(admission, 1)
    with pytest.raises(LocalProtocolError, match="ticket 2 holds no permit"):
        admission.release(2, 0.0)
    with pytest.raises(ValueError, match="max_concurrent"):
        ConcurrencyLimit(0)
    assert (admission.running, admission.queued) == (1, 0)


METHODS, CLIENTS = ["m1", "m2"], ["c1", "c2", "c3"]
LIMITS = AdmissionLimits(
    server=ConcurrencyLimit(3, 4), method=ConcurrencyLimit(2, 2), client=ConcurrencyLimit(2, 3)
)


class AdmissionRules(RuleBasedStateMachine):
    """Any order of requests and ends; checked against a look through the whole queue, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(LIMITS)
        self.now = 0.0
        self.next = 0
        self.running: dict[int, tuple[str, str]] = {}
        self.waiting: dict[int, tuple[str, str, float | None]] = {}

    @rule(
        method=st.sampled_from(METHODS),
        client=st.sampled_from(CLIENTS),
        patience=st.none() | st.floats(0.5, 5),
    )
    def request(self, method: str, client: str, patience: float | None) -> None:
        self.next += 1
        deadline = None if patience is None else self.now + patience
        fits = self.fits(method, client)
        verdict = self.admission.request(self.next, method, client, deadline, self.now)
        self.take(admitted=[])
        if verdict is ADMITTED:
            assert fits
            self.running[self.next] = (method, client)
        else:
            assert not fits
            if verdict is QUEUED:
                self.waiting[self.next] = (method, client, deadline)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.running)))
        del self.running[ticket]
        self.admission.release(ticket, self.now)
        self.take(self.admitted_by_looking_through_the_queue())

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.waiting)))
        del self.waiting[ticket]
        self.admission.withdraw(ticket)
        self.take(admitted=[])

    @rule(seconds=st.floats(0.1, 3))
    def pass_time(self, seconds: float) -> None:
        """The timer is late."""
        self.now += seconds

    @rule()
    def wake(self) -> None:
        self.admission.handle_timeout(self.now)
        self.take(admitted=[])
        deadline = self.admission.deadline()
        assert deadline is None or deadline > self.now

    def admitted_by_looking_through_the_queue(self) -> list[int]:
        running, admitted = dict(self.running), []
        for ticket, (method, client, deadline) in self.waiting.items():
            if (deadline is None or deadline > self.now) and self.fits(method, client):
                self.running[ticket] = (method, client)
                admitted.append(ticket)
        self.running = running
        return admitted

    def take(self, admitted: list[int]) -> None:
        events = self.admission.take_events()
        assert [event.ticket for event in events if isinstance(event, Admitted)] == admitted
        for event in events:
            method, client, deadline = self.waiting.pop(event.ticket)
            if isinstance(event, Admitted):
                self.running[event.ticket] = (method, client)
            else:
                assert deadline is not None
                assert deadline <= self.now

    def fits(self, method: str, client: str) -> bool:
        return (
            len(self.running) < 3
            and sum(m == method for m, _ in self.running.values()) < 2
            and sum(c == client for _, c in self.running.values()) < 2
        )

    @invariant()
    def nobody_waits_who_could_run(self) -> None:
        assert not any(self.fits(method, client) for method, client, _ in self.waiting.values())

    @invariant()
    def counts_agree(self) -> None:
        assert self.admission.running == len(self.running)
        assert self.admission.queued == len(self.waiting) <= 4
        calls = [call[:2] for call in (*self.running.values(), *self.waiting.values())]
        used = len({method for method, _ in calls}) + len({client for _, client in calls})
        assert self.admission.scopes == used, "scopes of nobody are kept"
        assert set(self.admission._open) <= {
            *self.admission._methods.values(),
            *self.admission._clients.values(),
        }


TestAdmissionRules = AdmissionRules.TestCase
