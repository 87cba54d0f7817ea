"""A unary call in flight.

A `Call` is begun at once, so that a task may have any number of them under way, and is awaited
later, if at all. It is a `Waiter`, whose task is resumed straight from the answer's event, and it
has the methods of a coroutine, so that it can be given to `create_task`, `gather` and `wait_for`. A
real coroutine around it would cost every call a twelfth more instructions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeAlias

from ...protocols.rpc import CallStatistics, StatusCode
from ..cancel import CancelToken
from ..waiter import PENDING, Waiter
from .errors import RpcError

if TYPE_CHECKING:
    from types import TracebackType

    from .peer import Peer


class Call(Waiter, Coroutine[Any, Any, Any]):
    """Await it for the result; raises `RpcError` where there is none.

    Attributes:
        msgid: Its message id on the connection.
        statistics: Of its method.
        started: Driver time in seconds.
    """

    __slots__ = ("_peer", "_steps", "msgid", "started", "statistics")

    def __init__(
        self,
        peer: Peer,
        msgid: int,
        loop: asyncio.AbstractEventLoop | None,
        statistics: CallStatistics,
        started: float,
    ) -> None:
        # As in Waiter, without the price of a second call: one of these is made per call.
        self._asyncio_future_blocking = None
        self._loop = loop
        self._value = PENDING
        self._wake = None
        self._peer = peer
        self.msgid = msgid
        self.statistics = statistics
        self.started = started

    def answered(self, result: Any, direct: bool) -> None:
        """The result has come: `finish`, in as few steps as can be."""
        self._value = result
        self._error = None
        wake = self._wake
        if wake is not None:
            context = self._context
            if direct and context is not None:
                context.run(wake, self)
            elif self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon(wake, self, context=context)

    def give_up(self, reason: str) -> None:
        """Fail with CANCELLED, and tell the peer."""
        if not self.done():
            self._peer.forget(self.msgid)
            self.finish(None, RpcError(StatusCode.CANCELLED, reason), direct=False)

    def cancel(self, msg: Any = None) -> bool:
        """The task that awaits it is being cancelled: so is the call."""
        if not super().cancel(msg):
            return False
        self._peer.forget(self.msgid)
        return True

    # -- what a task asks of a coroutine -----------------------------------------------------------

    def send(self, value: Any, /) -> Any:
        """Go on until the call has to be waited for; see `Coroutine.send`."""
        return self._generator().send(value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        """Have the waiting task meet an exception; see `Coroutine.throw`."""
        error = typ if isinstance(typ, BaseException) else val if isinstance(val, BaseException) else typ()
        if not self.done():  # a task that is cancelled before it has begun
            self.give_up("the task that was to await the call was cancelled")
        return self._generator().throw(error.with_traceback(tb) if tb is not None else error)

    def close(self) -> None:
        """Nobody will await it; a call that has not ended is cancelled."""
        self.give_up("the call was closed before its end")
        self._generator().close()

    def _generator(self) -> Generator[Any, None, Any]:
        try:
            return self._steps
        except AttributeError:
            self._steps: Generator[Any, None, Any] = self.__await__()
            return self._steps


Answered: TypeAlias = Callable[[Any, RpcError | None], None]
"""Told the result of a call, or its error."""


class AskedCall(Call):
    """A call that tells somebody of its end, in the event that brings it; nobody awaits it."""

    __slots__ = ("_tell",)

    def __init__(self, peer: Peer, call: Call, tell: Answered) -> None:
        super().__init__(peer, call.msgid, None, call.statistics, call.started)
        self._tell = tell

    def answered(self, result: Any, direct: bool) -> None:
        """The result has come."""
        self._value, self._error = result, None
        self._tell(result, None)

    def finish(self, value: Any, error: BaseException | None, *, direct: bool) -> None:
        """The call has failed."""
        if not self.done():
            super().finish(value, error, direct=direct)
            if isinstance(error, RpcError):
                self._tell(None, error)


class BoundCall(Call):
    """A call that a token can end, whoever awaits it; made within a scope."""

    __slots__ = ("_token",)

    def __init__(self, peer: Peer, call: Call, token: CancelToken) -> None:
        super().__init__(peer, call.msgid, peer.loop, call.statistics, call.started)
        self._token = token
        token.add_callback(self._token_cancelled)

    def answered(self, result: Any, direct: bool) -> None:
        """The result has come."""
        self._token.remove_callback(self._token_cancelled)
        super().answered(result, direct)

    def finish(self, value: Any, error: BaseException | None, *, direct: bool) -> None:
        """The call has failed, or is given up."""
        self._token.remove_callback(self._token_cancelled)
        super().finish(value, error, direct=direct)

    def _token_cancelled(self) -> None:
        self.give_up(self._token.reason)


async def cancellable(call: Call, cancel: CancelToken) -> Any:
    """Await a call that a token can end."""

    def give_up() -> None:
        call.give_up(cancel.reason)

    cancel.add_callback(give_up)
    try:
        return await call
    finally:
        cancel.remove_callback(give_up)
