"""The chat of the examples: a server and its members, each in a process of their own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from commands import (
    ANYWHERE,
    END_WITHIN,
    EXAMPLES,
    closed_port,
    environment,
    helianthus,
    importable,
    needs_signals,
)
from processes import LISTENING, Running


@contextlib.contextmanager
def example(name: str, *arguments: str, typed: bool = False) -> Iterator[Running]:
    process = Running(
        [sys.executable, str(EXAMPLES / name), *arguments],
        env=environment(PYTHONPATH=importable()),
        typed=typed,
    )
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture
def url() -> Iterator[str]:
    """Where a chat server is."""
    with example("chat_server.py", "--listen", ANYWHERE) as server:
        yield server.wait_for_line(LISTENING)


@contextlib.contextmanager
def member(url: str, name: str, room: str = "garden") -> Iterator[Running]:
    """A member who has entered a room."""
    with example("chat.py", url, "--name", name, "--room", room, typed=True) as client:
        client.wait_for_line(f"* {name} has joined")
        yield client


def test_three_members_talk(url: str) -> None:
    with member(url, "Ann") as ann, member(url, "Ben") as ben:
        ann.wait_for_line("* Ben has joined")
        ann.type("hello")
        ann.wait_for_line("Ann: hello")
        ben.wait_for_line("Ann: hello")
        with member(url, "Cleo") as cleo:
            assert "Ann: hello" in cleo.lines  # what was said before
            cleo.type("/who")
            cleo.wait_for_line("* here: Ann, Ben, Cleo")
            cleo.type("grüße ☀")
            for client in (ann, ben, cleo):
                client.wait_for_line("Cleo: grüße ☀")
            cleo.type("/quit")
            assert cleo.wait() == 0
        ann.wait_for_line("* Cleo has left")
        ben.type("/join attic")
        ann.wait_for_line("* Ben has left")
        ben.wait_for_line("* Ben has joined")
        ben.type("/rooms")
        ben.wait_for_line("* attic (1), garden (1)")
        ann.type("nobody hears me")
        ann.wait_for_line("Ann: nobody hears me")
        ben.type("up here")
        ben.wait_for_line("Ben: up here")
        assert "Ann: nobody hears me" not in ben.lines


def test_a_pipe_is_as_good_as_a_terminal(url: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "chat.py"), url, "--name", "Ann"],
        input="one\n/dance\n\ntwo",
        capture_output=True,
        encoding="utf-8",
        env=environment(PYTHONPATH=importable()),
        timeout=END_WITHIN,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("*")] == ["Ann: one", "Ann: two"]
    assert "* commands: /who, /rooms, /join ROOM, /quit" in lines


def test_who_is_not_let_in(url: str) -> None:
    with member(url, "Ann"):
        with example("chat.py", url, "--name", "Ann", "--room", "garden") as other:
            other.wait_for_line("* ALREADY_EXISTS: somebody in the room 'garden' is named 'Ann'")
            assert other.wait() == 1
        with example("chat.py", url, "--name", "x" * 33) as other:
            other.wait_for_line("* INVALID_ARGUMENT: names have 1 to 32 characters")
            assert other.wait() == 1
    with example("chat.py", closed_port(), "--name", "Ann") as alone:
        alone.wait_for_line("* UNAVAILABLE")
        assert alone.wait() == 1


def test_a_member_who_is_killed_has_left(url: str) -> None:
    with member(url, "Ann") as ann:
        with member(url, "Ben") as ben:
            ann.wait_for_line("* Ben has joined")
            ben.kill()
        ann.wait_for_line("* Ben has left")


@needs_signals
def test_a_member_who_has_stopped_holds_up_nobody(url: str) -> None:
    with member(url, "Ann") as ann, member(url, "Ben") as ben, member(url, "Cleo") as cleo:
        ben.process.send_signal(signal.SIGSTOP)
        text = "x" * 1900
        for number in range(300):
            ann.type(f"{number} {text}")
        ann.wait_for_line("Ann: 299")
        cleo.wait_for_line("Ann: 299")
        ben.process.send_signal(signal.SIGCONT)
        ben.wait_for_line("Ann: 299")


@needs_signals
def test_ctrl_c_ends_both(url: str) -> None:
    with member(url, "Ann") as ann:
        ann.process.send_signal(signal.SIGINT)
        assert ann.wait() == 0
        assert "Traceback" not in ann.output


def test_members_come_back_after_the_server_was_lost() -> None:
    with example("chat_server.py", "--listen", ANYWHERE) as server:
        url = server.wait_for_line(LISTENING)
        with member(url, "Ann") as ann:
            server.kill()
            ann.wait_for_line("* UNAVAILABLE")
            with example("chat_server.py", "--listen", url) as again:
                again.wait_for_line(LISTENING)
                ann.wait_for_line("* Ann has joined")
                ann.type("I am back")
                ann.wait_for_line("Ann: I am back")


def test_the_stub_is_what_the_command_writes(url: str) -> None:
    written = helianthus("describe", url, "chat", "--python")
    assert (written.code, written.err) == (0, "")
    assert written.out == (EXAMPLES / "chat_client.py").read_text("utf-8")
