"""A call with stream items: from the server, from the client, or both ways."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from ...protocols.rpc import CallStatistics, Params, StatusCode
from .cancel import CancelToken
from .errors import RpcError
from .items import IncomingItems, OutgoingItems
from .middleware import Response
from .waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Generator

    from .outgoing_call import OutgoingCall
    from .peer import Peer


class StreamOpener(Protocol):
    """Something that finds the connection for a stream: a client."""

    async def open_stream(self, stream: StreamCall) -> None:
        """Begin the stream on a connection; raises `RpcError` where there is none."""


class StreamCall:
    """A call whose ends send items to each other until it ends with a result.

    Iterate over it for the items of the callee. `send` items of your own, `end` them, and ask for
    the `result`; awaiting the stream does the same. A method that streams nothing has no items,
    and one that only streams has the result None. Used as a context manager, it is cancelled at
    the end of the block if it has not ended; so it is when nobody refers to it any more.

    The call begins when it is first used.
    """

    def __init__(
        self,
        method: str,
        params: Params,
        timeout: float | None,
        cancel: CancelToken | None,
        meta: dict[str, Any] | None,
        opener: StreamOpener | None = None,
        through: OutgoingCall | None = None,
    ) -> None:
        self.method = method
        self.params = params
        self.timeout = timeout
        self.meta = meta
        self.items: IncomingItems[Any]
        self.outgoing: OutgoingItems
        self.statistics: CallStatistics
        self._started = 0.0
        self.cancel_token = cancel
        self.through = through
        """The middleware that it goes through, or None."""
        self._opener = opener
        self._opening = asyncio.Lock() if opener is not None else None
        self._peer: Peer | None = None
        self._msgid = 0
        self._result: Any = None
        self._error: RpcError | None = None
        self._over = False
        self._waiters: list[Waiter] = []

    # -- for users ----------------------------------------------------------------------------------

    def __aiter__(self) -> StreamCall:
        return self

    async def __anext__(self) -> Any:
        if self._peer is None:
            await self._open()
        if self._peer is None:
            return self.take()
        items = self.items
        if not items.queue:
            await items.arrival()
        item = items.take()
        return item if self.through is None else self._received(item)

    async def send(self, item: Any) -> None:
        """Send an item, as soon as the callee takes it.

        Raises:
            RpcError: The call has ended, or the item cannot be sent.
        """
        if self._peer is None:
            await self._open()
        if self.through is not None:
            item = self._sending(item)
        if not self.outgoing.try_send(item):
            await self.outgoing.send(item)

    async def end(self) -> None:
        """Send no more items; the call goes on until the callee ends it."""
        if self._peer is None:
            await self._open()
        self.end_now()

    async def result(self) -> Any:
        """Wait for the end of the call and return its result; ends our items first.

        Items of the callee that nobody took are let go.

        Raises:
            RpcError: The call ended without a result.
        """
        await self.end()
        self.let_items_go()
        while not self._over:
            waiter = Waiter(asyncio.get_running_loop())
            self._waiters.append(waiter)
            await waiter
        return self.outcome()

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    async def __aenter__(self) -> StreamCall:
        if self._peer is None:
            await self._open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.give_up("the block that used the stream ended")

    async def aclose(self) -> None:
        """Cancel the call, if it has not ended; for `contextlib.aclosing`, as with a generator."""
        self.give_up("the stream was closed")

    def give_up(self, reason: str = "cancelled by the caller") -> None:
        """Cancel the call; one that has ended is left alone."""
        if not self._over:
            if self._peer is not None:
                self._peer.forget(self._msgid)
            self.ended(None, RpcError(StatusCode.CANCELLED, reason), direct=False)
        if self._peer is not None:
            self.items.discard()

    def __del__(self) -> None:
        if self._peer is not None:
            if not self._over:
                self._peer.forget(self._msgid)
                self._count_end(StatusCode.CANCELLED)
                if self.through is not None:
                    dropped = RpcError(StatusCode.CANCELLED, "the stream was dropped before its end")
                    self.through.leave(Response(error=dropped))
            self.items.discard()

    # -- for the peer -------------------------------------------------------------------------------

    def began(self, peer: Peer, msgid: int, statistics: CallStatistics) -> None:
        """The request is on its way."""
        self._peer = peer
        self.statistics = statistics
        self._started = peer.now()
        self._msgid = msgid
        self.items = IncomingItems(peer, msgid)
        self.outgoing = OutgoingItems(peer, msgid)
        if self.cancel_token is not None:
            self.cancel_token.add_callback(self._token_cancelled)

    def ended(self, result: Any, error: RpcError | None, *, direct: bool) -> None:
        """The call is over."""
        if self._over:
            return
        self._over = True
        if self.through is not None:
            response = self.through.leave(Response(result, error))
            result, error = response.result, response.error
        self._result = result
        self._error = error
        if self.cancel_token is not None:
            self.cancel_token.remove_callback(self._token_cancelled)
        if self._peer is None:
            return
        self._count_end(StatusCode.OK if error is None else error.code)
        over = error or RpcError(StatusCode.CANCELLED, f"{self.method} has ended; it takes no more items")
        self.outgoing.stop(over, direct=direct)
        self.items.end(error, direct=direct)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.finish(None, None, direct=direct)

    def wake(self, *, direct: bool) -> None:
        """There may be credit or room for items again."""
        self.outgoing.wake(direct=direct)

    # -- the same without waiting, for the blocking client ----------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self._over

    def end_now(self) -> None:
        """Send no more items."""
        if not self._over and self._peer is not None:
            self._peer.end_stream(self._msgid)
            self.outgoing.stop(
                RpcError(StatusCode.INTERNAL, f"the items for {self.method} have been ended"),
                direct=False,
            )

    def let_items_go(self) -> None:
        """Nobody will take the callee's items any more."""
        if not self._over:
            self.items.discard()

    @property
    def has_item(self) -> bool:
        """Whether `take` would return, or raise, at once."""
        return self._peer is None or self.items.ready

    @property
    def may_send(self) -> bool:
        """Whether `send_now` would send, or raise, at once."""
        return self._peer is None or self.outgoing.ready

    def take(self) -> Any:
        """The next item of the callee; raises as `__anext__` does."""
        if self._peer is None:  # a middleware has answered
            self.outcome()
            raise StopAsyncIteration
        item = self.items.take()
        return item if self.through is None else self._received(item)

    def send_now(self, item: Any) -> None:
        """Send an item, while there is credit; raises as `send` does."""
        if self.through is not None:
            item = self._sending(item)
        self.outgoing.send_now(item)

    def outcome(self) -> Any:
        """The result of a call that has ended; raises its error."""
        if self._error is not None:
            raise self._error
        return self._result

    async def _open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._opener is None or self._opening is None:
            raise RuntimeError(f"the stream of {self.method} has no connection")
        async with self._opening:
            if self._peer is None and not self._over:
                await self._opener.open_stream(self)

    def _count_end(self, code: StatusCode) -> None:
        if self._peer is not None:
            self.statistics.ended(self._peer.now() - self._started, code)
            self.statistics.bytes_out += self.outgoing.bytes
            self.statistics.bytes_in += self.items.bytes

    def enter_middleware(self) -> bool:
        """Begin with what the middleware makes of the call; False where it has answered already."""
        if self.through is None:
            return True
        response = self.through.enter()
        request = self.through.request
        self.params, self.meta = request.params, request.meta
        if response is not None:
            self.ended(response.result, response.error, direct=False)
        return response is None

    def _received(self, item: Any) -> Any:
        through = self.through
        if through is None or not through.chain.sees_items:
            return item
        return through.chain.received(through.request, item)

    def _sending(self, item: Any) -> Any:
        through = self.through
        if self._peer is None:
            raise RpcError(StatusCode.CANCELLED, f"{self.method} has ended; it takes no more items")
        if through is None or not through.chain.sees_items:
            return item
        return through.chain.sending(through.request, item)

    def _token_cancelled(self) -> None:
        self.give_up(self.cancel_token.reason if self.cancel_token is not None else "")
