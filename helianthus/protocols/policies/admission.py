"""How many calls may run at once, and how many may wait for that.

A call belongs to up to three scopes: the server, its method and its client. It runs while none of
them is full. Otherwise it waits, if there is room in the queue of each scope that is full, or is
refused. Calls that wait are admitted in the order of their coming, but one whose own method or
client is at its limit does not hold up those behind it.

A call whose deadline passes while it waits is never run: its caller has given it up.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator, Mapping
from typing import TypeAlias

import attrs
from attrs.validators import ge

from ..errors import LocalProtocolError
from ..machine import Action, Outcome
from ..rpc.deadlines import Deadlines


@attrs.frozen
class ConcurrencyLimit:
    """Bounds of one scope.

    Attributes:
        max_concurrent: Calls that run at once.
        max_queued: Calls that wait; 0 to refuse at once.
    """

    max_concurrent: int = attrs.field(validator=ge(1))
    max_queued: int = attrs.field(default=0, validator=ge(0))


@attrs.frozen
class AdmissionLimits:
    """Bounds of all scopes; None where there is none.

    Attributes:
        server: Of all calls together.
        method: Of each method, unless `methods` names it.
        methods: Of some methods, by full name.
        client: Of the calls of each client.
        retry_after: Seconds after which a refused caller may try again; it is told.
    """

    server: ConcurrencyLimit | None = None
    method: ConcurrencyLimit | None = None
    methods: Mapping[str, ConcurrencyLimit] = attrs.field(factory=dict)
    client: ConcurrencyLimit | None = None
    retry_after: float = attrs.field(default=1.0, validator=ge(0))


class Verdict(enum.Enum):
    """What becomes of a call now."""

    ADMITTED = "admitted"
    QUEUED = "queued"


@attrs.define
class Refused:
    """A call must not wait either.

    Attributes:
        reason: Names the scope, the limit and its value.
        retry_after: Seconds.
    """

    reason: str
    retry_after: float


@attrs.define
class Admitted:
    """A call that waited is to run now."""

    ticket: int


@attrs.define
class Shed:
    """The deadline of a call that waited has passed: it is not to run."""

    ticket: int


AdmissionEvent: TypeAlias = Admitted | Shed


class _Scope:
    """What runs and waits of one server, method or client."""

    __slots__ = ("key", "limit", "name", "queued", "running")

    def __init__(self, key: tuple[str, Hashable], name: str, limit: ConcurrencyLimit) -> None:
        self.key = key
        self.name = name
        self.limit = limit
        self.running = 0
        self.queued = 0

    @property
    def full(self) -> bool:
        return self.running >= self.limit.max_concurrent


class Admission:
    """A machine that hands out permits. A ticket is a number that names a call until it has ended.

    Args:
        limits: Bounds.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self.limits = limits
        self._scopes: dict[tuple[str, Hashable], _Scope] = {}  # those in which something runs or waits
        self._running: dict[int, list[_Scope]] = {}
        self._queue: dict[int, list[_Scope]] = {}
        self._deadlines = Deadlines()  # of those that wait
        self._events: list[AdmissionEvent] = []

    @property
    def running(self) -> int:
        """Calls that hold a permit."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Calls that wait for one."""
        return len(self._queue)

    # -- commands -------------------------------------------------------------------------------------

    def request(
        self, ticket: int, method: str, client: Hashable, deadline: float | None, now: float
    ) -> Verdict | Refused:
        """Ask for a permit.

        Args:
            ticket: Names the call from now on.
            method: Its full name.
            client: Whoever calls.
            deadline: Monotonic seconds after which it must not begin, or None.
            now: Monotonic seconds.

        Raises:
            LocalProtocolError: The ticket is in use.
        """
        if ticket in self._running or ticket in self._queue:
            raise LocalProtocolError(f"ticket {ticket} names another call already")
        scopes = list(self._scopes_of(method, client))
        full = [scope for scope in scopes if scope.full]
        for scope in full:
            if scope.queued >= scope.limit.max_queued:
                self._forget_idle(scopes)
                return self._refusal(scope)
        if not full:
            self._admit(ticket, scopes)
            return Verdict.ADMITTED
        for scope in scopes:
            scope.queued += 1
        self._queue[ticket] = scopes
        if deadline is not None:
            self._deadlines.add(ticket, deadline)
        return Verdict.QUEUED

    def release(self, ticket: int, now: float) -> None:
        """A call that was admitted has ended; `Admitted` may follow for others.

        Raises:
            LocalProtocolError: It holds no permit.
        """
        scopes = self._running.pop(ticket, None)
        if scopes is None:
            raise LocalProtocolError(f"ticket {ticket} holds no permit")
        for scope in scopes:
            scope.running -= 1
        self._admit_waiting(now)
        self._forget_idle(scopes)

    def withdraw(self, ticket: int) -> None:
        """A call that waits is given up; one that does not wait is left alone."""
        scopes = self._queue.pop(ticket, None)
        if scopes is not None:
            self._deadlines.discard(ticket)
            self._leave_queue(scopes)

    # -- Machine ----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When the next call that waits has waited too long."""
        return self._deadlines.next()

    def handle_timeout(self, now: float) -> None:
        """Shed what has waited too long."""
        for ticket in self._deadlines.pop_due(now):
            self._leave_queue(self._queue.pop(ticket))
            self._events.append(Shed(ticket))

    def take_events(self) -> list[AdmissionEvent]:
        """What became of calls that waited."""
        events, self._events = self._events, []
        return events

    def take_actions(self) -> list[Action]:
        """There are none."""
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """There are no actions to complete."""
        raise LocalProtocolError(f"there is no action {action_id}")

    # -- inside -------------------------------------------------------------------------------------------

    def _scopes_of(self, method: str, client: Hashable) -> Iterator[_Scope]:
        limits = self.limits
        if limits.server is not None:
            yield self._scope("server", "", "the server", limits.server)
        of_method = limits.methods.get(method, limits.method)
        if of_method is not None:
            yield self._scope("method", method, f"the method {method}", of_method)
        if limits.client is not None:
            yield self._scope("client", client, "the client", limits.client)

    def _scope(self, kind: str, key: Hashable, name: str, limit: ConcurrencyLimit) -> _Scope:
        scope = self._scopes.get((kind, key))
        if scope is None:
            scope = self._scopes[kind, key] = _Scope((kind, key), name, limit)
        return scope

    def _admit(self, ticket: int, scopes: list[_Scope]) -> None:
        for scope in scopes:
            scope.running += 1
        self._running[ticket] = scopes

    def _admit_waiting(self, now: float) -> None:
        """Admit, in order, whoever is held up by no scope any more."""
        self.handle_timeout(now)
        for ticket, scopes in list(self._queue.items()):
            if not any(scope.full for scope in scopes):
                del self._queue[ticket]
                self._deadlines.discard(ticket)
                self._admit(ticket, scopes)
                self._leave_queue(scopes)
                self._events.append(Admitted(ticket))
            elif scopes[0].full and scopes[0].key[0] == "server":
                return  # nobody else can run either

    def _leave_queue(self, scopes: list[_Scope]) -> None:
        for scope in scopes:
            scope.queued -= 1
        self._forget_idle(scopes)

    def _forget_idle(self, scopes: list[_Scope]) -> None:
        """Keep nothing of clients and methods of which there are no calls."""
        for scope in scopes:
            if not scope.running and not scope.queued:
                self._scopes.pop(scope.key, None)

    def _refusal(self, scope: _Scope) -> Refused:
        limit = scope.limit
        waiting = f" and as many as max_queued ({limit.max_queued}) wait" if limit.max_queued else ""
        return Refused(
            f"{scope.name} runs max_concurrent ({limit.max_concurrent}) calls{waiting}; "
            f"try again in {self.limits.retry_after:g} s",
            self.limits.retry_after,
        )
