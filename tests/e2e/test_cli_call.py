"""`helianthus call`: arguments, results, streams, errors."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import (
    END_WITHIN,
    EXAMPLES,
    SERVICES,
    PlainServer,
    closed_port,
    environment,
    helianthus,
    needs_signals,
    running,
    serving,
)
from processes import HERE, Node, helianthus_command


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with the example services and `cli_services`."""
    with serving(str(EXAMPLES / "node.toml"), "--service", SERVICES) as node:
        yield node


# -- arguments and results ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (["calculator.add", "2", "3"], "5"),
        (["calculator.add", "-1", "-2.5e1"], "-26.0"),
        (["--timeout", "30", "calculator.add", "2", "3"], "5"),
        (["calculator.add_async", "2", "3"], "5"),
        (["calculator.divide", "--param", "b=4", "--param", "a=1"], "0.25"),
        (["strings.uppercase", '"hello"'], '"HELLO"'),
        (["strings.reverse", '"ß→"'], '"→ß"'),
        (["strings.reverse", "--param", 'text="a=b"'], '"b=a"'),
        (["probe.nothing"], "null"),
        (["probe.echo", '{"a": [1, null, true, {}]}'], '{"a": [1, null, true, {}]}'),
        (["probe.odd_names", "--param", "timeout=5", "--param", 'meta="m"'], '[5, "m", false]'),
        (["calculator.total"], "0.0"),
    ],
)
def test_the_result_is_one_line_of_json(node: Node, command: list[str], result: str) -> None:
    assert helianthus("call", node.url, *command).succeeded() == [result]


@pytest.mark.parametrize(
    "value",
    [
        '{"$bytes": "AAEC/w=="}',
        '{"$float": "NaN"}',
        '{"$float": "-Infinity"}',
        '{"$map": [[1, "one"], [{"$bytes": "AA=="}, null]]}',
        '{"$map": [["$bytes", "not bytes"]]}',
        '{"$timestamp": [1700000000, 5000]}',
        '{"$uuid": "00000000-0000-0000-0000-00000000002a"}',
        '{"$decimal": "1.50"}',
        '{"$date": "2024-02-29"}',
        '{"$time": "12:30:00+02:00"}',
        '{"$timedelta": [-1, 5, 7]}',
        '{"$ext": [5, "aGk="]}',
        '{"$dollar": 1, "$sign": 2}',
    ],
)
def test_what_json_lacks_survives_the_journey(node: Node, value: str) -> None:
    assert helianthus("call", node.url, "probe.echo", value).succeeded() == [value]


def test_output_in_another_character_set_is_still_json(node: Node) -> None:
    done = helianthus("call", node.url, "probe.echo", '"\\u2192"', PYTHONIOENCODING="ascii")
    assert done.succeeded() == ['"\\u2192"']


@pytest.mark.parametrize(
    ("command", "fragments"),
    [
        (["strings.reverse", "hello"], ["argument 1, hello, is no JSON", "'\"hello\"'"]),
        (["calculator.add", "1", "it's"], ["argument 2, it's, is no JSON", "'\"it'\\''s\"'"]),
        (["calculator.add", "{"], ["argument 1, {, is no JSON"]),
        (["calculator.add", "NaN"], ['{"$float": "NaN"}']),
        (["calculator.add", "[" * 10_000], ["is no JSON"]),
        (["calculator.add", str(2**64)], ["cannot be sent"]),
        (["calculator.add", '"\\ud800"'], ["cannot be sent"]),
        (["calculator.add", '{"$bytes": "?"}'], ['cannot be sent: "?" is no $bytes']),
        (["calculator.add", "--param", "a"], ["--param a has no value", "name=JSON"]),
        (["calculator.add", "--param", "a=x"], ["--param a: x is no JSON", "'\"x\"'"]),
        (["calculator.add", "--param", "a=1", "--param", "a=2"], ["--param a is given twice"]),
        (["calculator.add", "1", "--param", "b=2"], ["not both"]),
        (["calculator.add", "1", "--tiemout", "3"], ["No such option", "--tiemout"]),
        (["calculator.add", "--timeout", "soon"], ["--timeout", "'soon'"]),
        (["calculator.add", "--timeout", "0"], ["--timeout", "0 seconds"]),
        (["calculator.add", "--items", "absent"], ["absent"]),
        (["calculator.add", "1", "2", "--items", "-"], ["takes no stream items"]),
        (["calculator.total", "--plain", "--items", "-"], ["a plain server takes neither"]),
        ([], ["METHOD"]),
    ],
)
def test_a_mistake_on_the_command_line_is_explained(
    node: Node, command: list[str], fragments: list[str]
) -> None:
    done = helianthus("call", node.url, *command)
    done.failed(2, *fragments)
    assert done.out == ""


