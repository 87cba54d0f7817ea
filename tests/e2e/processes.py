"""Programs as users start them, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

import helianthus

HERE = Path(__file__).parent

START_WITHIN = 30.0
"""Seconds for a process to say where it listens; a loaded machine takes a few."""

STOP_WITHIN = 30.0
"""Seconds for a process to end after it was asked to."""

LISTENING = "listening on "


def helianthus_command() -> tuple[list[str], dict[str, str]]:
    """The command of the environment that the tests run in, and the variables it needs.

    Where the package is not installed there, but only importable, the module stands in for it.
    """
    environment = dict(os.environ)
    name = "helianthus.exe" if sys.platform == "win32" else "helianthus"
    script = Path(sysconfig.get_path("scripts")) / name
    if script.exists():
        return [str(script)], environment
    places = [str(Path(helianthus.__file__).parents[1]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    return [sys.executable, "-m", "helianthus"], environment


class Running:
    """A process that prints lines, read by a thread so that waiting for one can end."""

    def __init__(
        self,
        command: Sequence[str] | str,
        *,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        own_group: bool = False,
        typed: bool = False,
    ) -> None:
        self.process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            cwd=cwd,
            env=env,
            stdin=subprocess.PIPE if typed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=own_group,
        )
        self.lines: list[str] = []
        self._own_group = own_group
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def type(self, line: str) -> None:
        """Give it a line of input; only if it was started to be `typed` at."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    @property
    def output(self) -> str:
        """What has been read so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, start: str, within: float = START_WITHIN) -> str:
        """The rest of the first line that starts so."""
        while True:
            try:
                line = self._queue.get(timeout=within)
            except queue.Empty:
                raise AssertionError(f"no line {start!r} within {within:g} s:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"ended without a line {start!r}:\n{self.output}")
            self.lines.append(line)
            if line.startswith(start):
                return line.removeprefix(start)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        if self._own_group:
            os.killpg(self.process.pid, signal.SIGTERM)
        else:
            self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Return its exit code, once it has ended and all it said is read."""
        try:
            return self.process.wait(STOP_WITHIN)
        finally:
            self.kill()

    def kill(self) -> None:
        """Make sure that it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._own_group:
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.wait()
        self._reader.join()
        while not self._queue.empty():
            line = self._queue.get()
            if line is not None:
                self.lines.append(line)


@attrs.frozen
class Node:
    """A node that is running.

    Attributes:
        url: Where it listens.
    """

    url: str
    running: Running

    @property
    def host_and_port(self) -> tuple[str, str]:
        """The parts of its address, as arguments of a program."""
        host, _, port = self.url.partition("://")[2].rpartition(":")
        return host, port


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Node]:
    """Run `helianthus serve` with these arguments, until the block ends."""
    command, environment = helianthus_command()
    running = Running([*command, "serve", *arguments], env=environment)
    try:
        yield Node(running.wait_for_line(LISTENING), running)
        code = running.stop()
    finally:
        running.kill()
    if sys.platform != "win32":  # where ending a process is no request
        assert code == 0, running.output
