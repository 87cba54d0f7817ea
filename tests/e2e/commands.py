"""The command `helianthus` as its users type it, and what they call with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import msgpack
import pytest
from processes import HERE, LISTENING, Node, Running, helianthus_command

EXAMPLES = HERE.parents[1] / "examples"
SERVICES = "cli_services:Probe"
ANYWHERE = "tcp://127.0.0.1:0"

END_WITHIN = 60.0
"""Seconds for a command to do its work; a loaded machine takes a few to start it."""

DRIVERS = [
    pytest.param(
        "epoll", marks=pytest.mark.skipif(sys.platform != "linux", reason="epoll exists on Linux only")
    ),
    pytest.param(
        "kqueue",
        marks=pytest.mark.skipif(
            not hasattr(select, "kqueue"), reason="kqueue exists on macOS and the BSDs only"
        ),
    ),
    pytest.param(
        "uvloop", marks=pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
    ),
    "asyncio",
]

_FORCE_COLOURS = ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals to send")


@attrs.frozen
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def succeeded(self) -> list[str]:
        """The lines that it printed."""
        assert (self.code, self.err) == (0, ""), f"{self.code}: {self.err}"
        return self.out.splitlines()

    def failed(self, code: int, *fragments: str) -> None:
        """Check that it failed as it should: with an explanation and nothing else."""
        assert self.code == code, f"{self.out}\n{self.err}"
        for fragment in fragments:
            assert fragment in self.err, self.err
        assert "Traceback" not in self.err, self.err


def environment(**more: str) -> dict[str, str]:
    """The variables of a process that is to import Helianthus; none that changes what it does."""
    variables = {
        name: value
        for name, value in helianthus_command()[1].items()
        if not name.startswith("HELIANTHUS_") and name not in _FORCE_COLOURS
    }
    return variables | {"PYTHONUNBUFFERED": "", "PYTHONIOENCODING": "utf-8"} | more


def helianthus(*arguments: str, given: str = "", cwd: Path = HERE, **variables: str) -> Ended:
    """Run a command to its end, with `given` as its input."""
    done = subprocess.run(
        [*helianthus_command()[0], *arguments],
        input=given,
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env=environment(**variables),
        timeout=END_WITHIN,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def running(*arguments: str, cwd: Path = HERE, **variables: str) -> Iterator[Running]:
    """Run a command until the block ends, then end it if it has not."""
    process = Running([*helianthus_command()[0], *arguments], cwd=cwd, env=environment(**variables))
    try:
        yield process
    finally:
        if process.process.returncode is None:
            process.kill()


@contextlib.contextmanager
def serving(*arguments: str, cwd: Path = HERE, **variables: str) -> Iterator[Node]:
    """Serve at a free port, with these arguments."""
    with running("serve", "--listen", ANYWHERE, *arguments, cwd=cwd, **variables) as process:
        yield Node(process.wait_for_line(LISTENING), process)


def interrupt_until_it_ends(process: Running) -> int:
    """Press Ctrl-C again and again; the exit code."""
    for _ in range(int(END_WITHIN * 10)):
        process.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.process.wait(0.1)
            break
    return process.wait()


def closed_port() -> str:
    """A URL where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


class PlainServer:
    """A server of plain MessagePack-RPC; `add` adds, everything else is an error.

    Attributes:
        called: Names of the methods that were called, with or without wanting an answer.
    """

    def __init__(self) -> None:
        self.called: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> PlainServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Wait for the one client to be gone."""
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        self._listener.settimeout(END_WITHIN)
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(END_WITHIN)
            unpacker = msgpack.Unpacker()
            while data := connection.recv(65536):
                unpacker.feed(data)
                for message in unpacker:
                    self._answer(connection, message)

    def _answer(self, connection: socket.socket, message: list[Any]) -> None:
        self.called.append(message[-2])
        if message[0] == 0:
            _, msgid, method, params = message
            answer = [1, msgid, None, sum(params)] if method == "add" else [1, msgid, "no such method", None]
            connection.sendall(msgpack.packb(answer))


def run_example(name: str, *arguments: str) -> Ended:
    """Run an example to its end."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env=environment(PYTHONPATH=importable()),
        timeout=END_WITHIN,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def importable() -> str:
    """A PYTHONPATH for programs that import Helianthus from this checkout."""
    return os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]))
