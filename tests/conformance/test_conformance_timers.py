"""Timers of the driver itself."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from machines import DeadlineMachine, Fault, TalkingMachine
from pairs import pair
from platforms import Platform
from recording import RecordingHandler, in_time


def test_timers_come_in_the_order_of_their_times(platform: Platform) -> None:
    """Whatever the order in which they were set; those of the same time in that order."""
    driver = platform.driver
    rung: list[int] = []
    start = driver.now() + 0.01
    numbers = list(range(50))
    random.Random(7).shuffle(numbers)
    for number in numbers:
        driver.call_at(start + number // 5 * 0.001, lambda number=number: rung.append(number))
    platform.turn_until(lambda: len(rung) == 50)
    assert [number // 5 for number in rung] == [group for group in range(10) for _ in range(5)]
    for group in range(10):
        assert rung[group * 5 : group * 5 + 5] == [number for number in numbers if number // 5 == group]


def test_a_timer_is_never_early(platform: Platform) -> None:
    """Not even by the fraction of a millisecond that the platform cannot wait for."""
    driver = platform.driver
    early: list[float] = []
    rung: list[float] = []

    def ring(when: float) -> None:
        rung.append(when)
        if driver.now() < when:
            early.append(when - driver.now())

    start = driver.now()
    for number in range(40):
        when = start + number * 0.0007
        driver.call_at(when, lambda when=when: ring(when))
    platform.turn_until(lambda: len(rung) == 40)
    assert early == []


def test_a_timer_of_the_past_rings_at_once(platform: Platform) -> None:
    """It does not wait for anything else to happen, and is not called before `call_at` returns."""
    driver = platform.driver
    rung: list[str] = []
    driver.call_at(driver.now() - 5.0, lambda: rung.append("past"))
    driver.call_at(float("-inf"), lambda: rung.append("long past"))
    assert rung == []
    platform.turn_until(lambda: len(rung) == 2)
    assert rung == ["long past", "past"]


def test_a_cancelled_timer_does_not_ring(platform: Platform) -> None:
    """Cancelling may be repeated, also afterwards, and also from another timer's callback."""
    driver = platform.driver
    rung: list[str] = []
    start = driver.now()
    cancelled = driver.call_at(start + 0.005, lambda: rung.append("cancelled"))
    victim = driver.call_at(start + 0.010, lambda: rung.append("victim"))
    driver.call_at(start + 0.010 - 1e-9, lambda: (rung.append("killer"), victim.cancel()))
    last = driver.call_at(start + 0.015, lambda: rung.append("last"))
    cancelled.cancel()
    cancelled.cancel()
    platform.turn_until(lambda: "last" in rung)
    last.cancel()
    assert rung == ["killer", "last"]


def test_a_cancelled_timer_does_not_delay_an_earlier_one(platform: Platform) -> None:
    """Nor does setting one earlier than all others."""
    driver = platform.driver
    rung: list[str] = []
    far = driver.call_at(driver.now() + 3600.0, lambda: rung.append("far"))
    near = driver.call_at(driver.now() + 0.01, lambda: rung.append("near"))
    platform.turn_until(lambda: rung)
    far.cancel()
    near.cancel()
    assert rung == ["near"]


def test_timers_set_from_timers(platform: Platform) -> None:
    """Each sets the next; a timer without delay does not keep others from ringing."""
    driver = platform.driver
    rung: list[int] = []
    busy: list[int] = []

    def chain(number: int) -> None:
        rung.append(number)
        if number < 20:
            driver.call_at(driver.now() + 0.0005, lambda: chain(number + 1))

    def spin() -> None:
        busy.append(1)
        if len(rung) < 20 and len(busy) < 1_000_000:
            driver.call_at(driver.now() - 1.0, spin)

    chain(1)
    if platform.sockets:  # virtual time stands still for as long as somebody is busy
        spin()
    platform.turn_until(lambda: len(rung) == 20)
    assert rung == list(range(1, 21))
    platform.turn_until(in_time(driver, 0.002))


def test_timers_set_from_handlers(platform: Platform) -> None:
    """In every call of a handler timers can be set and cancelled; none rings within that call."""
    driver = platform.driver
    rung: list[str] = []
    doomed = driver.call_at(driver.now() + 3600.0, lambda: rung.append("cancelled"))

    def set_timers(handler: RecordingHandler, _: Any) -> None:
        call = handler.journal[-1]
        before = len(rung)
        driver.call_at(driver.now() - 1.0, lambda: rung.append(f"{call}: past"))
        driver.call_at(driver.now(), lambda: rung.append(f"{call}: now"))
        driver.call_at(driver.now() + 0.002, lambda: rung.append(f"{call}: soon"))
        driver.call_at(driver.now(), lambda: rung.append("cancelled")).cancel()
        doomed.cancel()
        assert len(rung) == before

    calls = ("on_ready", "on_events", "on_writable", "on_closed")
    handler = RecordingHandler(**dict.fromkeys(calls, set_timers))
    client, server = pair(platform, TalkingMachine(), TalkingMachine(), client_handler=handler)
    client.say(bytes(platform.bulk))
    server.say(b"x")
    platform.turn_until(lambda: client.machine.received and client.handler.writable)
    client.link.abort()
    platform.turn_until(lambda: "on_closed: soon" in rung)
    assert "cancelled" not in rung
    for call in calls:
        times = handler.journal.count(call)
        assert times >= 1
        for when in ("past", "now", "soon"):
            assert rung.count(f"{call}: {when}") == times
        assert rung.index(f"{call}: past") < rung.index(f"{call}: soon")


