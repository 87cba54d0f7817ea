"""`helianthus services`: what a node tells of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from commands import EXAMPLES, SERVICES, PlainServer, closed_port, helianthus, serving
from processes import Node


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A node with the example services and `cli_services`."""
    with serving(str(EXAMPLES / "node.toml"), "--service", SERVICES) as node:
        yield node


def test_services_methods_parameters_types_and_documentation(node: Node) -> None:
    lines = [re.sub(r" {2,}", " | ", line.rstrip()) for line in helianthus("services", node.url).succeeded()]
    assert [line for line in lines if line in ("calculator", "node", "probe", "strings")] == [
        "calculator",
        "node",
        "probe",
        "strings",
    ]
    assert "Arithmetic on numbers." in lines
    assert "calculator.add | a: float, b: float | float | Add two numbers." in lines
    assert "calculator.total | stream of float | float | Add up the numbers that the caller streams." in lines
    assert "probe.squares | stream of int | stream of int | Answer each number at once." in lines
    assert "probe.nothing | - | None" in lines
    assert "probe.odd_names | timeout: float, meta: str, cancel: bool = False | list[Any]" in lines


def test_piped_output_has_no_colours_and_no_broken_lines(node: Node) -> None:
    done = helianthus("services", node.url, TERM="xterm-256color", COLUMNS="20")
    done.succeeded()
    assert "\x1b" not in done.out
    assert "Add two numbers." in done.out


def test_one_service_is_shown_in_full(node: Node) -> None:
    brief = helianthus("services", node.url).out
    full = helianthus("services", node.url, "probe").out
    assert "This paragraph is for those who ask" not in brief
    assert "This paragraph is for those who ask" in full
    assert "calculator" not in full


def test_json_is_for_machines(node: Node) -> None:
    (line,) = helianthus("services", node.url, "--json").succeeded()
    services = {service["name"]: service for service in json.loads(line)}
    assert list(services) == ["calculator", "node", "probe", "strings"]
    methods = {method["name"]: method for method in services["strings"]["methods"]}
    (text,) = methods["strings.reverse"]["params"]
    assert {key: text[key] for key in ("name", "type", "required", "variadic")} == {
        "name": "text",
        "type": "str",
        "required": True,
        "variadic": False,
    }
    (line,) = helianthus("services", node.url, "strings", "--json").succeeded()
    assert json.loads(line) == [services["strings"]]


def test_a_service_that_is_not_there(node: Node) -> None:
    done = helianthus("services", node.url, "absent")
    done.failed(1, "NOT_FOUND", "'absent'", "calculator, node, probe, strings")


def test_a_plain_server_cannot_tell() -> None:
    with PlainServer() as server:
        helianthus("services", server.url).failed(1, server.url, "does not tell what it serves")
    assert server.called == ["helianthus.hello"]


def test_nobody_there() -> None:
    url = closed_port()
    helianthus("services", url).failed(1, "UNAVAILABLE", url, "refused")


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["tcp://127.0.0.1:1", "--timeout", "x"]])
def test_a_mistake_on_the_command_line_is_explained(arguments: list[str]) -> None:
    helianthus("services", *arguments).failed(2, "Error: ")
