"""Answers a repeated call from memory, so that it runs once.

A caller that repeats a call because it heard nothing gives each attempt the same key. The first one
runs; those that come while it runs wait for its outcome; those that come later get it from here.

What is remembered is bounded in number, bytes and time. A call is run again where its outcome has
been forgotten, so the time to live must be longer than callers go on repeating. Calls that run are
never forgotten: where there is no room besides them, a new one is refused.

Source: the `Idempotency-Key` header field, draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import Generic, TypeVar

import attrs
from attrs.validators import ge, gt

from ..errors import LocalProtocolError

T = TypeVar("T")

MIB = 1024 * 1024


@attrs.frozen
class IdempotencyLimits:
    """What is remembered.

    Attributes:
        max_entries: Calls, those that run included.
        max_bytes: Of all outcomes, as their owner measures them. One that is larger by itself is not
            remembered, rather than that all others are forgotten for it.
        time_to_live: Seconds for which an outcome is remembered.
    """

    max_entries: int = attrs.field(default=10_000, validator=ge(1))
    max_bytes: int = attrs.field(default=64 * MIB, validator=ge(0))
    time_to_live: float = attrs.field(default=300.0, validator=gt(0))


class Attempt(enum.Enum):
    """What is to be done with an attempt that has no outcome yet."""

    RUN = "run"
    WAIT = "wait"
    """The same call runs now; its outcome is this attempt's, too."""


@attrs.define
class Known(Generic[T]):
    """The call has run before."""

    outcome: T


@attrs.define
class Rejected:
    """The attempt cannot be taken.

    Attributes:
        reason: For the caller.
        misused: Whether it is the caller's fault: the key belongs to another call.
    """

    reason: str
    misused: bool


@attrs.define
class _Running:
    fingerprint: Hashable
    waiting: dict[int, None] = attrs.field(factory=dict)


@attrs.define
class _Ended(Generic[T]):
    fingerprint: Hashable
    outcome: T
    size: int
    expires: float


class IdempotencyCache(Generic[T]):
    """Outcomes of calls by key; expiry needs no timer, for what is too old is dropped by whoever comes.

    Args:
        limits: Bounds.
    """

    def __init__(self, limits: IdempotencyLimits | None = None) -> None:
        self.limits = limits or IdempotencyLimits()
        self._running: dict[Hashable, _Running] = {}
        self._ended: dict[Hashable, _Ended[T]] = {}  # in the order of their ends
        self._bytes = 0

    @property
    def running(self) -> int:
        """Calls that have not ended."""
        return len(self._running)

    @property
    def bytes(self) -> int:
        """Of all outcomes."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._running) + len(self._ended)

    def begin(
        self, key: Hashable, fingerprint: Hashable, ticket: int, now: float
    ) -> Attempt | Known[T] | Rejected:
        """An attempt has come.

        Args:
            key: The caller's, together with who it is.
            fingerprint: What is called and how; another one under the same key is a mistake.
            ticket: Names the attempt where it has to wait.
            now: Monotonic seconds.
        """
        self._drop_expired(now)
        entry = self._running.get(key) or self._ended.get(key)
        if entry is None:
            return self._begin_new(key, fingerprint)
        if entry.fingerprint != fingerprint:
            reason = "this idempotency key was used for another call before; make a new key for each call"
            return Rejected(reason, misused=True)
        if isinstance(entry, _Ended):
            return Known(entry.outcome)
        entry.waiting[ticket] = None
        return Attempt.WAIT

    def finish(self, key: Hashable, outcome: T, size: int, now: float) -> list[int]:
        """The call has ended.

        Args:
            key: As given to `begin`.
            outcome: What all attempts are to get.
            size: Its bytes.
            now: Monotonic seconds.

        Returns:
            The tickets of those that waited for it, in order.

        Raises:
            LocalProtocolError: No such call runs.
        """
        running = self._take_running(key)
        if size > self.limits.max_bytes:
            return list(running.waiting)
        self._ended[key] = _Ended(running.fingerprint, outcome, size, now + self.limits.time_to_live)
        self._bytes += size
        while self._bytes > self.limits.max_bytes:
            self._drop_oldest()
        return list(running.waiting)

    def abandon(self, key: Hashable) -> list[int]:
        """The call was not run after all: the next attempt may run.

        Returns:
            The tickets of those that waited for it; they have to be answered as the first one was.

        Raises:
            LocalProtocolError: No such call runs.
        """
        return list(self._take_running(key).waiting)

    def leave(self, key: Hashable, ticket: int) -> None:
        """An attempt that waits is given up; one that does not is left alone."""
        running = self._running.get(key)
        if running is not None:
            running.waiting.pop(ticket, None)

    def awaited(self, key: Hashable) -> bool:
        """Whether other attempts wait for a call that runs."""
        running = self._running.get(key)
        return running is not None and bool(running.waiting)

    # -- inside -------------------------------------------------------------------------------------------

    def _begin_new(self, key: Hashable, fingerprint: Hashable) -> Attempt | Rejected:
        maximum = self.limits.max_entries
        if len(self) >= maximum:
            if not self._ended:
                reason = f"max_entries ({maximum}) calls with idempotency keys run already; try again later"
                return Rejected(reason, misused=False)
            self._drop_oldest()
        self._running[key] = _Running(fingerprint)
        return Attempt.RUN

    def _take_running(self, key: Hashable) -> _Running:
        running = self._running.pop(key, None)
        if running is None:
            raise LocalProtocolError(f"no call with the key {key!r} runs")
        return running

    def _drop_expired(self, now: float) -> None:
        while self._ended and next(iter(self._ended.values())).expires <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._bytes -= self._ended.pop(next(iter(self._ended))).size
