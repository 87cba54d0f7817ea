"""Deadlines of machines, with and without a transport, and the actions of hosted ones."""

from __future__ import annotations

from typing import Any

from machines import ActingMachine, DeadlineMachine, Ended, Fault, Received, StuckMachine, TalkingMachine
from pairs import pair
from platforms import Platform
from recording import RecordingHandler, in_time

from helianthus.protocols.errors import LocalProtocolError
from helianthus.protocols.machine import Outcome


def test_a_deadline_is_kept(platform: Platform) -> None:
    """The machine is told the time once it is due; what it then says reaches the handler."""
    machine = DeadlineMachine(platform.driver.now() + 0.03)
    due = machine.due
    client, _ = pair(platform, machine, TalkingMachine())
    platform.turn_until(lambda: Ended() in client.handler.events)
    assert len(machine.told) == 1
    assert machine.told[0][0] == due
    assert machine.told[0][1] >= due


def test_a_deadline_that_a_command_sets(platform: Platform) -> None:
    """It is noticed when the link is woken, also where it comes before the one in force."""
    client, _ = pair(platform, DeadlineMachine(platform.driver.now() + 3600.0), TalkingMachine())
    client.machine.due = platform.driver.now() + 0.02
    client.link.wake()
    platform.turn_until(lambda: Ended() in client.handler.events)
    assert len(client.machine.told) == 1


def test_no_machine_is_told_the_time_early(platform: Platform) -> None:
    """A timer that was set for an earlier deadline is not passed on as a spurious call."""
    machine = DeadlineMachine()
    client, _ = pair(platform, machine, TalkingMachine())
    machine.due = platform.driver.now() + 0.01
    client.link.settle()
    machine.due = due = platform.driver.now() + 0.05
    platform.turn_until(lambda: Ended() in client.handler.events)
    assert [told for told, _ in machine.told] == [due]
    machine.due = platform.driver.now() + 0.01
    client.link.settle()
    machine.due = None
    platform.turn_until(in_time(platform.driver, 0.03))
    assert len(machine.told) == 1


def test_a_deadline_that_moves_with_every_message_costs_no_timers(platform: Platform) -> None:
    """A keep-alive that is put off is re-armed when its old time comes, not at every message."""
    server = DeadlineMachine(move_on_data=0.5)
    client, far = pair(platform, TalkingMachine(), server)
    set_for_server: list[float] = []
    call_at = platform.driver.call_at

    def counting(when: float, callback: Any) -> Any:
        if getattr(callback, "__self__", None) is far.link:
            set_for_server.append(when)
        return call_at(when, callback)

    platform.driver.call_at = counting  # type: ignore[method-assign]
    begun = platform.driver.now()
    for number in range(100):
        client.say(b"x")
        platform.turn_until(lambda number=number: len(server.received) > number)
    messages_took = platform.driver.now() - begun
    platform.turn_until(lambda: Ended() in far.handler.events)
    assert len(server.told) == 1
    assert server.told[0][1] >= server.told[0][0]
    assert len(set_for_server) <= 2 + (messages_took + 1.0) / 0.5


def test_a_machine_whose_deadline_does_not_move_is_broken(platform: Platform) -> None:
    """It is reported and its link ends; the driver does not spin on it."""
    client, _ = pair(platform, StuckMachine(platform.driver.now() + 0.01), TalkingMachine())
    platform.turn_until(lambda: client.handler.closed)
    (error,) = platform.take_errors()
    assert isinstance(error, LocalProtocolError)
    assert "StuckMachine" in str(error)
    assert client.handler.error is error
    assert client.machine.told == 1


def test_a_handle_timeout_that_raises_ends_the_link(platform: Platform) -> None:
    """As any other fault of a machine does."""
    machine = DeadlineMachine(platform.driver.now() + 0.01)

    def fail(now: float) -> None:
        raise Fault("late")

    machine.handle_timeout = fail  # type: ignore[method-assign]
    client, _ = pair(platform, machine, TalkingMachine())
    platform.turn_until(lambda: client.handler.closed)
    assert [str(error) for error in platform.take_errors()] == ["late"]
    assert isinstance(client.handler.error, Fault)


def test_no_deadline_after_the_end(platform: Platform) -> None:
    """A link that has ended tells its machine no time."""
    machine = DeadlineMachine()
    client, _ = pair(platform, machine, TalkingMachine())
    machine.due = platform.driver.now() + 0.01
    client.link.settle()
    client.link.abort()
    platform.turn_until(in_time(platform.driver, 0.03))
    assert machine.told == []


