"""What every program among the contestants does besides its work: tell its address, and end in time."""

from __future__ import annotations

import signal
import sys

LOOPBACK = "127.0.0.1"


def bound_lifetime(seconds: int) -> None:
    """Let the system end this process after `seconds`, should whoever started it not get to it."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def allow_many_files() -> None:
    """Allow this process as many open files as the system lets it have."""
    if sys.platform != "win32":
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def files_allowed() -> int | None:
    """How many files this process may have open, or None where that is not known."""
    if sys.platform == "win32":
        return None
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if allowed == resource.RLIM_INFINITY else allowed


def announce(host: str, port: int) -> None:
    """Tell whoever started this process where it listens."""
    print(f"{host}:{port}", flush=True)
