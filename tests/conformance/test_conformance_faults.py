"""Exceptions that machines and handlers let out end their own link and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from machines import ActingMachine, BrokenMachine, EchoMachine, Fault, TalkingMachine
from pairs import End, pair
from platforms import Platform
from recording import RecordingHandler

from helianthus.protocols.machine import Closing

MACHINE_METHODS = ["receive_data", "take_data", "take_events", "take_actions", "deadline"]
HANDLER_CALLS = ["on_ready", "on_events", "on_closed"]


@pytest.fixture
def bystander(platform: Platform) -> End:
    """The client of another connection of the same driver."""
    client, _ = pair(platform, TalkingMachine(), EchoMachine())
    return client


def is_served(platform: Platform, end: End) -> bool:
    """Whether an echo still answers."""
    before = len(end.machine.received)
    end.say(b"still there?")
    platform.turn_until(lambda: len(end.machine.received) == before + 12)
    return not end.handler.closed


@pytest.mark.parametrize("method", MACHINE_METHODS)
def test_a_machine_that_raises(platform: Platform, bystander: End, method: str) -> None:
    """Whichever of its methods it is: reported, the link ends with that error, others go on."""
    client, server = pair(platform, EchoMachine(), BrokenMachine(method))
    server.link.wake()
    client.machine.receive_data(b"x", 0.0)
    client.link.wake()
    platform.turn_until(lambda: server.handler.closed)
    errors = platform.take_errors()
    assert {str(error) for error in errors} == {method}
    assert server.handler.error in errors
    platform.turn_until(lambda: client.handler.closed)
    assert is_served(platform, bystander)


@pytest.mark.parametrize("method", ["receive_eof", "connection_lost"])
def test_a_machine_that_raises_at_the_end(platform: Platform, bystander: End, method: str) -> None:
    """The handler hears of the end all the same."""
    machine = BrokenMachine(method)
    client, server = pair(platform, EchoMachine(), machine)
    machine._break()
    if method == "receive_eof":
        client.machine.closing = Closing.FULL
        client.link.wake()
    else:
        server.link.abort()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert [str(error) for error in platform.take_errors()] == [method]
    assert is_served(platform, bystander)


@pytest.mark.parametrize("call", HANDLER_CALLS)
def test_a_handler_that_raises(platform: Platform, bystander: End, call: str) -> None:
    """The fault is its link's; it is not called again but for `on_closed`."""

    def fail(handler: RecordingHandler, _: Any) -> None:
        raise Fault(call)

    client, server = pair(
        platform,
        TalkingMachine(b"x"),
        TalkingMachine(),
        server_handler=RecordingHandler(**{call: fail}),
    )
    if call == "on_closed":
        server.link.abort()
    platform.turn_until(lambda: server.handler.journal[-1] == "on_closed")
    assert [str(error) for error in platform.take_errors()] == [call]
    assert server.handler.journal.count("on_closed") == 1
    if call != "on_closed":
        assert isinstance(server.handler.error, Fault)
    platform.turn_until(lambda: client.machine.ended or client.handler.closed)
    client.link.abort()
    platform.turn_until(lambda: client.handler.closed)
    assert is_served(platform, bystander)


def test_on_writable_that_raises(platform: Platform, bystander: End) -> None:
    """As any other call of the handler."""

    def fail(handler: RecordingHandler, _: Any) -> None:
        raise Fault("on_writable")

    client, server = pair(
        platform, TalkingMachine(), TalkingMachine(), client_handler=RecordingHandler(on_writable=fail)
    )
    server.machine.wants_read = False
    server.link.wake()
    client.say(bytes(16 * 1024 * 1024))
    platform.turn_until(lambda: client.link.unsent > 0)
    server.machine.wants_read = True
    server.link.wake()
    platform.turn_until(lambda: client.handler.closed)
    assert [str(error) for error in platform.take_errors()] == ["on_writable"]
    platform.turn_until(lambda: server.machine.ended or server.handler.closed)
    server.link.abort()
    assert is_served(platform, bystander)


def test_on_actions_that_raises(platform: Platform, bystander: End) -> None:
    """As any other call of the handler."""

    def fail(handler: RecordingHandler, _: Any) -> None:
        raise Fault("on_actions")

    client, server = pair(
        platform, ActingMachine(), EchoMachine(), client_handler=RecordingHandler(on_actions=fail)
    )
    client.machine.ask()
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert [str(error) for error in platform.take_errors()] == ["on_actions"]
    assert is_served(platform, bystander)


def test_a_handler_that_aborts_and_then_raises(platform: Platform, bystander: End) -> None:
    """It is reported, and `on_closed` still comes once."""

    def fail(handler: RecordingHandler, _: Any) -> None:
        handler.link.abort()
        raise Fault("afterwards")

    client, server = pair(
        platform, TalkingMachine(b"x"), TalkingMachine(), server_handler=RecordingHandler(on_events=fail)
    )
    platform.turn_until(lambda: server.handler.closed)
    assert [str(error) for error in platform.take_errors()] == ["afterwards"]
    assert server.handler.journal.count("on_closed") == 1
    platform.turn_until(lambda: client.machine.ended or client.handler.closed)
    client.link.abort()
    assert is_served(platform, bystander)