def test_a_hosted_machine_has_its_deadlines(platform: Platform) -> None:
    """A machine without a transport is told the time like any other."""
    machine, handler = DeadlineMachine(platform.driver.now() + 0.02), RecordingHandler()
    host = platform.driver.host(machine, handler)
    platform.turn_until(lambda: handler.events)
    assert handler.events == [Ended()]
    machine.due = platform.driver.now() + 0.01
    host.wake()
    platform.turn_until(lambda: len(handler.events) == 2)
    assert all(now >= due for due, now in machine.told)


def test_a_hosted_machine_has_its_actions_done(platform: Platform) -> None:
    """Actions go to the handler; their outcomes go back, and the events of that to the handler."""
    machine, handler = ActingMachine(), RecordingHandler()
    host = platform.driver.host(machine, handler)
    machine.ask()
    machine.ask()
    host.wake()
    platform.turn_until(lambda: handler.actions)
    assert [action.id for action in handler.actions] == [1, 2]
    for action in handler.actions:
        machine.complete(action.id, Outcome(value="done"), platform.driver.now())
    host.wake()
    host.wake()
    platform.turn_until(lambda: handler.events)
    assert handler.events == [Received(b"1"), Received(b"2")]
    assert handler.journal == ["on_actions", "on_events"]


def test_actions_that_are_done_at_once(platform: Platform) -> None:
    """A handler may complete an action from within `on_actions`; the events follow in that tick."""
    machine = ActingMachine()

    def do(_: RecordingHandler, actions: list[Any]) -> None:
        for action in actions:
            machine.complete(action.id, Outcome(value=None), platform.driver.now())

    handler = RecordingHandler(on_actions=do)
    host = platform.driver.host(machine, handler)
    machine.ask()
    host.wake()
    platform.turn_until(lambda: handler.events)
    assert handler.journal == ["on_actions", "on_events"]


def test_actions_of_a_link(platform: Platform) -> None:
    """A link's machine has its actions done as a hosted one has."""
    client, _ = pair(platform, ActingMachine(), TalkingMachine())
    client.machine.ask()
    client.link.wake()
    platform.turn_until(lambda: client.handler.actions)
    client.machine.complete(1, Outcome(error=Fault("no")), platform.driver.now())
    client.link.wake()
    platform.turn_until(lambda: client.handler.events == [Received(b"1")])


def test_a_host_that_is_closed_is_served_no_more(platform: Platform) -> None:
    """Neither deadline nor events nor actions, not even those of the present tick."""
    machine, handler = DeadlineMachine(platform.driver.now() + 0.01), RecordingHandler()
    host = platform.driver.host(machine, handler)
    machine.events.append(Received(b"unheard"))
    host.close()
    host.wake()
    platform.turn_until(in_time(platform.driver, 0.03))
    assert handler.journal == []
    assert machine.told == []


def test_a_hosted_machine_whose_deadline_does_not_move(platform: Platform) -> None:
    """It is reported and let go, not spun on."""
    machine = StuckMachine(platform.driver.now() + 0.01)
    platform.driver.host(machine, RecordingHandler())
    platform.turn_until(lambda: platform.errors)
    platform.turn_until(in_time(platform.driver, 0.02))
    (error,) = platform.take_errors()
    assert isinstance(error, LocalProtocolError)
    assert machine.told == 1


def test_a_hosts_handler_that_raises(platform: Platform) -> None:
    """The fault is reported; the machine, which is whole, goes on, and so do the others."""
    machine, sound = ActingMachine(), ActingMachine()

    def fail(handler: RecordingHandler, _: Any) -> None:
        handler.reactions.clear()
        raise Fault("deaf")

    handler, other = RecordingHandler(on_events=fail), RecordingHandler()
    hosts = [platform.driver.host(machine, handler), platform.driver.host(sound, other)]
    for asking, host in zip((machine, sound), hosts, strict=True):
        asking.events.append(Received(b"1"))
        host.wake()
    platform.turn_until(lambda: other.events and platform.errors)
    assert [str(error) for error in platform.take_errors()] == ["deaf"]
    machine.events.append(Received(b"2"))
    hosts[0].wake()
    platform.turn_until(lambda: Received(b"2") in handler.events)
