"""A finished run: what was measured, where, how, and by whom not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.cases import Case
from benchmarks.environment import Environment
from benchmarks.rounds import Series


@attrs.frozen
class Report:
    """Everything a run found.

    Attributes:
        skipped: What was not measured, with the reason.
    """

    environment: Environment
    rounds: int
    seconds: float
    pinned: bool
    series: Sequence[Series]
    skipped: Sequence[tuple[str, str]]

    def of_case(self, case: Case) -> list[Series]:
        """Everybody's series of a case."""
        return [series for series in self.series if series.case == case]

    def cases(self) -> list[Case]:
        """The cases measured, in order."""
        return list(dict.fromkeys(series.case for series in self.series))

    def as_json(self) -> dict[str, Any]:
        """The report as plain values: raw samples, medians, and ratios of ours to everybody."""
        return {
            "environment": attrs.asdict(self.environment),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "pinned": self.pinned,
            "cases": [self._case_as_json(case) for case in self.cases()],
            "skipped": [{"what": what, "reason": reason} for what, reason in self.skipped],
        }

    def _case_as_json(self, case: Case) -> dict[str, Any]:
        everybody = self.of_case(case)
        ours = [series for series in everybody if series.ours]
        return {
            "family": case.family.value,
            "case": case.name,
            "placement": case.placement.value,
            "unit": case.unit,
            "contestants": [
                {
                    "name": series.contestant,
                    "median": series.median,
                    "samples": series.samples,
                    "ratios": {our.contestant: our.ratio_to(series) for our in ours if our is not series},
                }
                for series in everybody
            ],
        }


def write_json(report: Report, path: Path) -> None:
    """Write the report to a file, whole or not at all."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    unfinished.replace(path)
