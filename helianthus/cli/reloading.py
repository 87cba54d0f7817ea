"""SIGHUP while a node serves: its certificates are read again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import Any

from ..services.tls import ServerTls, TlsFilesUnusable
from .output import say

_log = logging.getLogger("helianthus.serve")


@contextlib.asynccontextmanager
async def reloading(
    tls: ServerTls | None, post: Callable[[Callable[[], None]], None], *, watch: bool
) -> AsyncIterator[None]:
    """Have SIGHUP, and where asked for a change of the files, reload certificates during the block.

    Args:
        tls: What to reload; without it, SIGHUP ends the process as it always does.
        post: Has a callback called by the running loop; callable from signal handlers.
        watch: Whether to look at the files.
    """
    if tls is None:
        yield
        return
    with _on_hangup(lambda: post(lambda: _reload(tls))):
        if not watch:
            yield
            return
        watching = asyncio.create_task(_watch(tls))
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


def say_reloaded() -> None:
    """Tell that new connections get the new certificates."""
    say("certificates read again")


def say_failed(error: TlsFilesUnusable) -> None:
    """Tell why they do not."""
    _log.error("the certificates stay as they were: %s", error)


async def _watch(tls: ServerTls) -> None:
    try:
        await tls.watch(say_reloaded, say_failed)
    except (ImportError, OSError) as error:
        _log.error("changes of the certificates are not seen, send SIGHUP in place of it: %s", error)


def _reload(tls: ServerTls) -> None:
    try:
        tls.reload()
    except TlsFilesUnusable as error:
        say_failed(error)
    else:
        say_reloaded()


@contextlib.contextmanager
def _on_hangup(reload: Callable[[], None]) -> Any:
    number = getattr(signal, "SIGHUP", None)  # Windows has none
    if number is None:
        yield
        return

    def handle(_: int, __: FrameType | None) -> None:
        reload()

    previous = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_DFL if previous is None else previous)
