"""Closing a socket so that its peer finds the connection reset."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Any

_AT_ONCE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""`struct linger`: on, for no time (socket(7); on Windows of two shorts)."""


def reset_when_closed(sock: Any) -> None:
    """Have the kernel reset a connection when the socket is closed, and drop what it has queued.

    Args:
        sock: A socket, or what a transport has for one; of one that is closed already, nothing happens.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
