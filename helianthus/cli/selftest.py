"""`helianthus drivers --selftest`: the conformance suite on every driver that works here."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .case_table import CaseTable, print_table
from .config import Setting
from .loading import load_attribute
from .output import Failed, Misconfigured

_PACKAGE = Path(__file__).resolve().parents[1]
_NO_TESTS = 5  # pytest's exit codes
_INTERRUPTED = 2
_BROKEN = 3
_BAD_USAGE = 4


def run(expression: str, platforms: Sequence[str], *, as_json: bool) -> bool:
    """Run the suite and print the table of drivers and cases; gives whether all cases passed.

    What pytest says itself goes before the table, or to standard error where that is JSON.

    Args:
        expression: Which cases, as pytest's `-k`; all of them if it is empty.
        platforms: More platforms, as `module:Class`.
        as_json: Whether to print the table for machines.

    Raises:
        Failed: The suite or pytest is not installed, or pytest itself did not get through.
        Misconfigured: A platform cannot be loaded, or the expression is none or fits no case.
    """
    suite, pytest = _suite(), _pytest()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins and options of other projects
    os.environ.pop("PYTEST_ADDOPTS", None)
    sys.path[:0] = [str(Path.cwd()), str(suite)]
    importlib.import_module("platforms").PLATFORMS.extend(map(_load, platforms))
    table = CaseTable()
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        code = int(pytest.main(_arguments(suite, expression), plugins=[table]))
    if code == _INTERRUPTED:
        raise click.Abort
    _check_ran(code, expression)
    if as_json:
        click.echo(json.dumps({"passed": not table.failed(), **table.as_data()}))
    else:
        click.echo()
        print_table(click.echo, table.columns(), table.rows())
    return code == 0 and not table.failed()


def _check_ran(code: int, expression: str) -> None:
    """Make sure that what pytest returns is about the cases."""
    if code == _NO_TESTS:
        raise Misconfigured(f"-k: no case of the suite fits {expression!r}")
    if code == _BAD_USAGE and expression:
        raise Misconfigured(
            f"-k: pytest cannot run the suite with {expression!r}, and says above why; write names of cases "
            "with and, or, not and parentheses between them, such as 'accept and not closes'"
        )
    if code in (_BROKEN, _BAD_USAGE):
        raise Failed("pytest could not run the suite, and says above why")


def _suite() -> Path:
    """Where the suite is: in an installed package, or beside the package in a source tree."""
    for place in (_PACKAGE / "conformance", _PACKAGE.parent / "tests" / "conformance"):
        if (place / "platforms.py").is_file():
            return place
    raise Failed(f"the conformance suite is not in {_PACKAGE}; install helianthus from its wheel or sources")


def _pytest() -> Any:
    try:
        return importlib.import_module("pytest")
    except ModuleNotFoundError:
        raise Failed("the self-test needs pytest: pip install 'helianthus[selftest]'") from None


def _load(name: str) -> Any:
    """A platform of somebody else's."""
    found = load_attribute(Setting(name, "--platform"))
    if not hasattr(found, "make_driver"):
        raise Misconfigured(f"--platform: {name!r} is no Platform; derive one from Platform of {_suite()}")
    return found


def _arguments(suite: Path, expression: str) -> list[str]:
    nothing = ("-c", os.devnull, "-p", "no:cacheprovider")  # of the directory it happens to run in
    chosen = ("-k", expression) if expression else ()
    return [str(suite), f"--rootdir={suite}", "-q", *nothing, *chosen]