@pytest.mark.parametrize(
    "url", ["127.0.0.1:7070", "http://127.0.0.1:1", "tcp://127.0.0.1", "tcp://:1", "tcp://[::1:1"]
)
def test_a_wrong_url_is_explained(url: str) -> None:
    helianthus("call", url, "calculator.add").failed(2, "URL")


@pytest.mark.parametrize("driver", ["steam", "sim"])
def test_a_wrong_environment_is_explained(driver: str) -> None:
    done = helianthus("call", "tcp://127.0.0.1:1", "a.b", HELIANTHUS_DRIVER=driver)
    done.failed(2, "HELIANTHUS_DRIVER")


# -- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "fragments"),
    [
        (["calculator.divide", "1", "0"], ["INVALID_ARGUMENT: cannot divide by zero"]),
        (["calculator.add", "1"], ["INVALID_ARGUMENT", "'b' is missing"]),
        (["calculator.absent"], ["UNIMPLEMENTED", "calculator.absent"]),
        (["absent.method"], ["UNIMPLEMENTED", "absent.method"]),
        (["absent"], ["UNIMPLEMENTED", "'absent'"]),
        (["probe.broken"], ["UNKNOWN", "KeyError"]),
        (["probe.wait", "--timeout", "0.5"], ["DEADLINE_EXCEEDED"]),
        (["probe.endless", "1"], ["INVALID_ARGUMENT"]),
    ],
)
def test_an_error_is_told_by_its_code_and_message(
    node: Node, command: list[str], fragments: list[str]
) -> None:
    done = helianthus("call", node.url, *command)
    done.failed(1, "Error: ", *fragments)
    assert done.out == ""


def test_the_network_cannot_control_the_terminal(node: Node) -> None:
    done = helianthus("call", node.url, "probe.rude")
    done.failed(1, "Error: NOT_FOUND: \\x1b[31mred\n", 'details: {"tried": [{"$bytes": "AQ=="}, 2]}')


def test_nobody_there() -> None:
    url = closed_port()
    helianthus("call", url, "calculator.add", "1", "2").failed(1, "UNAVAILABLE", url, "refused")


def test_somebody_there_who_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        helianthus("call", url, "a.b", "--timeout", "0.5").failed(1, "DEADLINE_EXCEEDED")


def test_somebody_there_who_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as web, running("call", _url(web), "a.b") as call:
        guest, _ = web.accept()
        guest.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        again, _ = web.accept()
        again.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert call.wait() == 1
        guest.close()
        again.close()
    assert "Error: UNAVAILABLE" in call.output
    assert "Traceback" not in call.output


def _url(listener: socket.socket) -> str:
    return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


# -- plain servers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [True, False])
def test_a_plain_server_is_called_and_not_asked_for_what_it_lacks(plain: bool) -> None:
    with PlainServer() as server:
        command = ["call", server.url, "add", "2", "3", *(["--plain"] if plain else [])]
        assert helianthus(*command).succeeded() == ["5"]
    assert server.called == (["add"] if plain else ["helianthus.hello", "add"])


def test_an_error_of_a_plain_server() -> None:
    with PlainServer() as server:
        helianthus("call", server.url, "math.sub", "2", "3").failed(1, "UNKNOWN: no such method")
    assert server.called == ["helianthus.hello", "math.sub"]


def test_a_plain_server_takes_no_names() -> None:
    with PlainServer() as server:
        helianthus("call", server.url, "add", "--param", "a=1").failed(1, "it takes no keywords")


# -- streams -------------------------------------------------------------------------------------------------


