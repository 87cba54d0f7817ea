"""Who may listen at a path, when several want to at once."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helianthus.drivers.address import Address
from helianthus.drivers.errors import AddressInUse

if sys.platform == "win32":
    pytest.skip("Python has no Unix-domain sockets on Windows", allow_module_level=True)

from helianthus.drivers.socket_file import listen_at_path

RACERS = 6


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="h") as directory:
        yield Path(directory) / "a.sock"


def at(path: Path) -> Address:
    return Address("", 0, "unix", str(path))


def together(work: Callable[[], object], count: int = RACERS) -> list[Exception]:
    """Run a function in several threads at once; gives what they raised."""
    start = threading.Barrier(count)
    raised: list[Exception] = []

    def run() -> None:
        start.wait()
        try:
            work()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def _listen_into(won: list[Any], path: Path) -> None:
    won.append(listen_at_path(at(path), 5))


def test_one_of_many_replaces_a_stale_file(path: Path) -> None:
    """The others hear that it is in use; nobody removes the winner's file."""
    for _ in range(30):
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(str(path))
        won: list[Any] = []
        lost = together(partial(_listen_into, won, path))
        assert len(won) == 1
        assert len(lost) == RACERS - 1
        assert all(isinstance(error, AddressInUse) for error in lost), lost
        (listening, file) = won[0]
        with listening, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            listening.accept()[0].close()
            file.remove()
    assert os.listdir(path.parent) == []


def test_a_path_that_changes_hands_belongs_to_one_at_a_time(path: Path) -> None:
    """Lock files are removed while others open them; who has the path is who is connected to."""
    holders = [0]

    def take_turns() -> None:
        for _ in range(150):
            with contextlib.suppress(AddressInUse):
                listening, file = listen_at_path(at(path), 5)
                holders[0] += 1
                assert holders == [1]
                with listening, socket.socket(socket.AF_UNIX) as client:
                    if sys.platform == "linux":
                        client.bind(b"")  # gives it a name of its own
                    client.connect(str(path))
                    listening.setblocking(True)
                    accepted, who = listening.accept()
                    accepted.close()
                    assert who == client.getsockname()
                    holders[0] -= 1
                    file.remove()

    assert together(take_turns) == []
    assert os.listdir(path.parent) == []


def test_a_lock_that_is_a_link_is_not_followed(path: Path) -> None:
    """Nothing is created where it leads."""
    path.with_name("a.sock.lock").symlink_to(path.with_name("elsewhere"))
    with pytest.raises(OSError, match=r"a\.sock\.lock"):
        listen_at_path(at(path), 5)
    assert not path.with_name("elsewhere").exists()
