"""What every server among the contestants does besides its work: tell its address, and end in time."""

from __future__ import annotations

import signal

LOOPBACK = "127.0.0.1"


def bound_lifetime(seconds: int) -> None:
    """Let the system end this process after `seconds`, should whoever started it not get to it."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def announce(host: str, port: int) -> None:
    """Tell whoever started this process where it listens."""
    print(f"{host}:{port}", flush=True)
