"""The examples do what they say, and end."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from commands import (
    ANYWHERE,
    DRIVERS,
    END_WITHIN,
    EXAMPLES,
    environment,
    importable,
    needs_signals,
    run_example,
    serving,
)
from processes import LISTENING, Node, Running

import helianthus


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node as `node.toml` describes it, at a free port."""
    with serving(str(EXAMPLES / "node.toml")) as node:
        yield node


@contextlib.contextmanager
def running_example(name: str, *arguments: str) -> Iterator[Running]:
    """Run an example until the block ends."""
    process = Running(
        [sys.executable, str(EXAMPLES / name), *arguments], env=environment(PYTHONPATH=importable())
    )
    try:
        yield process
    finally:
        if process.process.returncode is None:
            process.kill()


def test_the_services(node: Node) -> None:
    with helianthus.connect_sync(node.url) as client:
        calculator, strings = client.service("calculator"), client.service("strings")
        assert calculator.add(2, 3) == 5
        assert calculator.subtract(2, 3) == -1
        assert calculator.multiply(2, 3) == 6
        assert calculator.divide(3, 2) == 1.5
        assert calculator.add_async(2, 3, 0.01) == 5
        assert list(client.stream("calculator.count", 4, 0.01)) == [1, 2, 3, 4]
        with pytest.raises(helianthus.RpcError, match="cannot divide by zero") as zero:
            calculator.divide(1, 0)
        assert zero.value.code is helianthus.StatusCode.INVALID_ARGUMENT
        assert strings.reverse("abc") == "cba"
        assert strings.uppercase("abc") == "ABC"
        assert strings.lowercase("ABC") == "abc"


def test_the_blocking_client(node: Node) -> None:
    assert run_example("client_sync.py", node.url).succeeded() == [
        "2 + 3 = 5",
        "7 / 2 = 3.5",
        "1 / 0: INVALID_ARGUMENT: cannot divide by zero",
        "counting: 1",
        "counting: 2",
        "counting: 3",
        "1.5 + 2.5 + 3.5 = 7.5",
    ]


def test_the_async_client(node: Node) -> None:
    assert run_example("client_async.py", node.url).succeeded() == [
        "2 + 3 = 5",
        "all sums: 9900",
        "counting: 1",
        "counting: 2",
        "counting: 3",
        "gave up: the server cancels the call, too",
        "1.5 + 2.5 + 3.5 = 7.5",
    ]


def test_push() -> None:
    *readers, last = run_example("push.py").succeeded()
    assert sorted(readers) == [f"{name} reads: Sunflowers turn to the sun" for name in ("Ann", "Ben")]
    assert last == "2 readers have read it"


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_game_is_played_and_can_be_called(driver: str) -> None:
    with running_example("game_loop.py", "--listen", ANYWHERE, "--driver", driver) as game:
        url = game.wait_for_line(LISTENING)
        with helianthus.connect_sync(url) as client:
            before = client.call("world.look")
            assert client.call("world.push", 2.5) == before["speed"] + 2.5
            while client.call("world.look")["frame"] < before["frame"] + 10:
                pass


def test_the_game_ends_after_its_frames() -> None:
    done = run_example("game_loop.py", "--frames", "30", "--listen", ANYWHERE)
    assert done.succeeded()[-1] == "the end, after 30 frames"


@needs_signals
def test_the_game_ends_with_ctrl_c_and_lets_its_guests_go() -> None:
    with running_example("game_loop.py", "--listen", ANYWHERE) as game:
        with helianthus.connect_sync(game.wait_for_line(LISTENING)) as client:
            client.call("world.look")
            game.process.send_signal(signal.SIGINT)
            assert game.wait() == 0
        assert game.lines[-1].startswith("the end, after ")


def test_a_server_lives_beside_other_asyncio_code() -> None:
    options = ["--listen", ANYWHERE, "--http", "http://127.0.0.1:0"]
    with running_example("in_asyncio.py", *options) as program:
        url, http = program.wait_for_line(LISTENING), program.wait_for_line(LISTENING)
        with helianthus.connect_sync(url) as client:
            while (ticks := client.call("ticker.ticks")) < 1:
                pass
        with urllib.request.urlopen(http, timeout=END_WITHIN) as page:
            words = page.read().decode().split()
        assert words[1] == "ticks"
        assert int(words[0]) >= ticks


def test_a_server_beside_other_asyncio_code_ends() -> None:
    options = ["--listen", ANYWHERE, "--http", "http://127.0.0.1:0", "--seconds", "0.3"]
    assert run_example("in_asyncio.py", *options).succeeded()[-1] == "the end; ticks: 0"


@pytest.mark.parametrize("driver", DRIVERS)
def test_lines_are_answered(driver: str) -> None:
    options = ["--listen", ANYWHERE, "--driver", driver, "--patience", "0.3"]
    with running_example("line_server.py", *options) as program:
        host, _, port = program.wait_for_line(LISTENING).removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=END_WITHIN) as sock:
            lines = sock.makefile("rb")
            sock.sendall(b"one\ntwo\nthr")
            assert [lines.readline(), lines.readline()] == [b"ONE\n", b"TWO\n"]
            sock.sendall(b"ee\n")
            assert lines.readline() == b"THREE\n"
            assert lines.readline() == b"you are very quiet; goodbye\n"
            assert lines.readline() == b""
        with socket.create_connection((host, int(port)), timeout=END_WITHIN) as sock:
            sock.sendall(bytes(1000))
            assert sock.makefile("rb").readline() == b"a line has at most 1000 bytes\n"


def test_the_line_server_ends_and_says_goodbye_to_nobody() -> None:
    with running_example("line_server.py", "--listen", ANYWHERE, "--seconds", "0.3") as program:
        host, _, port = program.wait_for_line(LISTENING).removeprefix("tcp://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=END_WITHIN) as sock:
            assert sock.recv(1) == b""
        assert program.wait() == 0
        assert program.lines[-1] == "the end"
        assert program.lines[-2].endswith("recv_until was cancelled: the server ends")
