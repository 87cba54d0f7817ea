"""How many connections a client holds to one server, and which of them takes the next call.

One connection carries a thousand calls at once, so most clients need no more. Several are for what
a single one cannot give: several servers behind one address that balances connections, or more
than one core of a server that has a process for each.

Connections are opened one at a time, when every other one is busy, and closed when they have not
been used for a while. One that is old is replaced, so that clients spread again over servers which
have come since: gRPC's MAX_CONNECTION_AGE with its jitter of 10 %, at the client's end. It takes no
new calls as soon as another connection is ready, and ends when what it has in flight has finished.
Until then it serves on: a server that cannot be reached just now costs no call.

The machine counts no calls itself: it is told how many each connection has in flight before it is
asked for a choice. So there is no count that a call, ending in an unforeseen way, could leave wrong.
And it need not be asked for each call: while some connection has no more than `enough` calls, the
one of `takers` that has the fewest takes the next, and nothing is to be decided.

Source: https://github.com/grpc/proposal/blob/master/A9-server-side-conn-mgt.md
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import Any, TypeAlias

import attrs
from attrs.validators import ge, gt

from .errors import LocalProtocolError
from .machine import Action, Outcome

AGE_JITTER = 0.1
"""Share of `max_age` by which it varies either way, so that connections which were made together do
not end together; gRPC's proposal A9."""


@attrs.frozen
class PoolOptions:
    """How many connections, and for how long. Times in seconds, `math.inf` for never.

    The defaults are one connection that is kept. A value out of range raises `ValueError`.

    Attributes:
        size: Connections that take calls, at most. As many again may be on their way out: old ones
            that finish what they have in flight.
        min_size: Connections that are opened at once, and kept although nobody uses them.
        open_above: Another connection is opened when all have more calls than this in flight.
        idle_time: A connection that is not used for so long is closed, down to `min_size`. It is
            looked at that often, so it may last twice as long.
        max_age: A connection that is older is replaced; varied by `AGE_JITTER` for each one.
        grace: What a connection on its way out still has in flight after so long fails; gRPC's
            MAX_CONNECTION_AGE_GRACE.
    """

    size: int = attrs.field(default=1, validator=ge(1))
    min_size: int = attrs.field(default=1, validator=ge(0))
    open_above: int = attrs.field(default=100, validator=ge(0))
    idle_time: float = attrs.field(default=math.inf, validator=gt(0))
    max_age: float = attrs.field(default=math.inf, validator=gt(0))
    grace: float = attrs.field(default=math.inf, validator=ge(0))

    @min_size.validator
    def _fits(self, _: Any, value: int) -> None:
        if value > self.size:
            raise ValueError(f"min_size is {value}; it must not exceed size, which is {self.size}")

    @property
    def keeps_one(self) -> bool:
        """Whether there is nothing to decide: one connection, always."""
        return self.size == self.min_size == 1 and self.max_age == math.inf


@attrs.define
class OpenConnection:
    """Open a connection and keep it: make it again when it is lost.

    Attributes:
        id: Names it.
    """

    id: int


@attrs.define
class RetireConnection:
    """Give a connection no new calls, and close it when what it has in flight has finished.

    Attributes:
        id: Names it.
        reason: For the peer.
    """

    id: int
    reason: str


@attrs.define
class CloseConnection:
    """Close a connection that was retired, although calls are in flight: its time of grace is over.

    Attributes:
        id: Names it.
        reason: Why those calls fail.
    """

    id: int
    reason: str


PoolEvent: TypeAlias = OpenConnection | RetireConnection | CloseConnection


class _Connection:
    __slots__ = ("aged", "calls", "close_at", "full", "id", "new", "ready", "retire_at", "retired", "used")

    def __init__(self, connection_id: int, now: float) -> None:
        self.id = connection_id
        self.calls = 0
        self.full = False
        self.used = now
        self.new = True
        """It was opened for a call, and nobody could use it so far."""
        self.ready = False
        self.retire_at = math.inf
        self.aged = False
        """It is too old, and takes calls only until another one is ready."""
        self.retired = False
        self.close_at = math.inf