def test_deadlines_and_timers_of_handlers_ring_together(platform: Platform) -> None:
    """A machine's deadline moved by a handler, and a timer set there, both keep their time."""
    driver = platform.driver
    rung: list[float] = []

    def set_both(handler: RecordingHandler, _: Any) -> None:
        if machine.due is None and not machine.told:
            due = driver.now() + 0.01
            machine.due = due
            handler.link.wake()
            driver.call_at(due, lambda: rung.append(driver.now() - due))

    machine = DeadlineMachine()
    _, server = pair(
        platform, machine, TalkingMachine(b"x"), client_handler=RecordingHandler(on_events=set_both)
    )
    platform.turn_until(lambda: rung and machine.told)
    assert rung[0] >= 0.0
    ((due, told),) = machine.told
    assert due is not None
    assert told >= due
    server.link.abort()


def test_a_timer_that_raises_does_not_stop_the_others(platform: Platform) -> None:
    """The fault is reported."""
    driver = platform.driver
    rung: list[str] = []

    def fail() -> None:
        raise Fault("ring")

    now = driver.now()
    driver.call_at(now + 0.001, fail)
    driver.call_at(now + 0.001, lambda: rung.append("next"))
    platform.turn_until(lambda: rung)
    assert [str(error) for error in platform.take_errors()] == ["ring"]


def test_many_timers_are_cheap_to_cancel(platform: Platform) -> None:
    """Keep-alives that are set and cancelled by the thousand do not pile up."""
    driver = platform.driver
    for _ in range(50_000):
        driver.call_at(driver.now() + 1000.0, lambda: None).cancel()
    assert len(driver._timers._heap) < 1000
    platform.turn_until(in_time(driver, 0.001))


def test_the_clock_goes_on_while_nobody_turns_the_driver(socket_platform: Platform) -> None:
    """A timeout counted from `now()` begins now, not when the driver was last turned."""
    socket_platform.turn(0.0)
    before = socket_platform.driver.now()
    time.sleep(0.02)
    assert socket_platform.driver.now() - before > 0.015  # uvloop counts whole milliseconds


def test_waiting_costs_no_processor_time(socket_platform: Platform) -> None:
    """While a timer is far away and nothing else happens, the driver sleeps."""
    driver = socket_platform.driver
    rung = in_time(driver, 0.3004)
    before = time.process_time()
    driver.poll(None) if type(socket_platform).__name__ in (
        "Epoll",
        "Kqueue",
    ) else socket_platform.turn_until(rung)
    socket_platform.turn_until(rung)
    assert time.process_time() - before < 0.2


def test_poll_ends_at_its_timeout(platform: Platform) -> None:
    """With nothing to do, a turn takes as long as it was given, and not much longer."""
    driver = platform.driver
    before = driver.now()
    platform.turn(0.0)
    platform.turn_until(in_time(driver, 0.02))
    assert driver.now() - before >= 0.02 - 1e-6  # milliseconds, on uvloop: rounded


@pytest.mark.parametrize("when", [float("nan"), "5", None])
def test_what_is_no_time_is_refused_and_harms_nobody(platform: Platform, when: Any) -> None:
    """A timer at NaN is before and after every other one, and no platform can wait for it."""
    driver = platform.driver
    soon = in_time(driver, 0.02)
    with pytest.raises(ValueError, match="when must be a time in seconds, not"):
        driver.call_at(when, lambda: None)
    platform.turn_until(soon)


@pytest.mark.parametrize("when", [float("inf"), 1e300])
def test_a_timer_may_be_due_never(platform: Platform, when: float) -> None:
    """What is further away than the platform can wait for is in nobody's way."""
    driver = platform.driver
    rung: list[int] = []
    never = driver.call_at(when, lambda: rung.append(1))
    rest = in_time(driver, 0.02)
    driver.post(lambda: None)
    platform.turn_until(rest)
    never.cancel()
    assert not rung


@pytest.mark.parametrize("timeout", [float("nan"), -1.0, "5"])
def test_a_turn_lasts_some_seconds_or_is_refused(platform: Platform, timeout: Any) -> None:
    """As everywhere that a timeout is taken."""
    with pytest.raises(ValueError, match="timeout must be a number of seconds, 0 or more, not"):
        platform.driver.poll(timeout)
    platform.turn_until(in_time(platform.driver, 0.001))
