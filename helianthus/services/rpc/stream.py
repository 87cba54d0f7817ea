"""A call with stream items: from the server, from the client, or both ways."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from ...protocols.rpc import CallStatistics, Params, StatusCode
from ..cancel import CancelToken
from ..scope import joined
from ..waiter import Waiter
from .errors import RpcError
from .items import IncomingItems, OutgoingItems
from .middleware import Response

if TYPE_CHECKING:
    from collections.abc import Generator

    from .call_policy import CallPolicy, PolicyCall
    from .outgoing_call import OutgoingCall
    from .peer import Peer


class _BegunAgain(Exception):
    """The attempt that an iteration waited for has failed; another one takes its place."""


class StreamOpener(Protocol):
    """Something that finds the connection for a stream: a client."""

    async def open_stream(self, stream: StreamCall) -> None:
        """Begin the stream on a connection, or begin it again; raises `RpcError` where it cannot."""


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
        policy: CallPolicy | None = None,
    ) -> None:
        self.method = method
        self.params = params
        self.timeout = timeout
        self.meta = meta
        self.items: IncomingItems[Any]
        self.outgoing: OutgoingItems
        self.statistics: CallStatistics
        self._started = 0.0
        self.cancel_token = joined(cancel)
        self.through = through
        """The middleware that it goes through, or None."""
        self.policy = policy
        self.attempts: PolicyCall | None = None
        """Says whether it is begun again; set by the opener, where there is a policy."""
        self._entered = False  # the middleware
        self._no_more_to_send = False
        self._no_more_to_take = False
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
        while True:
            if self._peer is None:
                await self._open()
            if self._peer is None:
                return self.take()
            items = self.items
            if not items.queue:
                await items.arrival()
            try:
                item = items.take()
            except _BegunAgain:
                continue
            if self.attempts is not None:
                self.attempts.commit()
            return item if self.through is None else self._received(item)

    async def send(self, item: Any) -> None:
        """Send an item, as soon as the callee takes it.

        Raises:
            RpcError: The call has ended, or the item cannot be sent.
        """
        if self._peer is None:
            await self._open()
        if self.attempts is not None:
            self.attempts.commit()  # items are not kept, so they could not be sent again
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
            if self._peer is None:
                await self._open()
                continue
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
        if not self._over and (self._peer is not None or self.between_attempts):
            if self._peer is not None:
                self._peer.forget(self._msgid)
                self._count_end(StatusCode.CANCELLED)
            if self.through is not None:
                dropped = RpcError(StatusCode.CANCELLED, "the stream was dropped before its end")
                self.through.leave(Response(error=dropped))
        if self._peer is not None:
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
        if self._no_more_to_send:
            self.end_now()
        if self._no_more_to_take:
            self.items.discard()

    def failed(self, error: RpcError, *, direct: bool) -> None:
        """The call has failed on its connection: it is over, unless it is to be begun again."""
        attempts = self.attempts
        if attempts is not None and not self._over:
            if self.items.arrived:
                attempts.commit()
            if attempts.failed(error):
                self._wait_for_next_attempt(error, attempts, direct=direct)
                return
        self.ended(None, error, direct=direct)

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
        self._wake_waiters(direct=direct)

    def wake(self, *, direct: bool) -> None:
        """There may be credit or room for items again."""
        self.outgoing.wake(direct=direct)

    # -- attempts, where there is a policy -------------------------------------------------------------

    @property
    def between_attempts(self) -> bool:
        """Whether an attempt has failed and the next one is to begin."""
        return self.attempts is not None and self._peer is None and not self._over

    def begin_attempt(self) -> None:
        """Make ready for an attempt that begins now."""
        if self.attempts is not None:
            self.timeout, self.meta = self.attempts.begin()

    def commit(self) -> None:
        """Items have gone one way or the other: the call is not begun again."""
        if self.attempts is not None:
            self.attempts.commit()

    def could_not_begin(self, error: RpcError) -> bool:
        """An attempt has failed before it was sent; gives whether there is another. If not, it is over."""
        attempts = self.attempts
        if attempts is not None and attempts.failed(error):
            return True
        if attempts is not None or self.through is not None:  # the middleware hears of the end
            self.ended(None, error, direct=False)
        return False

    def _wait_for_next_attempt(self, error: RpcError, attempts: PolicyCall, *, direct: bool) -> None:
        """Let go of an attempt; whoever waits for what it brings begins the next one."""
        self._count_end(error.code)
        self._peer = None
        if self.cancel_token is not None:
            self.cancel_token.remove_callback(self._token_cancelled)
        self.items.end(_BegunAgain(), direct=direct)
        self._wake_waiters(direct=direct)

    # -- the same without waiting, for the blocking client ----------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self._over

    def end_now(self) -> None:
        """Send no more items."""
        self._no_more_to_send = True
        if not self._over and self._peer is not None:
            self._peer.end_stream(self._msgid)
            self.outgoing.stop(
                RpcError(StatusCode.INTERNAL, f"the items for {self.method} have been ended"),
                direct=False,
            )

    def let_items_go(self) -> None:
        """Nobody will take the callee's items any more."""
        self._no_more_to_take = True
        if not self._over and self._peer is not None:
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
        self.commit()
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
            self._peer.count_end(self.statistics, self._peer.now() - self._started, code)
            self.statistics.bytes_out += self.outgoing.bytes
            self.statistics.bytes_in += self.items.bytes

    def enter_middleware(self) -> bool:
        """Begin with what the middleware makes of the call; False where it has answered already."""
        if self.through is None or self._entered:
            return True
        self._entered = True
        response = self.through.enter()
        request = self.through.request
        self.params, self.meta = request.params, request.meta
        if response is not None:
            self.ended(response.result, response.error, direct=False)
        return response is None

    def _wake_waiters(self, *, direct: bool) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.finish(None, None, direct=direct)

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
