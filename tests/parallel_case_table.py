"""The table of drivers and cases where pytest-xdist runs the tests in several processes."""

from __future__ import annotations

from typing import Any

import pytest

from helianthus.cli.case_table import CaseTable, Cell, Column, Row, print_table

_KEY = "conformance_table"


class WorkersTable(CaseTable):
    """In a worker: what became of the tests that it was given."""

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Hand the table over to the process that prints it."""
        output: dict[str, Any] = session.config.workeroutput  # type: ignore[attr-defined]  # xdist's
        output[_KEY] = self.as_data()


class GatheredTable:
    """In the process that has started the workers: all that they have handed over."""

    def __init__(self) -> None:
        self._columns: list[Column] = []
        self._rows: dict[tuple[str, str], Row] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker has ended; if it broke off it has handed nothing over."""
        table = getattr(node, "workeroutput", {}).get(_KEY, {"drivers": [], "cases": []})
        self._columns = self._columns or [Column(**column) for column in table["drivers"]]
        for row in table["cases"]:
            cells = {name: Cell(**cell) for name, cell in row["cells"].items()}
            key = row["group"], row["case"]
            known = self._rows.get(key)
            if known is not None:
                cells = {name: cell.with_outcome(known.cells[name]) for name, cell in cells.items()}
            self._rows[key] = Row(*key, cells)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        if self._rows:
            terminalreporter.section("drivers and cases")
            print_table(terminalreporter.write_line, self._columns, list(self._rows.values()))
