"""The conformance suite's outcomes as a table: a row for each case, a column for each driver.

`CaseTable` is a plugin of pytest. It knows a test of the suite by a parameter that is a platform, a
class of `platforms.py` of the suite, and puts what became of it into the column of that platform.
pytest itself is not imported here: who has it, hands its objects over.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from ..drivers.choose import available

PASSED, FAILED, ABSENT = "passed", "FAILED", "-"

_COLUMNS = ("epoll", "kqueue", "iocp", "asyncio", "uvloop", "asyncio-proactor", "sim")
_SUITE = "test_conformance_"  # begins the names of its files
_NO_SOCKETS = "its network is simulated, and has no raw socket to be the peer"


@attrs.frozen
class Cell:
    """What became of one case on one driver.

    Attributes:
        outcome: PASSED, FAILED, or ABSENT where it did not run on any platform of the driver.
        reasons: Why it did not, or not on all of them.
    """

    outcome: str
    reasons: tuple[str, ...] = ()

    def with_outcome(self, other: Cell) -> Cell:
        """Of the same case and driver, where each of two processes has run a part of the tests."""
        return Cell(_worst({self.outcome, other.outcome}), tuple(dict.fromkeys(self.reasons + other.reasons)))


@attrs.frozen
class Column:
    """A driver.

    Attributes:
        name: As given to `helianthus.driver`.
        absent: Why the driver is not on this machine; empty where it is.
        remark: What is to be known of what stands in the column.
    """

    name: str
    absent: str = ""
    remark: str = ""


@attrs.frozen
class Row:
    """A case.

    Attributes:
        group: The file it stands in.
        case: Its name.
        cells: By the name of the column.
    """

    group: str
    case: str
    cells: dict[str, Cell]


@attrs.define
class _Case:
    needs_sockets: bool
    outcomes: dict[str, dict[str, tuple[str, str]]]  # by column and test: outcome and reason


class CaseTable:
    """Collects outcomes while pytest runs the conformance suite.

    Args:
        printing: Whether to print the table at the end of pytest's own report.
    """

    def __init__(self, *, printing: bool = False) -> None:
        self._printing = printing
        self._tests: dict[str, tuple[_Case, str]] = {}  # by the test's id: its case and column
        self._cases: dict[tuple[str, str], _Case] = {}
        self._kinds: dict[str, list[Any]] = {}  # platforms, by column

    # -- hooks of pytest ------------------------------------------------------------------------------

    def pytest_itemcollected(self, item: Any) -> None:
        """Note the platforms of all tests, also of those that are not chosen."""
        kind = _platform_of(item)
        if kind is not None:
            kinds = self._kinds.setdefault(_column_of(kind), [])
            if kind not in kinds:
                kinds.append(kind)

    def pytest_collection_finish(self, session: Any) -> None:
        """Note which tests are about to run, and where they belong."""
        for item in session.items:
            kind = _platform_of(item)
            if kind is None:
                continue
            name = item.originalname
            key = item.path.stem.removeprefix(_SUITE), name.removeprefix("test_").replace("_", " ")
            case = self._cases.setdefault(key, _Case("platform" not in item.fixturenames, {}))
            case.outcomes.setdefault(_column_of(kind), {})
            self._tests[item.nodeid] = case, _column_of(kind)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note an outcome; a failure of the test's set-up or end counts as one of the test."""
        case, column = self._tests.get(report.nodeid, (None, ""))
        if case is None or (report.passed and report.when != "call"):
            return
        outcomes = case.outcomes[column]
        if report.failed:
            outcomes[report.nodeid] = FAILED, ""
        elif report.skipped:
            outcomes[report.nodeid] = ABSENT, _why_skipped(report)
        else:
            outcomes[report.nodeid] = PASSED, ""

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the table, if it was asked for."""
        if self._printing and self._cases:
            terminalreporter.section("drivers and cases")
            print_table(terminalreporter.write_line, self.columns(), self.rows())

    # -- results --------------------------------------------------------------------------------------

    def columns(self) -> list[Column]:
        """Every driver there is a name for, and those that somebody brought."""
        return [self._column(name) for name in [*_COLUMNS, *(set(self._kinds) - set(_COLUMNS))]]

    def rows(self) -> list[Row]:
        """Every case, in the order of the suite."""
        columns = self.columns()
        return [
            Row(*key, {column.name: self._cell(case, column) for column in columns})
            for key, case in self._cases.items()
        ]

    def failed(self) -> bool:
        """Whether a case failed on a driver."""
        return any(cell.outcome == FAILED for row in self.rows() for cell in row.cells.values())

    def as_data(self) -> dict[str, Any]:
        """Drivers and cases in types that every encoding has."""
        return {
            "drivers": [attrs.asdict(column) for column in self.columns()],
            "cases": [attrs.asdict(row) for row in self.rows()],
        }

    def _column(self, name: str) -> Column:
        kinds = self._kinds.get(name, [])
        if not kinds:
            return Column(name, absent=_why_absent(name))
        missing = [kind.missing() for kind in kinds]
        if all(missing):
            return Column(name, absent=missing[0])
        return Column(name, remark="; ".join(dict.fromkeys(filter(None, (kind.remark() for kind in kinds)))))

    def _cell(self, case: _Case, column: Column) -> Cell:
        if column.absent:
            return Cell(ABSENT)
        outcomes = case.outcomes.get(column.name)
        if outcomes is None:
            sockets = any(kind.sockets for kind in self._kinds[column.name])
            raw = case.needs_sockets and not sockets
            return Cell(ABSENT, (_NO_SOCKETS,) if raw else ())
        found = {outcome for outcome, _ in outcomes.values()}
        reasons = tuple(dict.fromkeys(reason for _, reason in outcomes.values() if reason))
        return Cell(_worst(found), reasons)


def print_table(write: Callable[[str], object], columns: list[Column], rows: list[Row]) -> None:
    """Write the table, line by line, and below it why cells have no outcome."""
    reasons = _Reasons()
    for line in _lines(columns, rows, reasons):
        write(line)
    write("")
    for number, reason in enumerate(reasons.texts, 1):
        write(f"[{number}] {reason}")
    for column in columns:
        if column.absent:
            write(f"{column.name}: not on this machine: {column.absent}")
        elif column.remark:
            write(f"{column.name}: {column.remark}")
    write(_summary(columns, rows))


class _Reasons:
    """Numbers reasons in the order in which they are met."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, reason: str) -> str:
        if reason not in self.texts:
            self.texts.append(reason)
        return f"[{self.texts.index(reason) + 1}]"


