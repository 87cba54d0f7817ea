"""The order of calls: what the machine is asked, and what the handler is told, when."""

from __future__ import annotations

import contextvars
from typing import Any

from machines import Action, EchoMachine, JournalMachine, PlainMachine, Received, TalkingMachine
from pairs import connect, pair
from platforms import Platform
from recording import Accepting, RecordingHandler, in_time

from helianthus.protocols.machine import Closing


def since(journal: list[str], start: int, *names: str) -> list[str]:
    """The calls of those names since a point in the journal."""
    return [entry for entry in journal[start:] if entry in names]


def test_a_settled_machine_is_drained_in_order(platform: Platform) -> None:
    """Actions come first, then data, then the deadline, then events."""
    journal: list[str] = []
    client, _ = pair(
        platform, JournalMachine(journal), TalkingMachine(), client_handler=RecordingHandler(journal)
    )
    start = len(journal)
    client.machine.say(b"x")
    client.machine.events.append(Received(b""))
    client.machine.actions.append(Action(1))
    client.link.wake()
    platform.turn_until(lambda: client.handler.events)
    drained = journal[start:]
    first = [drained.index(entry) for entry in ("take_actions", "on_actions", "take_data", "take_events")]
    assert first == sorted(first)
    assert "deadline" in drained[first[2] : first[3]]
    assert drained.index("on_events") > first[3]


def test_events_of_received_data_come_before_the_flush(platform: Platform) -> None:
    """The handler meets its events at once; what it then commands shares the tick's flush."""
    journal: list[str] = []
    server = JournalMachine(journal)

    def answer(handler: RecordingHandler, events: list[Any]) -> None:
        server.say(b"answer")
        handler.link.wake()

    client, _ = pair(
        platform,
        TalkingMachine(),
        server,
        server_handler=RecordingHandler(journal, on_events=answer),
    )
    start = len(journal)
    client.say(b"?")
    platform.turn_until(lambda: client.machine.received == b"answer")
    heard = since(journal, start, "receive_data", "on_events", "take_data")
    assert heard[:3] == ["receive_data", "on_events", "take_data"]


def test_the_life_of_a_link(platform: Platform) -> None:
    """`on_ready` is the first call, `on_closed` the last and the only one of its kind."""
    journal: list[str] = []
    client, server = pair(
        platform, JournalMachine(journal), EchoMachine(), client_handler=RecordingHandler(journal)
    )
    client.say(b"x")
    platform.turn_until(lambda: client.handler.received == b"x")
    client.machine.closing = Closing.FULL
    client.link.wake()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    assert journal[0] == "on_ready"
    assert journal[-1] == "on_closed"
    assert journal.count("on_ready") == journal.count("on_closed") == journal.count("connection_lost") == 1
    assert journal.index("connection_lost") < journal.index("on_closed")
    assert client.link.closed
    assert client.handler.error is None


def test_nothing_follows_the_end(platform: Platform) -> None:
    """A link that has ended ignores whoever still commands it."""
    journal: list[str] = []
    client, server = pair(
        platform, JournalMachine(journal), EchoMachine(), client_handler=RecordingHandler(journal)
    )
    client.link.abort()
    platform.turn_until(lambda: client.handler.closed and server.handler.closed)
    length = len(journal)
    client.say(b"too late")
    client.link.abort()
    client.link.close()
    fired: list[int] = []
    platform.driver.post(lambda: fired.append(1))
    platform.turn_until(lambda: fired)
    assert journal[length:] == []


def test_a_last_event_comes_before_on_closed(platform: Platform) -> None:
    """What the machine says to the loss of its connection is still handed over."""

    class Mourning(PlainMachine):
        def connection_lost(self, error: Exception | None, now: float) -> None:
            self.events.append(Received(b"last words"))

    client, _ = pair(platform, Mourning(), TalkingMachine())
    client.link.abort()
    platform.turn_until(lambda: client.handler.closed)
    assert client.handler.journal[-2:] == ["on_events", "on_closed"]
    assert client.handler.received == b"last words"


def test_a_handler_that_aborts_is_not_called_while_it_is_running(platform: Platform) -> None:
    """`abort()` from within a handler ends the link at once; `on_closed` comes afterwards."""
    seen: list[bool] = []

    def abort(handler: RecordingHandler, _: Any) -> None:
        handler.link.abort()
        seen.append(handler.link.closed)
        seen.append(handler.closed)

    for call in ("on_ready", "on_events"):
        seen.clear()
        client, server = pair(
            platform, TalkingMachine(b"x"), TalkingMachine(), server_handler=RecordingHandler(**{call: abort})
        )
        platform.turn_until(lambda end=server: end.handler.closed)
        assert seen == [True, False], call
        assert server.handler.error is None
        platform.turn_until(lambda end=client: end.machine.ended or end.handler.closed)
        client.link.abort()
        platform.turn_until(lambda end=client: end.handler.closed)


def test_a_handler_may_abort_another_link(platform: Platform) -> None:
    """The other handler hears of it in its own turn, not within the first one's call."""
    bystander, _ = pair(platform, TalkingMachine(), TalkingMachine())
    nested: list[bool] = []

    def abort(handler: RecordingHandler, events: list[Any]) -> None:
        bystander.link.abort(Fault("enough"))
        nested.append(bystander.handler.closed)

    client, _ = pair(
        platform, TalkingMachine(), TalkingMachine(), server_handler=RecordingHandler(on_events=abort)
    )
    client.say(b"x")
    platform.turn_until(lambda: bystander.handler.closed)
    assert nested == [False]
    assert isinstance(bystander.handler.error, Fault)


class Fault(Exception):
    """Why a link was aborted."""


def test_nobodys_context_reaches_a_handler(platform: Platform) -> None:
    """A link outlives the task that asked for it, whose context variables are no concern of others."""
    mine: contextvars.ContextVar[str] = contextvars.ContextVar("mine", default="")
    seen: set[tuple[str, str]] = set()
    driver = platform.driver

    def note(call: str) -> None:
        seen.add((call, mine.get()))

    def noting() -> RecordingHandler:
        calls = ("on_ready", "on_events", "on_closed")
        return RecordingHandler(**{call: lambda _handler, _what, call=call: note(call) for call in calls})

    accepting = Accepting(EchoMachine, noting)

    def begin() -> Any:
        mine.set("somebody's")
        listener = driver.listen(platform.address(), accepting)
        end = connect(platform, listener, TalkingMachine(b"x"), noting())
        driver.call_at(driver.now() + 0.001, lambda: note("call_at"))
        driver.post(lambda: note("post"))
        driver.in_thread(lambda: None, lambda _result, _error: note("in_thread"))
        return listener, end

    listener, end = contextvars.copy_context().run(begin)
    platform.turn_until(lambda: end.machine.received == b"x")

    def go_on() -> None:
        mine.set("somebody else's")
        end.machine.say(b"y")
        end.link.wake()

    contextvars.copy_context().run(go_on)
    platform.turn_until(lambda: end.machine.received == b"xy")
    contextvars.copy_context().run(lambda: (mine.set("a third one's"), end.link.abort()))
    platform.turn_until(lambda: end.handler.closed and accepting.handlers[0].closed)
    platform.turn_until(in_time(driver, 0.01))
    platform.turn_until(lambda: len(seen) >= 6)
    listener.close()
    calls = ("call_at", "in_thread", "on_closed", "on_events", "on_ready", "post")
    assert sorted(seen) == [(call, "") for call in calls]
