"""Counts the requests of one peer.

Plain calls of one method that arrive together are answered together. They are counted together as
well, which is far cheaper than one by one: how many there were, how long they took, and by how much
the bytes in and out have changed. Everything else is counted call by call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...protocols.rpc import CallStatistics, StatisticsTable, StatusCode

if TYPE_CHECKING:
    from .peer import Peer
    from .peer_owner import PeerOwner


class _Begun:
    """A request that is not answered at once, to be counted at its end."""

    __slots__ = ("method", "started", "statistics")

    def __init__(self, method: str, statistics: CallStatistics, started: float) -> None:
        self.method = method
        self.statistics = statistics
        self.started = started


class ServedCounting:
    """What one peer has called, in numbers.

    Attributes:
        statistics: Of the calls that have ended, by method; all names that are no method's share
            one entry.
        begun: Requests that are counted one by one and have no answer.
        burst: Of the plain calls that are being answered in this turn, or None.
        burst_calls: How many of them have been answered.
    """

    def __init__(self, peer: Peer, owner: PeerOwner) -> None:
        self.statistics = StatisticsTable()
        self.begun: dict[int, _Begun] = {}
        self.burst: CallStatistics | None = None
        self.burst_calls = 0
        self._peer = peer
        self._owner = owner
        self._session = peer.session
        self._now = peer.now
        self._burst_in = self._burst_out = 0
        self._burst_started = 0.0
        self._burst_method = ""

    @property
    def running(self) -> list[CallStatistics]:
        """The entry in `statistics` of each request that has begun and has no answer."""
        return [begun.statistics for begun in self.begun.values()]

    def begin_burst(self, statistics: CallStatistics, method: str) -> None:
        """Count plain calls of one method that come together as one: it is far cheaper."""
        self.end_burst()
        self.burst = statistics
        self._burst_method = method
        self._burst_started = self._now()
        self._burst_in = self._session.requests.bytes
        self._burst_out = self._session.output.replies

    def end_burst(self) -> None:
        """Count the plain calls since the last time; their answers are sent together, after this."""
        statistics, calls = self.burst, self.burst_calls
        if statistics is None:
            return
        self.burst, self.burst_calls = None, 0
        seconds = self._now() - self._burst_started
        statistics.latency.record_many(seconds, calls)
        statistics.bytes_in += self._burst_in - self._session.requests.bytes
        sent = self._session.output.replies - self._burst_out
        statistics.bytes_out += max(0, sent)  # where the connection has failed, nothing is left
        if seconds > self._owner.slow_after:
            self._owner.method_slow(self._peer, self._burst_method, seconds)

    def count_later(self, msgid: int, method: str, statistics: CallStatistics) -> None:
        """Count a request when it has been answered."""
        statistics.bytes_in += self._session.requests.sizes.get(msgid, 0)
        self.begun[msgid] = _Begun(method, statistics, self._now())

    def count(self, msgid: int, code: StatusCode, sent: int) -> None:
        """A request has been answered that was not part of a burst."""
        begun = self.begun.pop(msgid, None)
        if begun is not None:
            seconds = self._now() - begun.started
            begun.statistics.ended(seconds, code)
            begun.statistics.bytes_out += sent
            if seconds > self._owner.slow_after:
                self._owner.method_slow(self._peer, begun.method, seconds)
