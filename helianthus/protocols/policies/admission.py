"""How many calls may run at once, and how many may wait for that.

A call belongs to up to three scopes: the server, its method and its client. It runs while none of
them is full. Otherwise it waits, if there is room in the queue of each scope that is full, or is
refused. Calls that wait are admitted in the order of their coming, but one whose own method or
client is at its limit does not hold up those behind it.

A call whose deadline passes while it waits is never run: its caller has given it up.

A call that waits is parked at one full scope, and looked at when that one has a permit back. It is
then admitted, or parked at another scope that is full. Where the server itself is full, scopes with
room are kept open instead, and looked through when the server has a permit back. So a release costs
the same however many calls wait for something else.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Hashable, Mapping
from typing import Any, TypeAlias

import attrs
from attrs.validators import ge

from ..errors import LocalProtocolError
from ..machine import Action, Outcome
from .deadline_heap import DeadlineHeap

_COMPACT_ABOVE = 64  # entries of calls that wait no more; below it a rebuild costs more than it frees


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

    __slots__ = ("home", "key", "kind", "limit", "max_concurrent", "parked", "queued", "running", "stale")

    def __init__(
        self, kind: str, key: Hashable, limit: ConcurrencyLimit, home: dict[Any, _Scope] | None
    ) -> None:
        self.kind = kind
        self.key = key
        self.limit = limit
        self.max_concurrent = limit.max_concurrent
        self.home = home  # the table that knows it, while something runs or waits
        self.running = 0
        self.queued = 0
        self.parked: list[tuple[int, int]] = []  # a heap of those to look at when a permit comes back
        self.stale = 0  # entries of that heap whose call waits no more

    def __str__(self) -> str:
        return f"the method {self.key}" if self.kind == "method" else f"the {self.kind}"


@attrs.define
class _Waiting:
    """A call in the queue.

    Attributes:
        order: Of its coming.
        scopes: All of its scopes.
        parked: The one that it was found to be held up by.
    """

    order: int
    scopes: list[_Scope]
    parked: _Scope


class Admission:
    """A machine that hands out permits. A ticket is a number that names a call until it has ended.

    Args:
        limits: Bounds.
    """

    def __init__(self, limits: AdmissionLimits) -> None:
        self.limits = limits
        self._server = None if limits.server is None else _Scope("server", None, limits.server, None)
        self._methods: dict[Any, _Scope] = {}  # those of which something runs or waits
        self._clients: dict[Any, _Scope] = {}  # the same
        self._running: dict[int, list[_Scope]] = {}
        self._queue: dict[int, _Waiting] = {}
        self._last_order = 0
        self._open: dict[_Scope, None] = {}  # they have room, and calls parked; the server has no room
        self._deadlines = DeadlineHeap()  # of those that wait
        self._events: list[AdmissionEvent] = []

    @property
    def running(self) -> int:
        """Calls that hold a permit."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Calls that wait for one."""
        return len(self._queue)

    @property
    def scopes(self) -> int:
        """Methods and clients of which something is kept: those of calls that run or wait."""
        return len(self._methods) + len(self._clients)

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
        if self._queue:
            self.handle_timeout(now)  # what has waited too long takes nobody's place
        scopes = self._scopes_of(method, client)
        full = None
        for scope in scopes:
            if scope.running >= scope.max_concurrent:
                full = scope
                if scope.queued >= scope.limit.max_queued:
                    self._forget_idle(scopes)
                    return self._refusal(scope)
        if full is None:
            self._admit(ticket, scopes)
            return Verdict.ADMITTED
        self._enqueue(ticket, scopes, full, deadline)
        return Verdict.QUEUED

    def release(self, ticket: int, now: float) -> None:
        """A call that was admitted has ended; `Admitted` may follow for others.

        Raises:
            LocalProtocolError: It holds no permit.
        """
        scopes = self._running.pop(ticket, None)
        if scopes is None:
            raise LocalProtocolError(f"ticket {ticket} holds no permit")
        waited_for = bool(self._open)
        for scope in scopes:
            scope.running -= 1
            if scope.parked:
                waited_for = True
        if waited_for:
            self._admit_waiting(scopes, now)
        self._forget_idle(scopes)

    def withdraw(self, ticket: int) -> None:
        """A call that waits is given up; one that does not wait is left alone."""
        if ticket in self._queue:
            self._deadlines.discard(ticket)
            self._unpark(ticket)

    # -- Machine ----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When the next call that waits has waited too long."""
        return self._deadlines.next()

    def handle_timeout(self, now: float) -> None:
        """Shed what has waited too long."""
        for ticket in self._deadlines.pop_due(now):
            self._unpark(ticket)
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

    def _scopes_of(self, method: str, client: Hashable) -> list[_Scope]:
        limits = self.limits
        scopes = [] if self._server is None else [self._server]
        of_method = limits.methods.get(method, limits.method)
        if of_method is not None:
            scope = self._methods.get(method)
            if scope is None:
                scope = self._methods[method] = _Scope("method", method, of_method, self._methods)
            scopes.append(scope)
        if limits.client is not None:
            scope = self._clients.get(client)
            if scope is None:
                scope = self._clients[client] = _Scope("client", client, limits.client, self._clients)
            scopes.append(scope)
        return scopes

    def _admit(self, ticket: int, scopes: list[_Scope]) -> None:
        for scope in scopes:
            scope.running += 1
        self._running[ticket] = scopes

    # -- the queue ------------------------------------------------------------------------------------------

    def _enqueue(self, ticket: int, scopes: list[_Scope], full: _Scope, deadline: float | None) -> None:
        self._last_order += 1
        self._queue[ticket] = _Waiting(self._last_order, scopes, full)
        heapq.heappush(full.parked, (self._last_order, ticket))
        for scope in scopes:
            scope.queued += 1
        if deadline is not None:
            self._deadlines.add(ticket, deadline)

    def _admit_waiting(self, freed: list[_Scope], now: float) -> None:
        """Admit, in order, whoever is held up by no scope any more."""
        self.handle_timeout(now)
        candidates = dict.fromkeys((*freed, *self._open))
        server = self._server
        while (scope := self._next_in_line(candidates)) is not None:
            if server is not None and server.running >= server.max_concurrent:
                break  # nobody can run, whatever else has room: to be gone on with
            self._look_at_first(scope)
        self._open = candidates

    def _next_in_line(self, candidates: dict[_Scope, None]) -> _Scope | None:
        """The scope with room whose first call came first; scopes without room or calls are left out."""
        earliest, first = 0, None
        for scope in list(candidates):
            order = None if scope.running >= scope.max_concurrent else self._first_parked(scope)
            if order is None:
                del candidates[scope]
            elif first is None or order < earliest:
                earliest, first = order, scope
        return first

    def _first_parked(self, scope: _Scope) -> int | None:
        parked = scope.parked
        while parked:
            order, ticket = parked[0]
            if self._is_parked(ticket, order):
                return order
            heapq.heappop(parked)
            scope.stale -= 1
        return None

    def _is_parked(self, ticket: int, order: int) -> bool:
        """Whether an entry is that of a call that waits; an earlier one may have had the same ticket."""
        waiting = self._queue.get(ticket)
        return waiting is not None and waiting.order == order

    def _look_at_first(self, scope: _Scope) -> None:
        """Admit the first call that is parked at a scope, or park it at another that holds it up."""
        entry = heapq.heappop(scope.parked)
        ticket = entry[1]
        waiting = self._queue[ticket]
        for other in waiting.scopes:
            if other.running >= other.max_concurrent:
                waiting.parked = other
                heapq.heappush(other.parked, entry)
                return
        del self._queue[ticket]
        self._deadlines.discard(ticket)
        self._admit(ticket, waiting.scopes)
        self._leave_queue(waiting.scopes)
        self._events.append(Admitted(ticket))

    def _unpark(self, ticket: int) -> None:
        """A call waits no more, and is not to run; its entry goes when it surfaces, or with many others."""
        waiting = self._queue.pop(ticket)
        scope = waiting.parked
        scope.stale += 1
        if scope.stale > _COMPACT_ABOVE and 2 * scope.stale > len(scope.parked):
            scope.parked = [entry for entry in scope.parked if self._is_parked(entry[1], entry[0])]
            heapq.heapify(scope.parked)
            scope.stale = 0
        self._leave_queue(waiting.scopes)

    def _leave_queue(self, scopes: list[_Scope]) -> None:
        for scope in scopes:
            scope.queued -= 1
        self._forget_idle(scopes)

    def _forget_idle(self, scopes: list[_Scope]) -> None:
        """Keep nothing of clients and methods of which there are no calls."""
        for scope in scopes:
            if not scope.running and not scope.queued and scope.home is not None:
                scope.home.pop(scope.key, None)
                self._open.pop(scope, None)

    def _refusal(self, scope: _Scope) -> Refused:
        limit = scope.limit
        waiting = f" and as many as max_queued ({limit.max_queued}) wait" if limit.max_queued else ""
        return Refused(
            f"{scope} runs max_concurrent ({limit.max_concurrent}) calls{waiting}; "
            f"try again in {self.limits.retry_after:g} s",
            self.limits.retry_after,
        )