def _lines(columns: list[Column], rows: list[Row], reasons: _Reasons) -> Iterable[str]:
    names = [column.name for column in columns]
    table = [["case", *names]]
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            table.append([f"{group}:"])
        cells = (row.cells[name] for name in names)
        notes = ([cell.outcome, *map(reasons.number, cell.reasons)] for cell in cells)
        table.append([f"  {row.case}", *(" ".join(note) for note in notes)])
    widths = [max(len(line[at]) for line in table if at < len(line)) for at in range(len(names) + 1)]
    for line in table:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=False)).rstrip()


def _summary(columns: list[Column], rows: list[Row]) -> str:
    cells = [cell for row in rows for cell in row.cells.values()]
    passed, failed = (sum(cell.outcome == one for cell in cells) for one in (PASSED, FAILED))
    here = sum(not column.absent for column in columns)
    return f"{_count(len(rows), 'case')} on {_count(here, 'driver')}: {passed} passed, {failed} failed"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' if number != 1 else ''}"


def _worst(outcomes: set[str]) -> str:
    return next((one for one in (FAILED, PASSED) if one in outcomes), ABSENT)


def _platform_of(item: Any) -> Any:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return next((value for value in parameters.values() if hasattr(value, "make_driver")), None)


def _column_of(kind: Any) -> str:
    return str(getattr(kind, "column", kind.name))


def _why_skipped(report: Any) -> str:
    """What pytest.skip() was told."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(getattr(report, "wasxfail", "")) or "skipped"


def _why_absent(name: str) -> str:
    """Why a driver without a platform in the suite is not here."""
    if name == "asyncio-proactor" and sys.platform != "win32":
        return "asyncio's proactor exists on Windows only"
    reasons = {info.name: info.reason for info in available()}
    return reasons.get(name) or "no case is for it"
