"""Stream items that have arrived and wait to be taken, and sending those of our own."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .waiter import Waiter

if TYPE_CHECKING:
    from .peer import Peer

T = TypeVar("T")


class IncomingItems(Generic[T]):
    """The items that the other end of a call sends, in order; an async iterator.

    Taking an item lets the peer send another. One task may iterate at a time.
    """

    def __init__(self, peer: Peer, msgid: int) -> None:
        self._peer = peer
        self._msgid = msgid
        self._items: deque[tuple[T, int]] = deque()
        self._waiter: Waiter | None = None
        self._ended = False
        self._error: Exception | None = None

    def push(self, item: T, size: int, *, direct: bool) -> None:
        """An item has arrived."""
        if self._ended:
            self._peer.consumed(self._msgid, size)
            return
        self._items.append((item, size))
        self._wake(direct=direct)

    def end(self, error: Exception | None, *, direct: bool) -> None:
        """No item follows; `error` is raised once those that have arrived are taken."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake(direct=direct)

    def discard(self) -> None:
        """Nobody will take the items: let go of them. Whoever waits for one meets the end."""
        self._ended = True
        while self._items:
            self._peer.consumed(self._msgid, self._items.popleft()[1])
        self._wake(direct=False)

    @property
    def ready(self) -> bool:
        """Whether `take` would return at once."""
        return bool(self._items) or self._ended

    def take(self) -> T:
        """The next item; raises `StopAsyncIteration`, or the error that ended the stream."""
        if self._items:
            item, size = self._items.popleft()
            self._peer.consumed(self._msgid, size)
            return item
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def __aiter__(self) -> IncomingItems[T]:
        return self

    async def __anext__(self) -> T:
        while not self.ready:
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("two tasks iterate over the items of one stream; let one do it")
            self._waiter = Waiter(asyncio.get_running_loop())
            await self._waiter
        return self.take()

    def _wake(self, *, direct: bool) -> None:
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
        self._msgid = msgid
        self._waiters: list[Waiter] = []
        self._stopped: Exception | None = None
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

    async def send(self, item: Any) -> None:
        """Send as soon as the peer takes it; raises as `send_now` does."""
        while not self.ready:
            if self._peer.flushing:
                await asyncio.sleep(0)  # credit is there: the end of this turn makes room
            else:
                waiter = Waiter(asyncio.get_running_loop())
                self._waiters.append(waiter)
                await waiter
        self.send_now(item)

    def wake(self, *, direct: bool) -> None:
        """There may be credit or room again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.finish(None, None, direct=direct)

    def stop(self, error: Exception, *, direct: bool) -> None:
        """No more items can be sent: whoever tries gets `error`."""
        self._stopped = error
        self.wake(direct=direct)
