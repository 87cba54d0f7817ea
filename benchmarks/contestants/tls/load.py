"""Loads any echo server over TLS, from one process, by Python's blocking sockets.

Echo: on each connection `depth` messages are under way; what comes back is compared. Handshakes: one
connection after the other, each with one byte there and back, because in TLS 1.3 what can be resumed
comes only after the handshake.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable

from benchmarks.contestants.serving import bound_lifetime


class WrongAnswer(Exception):
    """What came back is not what was sent."""


def context() -> ssl.SSLContext:
    """Trusts everybody: to verify costs the client the same whoever serves."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def connect(address: tuple[str, int], tls: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    plain = socket.create_connection(address)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tls.wrap_socket(plain, server_hostname="localhost", session=session)


class Echo:
    """One connection with messages under way."""

    def __init__(self, sock: ssl.SSLSocket, size: int, depth: int) -> None:
        self.sock = sock
        self.count = 0
        self._message = os.urandom(size)
        self._size = size
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._got = 0
        self._unsent = memoryview(self._message * depth)
        sock.setblocking(False)

    def send(self) -> None:
        """Send what the system takes."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return

    def receive(self) -> None:
        """Take what has come; each whole message is sent again."""
        try:
            while True:
                got = self.sock.recv_into(self._view[self._got :])
                if not got:
                    raise WrongAnswer("the server closed the connection")
                self._got += got
                if self._got == self._size:
                    if self._buffer != self._message:
                        raise WrongAnswer("other bytes came back than were sent")
                    self._got = 0
                    self.count += 1
                    self._unsent = memoryview(bytes(self._unsent) + self._message)
                    self.send()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return

    @property
    def events(self) -> int:
        """What to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)


def echo(
    address: tuple[str, int], connections: int, size: int, depth: int
) -> tuple[Callable[[float], None], Callable[[], int]]:
    """Something to run until a time, and what has been counted so far."""
    tls = context()
    selector = selectors.DefaultSelector()
    ends = [Echo(connect(address, tls, None), size, depth) for _ in range(connections)]
    for end in ends:
        end.send()
        selector.register(end.sock, end.events, end)

    def run(until: float) -> None:
        while time.perf_counter() < until:
            for key, ready in selector.select(0.1):
                end: Echo = key.data
                if ready & selectors.EVENT_WRITE:
                    end.send()
                end.receive()
                if end.events != key.events:
                    selector.modify(end.sock, end.events, end)

    return run, lambda: sum(end.count for end in ends)


def handshakes(
    address: tuple[str, int], *, resumes: bool
) -> tuple[Callable[[float], None], Callable[[], int]]:
    """As `echo`; counts connections."""
    tls = context()
    session: ssl.SSLSession | None = None
    count = 0

    def run(until: float) -> None:
        nonlocal session, count
        while time.perf_counter() < until:
            with connect(address, tls, session) as sock:
                sock.sendall(b"?")
                if sock.recv(1) != b"?":
                    raise WrongAnswer("the byte did not come back")
                if sock.session_reused is not (session is not None):
                    raise WrongAnswer("the session was not resumed")
                if resumes and session is None:
                    session = sock.session
            count += 1

    return run, lambda: count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("work", choices=["echo", "handshakes", "resumed"])
    parser.add_argument("connections", type=int)
    parser.add_argument("size", type=int)
    parser.add_argument("depth", type=int)
    parser.add_argument("warm_up", type=float)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--lifetime", type=int, required=True)
    given = parser.parse_args()
    bound_lifetime(given.lifetime)
    host, _, port = given.address.rpartition(":")
    address = (host, int(port))
    if given.work == "echo":
        run, count = echo(address, given.connections, given.size, given.depth)
    else:
        run, count = handshakes(address, resumes=given.work == "resumed")
    run(time.perf_counter() + given.warm_up)
    before, started = count(), time.perf_counter()
    run(started + given.seconds)
    print(json.dumps({"count": count() - before, "seconds": time.perf_counter() - started}), flush=True)
    os._exit(0)  # the system closes what is open


if __name__ == "__main__":
    main()
