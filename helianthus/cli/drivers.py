"""`helianthus drivers`: what moves the bytes here."""

from __future__ import annotations

import json
import os

import attrs
import click

from ..drivers.choose import ENVIRONMENT_VARIABLE, DriverInfo, available
from .output import Misconfigured, table_console


@click.command("drivers", short_help="List the drivers, and which would be used.")
@click.option("--json", "as_json", is_flag=True, help="Print an array of drivers, for machines.")
def command(as_json: bool) -> None:
    """List the drivers, the fastest first: which work here, and which would be used."""
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
