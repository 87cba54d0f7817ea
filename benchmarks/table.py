"""Reports as tables for people: on the terminal, and in Markdown for a page."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table

from benchmarks.cases import Family, Placement
from benchmarks.report import Figure, Report, amount, where, write_whole
from benchmarks.rounds import Series

TITLES = {
    Family.ECHO: "Echo over TCP",
    Family.DATAGRAMS: "Echo over UDP",
    Family.RPC: "add(a, b) over TCP",
    Family.STREAMS: "Streams of numbers",
    Family.PAYLOADS: "Large payloads, there and back",
    Family.CONNECTIONS: "Many connections",
    Family.MIDDLEWARE: "What policies cost: add(a, b), on epoll",
    Family.TLS: "Echo over TLS 1.3, and handshakes",
    Family.SOCKETS: "Sockets that are awaited",
    Family.SLOW_READER: "A peer that never reads, ten that call",
}


def render(report: Report) -> RenderableType:
    """One table for each family, then where it was measured and what was left out."""
    parts: list[RenderableType] = []
    for family in Family:
        figures = report.figures(family)
        if figures:
            parts += [_family(report, family, figures), ""]
    parts += where(report)
    parts += [f"not measured: {what}: {reason}" for what, reason in report.skipped]
    parts += [f"{what}: {note}" for what, note in report.notes()]
    return Group(*parts)


def _family(report: Report, family: Family, figures: list[Figure]) -> Table:
    ours = [series.contestant for series in report.of_figure(figures[0]) if series.ours]
    table = Table(title=TITLES[family], title_justify="left")
    table.add_column("case and contestant", no_wrap=True)
    table.add_column("median", justify="right")
    table.add_column("lowest", justify="right")
    table.add_column("highest", justify="right")
    for name in ours:
        table.add_column(f"{name} is", justify="right")
    for figure in figures:
        everybody = report.of_figure(figure)
        table.add_row(f"[bold]{figure.title}[/bold] ({figure.case.placement.value})", figure.measure.unit)
        for series in everybody:
            ratios = [_ratio(our, series) for our in everybody if our.ours]
            values = (series.median, min(series.samples), max(series.samples))
            table.add_row(f"  {series.contestant}", *map(amount, values), *ratios)
        table.add_section()
    return table


def _ratio(our: Series, series: Series) -> str:
    ratio = None if our is series else our.ratio_to(series)
    return "" if ratio is None else f"{ratio:.2f} x"


def write_markdown(report: Report, path: Path) -> None:
    """Write the tables to a file, whole or not at all."""
    write_whole(path, markdown(report))


def markdown(report: Report) -> str:
    """The medians for a page: a table for each family and placement, a line for each contestant.

    In brackets stands how many times better the first of ours did, as a median of the rounds.
    """
    lines = ["<!-- written by python -m benchmarks --markdown -->", ""]
    for line in where(report):
        lines += [f"{line[0].upper()}{line[1:]}.", ""]
    for family in Family:
        for placement in Placement:
            figures = [figure for figure in report.figures(family) if figure.case.placement is placement]
            if figures:
                lines += [*_markdown_table(report, family, placement, figures), ""]
    lines += [f"- Not measured: {what}: {reason}." for what, reason in report.skipped]
    lines += [f"- {what}: {note}." for what, note in report.notes()]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(report: Report, family: Family, placement: Placement, figures: list[Figure]) -> list[str]:
    columns = [{series.contestant: series for series in report.of_figure(figure)} for figure in figures]
    names = list(dict.fromkeys(name for column in columns for name in column))
    ours = {series.contestant for column in columns for series in column.values() if series.ours}
    lines = [
        f"**{TITLES[family]}**, {placement.value}",
        "",
        "| | " + " | ".join(f"{figure.title}, {figure.measure.unit}" for figure in figures) + " |",
        "|---" + "|---:" * len(figures) + "|",
    ]
    for name in names:
        mark = "**" if name in ours else ""
        cells = [_markdown_cell(column, name, mark) for column in columns]
        lines.append(f"| {mark}{name}{mark} | " + " | ".join(cells) + " |")
    return lines


def _markdown_cell(column: dict[str, Series], name: str, mark: str) -> str:
    series = column.get(name)
    if series is None:
        return ""
    first = next((our for our in column.values() if our.ours), None)
    ratio = first.ratio_to(series) if first is not None and not series.ours else None
    value = f"{mark}{amount(series.median)}{mark}"
    return (
        value if ratio is None else f"{value} ({ratio:.2g} x)" if ratio < 10 else f"{value} ({ratio:.0f} x)"
    )
