"""Stream items from a file or a pipe: one JSON value a line, sent as the lines come.

A thread of its own reads them, one that the process does not wait for at its end: a read from a
terminal cannot be interrupted. For the same reason it reads the descriptor: a thread that is left
inside Python's file objects aborts the interpreter as it ends.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

import attrs

from .output import Misconfigured
from .values import from_json

MAX_LINE = 16 * 1024 * 1024
"""Bytes of a line; more than that no node takes as one message, and endless ones fill the memory."""

_READ_SIZE = 64 * 1024
_READ_AHEAD = 64  # lines


@attrs.frozen
class _Line:
    """A line, or, with a `fault`, why there are no more; both empty at the end."""

    text: bytes | None
    fault: str = ""


async def read_items(file: IO[bytes]) -> AsyncIterator[Any]:
    """The values of a file's lines; blank lines are skipped.

    Raises:
        Misconfigured: A line is no JSON, or the file cannot be read.
    """
    lines: asyncio.Queue[_Line] = asyncio.Queue()
    room = threading.Semaphore(_READ_AHEAD)
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            for line in _lines(file.fileno()):
                room.acquire()
                loop.call_soon_threadsafe(lines.put_nowait, line)
        except RuntimeError:
            return  # the loop has been closed: nobody wants them any more

    threading.Thread(target=read, name="helianthus-items", daemon=True).start()
    number = 0
    while (line := await lines.get()).text is not None:
        room.release()
        number += 1
        if line.text.strip():
            yield _value(number, line.text)
    if line.fault:
        raise Misconfigured(f"--items: line {number + 1}: {line.fault}")


def _value(number: int, text: bytes) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        raise Misconfigured(
            f"--items: line {number}, {text[:80].decode(errors='replace')}, {error}"
        ) from None


def _lines(descriptor: int) -> Iterator[_Line]:
    rest = b""
    try:
        while data := os.read(descriptor, _READ_SIZE):
            *whole, rest = (rest + data).split(b"\n")
            yield from map(_Line, whole)
            if len(rest) > MAX_LINE:
                yield _Line(None, f"is longer than {MAX_LINE} bytes")
                return
    except OSError as error:
        yield _Line(None, f"cannot be read: {error.strerror}")
        return
    if rest:
        yield _Line(rest)
    yield _Line(None)
