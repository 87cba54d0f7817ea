"""Several connections to one server, of which each call takes the one with the fewest in flight.

Carries out what the machine in `protocols.pool` decides. To a client it looks like a `Channel`,
except that `peer` may be another one each time. Coroutine-free, like `Channel`.

A call costs a look at the lengths of a few tables. The machine is asked only when every connection
is busy, and told of the others' use when its deadline has come.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

from ...drivers.address import Address
from ...drivers.base import Driver
from ...drivers.timers import Timer
from ...protocols.pool import OpenConnection, Pool, PoolOptions, RetireConnection
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


class _Taker:
    """A connection that takes calls.

    Attributes:
        peer: Its server.
        picked: Calls that it was chosen for.
        told: How many of them the machine knows of.
    """

    __slots__ = ("peer", "picked", "told")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.picked = 0
        self.told = 0


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
        self._takers: dict[int, _Taker] = {}
        self._scanned: list[_Taker] = []  # those that take calls now
        self._too_many = 0.0
        self._timer: Timer | None = None
        self._closed = False
        self._past = StatisticsTable()  # of connections that have ended
        self.where = where

    @property
    def peer(self) -> Peer | None:
        """The connection that is to take the next call, if any is ready; another may be opened."""
        chosen, fewest = None, self._too_many
        for taker in self._scanned:
            peer = taker.peer
            load = peer.load
            if load < fewest and load < peer.max_calls and not peer.congested:
                chosen, fewest = taker, load
        if chosen is None:
            return self._choose()
        chosen.picked += 1
        return chosen.peer

    @property
    def peers(self) -> list[Peer]:
        """All connections that take calls, when they have room."""
        return [taker.peer for taker in self._scanned]

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
        self._scanned = []
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

    def _choose(self) -> Peer | None:
        """Every connection is busy, or there is none."""
        if self._closed:
            return None
        self._tell_calls()
        chosen = self._pool.choose(self._driver.now())
        self._carry_out()
        return None if chosen is None else self._channels[chosen].peer

    def _tell_calls(self) -> None:
        now = self._driver.now()
        for number, taker in self._takers.items():
            peer, used = taker.peer, taker.picked > taker.told
            taker.told = taker.picked
            self._pool.set_calls(number, peer.load, now, used=used, full=peer.full)

    def _channel_changed(self, number: int) -> None:
        if self._closed:
            self._changed()
            return
        now = self._driver.now()
        channel = self._channels[number]
        if channel.peer is not None and number not in self._takers:
            self._takers[number] = _Taker(channel.peer)
            self._pool.connection_ready(number, now)
        elif channel.peer is None and number in self._takers:
            del self._takers[number]
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
            elif isinstance(event, RetireConnection):
                self._channels[event.id].retire(event.reason)
            elif event.id in self._channels:  # it may have ended as soon as it was retired
                self._channels[event.id].cut(event.reason)
        if not self._closed:
            self._scanned = [self._takers[number] for number in self._pool.takers if number in self._takers]
            self._too_many = self._pool.enough + 1
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
