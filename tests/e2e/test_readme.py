"""The README's commands and programs, and those of the quickstart, as a reader would run them.

The command that starts a node is run in a new environment only where HELIANTHUS_FRESH_INSTALL is
set, because that installs packages; otherwise its last part runs in the environment at hand.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
from processes import HERE, LISTENING, Running, helianthus_command

ROOT = HERE.parents[1]
README = ROOT / "README.md"
GUIDES = (README, ROOT / "docs" / "quickstart.md")

FRESH = "HELIANTHUS_FRESH_INSTALL"

INSTALL_WITHIN = 600.0
"""Seconds for pip to install the package and what it needs."""

RUN_WITHIN = 60.0
"""Seconds for a short program."""

NO_NETWORK = re.compile(
    r"No matching distribution found|Temporary failure in name resolution|Network is unreachable|"
    r"Connection refused|Failed to establish a new connection|Read timed out"
)
"""What pip says where it cannot reach its index."""

NOT_COPIED = (".git", ".venv", ".tox", ".*_cache", ".hypothesis", "__pycache__", "node_modules", "_build")

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a POSIX shell")


@attrs.frozen
class Block:
    """A fenced block of a guide.

    Attributes:
        language: What stands after the fence.
        name: The file that it is, where the line before says so; else empty.
        text: Its content.
    """

    language: str
    name: str
    text: str


def blocks_of(guide: Path) -> list[Block]:
    blocks: list[Block] = []
    before = ""
    lines = iter(guide.read_text("utf-8").splitlines())
    for line in lines:
        if line.startswith("```"):
            text = "".join(f"{inside}\n" for inside in iter(lambda: next(lines), "```"))
            name = re.search(r"`([\w.]+)`:$", before)
            blocks.append(Block(line.removeprefix("```"), name[1] if name else "", text))
            before = ""
        elif line:
            before = line
    return blocks


def shell_commands() -> list[str]:
    return [block.text.strip() for block in blocks_of(README) if block.language == "sh"]


def test_the_commands_come_first_and_are_one_line_each() -> None:
    start, tests = shell_commands()
    for command in (start, tests):
        assert "\n" not in command
        assert command.startswith("python3 -m venv ")
    assert README.read_text("utf-8").index(tests) < README.read_text("utf-8").index("\n## ")


def test_the_checks_before_a_change_lands_run_the_tests_as_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert f"\n    {shell_commands()[1]}\n" in script


@posix_only
def test_the_start_command_in_this_environment() -> None:
    last = shell_commands()[0].rpartition(" && ")[2]
    program, *arguments = shlex.split(last)
    assert program == ".venv/bin/helianthus"
    command, environment = helianthus_command()
    # a free port, since the one in the example's file may be taken
    running = Running([*command, *arguments, "--listen", "tcp://127.0.0.1:0"], cwd=ROOT, env=environment)
    check_node(running, command, environment)


@posix_only
@pytest.mark.skipif(not os.environ.get(FRESH), reason=f"{FRESH} is not set: installs packages")
def test_the_start_command_from_a_clean_checkout(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*NOT_COPIED))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # The shell outlives the signal, to hand on the node's exit code.
    command = f"trap : TERM; {shell_commands()[0]}; exit $?"
    running = Running(command, cwd=checkout, env=environment, own_group=True)
    check_node(running, [str(checkout / ".venv" / "bin" / "helianthus")], environment)


def check_node(running: Running, command: Sequence[str], environment: dict[str, str]) -> None:
    """Wait until a node listens, call it from the command line, and end it in good order."""
    try:
        try:
            url = running.wait_for_line(LISTENING, INSTALL_WITHIN)
        except AssertionError:
            if NO_NETWORK.search(running.output):
                pytest.skip(f"pip reaches no package index: {running.lines[-1]}")
            raise
        called = subprocess.run(
            [*command, "call", url, "calculator.add", "2", "3"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_WITHIN,
            check=False,
        )
        assert (called.returncode, called.stdout, called.stderr) == (0, "5\n", "")
        assert running.stop() == 0, running.output
    finally:
        running.kill()


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_the_programs_print_what_the_guide_says(guide: Path, tmp_path: Path) -> None:
    """Each program is run; a text block behind it is what it prints.

    `server.py` runs until all others have run, at a free port, which takes the place of the port
    in their addresses.
    """
    blocks = blocks_of(guide)
    servers = [block for block in blocks if block.name == "server.py"]
    programs = [block for block in blocks if block.name.endswith(".py") and block not in servers]
    assert servers
    assert programs
    _, environment = helianthus_command()
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(tmp_path), *filter(None, [environment.get("PYTHONPATH")])]
    )
    for block in (*servers, *programs):
        (tmp_path / block.name).write_text(block.text, "utf-8")
    at_any_port = tmp_path / "at_any_port.py"
    at_any_port.write_text(servers[0].text.replace(":7070", ":0"), "utf-8")

    running = Running([sys.executable, str(at_any_port)], env=environment)
    try:
        port = running.wait_for_line(LISTENING).rpartition(":")[2]
        for program in programs:
            path = tmp_path / program.name
            path.write_text(program.text.replace("127.0.0.1:7070", f"127.0.0.1:{port}"), "utf-8")
            done = subprocess.run(
                [sys.executable, str(path)],
                env=environment,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=RUN_WITHIN,
                check=False,
            )
            after = blocks[blocks.index(program) + 1 :]
            expected = after[0].text if after and after[0].language == "text" else ""
            assert (done.returncode, done.stdout, done.stderr) == (0, expected, ""), program.name
    finally:
        running.kill()
