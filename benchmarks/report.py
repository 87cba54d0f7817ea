"""A finished run: what was measured, where, how, and by whom not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from benchmarks.cases import Case, Family, Measure
from benchmarks.environment import Environment
from benchmarks.rounds import Series


@attrs.frozen
class Figure:
    """What everybody's numbers of one kind stand beside each other for: a measure of a case."""

    case: Case
    measure: Measure

    @property
    def title(self) -> str:
        """The case's name, and the measure's where there are several."""
        return f"{self.case.name}, {self.measure.name}" if self.measure.name else self.case.name


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

    def of_figure(self, figure: Figure) -> list[Series]:
        """Everybody's series of a figure."""
        return [
            series
            for series in self.series
            if series.case == figure.case and series.measure == figure.measure
        ]

    def figures(self, family: Family | None = None) -> list[Figure]:
        """The figures taken, of one family or of all, in order."""
        every = dict.fromkeys(Figure(series.case, series.measure) for series in self.series)
        return [figure for figure in every if family is None or figure.case.family is family]

    def notes(self) -> list[tuple[str, str]]:
        """What clients said of their numbers, each with the contestant's name, once."""
        every = ((series.contestant, note) for series in self.series for note in series.notes)
        return list(dict.fromkeys(every))

    def as_json(self) -> dict[str, Any]:
        """The report as plain values: raw samples, medians, and ratios of ours to everybody."""
        return {
            "environment": attrs.asdict(self.environment),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "pinned": self.pinned,
            "cases": [self._figure_as_json(figure) for figure in self.figures()],
            "skipped": [{"what": what, "reason": reason} for what, reason in self.skipped],
            "notes": [{"what": what, "note": note} for what, note in self.notes()],
        }

    def _figure_as_json(self, figure: Figure) -> dict[str, Any]:
        everybody = self.of_figure(figure)
        ours = [series for series in everybody if series.ours]
        case, measure = figure.case, figure.measure
        return {
            "family": case.family.value,
            "case": figure.title,
            "placement": case.placement.value,
            "unit": measure.unit,
            "less_is_better": measure.less_is_better,
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
    write_whole(path, json.dumps(report.as_json(), indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(text)
    unfinished.replace(path)


def where(report: Report) -> list[str]:
    """How and where it was measured, in lines."""
    environment = report.environment
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    load = "" if environment.load is None else f", load {environment.load:.2f} before"
    pinned = "pinned" if report.pinned else "two cores left to the scheduler"
    return [
        f"median of {report.rounds} rounds of {report.seconds:g} s, {pinned}",
        f"{environment.cpu}, {environment.cores} cores{load}; {environment.system}, {environment.kernel}; "
        f"{environment.python}",
        packages,
    ]


def amount(value: float) -> str:
    """A number as people read it: no more digits than say anything."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:,.2f}"
