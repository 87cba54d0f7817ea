"""Raw sockets and threads: peers that know nothing of drivers."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any, Self

from helianthus.drivers.address import Address
from helianthus.drivers.base import Driver

PATIENCE = 30.0  # seconds that a peer waits for the driver before the test fails


class Peers:
    """Opens sockets and starts threads; all of them have ended when the block ends."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._sockets: list[socket.socket] = []
        self._threads: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # ends what a thread waits for; close() does not
        for thread in self._threads:
            thread.join(PATIENCE)
        for sock in self._sockets:
            sock.close()

    def dial(self, address: Address, *, receive_buffer: int = 0) -> socket.socket:
        """Connect to a listener; its driver need not be turned, the kernel answers."""
        sock = self.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect((address.host, address.port))
        return sock

    def socket(self) -> socket.socket:
        """A socket that is not connected yet."""
        sock = socket.socket()
        self._sockets.append(sock)
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def datagram_socket(
        self, host: str = "127.0.0.1", port: int = 0, *, receive_buffer: int = 0
    ) -> socket.socket:
        """A datagram socket that is bound, by default to a free port."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(sock)
        sock.settimeout(PATIENCE)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.bind((host, port))
        return sock

    def keep(self, sock: socket.socket) -> socket.socket:
        """Close a socket at the end, as the others."""
        self._sockets.append(sock)
        sock.settimeout(PATIENCE)
        return sock

    def listen(self) -> tuple[socket.socket, Address]:
        """Listen somewhere."""
        sock = self.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        return sock, Address(*sock.getsockname())

    def accept(self, listening: socket.socket) -> socket.socket:
        """Accept the next connection."""
        sock, _ = listening.accept()
        self._sockets.append(sock)
        sock.settimeout(PATIENCE)
        return sock

    def work(self, function: Callable[..., Any], *arguments: Any) -> Worker:
        """Run a function in a thread."""
        worker = Worker(function, arguments, self._driver)
        self._threads.append(worker)
        worker.start()
        return worker


class Worker(threading.Thread):
    """A thread that keeps what its function returned or raised, and then wakes the driver."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], driver: Driver) -> None:
        super().__init__(daemon=True)
        self._driver = driver
        self._function = function
        self._arguments = arguments
        self._result: Any = None
        self._error: BaseException | None = None
        self._done = False

    def run(self) -> None:
        try:
            self._result = self._function(*self._arguments)
        except BaseException as error:  # noqa: BLE001 - `result` raises it
            self._error = error
        self._done = True
        self._driver.post(lambda: None)  # whoever waits for this thread waits in the driver

    def done(self) -> bool:
        return self._done

    def result(self) -> Any:
        """What the function returned; raises what it raised."""
        assert self.done(), "the thread is still at work"
        if self._error is not None:
            raise self._error
        return self._result


def reset(sock: socket.socket) -> None:
    """Close with a reset instead of an end of stream."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_all(sock: socket.socket) -> bytes:
    """Read to the end of the stream."""
    pieces = []
    while piece := sock.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read that many bytes."""
    received = bytearray()
    while len(received) < size:
        piece = sock.recv(size - len(received))
        assert piece, f"the stream ended after {len(received)} of {size} bytes"
        received += piece
    return bytes(received)
