from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from reports import CALLS as CALLS_CASE
from reports import IDLE, MANY, MEMORY, RATE, report, series
from rich.console import Console

from benchmarks.__main__ import main
from benchmarks.cases import Family, cases_of
from benchmarks.catalogue import CALLS, CONTESTANTS
from benchmarks.contestants.rpc import connections
from benchmarks.contestants.rpc.connections import SPARE_FILES, Room
from benchmarks.report import write_json
from benchmarks.rounds import Series
from benchmarks.table import markdown, render


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    mine = series(CALLS_CASE, RATE, "mine", 2.0, 9.0, 8.0)
    assert mine.ratio_to(series(CALLS_CASE, RATE, "theirs", 1.0, 3.0, 2.0)) == 3.0


def test_less_memory_is_a_better_ratio() -> None:
    mine = series(MANY, MEMORY, "mine", 5.0)
    assert mine.ratio_to(series(MANY, MEMORY, "theirs", 20.0)) == 4.0


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (series(MANY, IDLE, "mine", 1.0), series(MANY, IDLE, "theirs", 1.0)),
        (series(MANY, MEMORY, "mine", 0.0), series(MANY, MEMORY, "theirs", 1.0)),
    ],
)
def test_there_is_no_ratio_where_it_says_nothing(mine: Series, theirs: Series) -> None:
    assert mine.ratio_to(theirs) is None


def test_the_page_has_every_contestant_median_and_note() -> None:
    text = markdown(report())
    assert "| **Helianthus** | **8,000** |" in text
    assert "2,000 (3 x)" in text
    assert "| peer | 20.0 (4 x) | 0.00 |" in text
    assert "- Not measured: grpc.aio: not installed." in text
    assert "- peer: 8 connections: no more files." in text
    assert "CPU <fast & cool>, 2 cores" in text


def test_the_terminal_shows_the_same() -> None:
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(render(report()))
    text = shown.get()
    assert "8,000" in text
    assert "3.00 x" in text
    assert "peer: 8 connections: no more files" in text


def test_programs_read_the_same(tmp_path: Path) -> None:
    write_json(report(), tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    calls = found["cases"][0]
    assert calls["contestants"][1]["median"] == 8000
    assert calls["contestants"][0]["ratios"] == {"Helianthus": 3.0}
    assert found["notes"] == [{"what": "peer", "note": "8 connections: no more files"}]


def test_connections_that_the_limit_of_open_files_forbids_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "files_allowed", lambda: 1000 + SPARE_FILES)
    assert Room().of(1000) == (1000, [])
    number, notes = Room(files_each=2).of(1000)
    assert number == 500
    assert "open files" in notes[0]
    assert Room(most=10, why="it fails").of(1000) == (10, ["10 connections: it fails"])


def test_every_library_takes_part_in_every_family_or_says_why_not() -> None:
    for contestant in CONTESTANTS:
        if Family.RPC in contestant.families:
            asked = set(contestant.families) | set(contestant.without)
            assert asked == set(CALLS), contestant.name
            assert not set(contestant.families) & set(contestant.without)


def test_every_family_has_cases_and_contestants() -> None:
    for family in Family:
        assert cases_of([family])
        assert any(family in contestant.families for contestant in CONTESTANTS)


@pytest.mark.parametrize(
    "option", ["--svg", "--markdown", "--json", "--connections", "--rounds", "--only", "--seconds"]
)
def test_help_names_the_options(option: str) -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert option in shown.output


def test_a_file_in_no_directory_is_refused_before_anything_is_measured() -> None:
    refused = CliRunner().invoke(main, ["--svg", "/nowhere/at/all.svg"])
    assert refused.exit_code == 2
    assert "--svg" in refused.output
