"""Several connections to one server, of which each call takes the one with the fewest in flight.

Carries out what the machine in `protocols.pool` decides. To a client it looks like a `Channel`,
except that `peer` may be another one each time. Coroutine-free, like `Channel`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.timers import Timer
from ...protocols.pool import OpenConnection, Pool, PoolOptions
from ...protocols.rpc import CallStatistics, StatisticsTable, StatusCode
from .channel import Channel, ChannelOptions, ChannelState, ConnectionInfo
from .errors import RpcError
from .peer import Peer
from .peer_events import PeerEvents
from .service import ServedMethod

ONE_CONNECTION = PoolOptions()

_BEST_FIRST = (ChannelState.READY, ChannelState.CONNECTING, ChannelState.BACKING_OFF)


def channel_for(
    driver: Driver,
    addresses: tuple[Address, ...],
    options: ChannelOptions,
    pool: PoolOptions,
    methods: dict[str, ServedMethod],
    loop: asyncio.AbstractEventLoop | None,
    changed: Callable[[], None],
    events: PeerEvents,
) -> Channel | ChannelPool:
    """What a client calls through; the other arguments are those of `Channel`."""

    def make(changed: Callable[[], None]) -> Channel:
        return Channel(driver, addresses, options, methods, loop, changed, events)

    if pool.keeps_one:
        return make(changed)
    return ChannelPool(driver, ", ".join(map(str, addresses)), pool, make, changed)


class ChannelPool:
    """Keeps as many connections as there is use for.

    Args:
        driver: Keeps the time.
        where: All addresses, as text.
        options: How many, and for how long.
        make: Makes a channel; takes what it is to call after every change.
        changed: Called after every change of any of them.
    """

    def __init__(
        self,
        driver: Driver,
        where: str,
        options: PoolOptions,
        make: Callable[[Callable[[], None]], Channel],
        changed: Callable[[], None],
    ) -> None:
        self._driver = driver
        self._make = make
        self._changed = changed
        self._pool = Pool(options, driver.rng)
        self._channels: dict[int, Channel] = {}
        self._ready: set[int] = set()
        self._timer: Timer | None = None
        self._closed = False
        self._past = StatisticsTable()  # of connections that have ended
        self.where = where

    @property
    def peer(self) -> Peer | None:
        """The connection that is to take the next call, if any is ready; another may be opened."""
        if self._closed:
            return None
        self._tell_calls()
        chosen = self._pool.choose(self._driver.now())
        self._carry_out()
        return None if chosen is None else self._channels[chosen].peer

    @property
    def state(self) -> ChannelState:
        """That of the connection which is best off."""
        if self._closed:
            return ChannelState.CLOSED
        states = {channel.state for channel in self._channels.values()}
        return next((state for state in _BEST_FIRST if state in states), ChannelState.IDLE)

    @property
    def open_links(self) -> int:
        """Connections that have not ended, those that are being closed included."""
        return sum(channel.open_links for channel in self._channels.values())

    def infos(self) -> list[ConnectionInfo]:
        """What each connection is doing, in the order of their opening."""
        return [channel.info() for channel in self._channels.values()]

    def statistics(self) -> StatisticsTable:
        """Of all calls so far, over all connections; a copy."""
        table = self._past.with_running(())
        for channel in self._channels.values():
            table.add(channel.statistics())
        return table

    def statistics_of(self, method: str) -> CallStatistics:
        """Where what concerns no single connection is counted for a method."""
        return self._past.of(method)

    def start(self) -> None:
        """Open the connections that are kept in any case."""
        self._pool.start(self._driver.now())
        self._carry_out()

    def close(self) -> None:
        """End all connections in good order, and make no other."""
        if self._closed:
            return
        self._closed = True
        self._set_timer()
        for channel in list(self._channels.values()):
            channel.close()
        self._changed()

    def unavailable(self) -> RpcError:
        """The error of a call that finds no connection."""
        if self._closed:
            reason = f"{self.where}: the client was closed"
            return RpcError(StatusCode.UNAVAILABLE, reason, maybe_executed=False)
        for channel in self._channels.values():
            if channel.state is ChannelState.BACKING_OFF:
                return channel.unavailable()
        return RpcError(StatusCode.UNAVAILABLE, f"{self.where}: not connected", maybe_executed=False)

    @property
    def worth_waiting_for(self) -> bool:
        """Whether a call may wait although connecting has failed."""
        return not self._closed and all(channel.worth_waiting_for for channel in self._channels.values())

    def let_go(self, peer: Peer) -> None:
        """Look for another connection: this one takes no calls, though its end is yet to be told."""
        for channel in list(self._channels.values()):
            channel.let_go(peer)

    # -- what the machine is told, and what it decides --------------------------------------------------

    def _tell_calls(self) -> None:
        now = self._driver.now()
        for number, channel in self._channels.items():
            peer = channel.peer
            if peer is not None:
                calls = max(peer.load, peer.max_calls) if peer.full else peer.load
                self._pool.set_calls(number, calls, now)

    def _channel_changed(self, number: int) -> None:
        if self._closed:
            self._changed()
            return
        now = self._driver.now()
        channel = self._channels[number]
        if channel.peer is not None and number not in self._ready:
            self._ready.add(number)
            self._pool.connection_ready(number, now)
        elif channel.peer is None and number in self._ready:
            self._ready.remove(number)
            self._pool.connection_lost(number, now)
        if channel.state is ChannelState.CLOSED and not channel.open_links:
            self._past.add(channel.statistics())
            del self._channels[number]
            self._pool.connection_ended(number, now)
        self._carry_out()
        self._changed()

    def _time_has_come(self) -> None:
        self._timer = None
        self._tell_calls()
        self._pool.handle_timeout(self._driver.now())
        self._carry_out()

    def _carry_out(self) -> None:
        for event in self._pool.take_events():
            if isinstance(event, OpenConnection):
                channel = self._make(functools.partial(self._channel_changed, event.id))
                self._channels[event.id] = channel
                channel.start()
            else:
                self._channels[event.id].retire(event.reason)
        self._set_timer()

    def _set_timer(self) -> None:
        deadline = None if self._closed else self._pool.deadline()
        timer = self._timer
        if timer is not None and deadline is not None and timer.when <= deadline:
            return  # a deadline that moves back with every call costs nothing; it is set again when due
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._driver.call_at(deadline, self._time_has_come)
