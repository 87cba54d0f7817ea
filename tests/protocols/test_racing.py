"""The race of connection attempts: order, delays, ends. On a virtual clock."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Outcome
from helianthus.protocols.racing import (
    ATTEMPT_DELAY,
    MAX_ATTEMPT_DELAY,
    MAX_CANDIDATES,
    MIN_ATTEMPT_DELAY,
    RESOLUTION_DELAY,
    AbortAttempt,
    AllFailed,
    Race,
    StartAttempt,
    Won,
)


@attrs.frozen
class Place:
    host: str


def places(*hosts: str) -> list[Place]:
    return [Place(host) for host in hosts]


A, B, C = places("a", "b", "c")
V6, W6 = places("::1", "::2")
LOCAL = Place("")
REFUSED = OSError("refused")


def started(race: Race[Place]) -> list[str]:
    """Hosts that attempts are to be started at."""
    return [event.candidate.host for event in race.take_events() if isinstance(event, StartAttempt)]


def race_between(*candidates: Place, **options: Any) -> Race[Place]:
    race: Race[Place] = Race(**options)
    race.candidates_found(0, candidates, 0.0)
    return race


# -- when attempts begin -----------------------------------------------------------------------------


def test_attempts_begin_a_delay_apart() -> None:
    race = race_between(A, B, C)
    timeline = []
    for millisecond in range(0, 1000, 10):
        race.handle_timeout(millisecond / 1000)
        timeline.extend((millisecond, host) for host in started(race))
    assert timeline == [(0, "a"), (250, "b"), (500, "c")]
    assert race.deadline() is None


def test_the_numbers_are_those_of_the_rfc() -> None:
    assert (RESOLUTION_DELAY, ATTEMPT_DELAY) == (0.05, 0.25)
    assert (MIN_ATTEMPT_DELAY, MAX_ATTEMPT_DELAY) == (0.01, 2.0)


def test_the_next_begins_at_once_when_one_fails() -> None:
    race = race_between(A, B, C)
    assert started(race) == ["a"]
    race.attempt_failed(1, REFUSED, 0.1)
    assert started(race) == ["b"]
    assert race.deadline() == pytest.approx(0.1 + ATTEMPT_DELAY)
    race.handle_timeout(0.3)
    assert started(race) == []
    race.handle_timeout(0.1 + ATTEMPT_DELAY)
    assert started(race) == ["c"]


def test_the_deadline_is_pure_and_timeouts_may_come_for_nothing() -> None:
    race = race_between(A, B)
    assert race.deadline() == race.deadline() == ATTEMPT_DELAY
    race.handle_timeout(0.0)
    race.handle_timeout(0.2)
    assert started(race) == ["a"]
    race.handle_timeout(5.0)
    race.handle_timeout(5.0)
    assert started(race) == ["b"]


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ([A, V6], ["::1", "a"]),
        ([A, B, V6, W6], ["::1", "a", "::2", "b"]),
        ([V6, W6, A], ["::1", "a", "::2"]),
        ([A, B, C, V6], ["::1", "a", "b", "c"]),
        ([B, A, B], ["b", "a"]),
    ],
)
def test_families_alternate_ipv6_first(given: list[Place], order: list[str]) -> None:
    race = race_between(*given)
    seen = started(race)
    while (deadline := race.deadline()) is not None:
        race.handle_timeout(deadline)
        seen += started(race)
    assert seen == order


def test_what_is_found_late_joins_the_others() -> None:
    race: Race[Place] = Race(lookups=3)
    assert race.deadline() is None
    race.candidates_found(0, [A, B], 1.0)
    assert started(race) == []
    race.handle_timeout(1.0 + RESOLUTION_DELAY)
    assert started(race) == ["a"]
    race.candidates_found(1, [V6], 1.1)
    race.handle_timeout(1.0 + RESOLUTION_DELAY + ATTEMPT_DELAY)
    assert started(race) == ["::1"]
    race.attempt_failed(1, REFUSED, 1.4)
    race.attempt_failed(2, REFUSED, 1.4)
    assert started(race) == ["b"]
    race.attempt_failed(3, REFUSED, 1.4)
    assert not race.over  # a lookup is under way
    race.candidates_found(2, [C], 9.0)
    assert started(race) == ["c"]


def test_lookups_that_end_together_are_one_list() -> None:
    """In the order of preference, whichever was faster."""
    race: Race[Place] = Race(lookups=3)
    race.candidates_found(1, [B], 1.0)
    race.candidates_found(2, [C, V6], 1.02)
    assert race.deadline() == 1.0 + RESOLUTION_DELAY
    race.candidates_found(0, [A], 1.04)
    seen = started(race)
    while (deadline := race.deadline()) is not None:
        race.handle_timeout(deadline)
        seen += started(race)
    assert seen == ["::1", "a", "b", "c"]


def test_what_is_within_this_machine_has_no_family() -> None:
    """It is tried in its own turn, and needs no other lookup to be waited for."""
    race: Race[Place] = Race(2)
    race.candidates_found(0, [LOCAL], 0.0)
    assert started(race) == [""]
    race.candidates_found(1, [A, V6], 0.0)
    race.attempt_failed(1, REFUSED, 0.1)
    assert started(race) == ["::1"]
    race = Race(3)
    race.candidates_found(0, [A], 0.0)
    race.candidates_found(2, [V6], 0.0)
    race.candidates_found(1, [LOCAL], 0.0)
    order = started(race)
    for number in (1, 2):
        race.attempt_failed(number, REFUSED, 0.0)
        order += started(race)
    assert order == ["::1", "a", ""]


def test_a_failed_lookup_is_not_waited_for() -> None:
    race: Race[Place] = Race(lookups=2)
    race.candidates_found(0, [A], 1.0)
    race.lookup_failed(1, REFUSED, 1.01)
    assert started(race) == ["a"]


def test_a_bounded_number_is_tried() -> None:
    race = race_between(*(Place(str(number)) for number in range(MAX_CANDIDATES + 10)))
    for number in range(MAX_CANDIDATES):
        race.attempt_failed(number + 1, REFUSED, 0.0)
    assert race.over


# -- how it ends ------------------------------------------------------------------------------------------


def test_the_first_to_connect_wins_and_the_others_are_ended() -> None:
    race = race_between(A, B, C)
    race.handle_timeout(1.0)
    race.take_events()
    race.attempt_connected(2, 1.1)
    assert race.take_events() == [AbortAttempt(1), Won(2, B)]
    assert race.over
    assert race.deadline() is None
    race.attempt_connected(1, 1.1)  # it had connected in the same instant
    race.attempt_failed(1, REFUSED, 1.2)
    race.handle_timeout(9.0)
    race.give_up(REFUSED)
    assert race.take_events() == []


def test_all_fail() -> None:
    race: Race[Place] = Race(lookups=2)
    unknown, other = OSError("unknown"), OSError("other")
    race.lookup_failed(1, unknown, 0.0)
    race.candidates_found(0, [A, B], 0.0)
    race.attempt_failed(1, REFUSED, 0.0)
    race.attempt_failed(2, other, 0.0)
    assert race.take_events()[-1] == AllFailed([(None, unknown), (A, REFUSED), (B, other)])


def test_nothing_is_found() -> None:
    race = race_between()
    assert race.take_events() == [AllFailed([])]


def test_the_race_is_given_up() -> None:
    race: Race[Place] = Race(lookups=3)
    race.candidates_found(0, [A, B], 0.0)
    race.handle_timeout(RESOLUTION_DELAY)
    race.take_events()
    late = TimeoutError("late")
    race.give_up(late)
    assert race.take_events() == [AbortAttempt(1), AllFailed([(None, late)])]
    race.candidates_found(1, [C], 2.0)
    race.lookup_failed(2, REFUSED, 2.0)
    assert race.take_events() == []


def test_mistakes_of_the_caller_change_nothing() -> None:
    race = race_between(A, B)
    race.take_events()
    for mistake in (
        lambda: race.candidates_found(0, [C], 0.0),
        lambda: race.lookup_failed(1, REFUSED, 0.0),
        lambda: race.attempt_failed(2, REFUSED, 0.0),
        lambda: race.attempt_connected(7, 0.0),
        lambda: race.complete(1, Outcome(), 0.0),
    ):
        with pytest.raises(LocalProtocolError):
            mistake()
    assert race.take_events() == race.take_actions() == []
    assert race.deadline() == ATTEMPT_DELAY


@pytest.mark.parametrize("options", [{"lookups": 0}, {"delay": 0.009}, {"delay": 2.1}])
def test_options_out_of_range(options: Any) -> None:
    with pytest.raises(ValueError, match=r"lookups is 0|delay is (0\.009|2\.1) s"):
        Race(**options)


# -- whatever happens ----------------------------------------------------------------------------------------


class Racing(RuleBasedStateMachine):
    """Never two winners; every attempt that is started ends, once; starts are a delay apart."""

    def __init__(self) -> None:
        super().__init__()
        self.lookups = {0, 1, 2}
        self.race: Race[Place] = Race(3)
        self.now = 0.0
        self.running: dict[int, Place] = {}
        self.given: set[Place] = set()
        self.tried: list[Place] = []
        self.ends: list[object] = []
        self.failed_since_start = True
        self.last_start = -1.0

    def drain(self) -> None:
        for event in self.race.take_events():
            assert not self.ends, "something followed the end"
            if isinstance(event, StartAttempt):
                due = self.now >= self.last_start + ATTEMPT_DELAY
                assert due or self.failed_since_start or not self.running
                self.running[event.id] = event.candidate
                self.tried.append(event.candidate)
                self.last_start, self.failed_since_start = self.now, False
            elif isinstance(event, AbortAttempt):
                del self.running[event.id]
            else:
                if isinstance(event, Won):
                    assert self.running.pop(event.id) == event.candidate
                self.ends.append(event)

    @precondition(lambda self: self.lookups)
    @rule(data=st.data(), hosts=st.lists(st.sampled_from(["a", "b", "c", "::1", "::2", "::3"]), max_size=4))
    def found(self, data: st.DataObject, hosts: list[str]) -> None:
        lookup = data.draw(st.sampled_from(sorted(self.lookups)))
        self.lookups.remove(lookup)
        if not self.race.over:
            self.given.update(places(*hosts))
        self.race.candidates_found(lookup, places(*hosts), self.now)
        self.drain()

    @precondition(lambda self: self.lookups)
    @rule()
    def not_found(self) -> None:
        self.race.lookup_failed(self.lookups.pop(), REFUSED, self.now)
        self.drain()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), connects=st.booleans())
    def attempt_ends(self, data: st.DataObject, connects: bool) -> None:
        attempt_id = data.draw(st.sampled_from(sorted(self.running)))
        if connects:
            self.race.attempt_connected(attempt_id, self.now)
        else:
            del self.running[attempt_id]
            self.failed_since_start = True
            self.race.attempt_failed(attempt_id, REFUSED, self.now)
        self.drain()

    @rule(seconds=st.floats(0.0, 0.4))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.race.handle_timeout(self.now)
        deadline = self.race.deadline()
        assert deadline is None or deadline > self.now
        self.drain()

    @rule()
    def give_up(self) -> None:
        self.race.give_up(TimeoutError("late"))
        self.drain()

    @invariant()
    def it_ends_properly(self) -> None:
        assert len(self.tried) == len(set(self.tried))
        assert len(self.ends) == self.race.over
        if self.race.over:
            assert not self.running
        elif not self.lookups:
            assert self.running, "nothing is under way, and the race is not over"
        else:
            assert self.running or self.given <= set(self.tried) or self.race.deadline() is not None

    def teardown(self) -> None:
        while not self.race.over:
            if self.lookups:
                self.not_found()
            else:
                self.running_fails()
        self.drain()
        assert not self.running
        if any(isinstance(end, AllFailed) and all(who for who, _ in end.errors) for end in self.ends):
            assert set(self.tried) == self.given

    def running_fails(self) -> None:
        attempt_id = min(self.running)
        del self.running[attempt_id]
        self.failed_since_start = True
        self.race.attempt_failed(attempt_id, REFUSED, self.now)
        self.drain()


TestRacing = Racing.TestCase
