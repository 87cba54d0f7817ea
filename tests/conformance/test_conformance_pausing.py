"""Listeners that pause: connections wait in the system, and none is lost."""

from __future__ import annotations

from typing import Any

from machines import EchoMachine, TalkingMachine
from pairs import connect
from platforms import Platform
from recording import Accepting, in_time

from helianthus.drivers.base import Listener

QUIET = 0.05
"""Seconds in which nothing may happen."""


def test_a_paused_listener_leaves_connections_to_the_system(platform: Platform) -> None:
    accepting = Accepting(EchoMachine)
    listener = platform.driver.listen(platform.address(), accepting)
    listener.pause()
    listener.pause()
    ends = [connect(platform, listener, TalkingMachine()) for _ in range(5)]
    platform.turn_until(lambda: all(end.handler.ready for end in ends))
    for end in ends:
        end.say(b"hello")
    platform.turn_until(in_time(platform.driver, QUIET))
    assert len(accepting) == 0
    listener.resume()
    listener.resume()
    platform.turn_until(lambda: all(end.handler.received == b"hello" for end in ends))
    assert len(accepting) == 5
    listener.close()


def test_pausing_takes_effect_within_accept(platform: Platform) -> None:
    """However many connections wait, no more is accepted than was asked for."""
    paused: list[Listener] = []

    def machine() -> Any:
        listener.pause()
        paused.append(listener)
        return EchoMachine()

    accepting = Accepting(machine)
    listener = platform.driver.listen(platform.address(), accepting)
    ends = [connect(platform, listener, TalkingMachine()) for _ in range(7)]
    platform.turn_until(lambda: all(end.handler.ready for end in ends) and paused)
    for expected in range(1, 8):
        platform.turn_until(lambda expected=expected: len(accepting) == expected)
        platform.turn_until(in_time(platform.driver, QUIET))
        assert len(accepting) == expected
        listener.resume()
    for end in ends:
        end.say(b"hello")
    platform.turn_until(lambda: all(end.handler.received == b"hello" for end in ends))
    listener.close()


def test_a_paused_listener_can_be_closed(platform: Platform) -> None:
    """Those who have not been accepted find the connection ended."""
    accepting = Accepting(EchoMachine)
    listener = platform.driver.listen(platform.address(), accepting)
    listener.pause()
    end = connect(platform, listener, TalkingMachine())
    platform.turn_until(lambda: end.handler.ready)
    platform.turn_until(in_time(platform.driver, QUIET))
    listener.close()
    listener.resume()
    listener.pause()
    end.say(b"anybody there?")
    platform.turn_until(lambda: end.handler.closed)
    assert len(accepting) == 0