def test_items_are_printed_one_a_line(node: Node) -> None:
    assert helianthus("call", node.url, "calculator.count", "3").succeeded() == ["1", "2", "3"]


def test_a_stream_without_items_prints_nothing(node: Node) -> None:
    assert helianthus("call", node.url, "calculator.count", "0").succeeded() == []


@needs_signals
def test_items_are_printed_as_they_come_and_ctrl_c_cancels(node: Node) -> None:
    with running("call", node.url, "probe.endless") as call:
        for number in range(3):
            call.wait_for_line(str(number))
        call.process.send_signal(signal.SIGINT)
        assert call.wait() == 130
    node.running.wait_for_line("the stream was cancelled")
    assert "Traceback" not in call.output


@needs_signals
def test_ctrl_c_cancels_a_call_without_a_stream(node: Node) -> None:
    with running("call", node.url, "probe.wait") as call:
        node.running.wait_for_line("waiting")
        call.process.send_signal(signal.SIGINT)
        assert call.wait() == 130
    node.running.wait_for_line("the wait was cancelled")
    assert "Traceback" not in call.output


def test_a_reader_that_has_had_enough_ends_the_call(node: Node) -> None:
    with _piped("call", node.url, "probe.endless") as call:
        assert call.stdout is not None
        assert call.stdout.readline() == "0\n"
        call.stdout.close()
        assert call.stderr is not None
        assert call.stderr.read() == ""
    assert call.returncode == 1
    node.running.wait_for_line("the stream was cancelled")


def test_items_are_sent_from_standard_input(node: Node) -> None:
    done = helianthus("call", node.url, "calculator.total", "--items", "-", given="1\n\n 2.5 \n3")
    assert done.succeeded() == ["6.5"]


def test_items_are_sent_from_a_file(node: Node, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("".join(f"{number}\n" for number in range(10_000)))
    done = helianthus("call", node.url, "probe.squares", "--items", str(file))
    assert done.succeeded() == [str(number**2) for number in range(10_000)]


def test_items_are_sent_as_the_lines_come(node: Node) -> None:
    with _piped("call", node.url, "probe.squares", "--items", "-") as call:
        assert call.stdin is not None
        assert call.stdout is not None
        for number in (2, 3, 4):
            call.stdin.write(f"{number}\n")
            call.stdin.flush()
            assert json.loads(call.stdout.readline()) == number**2
        call.stdin.close()
        assert call.stdout.read() == ""
    assert call.returncode == 0


def test_a_call_that_ends_first_leaves_the_rest_of_the_input(node: Node) -> None:
    with _piped("call", node.url, "probe.first", "--items", "-") as call:
        assert call.stdin is not None
        assert call.stdout is not None
        call.stdin.write("7\n")
        call.stdin.flush()
        assert call.stdout.read() == "7\n"  # though the input has not ended
        assert call.wait(END_WITHIN) == 0


@needs_signals
def test_ctrl_c_does_not_wait_for_the_input(node: Node) -> None:
    with _piped("call", node.url, "probe.squares", "--items", "-") as call:
        assert call.stdin is not None
        assert call.stdout is not None
        assert call.stderr is not None
        call.stdin.write("2\n")
        call.stdin.flush()
        assert call.stdout.readline() == "4\n"
        call.send_signal(signal.SIGINT)
        assert call.wait(END_WITHIN) == 130
        assert call.stderr.read().strip() == ""


@pytest.mark.parametrize(
    ("given", "fragments"),
    [
        ("1\n\nx\n", ["--items: line 3, x, is no JSON"]),
        ('{"$bytes": 1}', ["--items: line 1", "is no $bytes"]),
        ("\udcff\n", ["--items: line 1", "is no JSON"]),
    ],
)
def test_a_line_that_is_no_item_cancels_the_call(node: Node, given: str, fragments: list[str]) -> None:
    command = [*helianthus_command()[0], "call", node.url, "calculator.total", "--items", "-"]
    done = subprocess.run(
        command,
        input=given.encode("utf-8", "surrogateescape"),
        capture_output=True,
        env=environment(),
        timeout=END_WITHIN,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    for fragment in fragments:
        assert fragment in done.stderr.decode()


def _piped(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*helianthus_command()[0], *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=HERE,
        env=environment(),
    )
