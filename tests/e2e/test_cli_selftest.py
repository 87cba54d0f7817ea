"""`helianthus drivers --selftest`: the conformance suite, and its table of drivers and cases."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import END_WITHIN, environment, helianthus
from processes import HERE

CASE = "test_connect_refused_keeps"

MINE = """
from platforms import AsyncioStandard

class Mine(AsyncioStandard):
    name = column = "mine"

class Broken(Mine):
    name = column = "broken"

    def make_driver(self):
        raise RuntimeError("out of order")
"""


def cells(lines: list[str]) -> dict[str, str]:
    """The columns of the only case, by their headings."""
    (heading,) = [line.split() for line in lines if line.startswith("case ")]
    (row,) = [line for line in lines if line.startswith("  connect refused keeps")]
    outcomes = row.removeprefix("  connect refused keeps the platforms code").replace(" [", "[").split()
    return dict(zip(heading[1:], outcomes, strict=True))


def test_the_table_tells_of_every_driver() -> None:
    lines = helianthus("drivers", "--selftest", "-k", CASE).succeeded()
    found = cells(lines)
    assert list(found) == ["epoll", "kqueue", "iocp", "asyncio", "uvloop", "asyncio-proactor", "sim"]
    assert found["asyncio"] == "passed"
    assert found["sim"] == "-[1]"
    assert "[1] its network is simulated, and has no raw socket to be the peer" in lines
    for name, outcome in found.items():
        if outcome == "-":
            assert [line for line in lines if line.startswith(f"{name}: not on this machine: ")]
    assert lines[-1].startswith("1 case on ")
    assert lines[-1].endswith(", 0 failed")


@pytest.mark.skipif(sys.platform != "linux", reason="where there is a kqueue, it is the real one")
def test_it_says_what_kqueue_is_here() -> None:
    lines = helianthus("drivers", "--selftest", "-k", CASE).succeeded()
    (remark,) = [line for line in lines if line.startswith("kqueue: ")]
    assert ("on a double" in remark) == (cells(lines)["kqueue"] == "passed")
    assert "double" in remark


def test_json_is_for_machines_and_says_what_failed(tmp_path: Path) -> None:
    """A driver of one's own is a column; a case that fails is an exit code."""
    (tmp_path / "mine.py").write_text(MINE)
    arguments = ["--selftest", "--json", "-k", CASE, "--platform", "mine:Mine"]
    done = helianthus("drivers", *arguments, cwd=tmp_path)
    assert done.code == 0
    (line,) = done.out.splitlines()
    report = json.loads(line)
    assert report["passed"]
    (case,) = report["cases"]
    assert (case["group"], case["cells"]["mine"]) == ("connecting", {"outcome": "passed", "reasons": []})
    assert report["drivers"][-1] == {"name": "mine", "absent": "", "remark": ""}

    done = helianthus("drivers", *arguments, "--platform", "mine:Broken", cwd=tmp_path)
    assert done.code == 1
    report = json.loads(done.out)
    assert not report["passed"]
    assert report["cases"][0]["cells"]["broken"]["outcome"] == "FAILED"
    assert report["cases"][0]["cells"]["mine"]["outcome"] == "passed"
    assert "out of order" in done.err, "pytest's own report is there, too"


def test_what_it_refuses(tmp_path: Path) -> None:
    helianthus("drivers", "-k", CASE).failed(2, "--selftest")
    helianthus("drivers", "--platform", "x:Y").failed(2, "--selftest")
    helianthus("drivers", "--selftest", "-k", "no_such_case").failed(2, "no_such_case")
    refused = helianthus("drivers", "--selftest", "-k", "a b c(")
    refused.failed(2, "-k: pytest cannot run the suite with 'a b c('", "expected end of input")
    assert "accepting:" not in refused.out, "there is no table where no case ran"
    helianthus("drivers", "--selftest", "--platform", "nowhere:Y").failed(2, "there is no module nowhere")
    helianthus("drivers", "--selftest", "--platform", "json:dumps").failed(2, "is no Platform")


def test_without_pytest_it_says_what_to_install(tmp_path: Path) -> None:
    """Where pytest cannot be imported."""
    (tmp_path / "pytest.py").write_text("raise ModuleNotFoundError('pytest')\n")
    variables = environment()
    path = os.pathsep.join(part for part in (str(tmp_path), variables.get("PYTHONPATH", "")) if part)
    helianthus("drivers", "--selftest", PYTHONPATH=path).failed(1, "pip install 'helianthus[selftest]'")


@pytest.mark.parametrize("processes", ["0", "2"])
def test_the_tests_print_the_same_table(processes: str) -> None:
    """`pytest --conformance-table`, as CI runs it, in one process and in several."""
    if importlib.util.find_spec("helianthus") is None:
        pytest.skip("the package is only importable from its source tree")
    arguments = ["tests/conformance", "--conformance-table", "-k", CASE, "-n", processes]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=HERE.parents[1],
        env=environment(PYTEST_ADDOPTS=""),
        capture_output=True,
        encoding="utf-8",
        timeout=END_WITHIN,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if "drivers and cases" in line]
    found = cells(lines)
    assert found["asyncio"] == "passed"
    if sys.platform == "linux":
        assert found["epoll"] == found["kqueue"] == "passed"
