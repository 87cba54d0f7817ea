"""Stream items that have arrived and wait to be taken, and sending those of our own."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..waiter import Waiter

if TYPE_CHECKING:
    from .peer import Peer

T = TypeVar("T")


SEND_UP_TO = 256 * 1024
"""Bytes queued for a peer above which items wait: a window of large ones would hold up for long what
comes behind them on a slow line."""

REPORTED_AT = 4096
"""Bytes of items that have been taken at which the session hears of it at the latest: below that, it
may hold up reading for items that are gone."""


class IncomingItems(Generic[T]):
    """The items that the other end of a call sends, in order; an async iterator.

    Taking items lets the peer send others: the session hears of them a quarter of a window at a
    time, and when there are no more. One task may iterate at a time.

    Attributes:
        queue: The items that have come and their sizes in bytes.
        bytes: Of all that have come, encoded.
        dropped: Whether items have come that nobody was to take.
    """

    def __init__(self, peer: Peer, msgid: int) -> None:
        self.queue: deque[tuple[T, int]] = deque()
        self.bytes = 0
        self._peer = peer
        self._msgid = msgid
        self._taken = 0  # items that the session has not heard of
        self._taken_size = 0
        self._report_at = peer.session.limits.stream_window // 4
        self._waiter: Waiter | None = None
        self._ended = False
        self._error: Exception | None = None
        self.dropped = False

    def push(self, item: T, size: int) -> None:
        """An item has arrived; the peer wakes whoever waits for it, once for all that have come."""
        if self._ended:
            self.dropped = True
            self._peer.consumed(self._msgid, size, 1)
            return
        self.bytes += size
        self.queue.append((item, size))
        if self._waiter is not None and len(self.queue) == 1:
            self._peer.arrived.append(self)

    def end(self, error: Exception | None, *, direct: bool) -> None:
        """No item follows; `error` is raised once those that have arrived are taken."""
        if not self._ended:
            self._ended = True
            self._error = error
            self.wake(direct=direct)

    def discard(self) -> None:
        """Nobody will take the items: let go of them. Whoever waits for one meets the end."""
        self._ended = True
        queue = self.queue
        self._taken += len(queue)
        while queue:
            self._taken_size += queue.popleft()[1]
        if self._taken:
            self._report()
        self.wake(direct=False)

    @property
    def arrived(self) -> bool:
        """Whether any item has come."""
        return self.dropped or self.bytes > 0

    @property
    def ready(self) -> bool:
        """Whether `take` would return at once."""
        return bool(self.queue) or self._ended

    def take(self) -> T:
        """The next item; raises `StopAsyncIteration`, or the error that ended the stream."""
        queue = self.queue
        if queue:
            item, size = queue.popleft()
            self._taken += 1
            self._taken_size += size
            if not queue or self._taken >= self._report_at or self._taken_size >= REPORTED_AT:
                self._report()
            return item
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def __aiter__(self) -> IncomingItems[T]:
        return self

    async def __anext__(self) -> T:
        if not self.queue:
            await self.arrival()
        return self.take()

    async def arrival(self) -> None:
        """Wait until `take` would return or raise at once."""
        while not self.ready:
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("two tasks iterate over the items of one stream; let one do it")
            self._waiter = waiter = Waiter(asyncio.get_running_loop())
            try:
                await waiter
            finally:
                if self._waiter is waiter:  # cancelled: it leads to the task, and that to the stream
                    self._waiter = None

    def _report(self) -> None:
        """Tell the session what has been taken."""
        taken, size = self._taken, self._taken_size
        self._taken = self._taken_size = 0
        self._peer.consumed(self._msgid, size, taken)

    def wake(self, *, direct: bool) -> None:
        """Let whoever waits go on."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.finish(None, None, direct=direct)


class OutgoingItems:
    """Sends items on one call, as fast as the peer's credit allows.

    Attributes:
        bytes: Of all that were sent, encoded.
    """

    def __init__(self, peer: Peer, msgid: int) -> None:
        self._peer = peer
        self._session = peer.session
        self._output = peer.session.output
        self._high_water = min(SEND_UP_TO, peer.high_water)
        self._msgid = msgid
        self._waiters: list[Waiter] = []
        self._stopped: Exception | None = None
        self._never_waits = peer.session.never_waits
        if self._never_waits:  # the transport gets its chance before anything is dropped
            self._high_water = min(self._high_water, peer.session.limits.max_pending // 2)
        self.bytes = 0

    @property
    def ready(self) -> bool:
        """Whether `send_now` would send at once, or raise."""
        return self._stopped is not None or self._peer.may_send(self._msgid)

    def send_now(self, item: Any) -> None:
        """Send without waiting; only while `ready`.

        Raises:
            RpcError: The call has ended, or the item cannot be sent.
        """
        if self._stopped is not None:
            raise self._stopped
        self.bytes += self._peer.send_item(self._msgid, item)

    def try_send(self, item: Any) -> bool:
        """Send, where that need not wait; raises as `send_now` does."""
        if self._stopped is not None:
            raise self._stopped
        if self._output.size > self._high_water or not self._session.credit(self._msgid):
            return False
        self.bytes += self._peer.send_item(self._msgid, item)
        return True

    async def send(self, item: Any) -> None:
        """Send as soon as the peer takes it; raises as `send_now` does."""
        while not self.try_send(item):
            if self._never_waits:
                await asyncio.sleep(0)  # a sender that never waits would leave the transport no time
                self.send_now(item)
                return
            link = self._peer.link
            if link is not None and not link.clogged and self._output.size > self._high_water:
                await asyncio.sleep(0)  # credit is there: the end of this turn makes room
            else:
                waiter = Waiter(asyncio.get_running_loop())
                self._waiters.append(waiter)
                await waiter

    def wake(self, *, direct: bool) -> None:
        """There may be credit or room again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.finish(None, None, direct=direct)

    def stop(self, error: Exception, *, direct: bool) -> None:
        """No more items can be sent: whoever tries gets `error`."""
        self._stopped = error
        self.wake(direct=direct)
