"""The words in which the tests of kqueue speak to it: the system's, or on Linux its double."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from helianthus.drivers.kqueue import user_filter

if hasattr(select, "kqueue"):
    kq: Any = select
else:
    kq = pytest.importorskip("kqueue_double", reason="there is no kqueue, and its double is for Linux")

double_only = pytest.mark.skipif(kq is select, reason="of the double; the manual page does not say it")
READ, WRITE, USER = kq.KQ_FILTER_READ, kq.KQ_FILTER_WRITE, user_filter(kq)
ADD, DELETE, ENABLE, DISABLE = kq.KQ_EV_ADD, kq.KQ_EV_DELETE, kq.KQ_EV_ENABLE, kq.KQ_EV_DISABLE
ONESHOT, CLEAR, EOF, ERROR = kq.KQ_EV_ONESHOT, kq.KQ_EV_CLEAR, kq.KQ_EV_EOF, kq.KQ_EV_ERROR
RECEIPT, DISPATCH = 0x40, 0x80  # `select` does not name them
NOTE_TRIGGER, NOTE_FFAND, NOTE_FFOR, NOTE_FFCOPY = 0x01000000, 0x40000000, 0x80000000, 0xC0000000
PATIENCE = 20.0

Pair = tuple[socket.socket, socket.socket]


class Queue:
    """A queue, and the words to speak to it."""

    def __init__(self) -> None:
        self.kernel = kq.kqueue()

    def change(
        self, ident: Any, kind: int, flags: int, fflags: int = 0, data: int = 0, udata: int = 0
    ) -> None:
        """Make one change, with no room for a report: what is wrong with it is raised."""
        assert self.kernel.control([kq.kevent(ident, kind, flags, fflags, data, udata)], 0) == []

    def events(self, most: int = 16) -> list[Any]:
        """What is there now."""
        found: list[Any] = self.kernel.control(None, most, 0)
        return found

    def event(self) -> Any:
        """The only event; waits for it."""
        (found,) = self.kernel.control(None, 16, PATIENCE)
        return found


def fill(sock: socket.socket) -> int:
    """Write until nothing more fits; gives how much it was."""
    total = 0
    while True:
        try:
            total += sock.send(bytes(65536))
        except BlockingIOError:
            return total


def drain(sock: socket.socket, size: int) -> None:
    """Read that much."""
    sock.settimeout(PATIENCE)
    while size:
        size -= len(sock.recv(min(size, 1 << 20)))


def arrived(sock: socket.socket) -> None:
    """Wait until there is something to read, without the queue."""
    select.select([sock], [], [], PATIENCE)


@contextmanager
def using_number(number: int) -> Iterator[socket.socket]:
    """Give the number of a closed descriptor to a new socket; gives the socket's peer."""
    mine, peer = socket.socketpair()
    if peer.fileno() == number:
        mine, peer = peer, mine
    if mine.fileno() != number:
        os.dup2(mine.fileno(), number)
        mine.close()
        mine = socket.socket(fileno=number)
    with mine, peer:
        yield peer


def reset(sock: socket.socket) -> None:
    """Close with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
