"""asyncio's proactor on the completion port of a driver.

`ProactorEventLoop` asks its proactor for two things: to begin operations, and to wait for their ends.
Beginning them is asyncio's own code, unchanged; waiting is a tick of the driver, which hands over the
completions that are not its own. They are matched with their futures here, as `IocpProactor._poll`
does it, through the fields in which that keeps them. These have been the same from Python 3.4 to 3.13.
"""

from __future__ import annotations

import importlib
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, MutableSet
from typing import TYPE_CHECKING, Any

from .overlapped import Completion, Overlapped, kernel

if TYPE_CHECKING:
    from .iocp import IocpDriver

    class IocpProactor:
        """What is used of asyncio's, which type checkers know on Windows only."""

        _loop: AbstractEventLoop | None
        _iocp: int | None
        _results: list[Any]
        _cache: dict[int, tuple[Future[Any], Overlapped, Any, Callable[..., Any]]]
        _unregistered: list[Overlapped]
        _stopped_serving: MutableSet[Any]

        def close(self) -> None:
            """Cancel what is under way, and close the port."""
else:
    from asyncio import IocpProactor

_close_handle: Callable[[int], None] = importlib.import_module("_winapi").CloseHandle


class LoopProactor(IocpProactor):
    """The proactor of the loop that turns a driver.

    Attributes:
        driver: Whose port it shares.
    """

    def __init__(self, driver: IocpDriver) -> None:
        super().__init__()
        self.driver = driver

    @property
    def port(self) -> int:
        """The handle of the completion port."""
        assert self._iocp is not None
        return self._iocp

    @property
    def has_loop(self) -> bool:
        """Whether a loop has been made with it."""
        return self._loop is not None

    def select(self, timeout: float | None = None) -> list[Any]:
        """Turn the driver once; gives the futures that have a result by that."""
        for completion in self.driver._tick(0.0 if self._results else timeout):
            self.completed(completion)
        self._forget_unregistered()
        results, self._results = self._results, []
        return results

    def completed(self, completion: Completion) -> None:
        """One of the loop's operations has ended."""
        _, transferred, key, address = completion
        entry = self._cache.pop(address, None)
        if entry is None:  # cancelled and forgotten; a key of its own is a handle that nobody waits for
            if key not in (0, kernel.INVALID_HANDLE_VALUE):
                _close_handle(key)
            return
        future, operation, owner, finish = entry
        if owner in self._stopped_serving:
            future.cancel()
        elif not future.done():  # else the result was there at once, or nobody wants it any more
            try:
                value = finish(transferred, key, operation)
            except OSError as error:
                future.set_exception(error)
            else:
                future.set_result(value)
            self._results.append(future)

    def _poll(self, timeout: float | None = None) -> None:
        """Wait for operations of the loop; `IocpProactor.close` does, for those that it cancels."""
        for completion in self.driver.collect(timeout):
            self.completed(completion)
        self._forget_unregistered()

    def _forget_unregistered(self) -> None:
        for operation in self._unregistered:
            self._cache.pop(operation.address, None)
        self._unregistered.clear()

    def close(self) -> None:
        """The loop closes: so does the driver."""
        self.driver.close()

    def free(self) -> None:
        """Cancel what the loop has left, and close the port."""
        super().close()
