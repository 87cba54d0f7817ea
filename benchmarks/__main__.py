"""The command line: `python -m benchmarks`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks import rounds as measuring
from benchmarks.cases import CONNECTIONS, Case, Family, cases_of
from benchmarks.catalogue import Ready, Skipped, prepare
from benchmarks.chart import write_svg
from benchmarks.children import MeasurementFailed
from benchmarks.environment import describe
from benchmarks.native import NotCompiled
from benchmarks.placement import Cores, place
from benchmarks.report import Report, write_json
from benchmarks.table import render, write_markdown

MAX_ROUNDS = 1000
MAX_SECONDS = 600
MAX_CONNECTIONS = 25_000  # the system has 28,000 ports for them
WIDTH = 110
"""Columns of the tables where there is no terminal to fit them to."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", type=click.Choice([family.value for family in Family]), help="Measure one family.")
@click.option("--pin/--no-pin", default=True, show_default=True, help="Pin server and client to a core each.")
@click.option("--rounds", type=click.IntRange(1, MAX_ROUNDS), default=5, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(0.05, MAX_SECONDS),
    default=1.0,
    show_default=True,
    help="Length of one measurement, without its warm-up.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, MAX_CONNECTIONS),
    default=CONNECTIONS,
    show_default=True,
    help="How many the case of many connections opens.",
)
@click.option(
    "--match", "words", metavar="WORD", multiple=True, help="Measure only names with WORD; may be repeated."
)
@click.option(
    "--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there."
)
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Draw a bar chart there.")
@click.option(
    "--markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the tables of the documentation there.",
)
@click.option("--list", "only_list", is_flag=True, help="List cases and contestants, and measure nothing.")
def main(
    only: str | None,
    pin: bool,
    rounds: int,
    seconds: float,
    connections: int,
    words: tuple[str, ...],
    file: Path | None,
    svg: Path | None,
    markdown: Path | None,
    only_list: bool,
) -> None:
    """Measure Helianthus side by side with its peers.

    The numbers of the documentation are taken with

        python -m benchmarks --markdown docs/benchmarks-numbers.md --svg docs/benchmarks.svg
    """
    families = [Family(only)] if only else list(Family)
    for option, path in (("--json", file), ("--svg", svg), ("--markdown", markdown)):
        if path and not path.parent.is_dir():
            raise click.BadParameter(f"there is no directory {path.parent}", param_hint=option)
    environment = describe()
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        try:
            field = prepare(families, Path(directory))
        except NotCompiled as reason:
            raise click.ClickException(
                f"a load of the echo families cannot be compiled: {reason}; try --only rpc"
            ) from None
        if words:
            field = [entry for entry in field if matches(entry.contestant.name, words)]
        placed = [(case, place(case.placement, pin)) for case in cases_of(families, connections)]
        if only_list:
            show_list(console, placed, field)
            return
        runnable = [(case, cores) for case, cores in placed if isinstance(cores, Cores)]
        ready = [entry for entry in field if isinstance(entry, Ready)]
        if not runnable or not ready:
            raise click.ClickException("nothing can be measured; see --list")
        try:
            series = measure(console, runnable, ready, rounds, seconds)
        except MeasurementFailed as failure:
            raise click.ClickException(str(failure)) from None
    skipped = [(entry.contestant.name, entry.reason) for entry in field if isinstance(entry, Skipped)]
    skipped += [(label(case), reason) for case, reason in placed if isinstance(reason, str)]
    skipped += [
        (f"{entry.contestant.name}, {family.value}", reason)
        for entry in ready
        for family, reason in entry.contestant.without.items()
        if family in families
    ]
    report = Report(environment, rounds, seconds, pin, series, skipped)
    console.print(render(report))
    for path, write in ((file, write_json), (svg, write_svg), (markdown, write_markdown)):
        if path:
            write(report, path)
            console.print(f"written to {path}")


def measure(
    console: Console,
    cases: Sequence[tuple[Case, Cores]],
    field: Sequence[Ready],
    rounds: int,
    seconds: float,
) -> list[measuring.Series]:
    """Measure with a progress bar, where there is a terminal to show it on."""
    total = rounds * sum(case.family in ready.contestant.families for case, _ in cases for ready in field)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=total)
        done = 0

        def show(number: int, case: Case, contestant: str) -> None:
            nonlocal done
            bar.update(task, completed=done, description=f"round {number + 1}: {label(case)}: {contestant}")
            done += 1

        return measuring.measure(cases, field, rounds, seconds, show)


def show_list(
    console: Console, placed: Sequence[tuple[Case, Cores | str]], field: Sequence[Ready | Skipped]
) -> None:
    """Say what would be measured."""
    for family in Family:
        for case, cores in placed:
            if case.family is family:
                console.print(f"case        {label(case)}{_reason(cores)}", highlight=False)
        for entry in field:
            contestant = entry.contestant
            if family in contestant.families or family in contestant.without:
                reason = entry.reason if isinstance(entry, Skipped) else contestant.without.get(family)
                console.print(
                    f"contestant  {family.value}: {contestant.name}{_reason(reason)}", highlight=False
                )


def matches(name: str, words: Sequence[str]) -> bool:
    """Whether a name has one of these words in it, whatever their case."""
    return any(word.lower() in name.lower() for word in words)


def label(case: Case) -> str:
    """A case's full name."""
    return f"{case.family.value}: {case.name}, {case.placement.value}"


def _reason(reason: object) -> str:
    return f" (skipped: {reason})" if isinstance(reason, str) else ""


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
