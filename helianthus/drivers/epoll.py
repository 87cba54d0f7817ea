"""The native reactor on Linux' epoll."""

from __future__ import annotations

import contextlib
import random
import select

from .native import HANG_UP, READ, WRITE
from .reactor import Reactor

_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_REPORTED = select.EPOLLIN | select.EPOLLOUT | _HANG_UP
_FLAGS = {
    mask: (READ if mask & select.EPOLLIN else 0)
    | (WRITE if mask & select.EPOLLOUT else 0)
    | (HANG_UP if mask & _HANG_UP else 0)
    for mask in range(_REPORTED + 1)
    if not mask & ~_REPORTED
}
_BATCH = 1024  # events taken from the kernel at a time


class EpollReactor(Reactor):
    """Pumps links over epoll, edge-triggered, and serves asyncio as a selector.

    A link costs one `epoll_ctl` in its life: both directions are watched from the start, and the
    kernel reports writability only after a write that did not fit.
    """

    name = "epoll"
    _flags = _FLAGS

    def __init__(self, rng: random.Random | None = None) -> None:
        self._epoll = select.epoll()
        super().__init__(rng)

    def _watch_edges(self, fd: int, events: int, previous: int = 0) -> None:
        if not previous:
            self._epoll.register(fd, _EDGES)

    def _watch_level(self, fd: int, events: int, previous: int) -> None:
        mask = (select.EPOLLIN if events & READ else 0) | (select.EPOLLOUT if events & WRITE else 0)
        if not mask:
            with contextlib.suppress(OSError):  # its owner has closed it, and the kernel forgot it
                self._epoll.unregister(fd)
        elif previous:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)

    def _wait(self, timeout: float | None) -> list[tuple[int, int]]:
        return self._epoll.poll(timeout, _BATCH)

    def _close_queue(self) -> None:
        self._epoll.close()
