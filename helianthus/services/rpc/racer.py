"""Connects to whichever of several addresses answers first; carries out what `Race` decides."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.errors import TransportError
from ...drivers.timers import Timer
from ...protocols.racing import AbortAttempt, Race, StartAttempt, Won
from .peer import Peer


class Racer:
    """One race between all addresses of all names.

    Args:
        driver: Looks the names up and keeps the time.
        addresses: Names and addresses.
        delay: Seconds between two attempts; see `Race`.
        connect: Begins an attempt; takes an address, and that of `addresses` which stands for it.
        abort: Ends one.
        won: Told of the first that has connected; all others are being ended.
        failed: Told why nothing has connected.
    """

    def __init__(
        self,
        driver: Driver,
        addresses: Iterable[Address],
        delay: float,
        connect: Callable[[Address, Address], Peer],
        abort: Callable[[Peer], None],
        won: Callable[[Peer, Address], None],
        failed: Callable[[str], None],
    ) -> None:
        self._driver = driver
        self._connect = connect
        self._abort = abort
        self._won = won
        self._failed = failed
        self._names = list(addresses)
        self._named: dict[Address, Address] = {}  # what was found, and of which name
        self._race: Race[Address] = Race(len(self._names), delay)
        self._attempts: dict[int, Peer] = {}
        self._ids: dict[Peer, int] = {}
        self._timer: Timer | None = None
        for lookup, name in enumerate(self._names):
            driver.resolve(name, functools.partial(self._resolved, lookup))

    def knows(self, peer: Peer) -> bool:
        """Whether a peer is one of the attempts that are under way."""
        return peer in self._ids

    def connected(self, peer: Peer) -> None:
        """An attempt has connected."""
        self._race.attempt_connected(self._ids[peer], self._driver.now())
        self._carry_out()

    def lost(self, peer: Peer, error: Exception) -> None:
        """An attempt has failed."""
        attempt_id = self._ids.pop(peer)
        del self._attempts[attempt_id]
        self._race.attempt_failed(attempt_id, error, self._driver.now())
        self._carry_out()

    def give_up(self, error: Exception) -> None:
        """End all attempts; `failed` is told."""
        self._race.give_up(error)
        self._carry_out()

    def _resolved(self, lookup: int, found: list[Address] | None, error: Exception | None) -> None:
        now = self._driver.now()
        if error is not None:
            self._race.lookup_failed(lookup, error, now)
        else:
            for candidate in found or ():
                self._named.setdefault(candidate, self._names[lookup])
            self._race.candidates_found(lookup, found or (), now)
        self._carry_out()

    def _time_has_come(self) -> None:
        self._timer = None
        self._race.handle_timeout(self._driver.now())
        self._carry_out()

    def _carry_out(self) -> None:
        for event in self._race.take_events():
            if isinstance(event, StartAttempt):
                peer = self._connect(event.candidate, self._named[event.candidate])
                self._attempts[event.id] = peer
                self._ids[peer] = event.id
            elif isinstance(event, AbortAttempt):
                peer = self._attempts.pop(event.id)
                del self._ids[peer]
                self._abort(peer)
            elif isinstance(event, Won):
                peer = self._attempts.pop(event.id)
                del self._ids[peer]
                self._won(peer, event.candidate)
            else:
                self._failed(_text_of(event.errors))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._race.deadline()
        if deadline is not None:
            self._timer = self._driver.call_at(deadline, self._time_has_come)


def _text_of(errors: list[tuple[Address | None, Exception]]) -> str:
    """Why all have failed; of a single failure only what happened, as the reader knows the address."""
    if len(errors) == 1:
        return reason_of(errors[0][1])
    texts = (f"{address}: {reason_of(error)}" if address else str(error) for address, error in errors)
    return "; ".join(dict.fromkeys(texts))


def reason_of(error: Exception | None) -> str:
    """Why a connection ended, without its address."""
    if error is None:
        return "the server closed the connection"
    return error.message if isinstance(error, TransportError) else str(error)
