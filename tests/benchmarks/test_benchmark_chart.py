from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import attrs
from reports import report, series

from benchmarks.chart import BAR_WIDTH, chart, write_svg
from benchmarks.report import amount

SVG = "{http://www.w3.org/2000/svg}"


def bars_and_texts(svg: str) -> tuple[list[ElementTree.Element], list[str]]:
    root = ElementTree.fromstring(svg)  # raises where it is not well-formed
    bars = [part for part in root.iter(f"{SVG}rect") if part.get("class") in ("peer", "ours")]
    return bars, [part.text or "" for part in root.iter(f"{SVG}text")]


def test_every_contestant_value_figure_and_unit_is_there() -> None:
    found = report()
    bars, texts = bars_and_texts(chart(found))
    assert len(bars) == len(found.series)
    for one in found.series:
        assert one.contestant in texts
        assert amount(one.median) in texts
    for figure in found.figures():
        assert any(figure.title in text for text in texts)
        assert any(figure.measure.unit in text for text in texts)
    assert any("less is better" in text for text in texts)


def test_bars_are_as_long_as_their_values_are_high_within_a_group() -> None:
    bars, _ = bars_and_texts(chart(report()))
    lengths = [float(bar.get("width") or 0) for bar in bars]
    assert lengths == [
        *(BAR_WIDTH * 2000 / 8000, BAR_WIDTH),
        *(1.0, 1.0),  # a group of nothing but zeros; it is below the first
        *(BAR_WIDTH, BAR_WIDTH * 5 / 20),
    ]


def test_ours_are_marked() -> None:
    bars, _ = bars_and_texts(chart(report()))
    assert [bar.get("class") for bar in bars] == ["peer", "ours"] * 3


def test_the_machine_is_described() -> None:
    _, texts = bars_and_texts(chart(report()))
    assert any("CPU <fast & cool>" in text for text in texts)


def test_nothing_lies_outside_the_picture() -> None:
    found = report()
    figure = found.figures()[0]
    many = [series(figure.case, figure.measure, f"peer {n}", float(n)) for n in range(40)]
    svg = chart(attrs.evolve(found, series=[*found.series, *many]))
    root = ElementTree.fromstring(svg)
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    for part in root.iter():
        assert 0 <= float(part.get("x") or 0) + float(part.get("width") or 0) <= width
        assert 0 <= float(part.get("y") or 0) <= height


def test_dark_pages_have_colours_of_their_own() -> None:
    light, _, dark = chart(report()).partition("prefers-color-scheme: dark")
    for name in ("text", ".peer", ".ours", ".page"):
        assert re.search(rf"{re.escape(name)} {{[^}}]*fill", light)
        assert re.search(rf"{re.escape(name)} {{[^}}]*fill", dark)


def test_it_is_written_whole(tmp_path: Path) -> None:
    write_svg(report(), tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_text() == chart(report())
    assert list(tmp_path.iterdir()) == [tmp_path / "chart.svg"]
