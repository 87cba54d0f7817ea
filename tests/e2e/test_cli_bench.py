"""`helianthus bench`: what it measures, how it ends early, and what it says when nothing can be measured."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from commands import (
    DRIVERS,
    END_WITHIN,
    EXAMPLES,
    SERVICES,
    PlainServer,
    closed_port,
    environment,
    helianthus,
    needs_signals,
    serving,
)
from processes import HERE, Node, helianthus_command

from helianthus.drivers.choose import available


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with the example services and `cli_services`."""
    with serving(str(EXAMPLES / "node.toml"), "--service", SERVICES) as node:
        yield node


def measured(*arguments: str) -> dict[str, Any]:
    (line,) = helianthus("bench", *arguments, "--json").succeeded()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_closed_loop_on_each_driver(node: Node, driver: str) -> None:
    options = ["--duration", "0.3", "--concurrency", "4", "--connections", "2", "--driver", driver]
    found = measured(node.url, "calculator.add", "2", "-3", *options)
    assert found["method"] == "calculator.add"
    assert (found["concurrency"], found["connections"], found["duration"]) == (4, 2, 0.3)
    assert found["driver"] == ("asyncio" if driver == "uvloop" else driver)
    assert found["calls"] == found["succeeded"] > 0
    assert (found["errors"], found["not_started"], found["unfinished"], found["rate"]) == ({}, 0, 0, None)
    assert found["elapsed"] > 0.299
    assert found["calls_per_second"] == pytest.approx(found["succeeded"] / found["elapsed"])
    latency = found["latency"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"]


def test_an_open_loop(node: Node) -> None:
    found = measured(node.url, "calculator.add", "2", "3", "--duration", "0.5", "--rate", "100")
    assert found["succeeded"] + found["not_started"] == 50
    assert found["start_delay"]["max"] >= 0


def test_calls_that_cannot_begin_are_told(node: Node) -> None:
    options = ["--duration", "0.5", "--rate", "100", "--concurrency", "1"]
    found = measured(node.url, "calculator.add_async", "2", "3", "0.2", *options)
    assert 1 <= found["succeeded"] <= 3
    assert found["succeeded"] + found["not_started"] == 50
    assert found["latency"]["p50"] >= 0.2


def test_text_for_people(node: Node) -> None:
    options = ["--duration", "0.5", "--rate", "20", "--concurrency", "1"]
    lines = helianthus("bench", node.url, "calculator.add_async", "2", "3", "0.2", *options).succeeded()
    assert lines[0] == (
        f"calculator.add_async at {node.url}: 1 caller on 1 connection, driver "
        f"{next(info.name for info in available() if info.chosen)}"
    )
    time = r"[\d.,]+ (s|ms|µs)"
    for line, form in zip(
        lines[1:],
        (
            rf"  calls         \d in {time}",
            r"  throughput    [\d.]+ results a second",
            rf"  latency       p50 {time}   p99 {time}   p99\.9 {time}   max {time}",
            rf"  began late by p50 {time}   p99 {time}   p99\.9 {time}   max {time}",
            r"  not started   \d that were to begin: no caller was free in time",
        ),
        strict=True,
    ):
        assert re.fullmatch(form, line), line


def test_streams_are_read_to_their_end(node: Node) -> None:
    found = measured(node.url, "calculator.count", "5", "--duration", "0.2")
    assert found["calls"] == found["succeeded"] > 0


def test_timeouts_are_counted_by_code(node: Node) -> None:
    done = helianthus("bench", node.url, "probe.wait", "--duration", "0.2", "--timeout", "0.1", "--json")
    done.failed(1, "Error: every call failed: DEADLINE_EXCEEDED")
    found = json.loads(done.out)
    assert found["calls"] == found["errors"]["DEADLINE_EXCEEDED"] > 0
    assert found["latency"]["max"] == 0


def test_a_plain_server() -> None:
    with PlainServer() as server:
        found = measured(server.url, "add", "2", "3", "--plain", "--duration", "0.2", "--concurrency", "2")
    assert found["calls"] == found["succeeded"] > 0
    assert server.called.count("add") == found["calls"]


def test_nobody_there() -> None:
    done = helianthus("bench", url := closed_port(), "calculator.add", "2", "3")
    done.failed(1, "UNAVAILABLE", url, "refused")
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["calculator.total"], "takes a stream"),
        (["calculator.add", "two"], "is no JSON"),
        (["calculator.add", "--rate", "0"], "more than 0"),
        (["calculator.add", "--rate", "x"], "'x'"),
        (["calculator.add", "--duration", "0"], "0 seconds"),
        (["calculator.add", "--concurrency", "0"], "--concurrency"),
        (["calculator.add", "--concurrency", "2", "--connections", "3"], "no more than callers"),
        (["calculator.add", "--driver", "none"], "--driver: driver is 'none'"),
        (["calculator.add", "--driver", "sim"], "simulated networks only"),
        (["calculator.add", "--colour"], "--colour"),
        ([], "METHOD"),
    ],
)
def test_a_mistake_on_the_command_line_is_explained(node: Node, arguments: list[str], said: str) -> None:
    helianthus("bench", node.url, *arguments).failed(2, said)


# -- Ctrl-C -------------------------------------------------------------------------------------------------


@needs_signals
@pytest.mark.parametrize("driver", DRIVERS)
def test_ctrl_c_ends_it_with_what_was_measured(driver: str) -> None:
    """The node says that the last caller waits: then the others have been answered."""
    with serving("--service", "bench_services:Queue") as node:
        command, variables = helianthus_command()[0], environment()
        options = [
            "--concurrency",
            "3",
            "--duration",
            "600",
            "--timeout",
            "600",
            "--json",
            "--driver",
            driver,
        ]
        with subprocess.Popen(
            [*command, "bench", node.url, "queue.first_ten", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=variables,
            cwd=HERE,
        ) as process:
            node.running.wait_for_line("waiting 3")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=END_WITHIN)
    assert (process.returncode, err) == (0, "")
    found = json.loads(out)
    assert (found["succeeded"], found["unfinished"], found["errors"]) == (10, 3, {})
    assert found["elapsed"] < 600


@needs_signals
def test_a_terminal_shows_how_far_it_is(node: Node) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [
                *helianthus_command()[0],
                "bench",
                node.url,
                "calculator.add",
                "2",
                "3",
                "--duration",
                "0.5",
                "--json",
            ],
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment(TERM="xterm"),
            timeout=END_WITHIN,
            check=True,
        )
        os.close(theirs)
        shown = os.read(ours, 65536).decode(errors="replace")
    finally:
        os.close(ours)
    assert "a second" in shown
    assert "Traceback" not in shown
    assert json.loads(done.stdout)["succeeded"] > 0
