"""What the machines above a layer have in common in the tests: timers, actions and events."""

from __future__ import annotations

from typing import Any

from helianthus.protocols.machine import Action, Outcome


class LayerChild:
    """Does as it is told, and remembers what it hears.

    Attributes:
        when: When it wants to be told of the time, or None.
        told: The times that it was told.
        outcomes: Of its actions, with their ids.
        actions: Those it asks for next.
        events: Those it has next.
    """

    def __init__(self) -> None:
        self.when: float | None = None
        self.told: list[float] = []
        self.outcomes: list[tuple[int, object]] = []
        self.actions: list[Action] = []
        self.events: list[Any] = []

    def deadline(self) -> float | None:
        return self.when

    def handle_timeout(self, now: float) -> None:
        if self.when is not None and self.when <= now:
            self.when = None
            self.told.append(now)

    def take_events(self) -> list[Any]:
        events, self.events = self.events, []
        return events

    def take_actions(self) -> list[Action]:
        actions, self.actions = self.actions, []
        return actions

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        self.outcomes.append((action_id, outcome.value))
