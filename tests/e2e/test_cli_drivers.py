"""`helianthus drivers`, and what the command itself says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from commands import END_WITHIN, environment, helianthus, importable
from processes import HERE, helianthus_command

import helianthus as package
from helianthus.drivers.choose import available


def test_every_driver_is_listed_and_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELIANTHUS_DRIVER", raising=False)
    lines = helianthus("drivers").succeeded()
    rows = {line.split()[0]: line.split()[1:3] for line in lines[1:]}
    words = {True: "yes", False: "no"}
    assert rows == {info.name: [words[info.available], words[info.chosen]] for info in available()}
    assert [line for line in lines if "the fastest" in line]


def test_json_is_for_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HELIANTHUS_DRIVER", raising=False)
    (line,) = helianthus("drivers", "--json").succeeded()
    found = {row.pop("name"): row for row in json.loads(line)}
    for info in available():
        expected = attrs.asdict(info)
        assert found[info.name]["available"] == expected["available"]
        assert found[info.name]["chosen"] == expected["chosen"]
        assert expected["reason"] in found[info.name]["reason"]


def test_the_environment_chooses() -> None:
    (line,) = helianthus("drivers", "--json", HELIANTHUS_DRIVER="asyncio").succeeded()
    chosen = [row for row in json.loads(line) if row["chosen"]]
    assert [(row["name"], row["reason"]) for row in chosen] == [("asyncio", "named by HELIANTHUS_DRIVER")]


def test_a_wrong_environment_is_explained() -> None:
    helianthus("drivers", HELIANTHUS_DRIVER="steam").failed(2, "HELIANTHUS_DRIVER is 'steam'", "epoll")


def test_the_version() -> None:
    assert helianthus("--version").succeeded() == [f"helianthus {package.__version__}"]


@pytest.mark.parametrize("command", [[], ["serve"], ["call"], ["services"], ["drivers"]])
def test_help(command: list[str]) -> None:
    brief, long = helianthus(*command, "-h"), helianthus(*command, "--help")
    assert brief == long
    assert brief.succeeded()[0].startswith(" ".join(["Usage: helianthus", *command]))


def test_without_a_command_it_says_which_there_are() -> None:
    done = helianthus()
    assert done.code == 2
    for name in ("call", "drivers", "serve", "services"):
        assert f"\n  {name} " in done.out + done.err


@pytest.mark.parametrize("arguments", [["fly"], ["--fly"], ["drivers", "--fly"], ["drivers", "fly"]])
def test_a_mistake_on_the_command_line_is_explained(arguments: list[str]) -> None:
    helianthus(*arguments).failed(2, "Error: ", "fly")


def test_the_module_is_the_same_command() -> None:
    assert _version([sys.executable, "-m", "helianthus"]) == f"helianthus {package.__version__}\n"


def test_the_script_is_the_same_command() -> None:
    command = helianthus_command()[0]
    if not Path(command[0]).stem.startswith("helianthus"):
        pytest.skip("the package is not installed here, only importable")
    assert _version(command) == f"helianthus {package.__version__}\n"


def _version(command: list[str]) -> str:
    done = subprocess.run(
        [*command, "--version"],
        capture_output=True,
        encoding="utf-8",
        cwd=HERE,
        env=environment(PYTHONPATH=importable()),
        timeout=END_WITHIN,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_output_that_cannot_be_written_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*helianthus_command()[0], "drivers"],
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment(),
            timeout=END_WITHIN,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
