"""Fixtures for the tests of kqueue."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def queue() -> Iterator[Any]:
    from kqueue_words import Queue

    made = Queue()
    yield made
    made.kernel.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=16) as made:
        yield made


@pytest.fixture
def pair(listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection."""
    with socket.create_connection(listener.getsockname()) as near, listener.accept()[0] as far:
        for end in (near, far):
            end.setblocking(False)
        yield near, far
