"""A handler that notes what it is told, and holds the driver to the rules of `LinkHandler`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from machines import Received

from helianthus.drivers.base import Driver
from helianthus.drivers.pump import Link
from helianthus.protocols.machine import Action


class RecordingHandler:
    """Notes every call; reactions can be given for each kind.

    The rules are asserted in every call: no call nests in another one of the same handler,
    `on_ready` is the first, `on_closed` is the last and comes once. An assertion that fails reaches
    `driver.on_error`, which the platform's fixture checks.

    Attributes:
        journal: Names of the calls in order; may be shared with a machine.
        events: All events, in order.
        actions: All actions, in order.
        link: The link, from `on_ready` on.
        closed: Whether `on_closed` has come.
        error: What `on_closed` brought.
        writable: How often `on_writable` came.
        reactions: Called with the handler and the call's argument, by the name of the call.
    """

    def __init__(self, journal: list[str] | None = None, **reactions: Callable[..., Any]) -> None:
        self.journal: list[str] = [] if journal is None else journal
        self.events: list[Any] = []
        self.actions: list[Action] = []
        self.link: Link[Any] | None = None
        self.closed = False
        self.error: Exception | None = None
        self.writable = 0
        self.reactions = reactions
        self._inside = ""

    @property
    def ready(self) -> bool:
        return self.link is not None

    @property
    def received(self) -> bytes:
        """What the `Received` events brought."""
        return b"".join(event.data for event in self.events if isinstance(event, Received))

    def on_ready(self, link: Link[Any]) -> None:
        assert self.link is None, "on_ready came twice"
        self.link = link
        self._note("on_ready", link)

    def on_events(self, events: list[Any]) -> None:
        assert events, "on_events came with nothing"
        self.events += events
        self._note("on_events", events)

    def on_actions(self, actions: list[Action]) -> None:
        assert actions, "on_actions came with nothing"
        self.actions += actions
        self._note("on_actions", actions)

    def on_writable(self) -> None:
        self.writable += 1
        self._note("on_writable", None)

    def on_closed(self, error: Exception | None) -> None:
        self.error = error
        self._note("on_closed", error)
        self.closed = True

    def _note(self, call: str, argument: Any) -> None:
        assert not self.closed, f"{call} came after on_closed"
        assert not self._inside, f"{call} came while {self._inside} was running"
        self.journal.append(call)
        reaction = self.reactions.get(call)
        if reaction is not None:
            self._inside = call
            try:
                reaction(self, argument)
            finally:
                self._inside = ""


class Accepting:
    """The `accept` of a listener: makes machine and handler anew for each connection.

    Attributes:
        machines, handlers, peers: Of each connection, in the order in which they came.
    """

    def __init__(
        self,
        machine: Callable[[], Any],
        handler: Callable[[], RecordingHandler] = RecordingHandler,
    ) -> None:
        self._machine = machine
        self._handler = handler
        self.machines: list[Any] = []
        self.handlers: list[RecordingHandler] = []
        self.peers: list[str] = []

    def __call__(self, peer: str) -> tuple[Any, RecordingHandler]:
        machine, handler = self._machine(), self._handler()
        self.machines.append(machine)
        self.handlers.append(handler)
        self.peers.append(peer)
        return machine, handler

    def __len__(self) -> int:
        return len(self.machines)


def in_time(driver: Driver, seconds: float) -> Callable[[], bool]:
    """A predicate that becomes true when the driver's own clock has advanced by `seconds`."""
    rung: list[None] = []
    driver.call_at(driver.now() + seconds, lambda: rung.append(None))
    return lambda: bool(rung)
