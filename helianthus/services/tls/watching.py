"""Looks at certificates, and has them read again when they have changed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .files import FilePath, TlsFilesUnusable

if TYPE_CHECKING:
    from .options import ServerTls

DEBOUNCE = 500
"""Milliseconds in which further changes belong to the same one: certificate and key are two files."""


async def watch(
    tls: ServerTls, reloaded: Callable[[], object], failed: Callable[[TlsFilesUnusable], object]
) -> None:
    """Reload whenever a file has another content, until cancelled.

    Whole directories are watched, because files are replaced rather than written to; in Kubernetes by
    turning a symbolic link.

    Args:
        tls: What to reload.
        reloaded: Called when that was done.
        failed: Called when it could not be done; what was read before stays in use.

    Raises:
        ModuleNotFoundError: The package watchfiles cannot be used here.
    """
    from watchfiles import awatch  # late: its extension does not exist everywhere

    directories = sorted({Path(file).absolute().parent for file in tls.files})
    look = _Look(tls, reloaded, failed)
    # What has changed between the first reading and the beginning of the watch, nothing else tells; the
    # callback comes after that beginning, which is in the first step of `awatch`, before it suspends.
    first = asyncio.get_running_loop().call_soon(look.again)
    try:
        async for _ in awatch(
            *directories, watch_filter=None, debounce=DEBOUNCE, recursive=False, yield_on_timeout=True
        ):
            look.again()
    finally:
        first.cancel()


class _Look:
    """Compares what the files hold with what is in use, and with what was refused."""

    def __init__(
        self, tls: ServerTls, reloaded: Callable[[], object], failed: Callable[[TlsFilesUnusable], object]
    ) -> None:
        self._tls = tls
        self._reloaded = reloaded
        self._failed = failed
        self._refused = ""  # told once: a log that stands in the same directory is a change, too

    def again(self) -> None:
        found = digest(self._tls)
        if found == self._tls.made(digest):
            self._refused = ""
        elif found != self._refused:
            try:
                self._tls.reload()
            except TlsFilesUnusable as error:
                self._refused = found  # perhaps one of two files has come; the other will be seen, too
                self._failed(error)
            else:
                self._refused = ""
                self._reloaded()


def digest(tls: ServerTls) -> str:
    """What the files hold now; with `ServerTls.made`, what they held when they were read."""
    content = hashlib.sha256()
    for file in tls.files:
        content.update(hashlib.sha256(_read(file)).digest())
    return content.hexdigest()


def _read(file: FilePath) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:
        return b"?"
