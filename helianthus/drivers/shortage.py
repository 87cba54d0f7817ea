"""Listeners that cannot accept for want of descriptors or memory: how long they rest, and what they report.

The shortage lasts until somebody closes something, and is found again at each attempt. It is reported
when it begins, and not again before it has been gone for a while.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import math
from typing import Any

from .address import Address
from .errors import AcceptPaused

resource: Any = None
with contextlib.suppress(ImportError):  # Windows, which does not limit descriptors
    resource = importlib.import_module("resource")  # now: later there is no descriptor to read it with

_TOO_MANY = (errno.EMFILE, getattr(errno, "WSAEMFILE", errno.EMFILE))  # the second from Windows' sockets

SHORTAGES = (*_TOO_MANY, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Codes of a shortage; others of `accept` concern one connection (accept(2))."""

ACCEPT_PAUSE = 0.1
"""Seconds that a listener rests before it tries again."""

QUIET = 10.0
"""Seconds without a shortage after which the next is a new one, which is reported again."""


class Shortage:
    """Decides which failures of one listener to accept are reported."""

    def __init__(self) -> None:
        self._last = -math.inf

    def failed(self, error: OSError, address: Address, now: float) -> AcceptPaused | None:
        """What to report of a failure with one of `SHORTAGES`; None where that has been done."""
        last, self._last = self._last, now
        if now - last < QUIET:
            return None
        return AcceptPaused(
            f"connections wait here and cannot be accepted: {_reason(error)}; "
            f"this is tried again every {ACCEPT_PAUSE:g} s, and not reported again",
            code=error.errno,
            address=str(address),
        )


def _reason(error: OSError) -> str:
    """What is missing, how much there may be of it, and what to do."""
    if error.errno in _TOO_MANY and error.errno != errno.EMFILE:
        return "all sockets and files that this process may have are in use; let it keep fewer connections"
    if error.errno == errno.EMFILE:
        return (
            f"all {_limit()}file descriptors that this process may have are in use; raise the limit "
            "(RLIMIT_NOFILE: ulimit -n, or LimitNOFILE= of systemd), or let it keep fewer connections"
        )
    if error.errno == errno.ENFILE:
        return (
            "all file descriptors that the whole system may have are in use; raise its limit (on Linux "
            "sysctl fs.file-max), or look for what keeps so many"
        )
    return f"the system has no memory for them ({error.strerror}); free some, or keep fewer connections"


def _limit() -> str:
    """The limit of this process, where it can be known."""
    if resource is None:
        return ""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return "" if limit == resource.RLIM_INFINITY else f"{limit} "
