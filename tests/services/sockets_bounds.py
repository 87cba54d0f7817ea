"""All the ways in which an operation can be given up, behind one face."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from helianthus.sockets import CancelToken, OperationCancelled, OperationTimedOut, cancel_scope

MOMENT = 0.3 if sys.platform == "win32" else 0.03
"""Seconds that an operation gets which is given up by time; Windows may be Wine, which is slow."""


class Operation(Protocol):
    """Begins an operation of a socket that is given these bounds."""

    def __call__(self, *, timeout: float | None = None, cancel: CancelToken | None = None) -> Any: ...


class Way:
    """One way to give up an operation.

    Attributes:
        name: For the test's id.
        raises: What the operation raises then.
    """

    name: str
    raises: type[BaseException]

    def begin(self, operation: Operation) -> asyncio.Future[Any]:
        """Begin an operation, as a task."""
        raise NotImplementedError

    def give_up(self) -> None:
        """Give it up now, unless time does."""


class ByTimeout(Way):
    name = "timeout"
    raises = OperationTimedOut

    def begin(self, operation: Operation) -> asyncio.Future[Any]:
        return asyncio.ensure_future(operation(timeout=MOMENT))


class ByToken(Way):
    name = "token"
    raises = OperationCancelled

    def begin(self, operation: Operation) -> asyncio.Future[Any]:
        self.token = CancelToken()
        return asyncio.ensure_future(operation(cancel=self.token))

    def give_up(self) -> None:
        self.token.cancel("enough")


class ByLinkedToken(ByToken):
    name = "linked token"

    def begin(self, operation: Operation) -> asyncio.Future[Any]:
        self.token = CancelToken()
        return asyncio.ensure_future(operation(cancel=CancelToken.linked(CancelToken(), self.token)))


class ByDeadlineToken(Way):
    name = "token with a deadline"
    raises = OperationCancelled

    def begin(self, operation: Operation) -> asyncio.Future[Any]:
        return asyncio.ensure_future(operation(cancel=CancelToken.after(MOMENT)))


class ByScopeTime(Way):
    name = "time of a scope"
    raises = OperationTimedOut

    def begin(self, operation: Operation) -> asyncio.Future[Any]:
        with cancel_scope(timeout=60), cancel_scope(timeout=MOMENT), cancel_scope():
            return asyncio.ensure_future(operation())


class ByScope(Way):
    name = "cancelled scope"
    raises = OperationCancelled

    def begin(self, operation: Operation) -> asyncio.Future[Any]:
        with cancel_scope() as self.scope, cancel_scope(cancel=CancelToken()):
            return asyncio.ensure_future(operation(cancel=CancelToken()))

    def give_up(self) -> None:
        self.scope.cancel("enough")


class ByTask(Way):
    name = "cancelled task"
    raises = asyncio.CancelledError

    def begin(self, operation: Operation) -> asyncio.Future[Any]:
        self.task = asyncio.ensure_future(operation())
        return self.task

    def give_up(self) -> None:
        self.task.cancel()


class ByAsyncioTimeout(Way):
    name = "asyncio.timeout"
    raises = TimeoutError

    def begin(self, operation: Operation) -> asyncio.Future[Any]:
        async def bounded() -> Any:
            async with asyncio.timeout(MOMENT):
                return await operation()

        return asyncio.ensure_future(bounded())


WAYS: list[Callable[[], Way]] = [
    ByTimeout,
    ByToken,
    ByLinkedToken,
    ByDeadlineToken,
    ByScopeTime,
    ByScope,
    ByTask,
    ByAsyncioTimeout,
]


async def given_up(
    way: Way, operation: Operation, until_begun: Coroutine[Any, Any, None] | None = None
) -> Any:
    """Begin an operation that cannot end, give it up, and return what it raised."""
    doing = way.begin(operation)
    for _ in range(3):
        await asyncio.sleep(0)
    if until_begun is not None:  # unless its time is up before
        beginning = asyncio.ensure_future(until_begun)
        await asyncio.wait([doing, beginning], return_when=asyncio.FIRST_COMPLETED)
        beginning.cancel()
    way.give_up()
    (outcome,) = await asyncio.gather(doing, return_exceptions=True)
    assert isinstance(outcome, way.raises), outcome
    return outcome
