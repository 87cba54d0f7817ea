"""A report as a bar chart in SVG: a group of bars for each figure, readable on light and dark pages.

Contestants differ a hundredfold, and figures have units of their own, so every group has its own
scale: its longest bar is its highest value. Groups stand in two columns, each put into the shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import attrs

from benchmarks.report import Figure, Report, amount, where, write_whole
from benchmarks.rounds import Series

COLUMNS = 2
COLUMN_WIDTH = 560
MARGIN = 16
NAME_WIDTH = 150
VALUE_WIDTH = 80
BAR_WIDTH = COLUMN_WIDTH - NAME_WIDTH - VALUE_WIDTH - 2 * MARGIN
ROW = 18
BAR = 12
TITLE = 26
GAP = 18

STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; }
  .note { font-size: 11px; fill: #59636e; }
  .value { font-variant-numeric: tabular-nums; }
  .peer { fill: #9aa4b1; }
  .ours { fill: #d97706; }
  .page { fill: #ffffff; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note { fill: #9198a1; }
    .peer { fill: #59636e; }
    .ours { fill: #f59e0b; }
    .page { fill: #0d1117; }
  }
"""


@attrs.define
class _Column:
    """What stands in a column so far, and how far down it reaches."""

    left: float
    bottom: float = MARGIN
    parts: list[str] = attrs.field(factory=list)


def chart(report: Report) -> str:
    """The SVG text of a report's medians."""
    columns = [_Column(MARGIN + number * COLUMN_WIDTH) for number in range(COLUMNS)]
    for figure in report.figures():
        column = min(columns, key=lambda column: column.bottom)
        _draw_group(column, figure, report.of_figure(figure))
    bottom = max(column.bottom for column in columns)
    notes = where(report)
    width = COLUMNS * COLUMN_WIDTH
    height = bottom + ROW * len(notes) + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-label="Benchmarks, medians">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width:g}" height="{height:g}" rx="8"/>',
    ]
    for column in columns:
        lines += column.parts
    for number, note in enumerate(notes):
        lines.append(_text(MARGIN, bottom + ROW * (number + 0.7), note, "note"))
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


def write_svg(report: Report, path: Path) -> None:
    """Write the chart to a file, whole or not at all."""
    write_whole(path, chart(report))


def _draw_group(column: _Column, figure: Figure, everybody: Sequence[Series]) -> None:
    top = column.bottom
    title = f"{figure.case.family.value}: {figure.title}, {figure.case.placement.value}"
    unit = figure.measure.unit + (" (less is better)" if figure.measure.less_is_better else "")
    column.parts.append(_text(column.left, top + 12, title, "title"))
    right = column.left + COLUMN_WIDTH - 2 * MARGIN
    column.parts.append(_text(right, top + 12, unit, "note", "end"))
    longest = max(series.median for series in everybody)
    for number, series in enumerate(everybody):
        _draw_bar(column, top + TITLE + number * ROW, series, longest)
    column.bottom = top + TITLE + len(everybody) * ROW + GAP


def _draw_bar(column: _Column, top: float, series: Series, longest: float) -> None:
    value = series.median
    length = max(BAR_WIDTH * value / longest if longest > 0 else 0.0, 1.0)
    left = column.left + NAME_WIDTH
    kind = "ours" if series.ours else "peer"
    column.parts += [
        _text(left - 8, top + 10, series.contestant, anchor="end"),
        f'<rect class="{kind}" x="{left:g}" y="{top:g}" width="{length:.1f}" height="{BAR}" rx="2"/>',
        _text(left + length + 6, top + 10, amount(value), "value"),
    ]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    group = f' class="{kind}"' if kind else ""
    place = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{group}{place}>{escape(text)}</text>'
