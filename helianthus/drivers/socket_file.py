"""Listening at a path: whose file it is, what to do with a stale one, and who may connect.

The file of a Unix-domain socket outlives its listener: who was killed leaves one behind, at which
`bind` then fails for ever. So whoever wants to listen has to find out whether somebody still does,
and remove the file if not. Between looking and removing another process may have put its own file
there, so this is done under a lock: an exclusive `flock` of the file PATH.lock, which is held for as
long as we listen and which the kernel releases when the process ends, however it ends.

What is guaranteed:

* Among listeners of this module, one listens at a path, and the file is that one's. Who finds the
  lock taken hears `AddressInUse`; who gets it has the path to itself.
* Other programs do not know the lock. A path is not taken from one that listens: before a file is
  removed somebody tries to connect, and only a refusal makes it stale. A program that has bound its
  socket and does not listen yet refuses too, as does, on a BSD, one whose backlog is full; from such
  a one the path would be taken. The same goes for one that binds between our look and the removal,
  which are two system calls apart.
* What is no socket is never removed; neither is a symbolic link.
* When listening ends, the file is removed if it is still ours, by device and inode; while our socket
  is open the kernel gives that inode to nobody else.
* Nobody can connect before the mode is set: it is set after `bind` and before `listen`.

The lock file is removed by its holder only. Who has opened one that was removed meanwhile holds the
lock of nothing, which it notices because the file at the path is another one, and begins again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import weakref

from .address import Address
from .errors import (
    AddressInUse,
    AddressNotAvailable,
    ConnectionRefused,
    PermissionDenied,
    TransportError,
    from_os_error,
)
from .unix_socket import AF_UNIX, kind_of_file, try_to_connect, unix_name

try:
    import fcntl
except ImportError:  # Windows, which has no such sockets in Python either
    fcntl = None  # type: ignore[assignment]

_Identity = tuple[int, int]  # device and inode


class SocketFile:
    """The file of a listening socket, ours until it is removed.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: bytes, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._identity: _Identity | None = None
        _live.add(self)

    def bound(self) -> None:
        """Our socket has been bound: the file is ours."""
        self._identity = _identity_at(self.path)

    def remove(self) -> None:
        """Remove the file if it is still ours, and release the lock. Before the socket is closed."""
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):  # the directory is gone, or not ours to change any more
            if self._identity is not None and _identity_at(self.path) == self._identity:
                os.unlink(self.path)
        with contextlib.suppress(OSError):
            os.unlink(_lock_path(self.path))
        self._release()

    def abandon(self) -> None:
        """In a forked child: file and lock are the parent's."""
        if self._lock >= 0:
            self._release()

    def _release(self) -> None:
        lock, self._lock = self._lock, -1
        os.close(lock)


def listen_at_path(address: Address, backlog: int) -> tuple[socket.socket, SocketFile | None]:
    """Bind and listen; gives the socket and, unless the name is abstract, its file.

    Raises:
        AddressInUse: Somebody listens there, or what is there is no socket.
        TransportError: Another one of `drivers.errors`.
    """
    name = unix_name(address)
    try:
        if address.abstract:
            return _listen(name, None, None, backlog), None
        file = _claim(name)
        try:
            return _listen(name, file, address.mode, backlog), file
        except BaseException:
            file.remove()
            raise
    except OSError as error:
        failure = _explained(error, name)
        failure.address = str(address)
        raise failure from error


def _listen(name: bytes, file: SocketFile | None, mode: int | None, backlog: int) -> socket.socket:
    assert AF_UNIX is not None
    sock = socket.socket(AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(name)
        if file is not None:
            file.bound()
        if mode is not None:
            os.chmod(name, mode)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _claim(path: bytes) -> SocketFile:
    """Make the path ours to bind at."""
    file = SocketFile(path, _lock_of(path))
    try:
        _remove_stale(path)
    except BaseException:
        file.remove()
        raise
    return file


def _remove_stale(path: bytes) -> None:
    """Remove the file of a listener that is no more."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise AddressInUse(
            f"what is there is {kind_of_file(there.st_mode)} and no socket, and is not removed; "
            "choose another path"
        )
    try:
        probe = try_to_connect(path)
    except ConnectionRefused as error:
        if error.errno == errno.ENOENT:
            return
    except PermissionDenied:
        raise AddressInUse("a socket is there to which we may not connect, to see who listens") from None
    except TransportError as error:
        raise AddressInUse(f"a socket is there already; {error.message}") from None
    else:
        if probe is not None:
            probe.close()
        raise AddressInUse("somebody else listens there")
    if _identity_at(path) == (there.st_dev, there.st_ino):
        os.unlink(path)


# -- the lock ------------------------------------------------------------------------------------------


def _lock_path(path: bytes) -> bytes:
    return path + b".lock"


def _lock_of(path: bytes) -> int:
    """Take the lock of a path; gives the descriptor that holds it."""
    lock_path = _lock_path(path)
    while True:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.fstat(lock)
            if _identity_at(lock_path) == (ours.st_dev, ours.st_ino):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise AddressInUse("somebody else listens there") from None
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # its holder removed it after we had opened it


# -- small things ---------------------------------------------------------------------------------------


def _identity_at(path: bytes) -> _Identity | None:
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return None
    return there.st_dev, there.st_ino


def _explained(error: OSError, name: bytes) -> TransportError:
    """Say of a failure what it means for a path."""
    if isinstance(error, TransportError):
        return error
    directory = os.fsdecode(os.path.dirname(name))
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return AddressNotAvailable(f"the directory {directory} does not exist", code=error.errno)
    failure = from_os_error(error)
    if error.filename:
        failure.message = f"{failure.message} ({os.fsdecode(error.filename)})"
    return failure


_live: weakref.WeakSet[SocketFile] = weakref.WeakSet()


def _abandon_all() -> None:
    for file in list(_live):
        file.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
