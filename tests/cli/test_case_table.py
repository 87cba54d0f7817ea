"""The table of drivers and cases, from what pytest reports."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helianthus.cli.case_table import ABSENT, FAILED, PASSED, CaseTable, Cell, print_table


def platform(
    name: str, column: str = "epoll", missing: str = "", remark: str = "", sockets: bool = True
) -> Any:
    return SimpleNamespace(
        name=name,
        column=column,
        missing=lambda: missing,
        remark=lambda: remark,
        sockets=sockets,
        make_driver=None,
    )


def item(kind: Any, case: str = "test_it", fixture: str = "platform", suffix: str = "") -> Any:
    return SimpleNamespace(
        callspec=SimpleNamespace(params={fixture: kind}),
        fixturenames=[fixture],
        originalname=case,
        path=Path("somewhere/test_conformance_closing.py"),
        nodeid=f"{case}[{kind.name}{suffix}]",
    )


def report(of: Any, outcome: str, when: str = "call", reason: str = "") -> Any:
    return SimpleNamespace(
        nodeid=of.nodeid,
        when=when,
        longrepr=("file", 1, f"Skipped: {reason}") if reason else None,
        **{each: each == outcome for each in ("passed", "failed", "skipped")},
    )


def table(items: list[Any], reports: list[Any], chosen: list[Any] | None = None) -> CaseTable:
    made = CaseTable()
    for each in items:
        made.pytest_itemcollected(each)
    made.pytest_collection_finish(SimpleNamespace(session=None, items=items if chosen is None else chosen))
    for each in reports:
        made.pytest_runtest_logreport(each)
    return made


def printed(of: CaseTable) -> list[str]:
    lines: list[str] = []
    print_table(lines.append, of.columns(), of.rows())
    return lines


def test_a_column_needs_all_its_platforms_to_pass() -> None:
    """A driver that is turned in two ways has one column; one failure is its failure."""
    polled, inside = item(platform("polled")), item(platform("inside"))
    passed = table([polled, inside], [report(polled, "passed"), report(inside, "passed")])
    assert [row.cells["epoll"] for row in passed.rows()] == [Cell(PASSED)]
    assert not passed.failed()
    failed = table([polled, inside], [report(polled, "failed"), report(inside, "passed")])
    assert [row.cells["epoll"] for row in failed.rows()] == [Cell(FAILED)]
    assert failed.failed()


@pytest.mark.parametrize("when", ["setup", "teardown"])
def test_a_failure_before_or_after_the_test_counts(when: str) -> None:
    """Such as a descriptor that the driver has left open."""
    only = item(platform("polled"))
    reports = [report(only, "passed", "setup"), report(only, "passed"), report(only, "failed", when)]
    assert table([only], reports).failed()


def test_reasons_are_told_once_and_by_number() -> None:
    polled, inside = item(platform("polled")), item(platform("inside"))
    other = item(platform("loop", "asyncio"))
    made = table(
        [polled, inside, other],
        [
            report(polled, "passed"),
            report(inside, "skipped", "setup", "it has no such thing"),
            report(other, "skipped", "call", "it has no such thing"),
        ],
    )
    (row,) = made.rows()
    assert (row.group, row.case) == ("closing", "it")
    assert row.cells["epoll"] == Cell(PASSED, ("it has no such thing",))
    assert row.cells["asyncio"] == Cell(ABSENT, ("it has no such thing",))
    lines = printed(made)
    assert lines[0].split()[:3] == ["case", "epoll", "kqueue"]
    assert lines[1] == "closing:"
    assert lines[2].split()[:3] == ["it", "passed", "[1]"]
    assert "[1] it has no such thing" in lines
    assert lines[-1] == "1 case on 2 drivers: 1 passed, 0 failed"


def test_a_driver_that_is_not_here_says_why() -> None:
    """Its platform knows; where it has none, the list of drivers does."""
    made = table([item(platform("polled", "kqueue", missing="not on this system"))], [])
    columns = {column.name: column for column in made.columns()}
    assert columns["kqueue"].absent == "not on this system"
    assert all(column.absent for column in columns.values())
    assert made.rows()[0].cells["kqueue"] == Cell(ABSENT)
    assert "kqueue: not on this machine: not on this system" in printed(made)


def test_a_remark_stands_below_the_table() -> None:
    only = item(platform("polled", "kqueue", remark="on a double"))
    assert "kqueue: on a double" in printed(table([only], [report(only, "passed")]))


def test_raw_sockets_cannot_be_peers_of_a_simulation() -> None:
    """A case that needs them has no test for the simulator, whose other cases have one."""
    simulated = item(platform("sim", "sim", sockets=False), "test_other")
    real = item(platform("polled"), "test_raw", fixture="socket_platform")
    made = table([simulated, real], [report(real, "passed")], chosen=[real])
    (row,) = made.rows()
    assert row.case == "raw"
    assert row.cells["sim"].outcome == ABSENT
    assert "raw socket" in row.cells["sim"].reasons[0]


def test_parameters_of_a_case_are_one_row_and_other_tests_none() -> None:
    kind = platform("mine", "mine")
    one, two = item(kind, suffix="-1"), item(kind, suffix="-2")
    stranger = SimpleNamespace(nodeid="elsewhere")
    made = table(
        [one, two, stranger], [report(one, "passed"), report(two, "failed"), report(stranger, "failed")]
    )
    (row,) = made.rows()
    assert row.cells["mine"].outcome == FAILED
    assert made.columns()[-1].name == "mine"


def test_outcomes_of_two_processes() -> None:
    """Each has run a part of a case's tests on a driver; a failure in one of them is one of the case."""
    here, there = Cell(PASSED, ("a", "b")), Cell(ABSENT, ("b", "c"))
    assert here.with_outcome(there) == Cell(PASSED, ("a", "b", "c"))
    assert there.with_outcome(here) == Cell(PASSED, ("b", "c", "a"))
    assert here.with_outcome(Cell(FAILED)) == Cell(FAILED, ("a", "b"))
    assert there.with_outcome(Cell(ABSENT)) == there