class Pool:
    """A machine that decides about the connections of one client.

    Args:
        options: Bounds and times.
        rng: Draws how old connections become.
    """

    def __init__(self, options: PoolOptions, rng: Random) -> None:
        self.options = options
        self._rng = rng
        self._connections: dict[int, _Connection] = {}
        self._last_id = 0
        self._events: list[PoolEvent] = []

    @property
    def active(self) -> int:
        """Connections that take calls, or will when they are made: at most `size`."""
        return sum(1 for _ in self._fresh())

    @property
    def leaving(self) -> int:
        """Connections on their way out: at most `size`."""
        return len(self._connections) - self.active

    @property
    def enough(self) -> float:
        """Calls in flight up to which a connection takes another without `choose`."""
        return self.options.open_above if self.active < self.options.size else math.inf

    @property
    def takers(self) -> list[int]:
        """Connections that take calls now, in the order of their opening."""
        return [connection.id for connection in self._takers()]

    # -- inputs ---------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Open what is kept in any case."""
        while self.active < self.options.min_size:
            self._open(now)

    def set_calls(
        self, connection_id: int, calls: int, now: float, *, used: bool = False, full: bool = False
    ) -> None:
        """Tell how many calls a connection has in flight.

        Args:
            connection_id: Which.
            calls: How many.
            now: The time.
            used: Whether any has begun since this was told last, though it may have ended already.
            full: Whether it has no room for another one.

        Raises:
            LocalProtocolError: There is no such connection.
        """
        connection = self._named(connection_id)
        if used or calls or connection.calls:
            connection.used = now
        connection.calls = calls
        connection.full = full

    def connection_ready(self, connection_id: int, now: float) -> None:
        """A connection is made and can be called.

        Raises:
            LocalProtocolError: There is no such connection.
        """
        connection = self._named(connection_id)
        connection.ready = True
        if connection.new:
            connection.new = False
            connection.used = now
        if not connection.aged and not connection.retired:
            varied = self._rng.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
            connection.retire_at = now + self.options.max_age * varied
            self._retire_aged(now)

    def connection_lost(self, connection_id: int, now: float) -> None:
        """A connection was lost, or is going to be; unless it is on its way out it is made again.

        Raises:
            LocalProtocolError: There is no such connection.
        """
        connection = self._named(connection_id)
        connection.ready = connection.full = False
        connection.calls = 0
        connection.retire_at = math.inf
        if connection.aged:  # its replacement is being made already
            self._retire(connection, "max_age", now)

    def connection_ended(self, connection_id: int, now: float) -> None:
        """A connection is gone for good.

        Raises:
            LocalProtocolError: There is no such connection.
        """
        self._named(connection_id)
        del self._connections[connection_id]
        self._replace_old(now)
        self.start(now)

    def choose(self, now: float) -> int | None:
        """The connection that takes the next call: the one with the fewest in flight.

        Returns:
            None where none is ready. One is under way then.
        """
        if self.active < self.options.size and all(map(self._is_busy, self._fresh())):
            self._open(now)
        takers = self._takers()
        if not takers:
            return None
        chosen = min(takers, key=lambda connection: (connection.full, connection.calls))
        chosen.used = now
        return chosen.id

    # -- Machine ----------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When a connection may have been idle for too long, becomes too old, or has to go."""
        due = min((connection.close_at for connection in self._connections.values()), default=math.inf)
        if self.leaving >= self.options.size:
            return None if due == math.inf else due
        has_spare = self.active > self.options.min_size
        for connection in self._fresh():
            due = min(due, connection.retire_at)
            if connection.ready and has_spare:
                due = min(due, connection.used + self.options.idle_time)
        return None if due == math.inf else due

    def handle_timeout(self, now: float) -> None:
        """Close what is idle, replace what is old; tell the numbers of calls first."""
        self._close_idle(now)
        self._replace_old(now)
        self._end_grace(now)

    def take_events(self) -> list[PoolEvent]:
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

    def _fresh(self) -> Iterator[_Connection]:
        return (one for one in self._connections.values() if not one.aged and not one.retired)

    def _named(self, connection_id: int) -> _Connection:
        connection = self._connections.get(connection_id)
        if connection is None:
            raise LocalProtocolError(f"there is no connection {connection_id}")
        return connection

    def _takers(self) -> list[_Connection]:
        """Old connections take calls only where there is no other."""
        return [connection for connection in self._fresh() if connection.ready] or [
            connection for connection in self._connections.values() if connection.aged and connection.ready
        ]

    def _is_busy(self, connection: _Connection) -> bool:
        return connection.ready and (connection.full or connection.calls > self.options.open_above)

    def _open(self, now: float) -> _Connection:
        self._last_id += 1
        opened = self._connections[self._last_id] = _Connection(self._last_id, now)
        self._events.append(OpenConnection(self._last_id))
        return opened

    def _retire(self, connection: _Connection, reason: str, now: float) -> None:
        connection.aged = False
        connection.retired = True
        connection.close_at = now + self.options.grace
        self._events.append(RetireConnection(connection.id, reason))

    def _end_grace(self, now: float) -> None:
        for connection in self._connections.values():
            if now >= connection.close_at:
                connection.close_at = math.inf
                reason = f"it was on its way out, and its grace of {self.options.grace:g} s is over"
                self._events.append(CloseConnection(connection.id, reason))

    def _close_idle(self, now: float) -> None:
        """The one that was not used for the longest time goes first."""
        spare = self.active - self.options.min_size
        for connection in sorted(self._fresh(), key=lambda one: one.used):
            if connection.calls:
                connection.used = now
            elif (
                spare > 0
                and self.leaving < self.options.size
                and connection.ready
                and now >= connection.used + self.options.idle_time
            ):
                spare -= 1
                self._retire(connection, "idle", now)

    def _replace_old(self, now: float) -> None:
        """Open a successor of each connection that is too old, as far as there is room for both."""
        for connection in list(self._fresh()):
            if now >= connection.retire_at and self.leaving < self.options.size:
                connection.aged = True
                successor = self._open(now)
                successor.new, successor.used = False, connection.used  # to be replaced is no use
        self._retire_aged(now)

    def _retire_aged(self, now: float) -> None:
        if any(connection.ready for connection in self._fresh()):
            for connection in self._connections.values():
                if connection.aged:
                    self._retire(connection, "max_age", now)
