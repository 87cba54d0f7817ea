"""`helianthus drivers`: what moves the bytes here."""

from __future__ import annotations

import json
import os

import attrs
import click

from ..drivers.choose import ENVIRONMENT_VARIABLE, DriverInfo, available
from .output import Misconfigured, table_console


@click.command("drivers", short_help="List the drivers, and which would be used.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")
@click.option("--selftest", is_flag=True, help="Run the conformance suite on each of them instead.")
@click.option("-k", "expression", metavar="EXPRESSION", default="", help="Only cases that fit, as in pytest.")
@click.option(
    "--platform",
    "platforms",
    metavar="MODULE:CLASS",
    multiple=True,
    help="Test a driver of yours, too; see the documentation of drivers. May be repeated.",
)
def command(as_json: bool, selftest: bool, expression: str, platforms: tuple[str, ...]) -> None:
    """List the drivers, the fastest first: which work here, and which would be used.

    With --selftest: run the conformance suite on every driver that works here, and print what became
    of each case. Ends with exit code 1 if one failed. The suite needs pytest.
    """
    if selftest:
        from .selftest import run

        if not run(expression, platforms, as_json=as_json):
            raise click.exceptions.Exit(1)
        return
    if expression or platforms:
        raise click.UsageError("-k and --platform belong to --selftest")
    try:
        found = available()
    except ValueError as error:  # of the environment variable
        raise Misconfigured(str(error)) from None
    if as_json:
        click.echo(json.dumps([attrs.asdict(info) | {"reason": _reason(info)} for info in found]))
        return
    _show(found)


def _show(found: list[DriverInfo]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("driver", "available", "chosen", "reason"):
        table.add_column(heading, overflow="fold")
    for info in found:
        style = "bold" if info.chosen else "" if info.available else "dim"
        available_here, chosen = ("yes" if yes else "no" for yes in (info.available, info.chosen))
        table.add_row(info.name, available_here, chosen, _reason(info), style=style)
    table_console().print(table)


def _reason(info: DriverInfo) -> str:
    """Why a driver is chosen, or cannot be, or both."""
    named = os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
    why = ""
    if info.chosen and named == "auto":
        why = "the fastest native driver that works here"
    elif info.chosen:
        why = f"named by {ENVIRONMENT_VARIABLE}"
    return "; ".join(part for part in (why, info.reason) if part)
