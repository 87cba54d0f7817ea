"""SIGTERM and Ctrl-C while a node serves.

The first of either asks for a stop in good order. Ctrl-C once that has begun stops at once, even
where a service's method blocks: `KeyboardInterrupt` is raised wherever the program is. Some loops
drop it where it meets them in a callback, so the serving task is cancelled as well.

Python's own signal handlers are used, not those of an event loop, because they run while a method
blocks the loop, and on every platform and driver; `post` then wakes the driver.

A handler runs between two steps of Python. A signal that arrives after the last of them and before the
wait of the loop has begun would be looked at when something else ends the wait, which may be never. So
the interpreter also writes to a socket that the loop watches.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from .output import INTERRUPTED

AT_ONCE = 1.0
"""Seconds that cancelled methods have to clean up when the node is to stop at once."""

_log = logging.getLogger("helianthus.serve")


class StopSignals:
    """Turns signals into `wanted`, as long as it is entered; enter it in the task that serves.

    Args:
        post: Has a callback called by the task's loop; callable from signal handlers.

    Attributes:
        wanted: Set when the node is to stop.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None]) -> None:
        self.wanted = asyncio.Event()
        self._post = post
        self._task: asyncio.Task[Any] | None = None
        self._asked = False
        self._at_once = False
        self._previous: dict[signal.Signals, Any] = {}
        self._alarm: tuple[socket.socket, socket.socket] | None = None

    def __enter__(self) -> StopSignals:
        self._task = asyncio.current_task()
        self._end_waits()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._at_once:
            return  # more of Ctrl-C is to change nothing, and the process is about to end
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._alarm is not None:
            signal.set_wakeup_fd(-1)
            reader, writer = self._alarm
            asyncio.get_running_loop().remove_reader(reader)
            reader.close()
            writer.close()

    def _end_waits(self) -> None:
        """Have each signal end the wait of the loop, unless the loop sees to that itself."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        others = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if others == -1:
            try:
                asyncio.get_running_loop().add_reader(reader, lambda: reader.recv(4096))
            except NotImplementedError:  # such a loop has no descriptors to wait for
                signal.set_wakeup_fd(-1)
            else:
                self._alarm = reader, writer
                return
        else:  # uvloop's, or that of asyncio's proactor
            signal.set_wakeup_fd(others, warn_on_full_buffer=False)
        reader.close()
        writer.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._asked:
            self._asked = True
            self._post(self.wanted.set)
        elif number == signal.SIGINT and not self._at_once:
            self._at_once = True
            self._stop_at_once()

    def _stop_at_once(self) -> None:
        logging.disable()  # of what is being torn down nobody wants to hear
        end_within(AT_ONCE, INTERRUPTED)
        self._post(self._cancel_task)
        raise KeyboardInterrupt

    def _cancel_task(self) -> None:
        if self._task is not None:
            self._task.cancel()


def end_within(seconds: float, code: int) -> None:
    """End the process after a while, if it has not ended by then: whatever still runs is left."""

    def end() -> None:
        _log.warning("what had been cancelled did not end; it was left as it was")
        os._exit(code)

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), end)
    timer.daemon = True
    timer.start()
