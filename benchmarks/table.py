"""Reports as tables for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from benchmarks.cases import Case, Family
from benchmarks.report import Report
from benchmarks.rounds import Series

TITLES = {Family.ECHO: "Echo over TCP", Family.RPC: "add(a, b) over TCP"}


def render(report: Report) -> RenderableType:
    """One table for each family, then where it was measured and what was left out."""
    parts: list[RenderableType] = []
    for family in Family:
        cases = [case for case in report.cases() if case.family is family]
        if cases:
            parts += [_family(report, family, cases), ""]
    parts.append(_where(report))
    parts += [f"not measured: {what}: {reason}" for what, reason in report.skipped]
    return Group(*parts)


def _family(report: Report, family: Family, cases: list[Case]) -> Table:
    ours = [series.contestant for series in report.of_case(cases[0]) if series.ours]
    table = Table(title=TITLES[family], title_justify="left")
    table.add_column("case and contestant", no_wrap=True)
    table.add_column(cases[0].unit, justify="right")
    table.add_column("lowest", justify="right")
    table.add_column("highest", justify="right")
    for name in ours:
        table.add_column(f"{name} is", justify="right")
    for case in cases:
        everybody = report.of_case(case)
        table.add_row(f"[bold]{case.name}[/bold] ({case.placement.value})")
        for series in everybody:
            ratios = [_ratio(our, series) for our in everybody if our.ours]
            rates = (series.median, min(series.samples), max(series.samples))
            table.add_row(f"  {series.contestant}", *(f"{rate:,.0f}" for rate in rates), *ratios)
        table.add_section()
    return table


def _ratio(our: Series, series: Series) -> str:
    return "" if our is series else f"{our.ratio_to(series):.2f} x"


def _where(report: Report) -> str:
    environment = report.environment
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    load = "" if environment.load is None else f", load {environment.load:.2f} before"
    pinned = "pinned" if report.pinned else "two cores left to the scheduler"
    return (
        f"median of {report.rounds} rounds of {report.seconds:g} s, {pinned}\n"
        f"{environment.cpu}, {environment.cores} cores{load}; {environment.system}, {environment.kernel}; "
        f"{environment.python}\n{packages}"
    )
