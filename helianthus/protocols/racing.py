"""Connecting to several addresses at once, staggered: "Happy Eyeballs", RFC 8305.

A server that has an IPv6 and an IPv4 address, or several machines, may be unreachable at some of
them. To wait for one attempt to time out before the next address is tried takes far too long, and
to try all at once is a burden to servers and networks. So the addresses are tried one after the
other, a short delay apart; the first to connect wins, and the other attempts are ended.

The order is that of section 4: the families alternate, IPv6 first, which is a First Address Family
Count of 1, as section 8 recommends. Within a family addresses keep the order in which they were given
and found, the latter being the resolver's (RFC 6724).

What the RFC says of two separate answers, AAAA and A, does not apply: `getaddrinfo` gives both in
one. So no name waits for a Resolution Delay (section 3). But several names are looked up at once,
and there the same question comes up: for that long the first one waits for the others, so that the
order does not depend on which lookup is a little faster. Addresses that are found later still join
those that are yet to be tried.

Source: https://www.rfc-editor.org/rfc/rfc8305
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Generic, Protocol, TypeAlias, TypeVar

import attrs

from .errors import LocalProtocolError
from .machine import Action, Outcome

ATTEMPT_DELAY = 0.25
"""Seconds between the starts of two attempts; the Connection Attempt Delay of RFC 8305, section 8."""

MIN_ATTEMPT_DELAY = 0.01
"""Seconds that the Minimum Connection Attempt Delay must not go below, by section 8, which recommends 0.1."""

MAX_ATTEMPT_DELAY = 2.0
"""Seconds; the Maximum Connection Attempt Delay of section 8."""

RESOLUTION_DELAY = 0.05
"""Seconds that what was found first waits for other lookups; the Resolution Delay of section 8."""

MAX_CANDIDATES = 64
"""Addresses that are tried in one race; those found after them are left out."""


class Candidate(Protocol):
    """An address to connect to; equal ones are tried once."""

    @property
    def host(self) -> str:
        """An IPv6 address has a colon, and nothing else has; empty for what is within this machine."""

    def __hash__(self) -> int: ...


C = TypeVar("C", bound=Candidate)


@attrs.define
class StartAttempt(Generic[C]):
    """Begin to connect to a candidate, and tell what becomes of it.

    Attributes:
        id: Names the attempt.
        candidate: Where to.
    """

    id: int
    candidate: C


@attrs.define
class AbortAttempt:
    """End an attempt; nothing of it is to be told any more."""

    id: int


@attrs.define
class Won(Generic[C]):
    """The race is over: this attempt has connected first."""

    id: int
    candidate: C


@attrs.define
class AllFailed(Generic[C]):
    """The race is over, and nothing has connected.

    Attributes:
        errors: What has failed, in order, with the candidate; None stands for a lookup or the race.
    """

    errors: list[tuple[C | None, Exception]]


RaceEvent: TypeAlias = StartAttempt[C] | AbortAttempt | Won[C] | AllFailed[C]


class Race(Generic[C]):
    """A machine that runs one race; it ends with `Won` or `AllFailed`, once.

    What is told of it after its end is ignored: lookups and attempts may still be under way then.

    Args:
        lookups: How many there are, named 0, 1, 2, … in the order of preference; each ends with
            candidates or in failure.
        delay: Seconds between two attempts, from `MIN_ATTEMPT_DELAY` to `MAX_ATTEMPT_DELAY`.

    Raises:
        ValueError: An argument is out of its range.
    """

    def __init__(self, lookups: int = 1, delay: float = ATTEMPT_DELAY) -> None:
        if lookups < 1:
            raise ValueError(f"lookups is {lookups}; a race without any has nobody in it")
        if not MIN_ATTEMPT_DELAY <= delay <= MAX_ATTEMPT_DELAY:
            raise ValueError(
                f"delay is {delay} s; it must be from {MIN_ATTEMPT_DELAY} to {MAX_ATTEMPT_DELAY} s"
            )
        self.over = False
        """Whether the race has ended."""
        self._lookups = set(range(lookups))  # those under way
        self._delay = delay
        self._known: set[C] = set()
        self._untried: list[tuple[int, C]] = []  # with its lookup
        self._running: dict[int, C] = {}
        self._last_id = 0
        self._wants_ipv6 = True
        self._next_at = 0.0
        self._errors: list[tuple[C | None, Exception]] = []
        self._events: list[RaceEvent[C]] = []

    # -- inputs ---------------------------------------------------------------------------------------

    def candidates_found(self, lookup: int, candidates: Iterable[C], now: float) -> None:
        """A lookup has ended with these.

        Raises:
            LocalProtocolError: There is no such lookup under way.
        """
        if self.over:
            return
        self._lookup_ended(lookup, now)
        for candidate in candidates:
            if candidate not in self._known and len(self._known) < MAX_CANDIDATES:
                self._known.add(candidate)
                self._untried.append((lookup, candidate))
        self._untried.sort(key=itemgetter(0))
        self._go_on(now)

    def lookup_failed(self, lookup: int, error: Exception, now: float) -> None:
        """A lookup has ended without candidates.

        Raises:
            LocalProtocolError: There is no such lookup under way.
        """
        if self.over:
            return
        self._lookup_ended(lookup, now)
        self._errors.append((None, error))
        self._go_on(now)

    def attempt_failed(self, attempt_id: int, error: Exception, now: float) -> None:
        """An attempt could not connect: the next one begins at once.

        Raises:
            LocalProtocolError: There is no such attempt.
        """
        if not self.over:
            self._errors.append((self._take(attempt_id), error))
            self._next_at = now
            self._go_on(now)

    def attempt_connected(self, attempt_id: int, now: float) -> None:
        """An attempt has connected: it wins, if no other one has.

        Raises:
            LocalProtocolError: There is no such attempt.
        """
        if not self.over:
            candidate = self._take(attempt_id)
            self._end()
            self._events.append(Won(attempt_id, candidate))

    def give_up(self, error: Exception) -> None:
        """End the race for a reason of the caller's; a second time does nothing."""
        if not self.over:
            self._errors.append((None, error))
            self._fail()

    # -- Machine ----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When the next attempt begins although none has failed."""
        return self._next_at if self._untried and not self.over else None

    def handle_timeout(self, now: float) -> None:
        """Begin the next attempt, if it is time."""
        if not self.over:
            self._go_on(now)

    def take_events(self) -> list[RaceEvent[C]]:
        """What is to be done."""
        events, self._events = self._events, []
        return events

    def take_actions(self) -> list[Action]:
        """There are none."""
        return []

    def complete(self, action_id: int, outcome: Outcome, now: float) -> None:
        """There are no actions to complete."""
        raise LocalProtocolError(f"there is no action {action_id}")

    # -- inside -------------------------------------------------------------------------------------------

    def _lookup_ended(self, lookup: int, now: float) -> None:
        if lookup not in self._lookups:
            raise LocalProtocolError(f"lookup {lookup} is not under way")
        self._lookups.remove(lookup)
        if not self._last_id and not self._untried:
            self._next_at = now + RESOLUTION_DELAY

    def _take(self, attempt_id: int) -> C:
        candidate = self._running.pop(attempt_id, None)
        if candidate is None:
            raise LocalProtocolError(f"attempt {attempt_id} is not under way")
        return candidate

    def _go_on(self, now: float) -> None:
        if self._untried and (now >= self._next_at or not self._should_wait()):
            _, candidate = self._untried.pop(self._next_index())
            self._wants_ipv6 = not _is_ipv6(candidate)
            self._last_id += 1
            self._running[self._last_id] = candidate
            self._next_at = now + self._delay
            self._events.append(StartAttempt(self._last_id, candidate))
        elif not (self._untried or self._running or self._lookups):
            self._fail()

    def _should_wait(self) -> bool:
        """Whether somebody may connect without a further attempt, or a better candidate be found."""
        if self._last_id:
            return bool(self._running)
        return bool(self._lookups) and bool(self._untried[0][1].host)

    def _next_index(self) -> int:
        """The first candidate of the family whose turn it is, or else the first one.

        One without a host is within this machine and has no family: its turn is its place in the order.
        """
        if not self._untried[0][1].host:
            return 0
        for index, (_, candidate) in enumerate(self._untried):
            if _is_ipv6(candidate) == self._wants_ipv6:
                return index
        return 0

    def _fail(self) -> None:
        self._end()
        self._events.append(AllFailed(self._errors))

    def _end(self) -> None:
        self.over = True
        self._events.extend(map(AbortAttempt, self._running))
        self._running.clear()
        self._untried.clear()


def _is_ipv6(candidate: Candidate) -> bool:
    return ":" in candidate.host
