"""An awaitable that resumes its task directly, without a round through the event loop.

`asyncio.Future` hands its result to `call_soon`, and the task runs in the next iteration of the
loop. Results of calls arrive while the driver reads, between two iterations, when no task is
running; there a task can be resumed on the spot, which saves a handle, a queue and an iteration
per call. A `Waiter` is what `asyncio.Task` expects of a future (`_asyncio_future_blocking`,
`_loop`, `add_done_callback` with a context, `result`, `cancel`) and no more; while no task waits,
`_asyncio_future_blocking` is None, so that asyncio does not take it for a whole future. One task
may await it, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Final

PENDING: Final = object()
"""The value of what has not happened yet."""


class Waiter:
    """Something that happens once, awaited by one task or looked at by a polling caller.

    Args:
        loop: The loop of the task that will await it; None if nobody will.
    """

    # `_error` is set when it happens, `_context` when a task waits: what needs no value has none.
    __slots__ = ("_asyncio_future_blocking", "_context", "_error", "_loop", "_value", "_wake")

    _error: BaseException | None
    _context: Context | None

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._asyncio_future_blocking: bool | None = None
        self._loop = loop
        self._value: Any = PENDING
        self._wake: Callable[[Any], object] | None = None

    def finish(self, value: Any, error: BaseException | None, *, direct: bool) -> None:
        """Make it happen; a second time does nothing.

        Args:
            value: What the await returns.
            error: What it raises instead, or None.
            direct: Whether no task is running now, so that the waiting one may run at once.
        """
        if self._value is not PENDING:
            return
        self._value = value
        self._error = error
        wake = self._wake
        if wake is None:
            return
        if direct and self._context is not None:
            self._context.run(wake, self)
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(wake, self, context=self._context)

    def __await__(self) -> Generator[Any, None, Any]:
        if self._value is PENDING:
            if self._wake is not None:
                raise RuntimeError("another task awaits this already; make a task of it for both to await")
            self._asyncio_future_blocking = True
            yield self  # where there is an error, the task throws it in here
            self._asyncio_future_blocking = None
            return self._value
        return self.result()

    # -- what asyncio.Task asks of a future -------------------------------------------------------

    def done(self) -> bool:
        """Whether it has happened."""
        return self._value is not PENDING

    def result(self) -> Any:
        """Its value; raises its error."""
        if self._error is not None:
            raise self._error
        return self._value

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Remember how to resume the task."""
        self._wake = callback
        self._context = context

    def cancel(self, msg: Any = None) -> bool:
        """The task that awaits it is being cancelled."""
        if self._value is not PENDING:
            return False
        self.finish(
            None, asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg), direct=False
        )
        return True
