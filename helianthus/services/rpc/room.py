"""Waiting for room at a peer: too many calls are in flight, or it does not take what is queued."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from ..cancel import CancelToken
from ..waiter import Waiter
from .before_call import await_room, expired
from .context import inherit

if TYPE_CHECKING:
    from .peer import Peer


class Room:
    """Those who wait until one peer can be called.

    Attributes:
        waiting: Woken in this order when there is room; no list, because those who give up leave it.
    """

    __slots__ = ("_peer", "waiting")

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()

    @property
    def flushing(self) -> bool:
        """Whether the transport takes what is queued, so that there is room after this turn."""
        peer = self._peer
        return peer.link is not None and not peer.link.clogged and peer.session.queued > peer.high_water

    async def wait(self, cancel: CancelToken | None = None) -> None:
        """Wait until the peer can be called, or takes no calls any more.

        Raises:
            RpcError: The token was cancelled first.
        """
        peer = self._peer
        while peer.full and not peer.session.refuses_calls:
            if self.flushing:
                await asyncio.sleep(0)  # the end of this turn makes room
                peer.measure_output()
            else:
                await await_room([self.waiting], Waiter(asyncio.get_running_loop()), cancel)

    async def wait_within(
        self, method: str, timeout: float | None, cancel: CancelToken | None
    ) -> float | None:
        """Wait for room; returns what is left of the timeout."""
        started = self._peer.now()
        timeout, _ = inherit(started, timeout, None)
        try:
            async with asyncio.timeout(timeout):
                await self.wait(cancel)
        except TimeoutError:
            raise expired(method) from None
        return None if timeout is None else max(0.0, timeout - (self._peer.now() - started))

    def admit(self, *, direct: bool) -> None:
        """Let those go on for whom there is room now."""
        peer = self._peer
        for _ in range(len(self.waiting)):
            if not self.waiting or (peer.full and not peer.session.refuses_calls):
                return  # whoever was resumed may have let others go on
            self.waiting.popitem(last=False)[0].finish(None, None, direct=direct)
