"""Unix-domain sockets: their names as the kernel takes them, connecting, and who is at the other end."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import struct
import sys
from typing import Any

import attrs

from .address import Address
from .errors import (
    AddressNotAvailable,
    AddressNotSupported,
    ConnectionRefused,
    TimedOut,
    TransportError,
    from_os_error,
)

AF_UNIX: socket.AddressFamily | None = getattr(socket, "AF_UNIX", None)
"""None where Python has no Unix-domain sockets, as on Windows."""

SUN_PATH = 108 if sys.platform == "linux" else 104
"""Bytes that the kernel has for a path and the zero behind it (unix(7); macOS and the BSDs: unix(4))."""

FULL_BACKLOG_DELAY = (0.001, 0.1)
"""Shortest and longest seconds until it is tried again to connect to somebody whose backlog is full."""

FULL_BACKLOG_PATIENCE = 127.0
"""Seconds after which that is given up: as long as Linux tries to connect over TCP."""

_CREDENTIALS = struct.Struct("iII")  # struct ucred of Linux: process, user, group
_SHOWN = re.compile(r"unix:pid=(\d+),uid=(\d+),gid=(\d+)")


@attrs.frozen
class PeerCredentials:
    """The process that has connected to a Unix-domain socket, as the kernel knew it at that moment.

    A process outside of our namespaces has the numbers that they show for it, and 0 for a pid that they
    do not. The process may have ended since, and its pid be another's; the user and group are facts.

    Attributes:
        pid: Process.
        uid: User.
        gid: Group.
    """

    pid: int
    uid: int
    gid: int

    @classmethod
    def parse(cls, peer_address: str) -> PeerCredentials | None:
        """Read a peer's address; None where it is not one of these."""
        found = _SHOWN.fullmatch(peer_address)
        return cls(*map(int, found.groups())) if found is not None else None

    def __str__(self) -> str:
        return f"unix:pid={self.pid},uid={self.uid},gid={self.gid}"


def is_unix(sock: Any) -> bool:
    """Whether a socket, or what a transport shows for one, is a Unix-domain socket."""
    return AF_UNIX is not None and sock.family == AF_UNIX


def unix_name(address: Address) -> bytes:
    """What a socket takes to bind or connect.

    Raises:
        AddressNotSupported: It is a pipe, or the platform lacks such sockets.
        AddressNotAvailable: The path is too long.
    """
    where = str(address)
    if address.scheme != "unix":
        raise AddressNotSupported(
            "this driver has no named pipes, which the iocp driver of Windows has; use unix:///path or tcp://host:port",
            address=where,
        )
    if AF_UNIX is None:
        raise AddressNotSupported(
            "Python has no Unix-domain sockets on this platform; use tcp://host:port", address=where
        )
    if address.abstract and sys.platform != "linux":
        raise AddressNotSupported("abstract names exist on Linux only; use a path", address=where)
    name = os.fsencode(address.path[2:] if address.abstract else address.path)
    if len(name) >= SUN_PATH:
        what = "name" if address.abstract else "path"
        raise AddressNotAvailable(
            f"the {what} has {len(name)} bytes, but that of a Unix-domain socket may have {SUN_PATH - 1} "
            "at most here; choose a shorter one",
            address=where,
        )
    return b"\0" + name if address.abstract else name


def unix_text(name: str | bytes) -> str:
    """Write what a Unix-domain socket says of itself as a URL; `unix:` where it has no name."""
    text = os.fsdecode(name)
    if not text:
        return "unix:"
    return str(Address("", 0, "unix", f"/@{text[1:]}" if text.startswith("\0") else text))


def peer_text(sock: socket.socket) -> str:
    """Who has connected to a listener, as `PeerCredentials` (SO_PEERCRED, unix(7)); only Linux tells.

    Elsewhere it is `unix:`.
    """
    if sys.platform != "linux":
        return "unix:"
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return "unix:"
    return str(PeerCredentials(*_CREDENTIALS.unpack(raw)))


def try_to_connect(name: bytes) -> socket.socket | None:
    """Connect, which never has to be waited for; gives None where the listener's backlog is full.

    A BSD refuses then. Linux says EAGAIN, and nothing tells of the moment at which there is room.

    Raises:
        ConnectionRefused: Nobody listens there.
        TransportError: Another one of `drivers.errors`.
    """
    assert AF_UNIX is not None
    sock = socket.socket(AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(name)
        if not code:
            return sock
    except BaseException:
        sock.close()
        raise
    sock.close()
    if code in (errno.EAGAIN, errno.EINPROGRESS):
        return None
    where = unix_text(name)
    if code == errno.ENOENT:
        raise ConnectionRefused("nobody listens there, there is no such file", code=code, address=where)
    if code in (errno.ECONNREFUSED, errno.ENOTSOCK):
        kind = _no_socket_at(name)
        if kind is not None:
            raise ConnectionRefused(
                f"what is there is {kind} and no socket; is the path right?", code=code, address=where
            )
    if code == errno.EPROTOTYPE:
        raise TransportError("the socket there is not for connections", code=code, address=where)
    raise from_os_error(OSError(code, os.strerror(code)), where)


def _no_socket_at(name: bytes) -> str | None:
    """What stands at a path in the place of a socket; None where there is one, or nothing to be seen."""
    if name.startswith(b"\0"):
        return None  # an abstract name
    try:
        mode = os.stat(name).st_mode
    except OSError:
        return None
    return None if stat.S_ISSOCK(mode) else kind_of_file(mode)


def kind_of_file(mode: int) -> str:
    """What is no socket, in words, by its `st_mode`."""
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a directory" if stat.S_ISDIR(mode) else "a file"


class Patience:
    """How long to wait for room in a full backlog."""

    def __init__(self, now: float) -> None:
        self._until = now + FULL_BACKLOG_PATIENCE
        self._delay = FULL_BACKLOG_DELAY[0]

    def next_delay(self, now: float) -> float:
        """Seconds until the next attempt.

        Raises:
            TimedOut: It has been tried for too long.
        """
        if now >= self._until:
            raise TimedOut(f"the listener has accepted nobody for {FULL_BACKLOG_PATIENCE:g} s")
        delay, self._delay = self._delay, min(2 * self._delay, FULL_BACKLOG_DELAY[1])
        return delay
